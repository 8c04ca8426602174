//! What one fault and one page operation cost, beside the kernel's own anonymous fault: p50, p99, max.
//!
//! `cargo run --release -p uffd-dsm --example fault_cost [PAGES]`. Program and pager run on one core, where a fault is
//! cheapest; a second table lets the scheduler choose. Needs the right to a userfaultfd.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dsm_wire::{PAGE_BYTES, PageNumber, PageRange};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use uffd_dsm::{Access, Backing, Drained, PageSource, Pager, PagerError, View, ZeroInstall};

const FIRST: PageNumber = PageNumber(0x2_0000_0000);

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Answer = fn(&mut Pager, PageNumber) -> Result<(), PagerError>;
type Touch = fn(&View, u64);
type Prepare = fn(&mut Pager, PageRange) -> Result<(), PagerError>;
type Operation = fn(&mut Pager, PageNumber, &mut [u8; PAGE_BYTES]) -> Result<(), PagerError>;

fn main() -> Result<(), Failure> {
    let pages: u64 = std::env::args().nth(1).map_or(Ok(20_000), |text| text.parse())?;
    println!("{pages} samples each, microseconds: p50 p99 max");
    report("native anonymous write fault", native(pages));
    for is_pinned in [true, false] {
        println!("{}", if is_pinned { "program and pager on one core:" } else { "where the scheduler puts them:" });
        faults(pages, is_pinned)?;
    }
    println!("operation alone, no thread waiting or running in the view:");
    operations(pages)?;
    zeros()
}

fn faults(pages: u64, is_pinned: bool) -> Result<(), Failure> {
    let nothing: Prepare = |_, _| Ok(());
    let load: Touch = |view, address| {
        view.load(address);
    };
    let store: Touch = |view, address| view.store(address, 1);
    let cases: [(&str, Prepare, Touch, Answer); 6] = [
        ("write, zeros (ZEROPAGE)", nothing, store, |pager, page| pager.install_zero(PageRange::new(page, 1))),
        ("write, bytes (COPY)", nothing, store, |pager, page| pager.install(page, &[PageSource::Bytes(&BYTES)], true)),
        ("read, bytes, read-only (COPY|WP)", nothing, load, |pager, page| {
            pager.install(page, &[PageSource::Bytes(&BYTES)], false)
        }),
        ("write to a shared page (WRITEPROTECT)", share, store, Pager::unprotect),
        ("read, mapping missing (CONTINUE)", keep, load, |pager, page| pager.refresh(page, false).map(drop)),
        ("write, mapping missing (CONTINUE)", keep, store, |pager, page| pager.refresh(page, true).map(drop)),
    ];
    for (name, prepare, touch, answer) in cases {
        report(name, fault_times(pages, is_pinned, prepare, touch, answer)?);
    }
    Ok(())
}

static BYTES: [u8; PAGE_BYTES] = [7; PAGE_BYTES];

/// Read-only copies of every page.
fn share(pager: &mut Pager, range: PageRange) -> Result<(), PagerError> {
    range.pages().try_for_each(|page| pager.install(page, &[PageSource::Bytes(&BYTES)], false))
}

/// Bytes of every page in the memfd, not mapped.
fn keep(pager: &mut Pager, range: PageRange) -> Result<(), PagerError> {
    let mut unwatched = Pager::new(duplicate(pager)?);
    range.pages().try_for_each(|page| unwatched.install(page, &[PageSource::Bytes(&BYTES)], true))
}

fn duplicate(pager: &Pager) -> Result<Backing, PagerError> {
    let memfd = pager.backing().as_fd().try_clone_to_owned();
    Backing::from_fd(memfd.map_err(|_| PagerError::Backing { operation: "dup", errno: nix::errno::Errno::EMFILE })?)
}

fn space(pages: u64) -> Result<(View, Pager), Failure> {
    let device = uffd_dsm::open_userfaultfd_device().ok();
    let backing = Backing::create("fault-cost")?;
    let view = View::map(backing.as_fd(), device.as_ref().map(AsFd::as_fd))?;
    view.protect(PageRange::new(FIRST, pages), Access::READ_WRITE)?;
    let mut pager = Pager::new(backing);
    pager.attach_view(view.userfaultfd().try_clone_to_owned()?)?;
    Ok((view, pager))
}

fn fault_times(pages: u64, is_pinned: bool, prepare: Prepare, touch: Touch, answer: Answer) -> Result<Vec<Duration>, Failure> {
    let (view, mut pager) = space(pages)?;
    prepare(&mut pager, PageRange::new(FIRST, pages))?;
    let is_done = AtomicBool::new(false);
    let mut one = CpuSet::new();
    one.set(0)?;
    std::thread::scope(|scope| {
        let program = scope.spawn(|| -> Result<Vec<Duration>, Failure> {
            if is_pinned {
                sched_setaffinity(Pid::from_raw(0), &one)?;
            }
            let times = (0..pages).map(|page| time(|| touch(&view, FIRST.offset(page).address() + 8))).collect();
            is_done.store(true, Ordering::Release);
            Ok(times)
        });
        let server = scope.spawn(|| -> Result<(), Failure> {
            if is_pinned {
                sched_setaffinity(Pid::from_raw(0), &one)?;
            }
            serve(&mut pager, &is_done, answer)
        });
        server.join().map_err(|_| "the pager thread died")??;
        program.join().map_err(|_| "the program thread died")?
    })
}

fn serve(pager: &mut Pager, is_done: &AtomicBool, answer: Answer) -> Result<(), Failure> {
    let mut faults = Vec::new();
    let mut late = 0;
    while !is_done.load(Ordering::Acquire) {
        let mut ready = 0;
        if let Some(fd) = pager.fault_fd() {
            ready = poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], PollTimeout::from(100_u8))?;
        }
        while pager.drain_faults(&mut faults)? == Drained::More {}
        late += usize::from(ready == 0 && !faults.is_empty());
        for fault in faults.drain(..) {
            answer(pager, fault.page)?;
        }
    }
    if late > 0 {
        println!("{late} faults were there without the descriptor being ready");
    }
    Ok(())
}

fn operations(pages: u64) -> Result<(), Failure> {
    let (_view, mut pager) = space(pages)?;
    let cases: [(&str, Operation); 10] = [
        ("install zeros", |pager, page, _| pager.install_zero(PageRange::new(page, 1))),
        ("protect", |pager, page, _| pager.protect(page)),
        ("read", |pager, page, bytes| pager.read(page, bytes).map(drop)),
        ("unprotect", |pager, page, _| pager.unprotect(page)),
        ("refresh of a mapped page", |pager, page, _| pager.refresh(page, true).map(drop)),
        ("take", |pager, page, bytes| pager.take(page, bytes).map(drop)),
        ("install bytes", |pager, page, bytes| pager.install(page, &[PageSource::Bytes(bytes)], true)),
        ("drop", |pager, page, _| pager.drop_pages(PageRange::new(page, 1))),
        ("poison", |pager, page, _| pager.poison(page)),
        ("install bytes over poison", |pager, page, bytes| pager.install(page, &[PageSource::Bytes(bytes)], true)),
    ];
    let mut bytes = BYTES;
    for (name, operation) in cases {
        let mut times = Vec::with_capacity(pages as usize);
        for page in PageRange::new(FIRST, pages).pages() {
            let start = Instant::now();
            operation(&mut pager, page, &mut bytes)?;
            times.push(start.elapsed());
        }
        report(name, times);
    }
    ranges(&mut pager)
}

fn ranges(pager: &mut Pager) -> Result<(), Failure> {
    let sources = [PageSource::Bytes(&BYTES); 16];
    let range = PageRange::new(FIRST, 16);
    pager.drop_pages(uffd_dsm::whole_space())?;
    let (mut install, mut drop, mut whole) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..1000 {
        let start = Instant::now();
        pager.install(FIRST, &sources, false)?;
        install.push(start.elapsed());
        let start = Instant::now();
        pager.drop_pages(range)?;
        drop.push(start.elapsed());
        let start = Instant::now();
        pager.drop_pages(uffd_dsm::whole_space())?;
        whole.push(start.elapsed());
    }
    report("install 16 pages of bytes", install);
    report("drop 16 pages", drop);
    report("drop the whole, empty space", whole);
    Ok(())
}

/// Each way to install zeros, for one, some and an extent of pages; the time of the whole range.
fn zeros() -> Result<(), Failure> {
    for install in [ZeroInstall::ZeroPage, ZeroInstall::AllocateContinue, ZeroInstall::Copy] {
        for count in [1, 16, 512] {
            let (_view, pager) = space(count)?;
            let mut pager = pager.with_zero_install(install);
            let mut times = Vec::new();
            for _ in 0..500 {
                let start = Instant::now();
                pager.install_zero(PageRange::new(FIRST, count))?;
                times.push(start.elapsed());
                pager.drop_pages(PageRange::new(FIRST, count))?;
            }
            report(&format!("{count} pages of zeros by {install:?}"), times);
        }
    }
    Ok(())
}

fn native(pages: u64) -> Vec<Duration> {
    let mut memory = vec![0_u8; pages as usize * PAGE_BYTES];
    let times = memory.chunks_exact_mut(PAGE_BYTES).map(|page| time(|| page[8] = 1)).collect();
    std::hint::black_box(&memory);
    times
}

fn time(once: impl FnOnce()) -> Duration {
    let start = Instant::now();
    once();
    start.elapsed()
}

fn report(name: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |permille: usize| times[(times.len() * permille / 1000).min(times.len() - 1)].as_secs_f64() * 1e6;
    println!("  {name:40} {:8.2} {:8.2} {:9.2}", at(500), at(990), at(1000));
}
