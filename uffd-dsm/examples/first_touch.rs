//! First touch of private memory: each way to install zeros, beside the kernel's own anonymous memory.
//!
//! `cargo run --release -p uffd-dsm --example first_touch [MIB] [RUNS]`. The program thread stores one word per page; the
//! pager thread answers each fault with a ramp of 1, 2, 4 .. 512 pages per extent, anew in each extent, or carried on when
//! the extent before was filled. Needs the right to a userfaultfd.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dsm_wire::{PAGE_BYTES, PAGES_PER_EXTENT, PageNumber, PageRange};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use uffd_dsm::{Access, Backing, Drained, Pager, View, Watch, ZeroInstall};

const FIRST: PageNumber = PageNumber(0x2_0000_0000);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Ramp {
    PerExtent,
    Carried,
    Fixed(u64),
}

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let mib: u64 = arguments.next().map_or(Ok(1024), |text| text.parse())?;
    let runs: usize = arguments.next().map_or(Ok(5), |text| text.parse())?;
    let pages = mib * 256;
    println!(
        "first touch of {mib} MiB, one store per page, {runs} runs: min median max ms | native ms, faults, ratio of medians"
    );
    for (is_pinned, pinned) in [(false, "free"), (true, "one core")] {
        for (watch, watched) in [(Watch::MissingWriteMinor, "minor watched"), (Watch::MissingWrite, "minor not watched")] {
            for (install, ramp) in cases(watch) {
                let once = || watched_touch(pages, watch, install, ramp, is_pinned);
                report(&format!("{install:?} {ramp:?}, {watched}, {pinned}"), &measure(runs, pages, once)?);
            }
        }
    }
    Ok(())
}

fn cases(watch: Watch) -> Vec<(ZeroInstall, Ramp)> {
    let mut cases = Vec::new();
    for install in [ZeroInstall::ZeroPage, ZeroInstall::AllocateContinue, ZeroInstall::AllocateWake, ZeroInstall::Copy] {
        // The kernel reports each page that AllocateWake leaves unmapped as a minor fault, if those are watched.
        if install == ZeroInstall::AllocateWake && watch == Watch::MissingWriteMinor {
            continue;
        }
        cases.extend([Ramp::PerExtent, Ramp::Carried, Ramp::Fixed(1), Ramp::Fixed(16)].map(|ramp| (install, ramp)));
    }
    cases
}

fn native(pages: u64) -> Duration {
    let mut memory = vec![0_u8; pages as usize * PAGE_BYTES];
    let start = Instant::now();
    for page in memory.chunks_exact_mut(PAGE_BYTES) {
        page[8] = 1;
    }
    let time = start.elapsed();
    std::hint::black_box(&memory);
    time
}

fn watched_touch(pages: u64, watch: Watch, install: ZeroInstall, ramp: Ramp, pinned: bool) -> Result<(Duration, u64), Failure> {
    let device = uffd_dsm::open_userfaultfd_device().ok();
    let backing = Backing::create("first-touch")?;
    let view = View::map_watched(backing.as_fd(), device.as_ref().map(AsFd::as_fd), watch)?;
    view.protect(PageRange::new(FIRST, pages), Access::READ_WRITE)?;
    let mut pager = Pager::new(backing).with_zero_install(install);
    pager.attach_view(view.userfaultfd().try_clone_to_owned()?)?;
    let is_done = AtomicBool::new(false);
    let mut one = CpuSet::new();
    one.set(0)?;
    std::thread::scope(|scope| {
        let toucher = scope.spawn(|| -> Result<Duration, nix::Error> {
            if pinned {
                sched_setaffinity(Pid::from_raw(0), &one)?;
            }
            let start = Instant::now();
            for page in 0..pages {
                view.store(FIRST.offset(page).address() + 8, 1);
            }
            let time = start.elapsed();
            is_done.store(true, Ordering::Release);
            Ok(time)
        });
        let server = scope.spawn(|| -> Result<u64, ThreadFailure> {
            if pinned {
                sched_setaffinity(Pid::from_raw(0), &one)?;
            }
            serve(&mut pager, ramp, pages, &is_done)
        });
        let faults = server.join().map_err(|_| "the pager thread died")?.map_err(|error| error.to_string())?;
        let time = toucher.join().map_err(|_| "the program thread died")??;
        Ok((time, faults))
    })
}

type ThreadFailure = Box<dyn std::error::Error + Send + Sync>;

fn serve(pager: &mut Pager, ramp: Ramp, pages: u64, is_done: &AtomicBool) -> Result<u64, ThreadFailure> {
    let mut steps = vec![1; pages.div_ceil(PAGES_PER_EXTENT) as usize + 1];
    let mut faults = Vec::new();
    let mut count = 0;
    while !is_done.load(Ordering::Acquire) {
        if let Some(fd) = pager.fault_fd() {
            poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], PollTimeout::from(5_u8))?;
        }
        while pager.drain_faults(&mut faults)? == Drained::More {}
        for fault in faults.drain(..) {
            count += 1;
            let extent = ((fault.page.0 - FIRST.0) / PAGES_PER_EXTENT) as usize;
            let step = steps[extent];
            let want = if let Ramp::Fixed(want) = ramp { want } else { step };
            let run = want.min(PAGES_PER_EXTENT - fault.page.index_in_extent() as u64);
            steps[extent] = (step * 2).min(PAGES_PER_EXTENT);
            if ramp == Ramp::Carried && fault.page.offset(run).index_in_extent() == 0 {
                steps[extent + 1] = PAGES_PER_EXTENT;
            }
            pager.install_zero(PageRange::new(fault.page, run))?;
        }
    }
    Ok(count)
}

struct Times {
    native: Vec<f64>,
    watched: Vec<f64>,
    faults: u64,
}

/// Runs `once` and the native touch in turns, so that both see the same machine.
fn measure(runs: usize, pages: u64, once: impl Fn() -> Result<(Duration, u64), Failure>) -> Result<Times, Failure> {
    let mut times = Times { native: Vec::new(), watched: Vec::new(), faults: 0 };
    for _ in 0..runs {
        times.native.push(native(pages).as_secs_f64() * 1e3);
        let (time, faults) = once()?;
        times.watched.push(time.as_secs_f64() * 1e3);
        times.faults = faults;
    }
    times.native.sort_by(f64::total_cmp);
    times.watched.sort_by(f64::total_cmp);
    Ok(times)
}

fn report(name: &str, times: &Times) {
    let show = |sorted: &[f64]| format!("{:6.0} {:6.0} {:6.0}", sorted[0], sorted[sorted.len() / 2], sorted[sorted.len() - 1]);
    let ratio = times.watched[times.watched.len() / 2] / times.native[times.native.len() / 2];
    let (watched, native) = (show(&times.watched), show(&times.native));
    println!("{name:56} {watched} | {native} {:8} {ratio:6.2}", times.faults);
}
