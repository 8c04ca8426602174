//! Faults of every kind against a real kernel, program and pager in one process.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod common;

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;

use common::{FIRST, allow, next_faults, pattern, pattern_word, run, space};
use dsm_wire::{PAGE_BYTES, PageRange};
use nix::sys::memfd::{MFdFlags, memfd_create};
use uffd_dsm::{Access, PageSource, PagerError, Refreshed, View, ViewError, whole_space};

const PAGE: u64 = PAGE_BYTES as u64;

#[test]
fn read_then_write_then_protected_write() {
    let Some(mut space) = space("read_then_write_then_protected_write") else { return };
    allow(&space.view, FIRST, 4, Access::READ_WRITE);
    let mut seen = Vec::new();
    let address = FIRST.address();
    let words = run(
        &mut space,
        |view| {
            let before = view.load(address + 8);
            view.store(address, 7);
            view.store(address + PAGE, 9);
            (before, view.load(address), view.load(address + PAGE), view.load(address + PAGE + 8))
        },
        |pager, fault| {
            seen.push((fault.page.0 - FIRST.0, fault.write));
            match seen.len() {
                1 => pager.install(fault.page, &[PageSource::Bytes(&pattern(5))], false).unwrap(),
                2 => pager.unprotect(fault.page).unwrap(),
                _ => pager.install_zero(PageRange::new(fault.page, 1)).unwrap(),
            }
        },
    );
    assert_eq!(words, (pattern_word(5, 1), 7, 9, 0));
    assert_eq!(seen, [(0, false), (0, true), (1, true)], "one fault each: a write install is writable at once");
    let mut bytes = [0; PAGE_BYTES];
    space.pager.protect(FIRST).unwrap();
    assert!(!space.pager.read(FIRST, &mut bytes).unwrap());
    assert_eq!(bytes[..8], 7_u64.to_ne_bytes());
}

#[test]
fn fault_names_thread() {
    let Some(mut space) = space("fault_names_thread") else { return };
    allow(&space.view, FIRST, 1, Access::READ);
    let mut threads = Vec::new();
    let thread = run(
        &mut space,
        |view| {
            view.load(FIRST.address());
            nix::unistd::gettid().as_raw() as u32
        },
        |pager, fault| {
            threads.push(fault.thread);
            pager.install(fault.page, &[PageSource::Zero], false).unwrap();
        },
    );
    assert_eq!(threads, [thread]);
}

/// `mprotect` splits the mapping into four parts and takes the rights away; installs see one range all the same.
#[test]
fn ranged_install_over_split_mapping() {
    let Some(mut space) = space("ranged_install_over_split_mapping") else { return };
    allow(&space.view, FIRST, 64, Access::READ_WRITE);
    allow(&space.view, FIRST.offset(5), 2, Access::READ);
    allow(&space.view, FIRST.offset(9), 1, Access::NONE);
    let pages: Vec<_> = (0..16).map(pattern).collect();
    let sources: Vec<_> =
        pages.iter().enumerate().map(|(i, page)| if i == 3 { PageSource::Zero } else { PageSource::Bytes(page) }).collect();
    space.pager.install(FIRST, &sources, false).unwrap();
    space.pager.install_zero(PageRange::new(FIRST.offset(16), 48)).unwrap();
    allow(&space.view, FIRST.offset(20), 3, Access::NONE);
    allow(&space.view, FIRST, 64, Access::READ);
    for index in 0..64 {
        let expected = if index >= 16 || index == 3 { 0 } else { pattern_word(index, 4) };
        assert_eq!(space.view.load(FIRST.offset(index).address() + 32), expected, "page {index}");
    }
    assert_eq!(next_faults(&mut space.pager, 0), [], "every page was there");
}

/// The program has no right to the page while it is installed, protected and released.
#[test]
fn page_without_access() {
    let Some(mut space) = space("page_without_access") else { return };
    space.pager.install(FIRST, &[PageSource::Bytes(&pattern(1))], true).unwrap();
    space.pager.protect(FIRST).unwrap();
    space.pager.install_zero(PageRange::new(FIRST.offset(1), 1)).unwrap();
    space.pager.protect(FIRST.offset(1)).unwrap();
    space.pager.unprotect(FIRST.offset(1)).unwrap();
    let mut bytes = [0; PAGE_BYTES];
    space.pager.install(FIRST.offset(2), &[PageSource::Bytes(&pattern(2))], true).unwrap();
    assert!(!space.pager.take(FIRST.offset(2), &mut bytes).unwrap());
    assert_eq!(bytes, pattern(2));
    allow(&space.view, FIRST, 3, Access::READ_WRITE);
    let mut seen = Vec::new();
    let words = run(
        &mut space,
        |view| {
            view.store(FIRST.address(), 3);
            view.store(FIRST.address() + PAGE, 4);
            view.store(FIRST.address() + 2 * PAGE, 5);
            (view.load(FIRST.address()), view.load(FIRST.address() + 8), view.load(FIRST.address() + PAGE))
        },
        |pager, fault| {
            seen.push(fault.page.0 - FIRST.0);
            match fault.page.0 - FIRST.0 {
                0 => pager.unprotect(fault.page).unwrap(),
                _ => pager.install_zero(PageRange::new(fault.page, 1)).unwrap(),
            }
        },
    );
    assert_eq!((words, seen), ((3, pattern_word(1, 1), 4), vec![0, 2]));
}

/// A page kept before there was a view is found when it is touched, and each answer of refresh is right.
#[test]
fn refresh_maps_what_is_there() {
    let Some(mut space) = common::detached_space("refresh_maps_what_is_there") else { return };
    space.pager.install(FIRST, &[PageSource::Bytes(&pattern(1)), PageSource::Zero], true).unwrap();
    assert_eq!(space.pager.refresh(FIRST, true).unwrap(), Refreshed::Unwatched);
    space.pager.attach_view(space.view.userfaultfd().try_clone_to_owned().unwrap()).unwrap();
    allow(&space.view, FIRST, 2, Access::READ_WRITE);
    let mut seen = Vec::new();
    let words = run(
        &mut space,
        |view| {
            let word = view.load(FIRST.address() + 8);
            view.store(FIRST.address(), 3);
            view.store(FIRST.address() + PAGE, 3);
            (word, view.load(FIRST.address()), view.load(FIRST.address() + PAGE + 8))
        },
        |pager, fault| {
            let refreshed = pager.refresh(fault.page, fault.write).unwrap();
            seen.push((fault.page.0 - FIRST.0, fault.write, fault.minor, refreshed));
        },
    );
    assert_eq!(words, (pattern_word(1, 1), 3, 0));
    let expected = [(0, false, true, Refreshed::Mapped), (0, true, false, Refreshed::Woken), (1, true, false, Refreshed::Filled)];
    assert_eq!(seen, expected);
    assert_eq!(space.pager.refresh(FIRST, false).unwrap(), Refreshed::Woken);
    assert_eq!(space.pager.stats().refreshed_holes, 1);
}

#[test]
fn dropped_page_faults_again_and_frees_memory() {
    let Some(mut space) = space("dropped_page_faults_again_and_frees_memory") else { return };
    allow(&space.view, FIRST, 600, Access::READ_WRITE);
    space.pager.install_zero(PageRange::new(FIRST, 600)).unwrap();
    space.view.store(FIRST.offset(599).address(), 1);
    assert_eq!(space.pager.backing().resident_bytes().unwrap(), 600 * PAGE);
    space.pager.drop_pages(PageRange::new(FIRST.offset(100), 500)).unwrap();
    assert_eq!(space.pager.backing().resident_bytes().unwrap(), 100 * PAGE);
    let mut seen = Vec::new();
    let word = run(
        &mut space,
        |view| view.load(FIRST.offset(599).address()) + view.load(FIRST.offset(99).address()),
        |pager, fault| {
            seen.push(fault.page.0 - FIRST.0);
            pager.install(fault.page, &[PageSource::Zero], false).unwrap();
        },
    );
    assert_eq!((word, seen), (0, vec![599]));
    space.pager.drop_pages(whole_space()).unwrap();
    assert_eq!(space.pager.backing().resident_bytes().unwrap(), 0);
}

#[test]
fn install_over_present_pages() {
    let Some(mut space) = space("install_over_present_pages") else { return };
    allow(&space.view, FIRST, 8, Access::READ_WRITE);
    space.pager.install(FIRST.offset(2), &[PageSource::Bytes(&pattern(2))], false).unwrap();
    space.pager.install_zero(PageRange::new(FIRST, 4)).unwrap();
    space.view.store(FIRST.offset(2).address(), 77);
    assert_eq!(space.view.load(FIRST.offset(2).address() + 8), pattern_word(2, 1), "zeros never replace bytes");
    let pages = [pattern(10), pattern(11), pattern(12), pattern(13), pattern(14)];
    let sources: Vec<_> = pages.iter().map(PageSource::Bytes).collect();
    space.pager.install(FIRST, &sources, true).unwrap();
    for index in 0..5 {
        assert_eq!(space.view.load(FIRST.offset(index).address() + 8), pattern_word(10 + index, 1), "page {index}");
        space.view.store(FIRST.offset(index).address(), 1);
    }
    assert_eq!((space.pager.stats().present_pages, next_faults(&mut space.pager, 0)), (1 + 4, vec![]));
}

#[test]
fn take_says_what_was_there() {
    let Some(mut space) = space("take_says_what_was_there") else { return };
    allow(&space.view, FIRST, 2, Access::READ_WRITE);
    let mut bytes = [1; PAGE_BYTES];
    assert!(space.pager.take(FIRST, &mut bytes).unwrap(), "a hole is zero");
    space.pager.install_zero(PageRange::new(FIRST, 2)).unwrap();
    assert!(space.pager.take(FIRST, &mut bytes).unwrap());
    space.view.store(FIRST.offset(1).address() + 4088, 1);
    assert!(!space.pager.take(FIRST.offset(1), &mut bytes).unwrap());
    assert_eq!((bytes[4087], bytes[4088]), (0, 1));
    assert_eq!(space.pager.backing().resident_bytes().unwrap(), 0);
}

/// The kernel itself touches an absent page and a protected one, in `read(2)`.
#[test]
fn system_call_waits_like_a_load() {
    let Some(mut space) = space("system_call_waits_like_a_load") else { return };
    allow(&space.view, FIRST, 3, Access::READ_WRITE);
    space.pager.install(FIRST.offset(1), &[PageSource::Bytes(&pattern(1))], false).unwrap();
    let mut seen = Vec::new();
    let (count, words) = run(
        &mut space,
        |view| {
            let zero = File::open("/dev/zero").unwrap();
            let count = common::sys::read_into_view(view, FIRST.address() + 8, 2 * PAGE_BYTES, zero.as_fd()).unwrap();
            let word = |page: u64, index: u64| view.load(FIRST.offset(page).address() + index * 8);
            (count, [word(0, 0), word(0, 1), word(1, 1), word(2, 0), word(2, 1)])
        },
        |pager, fault| {
            seen.push((fault.page.0 - FIRST.0, fault.write));
            match fault.page.0 - FIRST.0 {
                1 => pager.unprotect(fault.page).unwrap(),
                page => pager.install(fault.page, &[PageSource::Bytes(&pattern(page + 7))], true).unwrap(),
            }
        },
    );
    assert_eq!((count, words), (2 * PAGE_BYTES, [pattern_word(7, 0), 0, 0, 0, pattern_word(9, 1)]));
    assert_eq!(seen, [(0, true), (1, true), (2, true)]);
}

/// Poison is undone by an install and by a drop (the other half, SIGBUS, needs a process that may die).
#[test]
fn poison_heals() {
    let Some(mut space) = space("poison_heals") else { return };
    allow(&space.view, FIRST, 3, Access::READ_WRITE);
    space.pager.install_zero(PageRange::new(FIRST, 3)).unwrap();
    for index in 0..3 {
        match space.pager.poison(FIRST.offset(index)) {
            Err(error @ PagerError::PoisonUnsupported { .. }) => return common::skip("poison_heals", &error),
            other => other.unwrap(),
        }
        space.pager.poison(FIRST.offset(index)).unwrap();
    }
    space.pager.install(FIRST, &[PageSource::Bytes(&pattern(1))], true).unwrap();
    space.pager.install_zero(PageRange::new(FIRST.offset(1), 1)).unwrap();
    space.pager.drop_pages(PageRange::new(FIRST, 3)).unwrap();
    let mut seen = 0;
    let words = run(
        &mut space,
        |view| [0, 1, 2].map(|index| view.load(FIRST.offset(index).address())),
        |pager, fault| {
            seen += 1;
            pager.install(fault.page, &[PageSource::Zero], false).unwrap();
        },
    );
    assert_eq!((words, seen), ([0; 3], 3));
}

/// One byte touched per 2 MiB over 8 GiB: pages, page tables and the page cache's own nodes stay under 64 MiB.
#[test]
fn sparse_use_stays_small() {
    const EXTENTS: u64 = 4096;
    let Some(mut space) = space("sparse_use_stays_small") else { return };
    allow(&space.view, FIRST, EXTENTS * 512, Access::READ_WRITE);
    let tables_before = status_kib("VmPTE");
    run(
        &mut space,
        |view| (0..EXTENTS).for_each(|extent| view.store(FIRST.offset(extent * 512).address(), 1)),
        |pager, fault| pager.install_zero(PageRange::new(fault.page, 1)).unwrap(),
    );
    let page_bytes = space.pager.backing().resident_bytes().unwrap();
    let table_bytes = (status_kib("VmPTE") - tables_before) * 1024;
    let total = page_bytes + table_bytes;
    println!("{page_bytes} bytes of pages and {table_bytes} of page tables");
    assert!(total < 60 << 20, "{page_bytes} bytes of pages and {table_bytes} of page tables");
}

#[test]
fn many_threads_fault_at_once() {
    const THREADS: u64 = 16;
    const PAGES: u64 = 256;
    let Some(mut space) = space("many_threads_fault_at_once") else { return };
    allow(&space.view, FIRST, PAGES, Access::READ_WRITE);
    let add = |view: &View| {
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                scope.spawn(move || {
                    for index in 0..PAGES {
                        let page = FIRST.offset((index * 7 + thread * 3) % PAGES);
                        view.store(page.address() + thread * 64, view.load(page.address() + thread * 64) + 1);
                    }
                });
            }
        });
    };
    run(&mut space, add, |pager, fault| {
        if fault.write {
            pager.install_zero(PageRange::new(fault.page, 1)).unwrap();
        } else if pager.refresh(fault.page, false).unwrap() == Refreshed::Unwatched {
            panic!("the page is inside the view");
        }
    });
    for index in 0..PAGES {
        for thread in 0..THREADS {
            assert_eq!(space.view.load(FIRST.offset(index).address() + thread * 64), 1, "page {index}, thread {thread}");
        }
    }
}

/// The whole space is one mapping with one registration, and stays one when the program's protections are equal again.
#[test]
fn view_is_one_mapping() {
    let Some(space) = space("view_is_one_mapping") else { return };
    let bounds = "00010000-500000000000 ---s";
    assert!(maps().contains(bounds), "{}", maps());
    allow(&space.view, FIRST, 100, Access::READ_WRITE);
    allow(&space.view, FIRST.offset(10), 1, Access::READ);
    assert!(!maps().contains(bounds));
    allow(&space.view, FIRST, 100, Access::NONE);
    assert!(maps().contains(bounds), "{}", maps());
    let second = View::map(space.pager.backing().as_fd(), uffd_dsm::open_userfaultfd_device().ok().as_ref().map(AsFd::as_fd));
    assert!(matches!(second, Err(ViewError::AddressesTaken)), "{second:?}");
}

fn maps() -> String {
    std::fs::read_to_string("/proc/self/maps").unwrap()
}

#[test]
fn strange_requests_are_refused() {
    let Some(mut space) = space("strange_requests_are_refused") else { return };
    let outside = whole_space().end();
    let mut bytes = [0; PAGE_BYTES];
    assert!(matches!(space.pager.unprotect(outside), Err(PagerError::OutsideSpace { .. })));
    assert!(matches!(space.pager.take(outside, &mut bytes), Err(PagerError::OutsideSpace { .. })));
    assert!(matches!(space.pager.install(FIRST, &[], true), Err(PagerError::OutsideSpace { .. })));
    let many = [PageSource::Zero; uffd_dsm::limits::INSTALL_PAGES_MAX + 1];
    assert!(matches!(space.pager.install(FIRST, &many, true), Err(PagerError::TooManyPages { .. })));
    let again = space.view.userfaultfd().try_clone_to_owned().unwrap();
    assert!(matches!(space.pager.attach_view(again), Err(PagerError::ViewAttached)));
    space.pager.detach_view();
    let file = File::open("/dev/zero").unwrap().into();
    assert!(matches!(space.pager.attach_view(file), Err(PagerError::NotUserfaultfd { .. })));
}

fn status_kib(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// What the pager counts is what the kernel has given out, whatever course an operation takes.
#[test]
fn resident_pages_are_those_of_the_kernel() {
    let Some(mut space) = space("resident_pages_are_those_of_the_kernel") else { return };
    let pager = &mut space.pager;
    allow(&space.view, FIRST, 99, Access::READ_WRITE);
    let mut bytes = [0; PAGE_BYTES];
    let full = pattern(3);
    let check = |pager: &mut uffd_dsm::Pager, pages: u64| {
        let counted = pager.resident().unwrap();
        assert_eq!((counted, pager.backing().resident_bytes().unwrap() / PAGE), (pages, pages));
    };
    check(pager, 0);
    pager.install_zero(PageRange::new(FIRST, 64)).unwrap();
    check(pager, 64);
    pager.install(FIRST.offset(64), &[PageSource::Bytes(&full), PageSource::Zero], false).unwrap();
    check(pager, 66);
    pager.install_zero(PageRange::new(FIRST.offset(60), 10)).unwrap();
    check(pager, 70);
    pager.install(FIRST.offset(69), &[PageSource::Bytes(&full), PageSource::Bytes(&full)], true).unwrap();
    check(pager, 71);
    pager.take(FIRST, &mut bytes).unwrap();
    check(pager, 70);
    pager.drop_pages(PageRange::new(FIRST.offset(1), 1)).unwrap();
    check(pager, 69);
    pager.drop_pages(PageRange::new(FIRST, 10)).unwrap();
    check(pager, 61);
    pager.poison(FIRST.offset(20)).unwrap();
    check(pager, 60);
    assert_eq!(pager.refresh(FIRST.offset(21), true).unwrap(), Refreshed::Woken);
    check(pager, 60);
}

/// Pages of a file take memory once they are read, and none after they are dropped, read or not.
#[test]
fn resident_pages_of_a_source_are_those_read() {
    let Some(mut space) = space("resident_pages_of_a_source_are_those_read") else { return };
    let pager = &mut space.pager;
    allow(&space.view, FIRST, 200, Access::READ_WRITE);
    let mut file = File::from(memfd_create("source", MFdFlags::MFD_CLOEXEC).unwrap());
    file.write_all(&[7; 200 * PAGE_BYTES]).unwrap();
    pager.add_source(PageRange::new(FIRST, 200), file.into(), 0).unwrap();
    let mut bytes = [0; PAGE_BYTES];
    let check = |pager: &mut uffd_dsm::Pager, pages: u64| {
        let counted = pager.resident().unwrap();
        assert_eq!((counted, pager.backing().resident_bytes().unwrap() / PAGE), (pages, pages));
    };
    check(pager, 0);
    pager.read_source(PageRange::new(FIRST, 100)).unwrap();
    check(pager, 100);
    pager.take(FIRST.offset(150), &mut bytes).unwrap();
    assert_eq!(bytes, [7; PAGE_BYTES]);
    check(pager, 100);
    pager.read(FIRST.offset(120), &mut bytes).unwrap();
    check(pager, 101);
    pager.drop_pages(PageRange::new(FIRST.offset(160), 1)).unwrap();
    check(pager, 101);
    pager.drop_pages(PageRange::new(FIRST.offset(5), 1)).unwrap();
    check(pager, 100);
    assert_eq!(pager.refresh(FIRST.offset(5), true).unwrap(), Refreshed::Woken);
    check(pager, 101);
    pager.read_source(PageRange::new(FIRST.offset(90), 40)).unwrap();
    check(pager, 130);
}
