//! Pages taken and protected while a thread writes them: no store is lost, none is late.
//!
//! The writer checks eight words. One would not do: the store that faults is executed again from its register, which hides
//! that the bytes before it were lost.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod common;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::{Done, FIRST, Space, allow, next_faults, space};
use dsm_wire::{PAGE_BYTES, PageNumber, PageRange};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use uffd_dsm::{Access, PageSource, Pager, View};

const ROUNDS: u64 = 3000;
const WORDS: u64 = 8;
const WORD_STEP: u64 = 512;

/// How the page is revoked; leaves its last bytes in the buffer and the page absent.
type Revoke = fn(&mut Pager, PageNumber, &mut [u8; PAGE_BYTES]);

fn word_address(index: u64) -> u64 {
    FIRST.address() + index * WORD_STEP
}

/// Counts up in eight words until told to stop; returns the stores that were gone when it looked again.
fn write(view: &View, stop: &AtomicBool, rounds: &AtomicU64) -> u64 {
    let mut lost = 0;
    for round in 1.. {
        for word in 0..WORDS {
            lost += u64::from(view.load(word_address(word)) != round - 1);
            view.store(word_address(word), round);
        }
        rounds.store(round, Ordering::Relaxed);
        if stop.load(Ordering::Relaxed) {
            return lost;
        }
    }
    lost
}

/// Runs the writer against `revoke`; returns lost stores and rounds written.
fn contest(space: &mut Space, revoke: Revoke) -> (u64, u64) {
    allow(&space.view, FIRST, 1, Access::READ_WRITE);
    let (stop, is_done, rounds) = (AtomicBool::new(false), AtomicBool::new(false), AtomicU64::new(0));
    let (view, pager) = (&space.view, &mut space.pager);
    let mut bytes = [0; PAGE_BYTES];
    let cores = cores();
    let lost = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            pin(cores[1 % cores.len()]);
            let done = Done(&is_done);
            let lost = write(view, &stop, &rounds);
            drop(done);
            lost
        });
        pin(cores[0]);
        let mut revoked = 0;
        while !is_done.load(Ordering::Acquire) {
            // The writer stops at the absent page at the latest.
            if !next_faults(pager, 100).is_empty() {
                pager.install(FIRST, &[PageSource::Bytes(&bytes)], true).unwrap();
                // Let it wake up on its core and write for a while, a different one each time.
                let until = Instant::now() + Duration::from_nanos(revoked * 37 % 100_000);
                while Instant::now() < until {
                    std::hint::spin_loop();
                }
                revoke(pager, FIRST, &mut bytes);
                revoked += 1;
                stop.store(revoked >= ROUNDS, Ordering::Relaxed);
            }
        }
        writer.join().unwrap()
    });
    (lost, rounds.into_inner())
}

/// The cores this thread may use.
fn cores() -> Vec<usize> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap();
    (0..CpuSet::count()).filter(|core| allowed.is_set(*core).unwrap()).collect()
}

/// Keeps this thread on one core: writer and pager must run at the same time to meet.
fn pin(core: usize) {
    let mut set = CpuSet::new();
    set.set(core).unwrap();
    sched_setaffinity(Pid::from_raw(0), &set).unwrap();
}

#[track_caller]
fn check(test: &str, revoke: Revoke) {
    let Some(mut space) = space(test) else { return };
    let (lost, rounds) = contest(&mut space, revoke);
    assert_eq!(lost, 0, "stores lost in {rounds} rounds");
    assert!(rounds > ROUNDS / 2, "the writer hardly ran: {rounds} rounds, nothing was exercised");
}

#[test]
fn take_loses_no_store() {
    check("take_loses_no_store", |pager, page, bytes| {
        pager.take(page, bytes).unwrap();
    });
}

#[test]
fn nothing_is_written_after_protect() {
    check("nothing_is_written_after_protect", |pager, page, bytes| {
        pager.protect(page).unwrap();
        pager.read(page, bytes).unwrap();
        let mut later = [0; PAGE_BYTES];
        for _ in 0..4 {
            pager.read(page, &mut later).unwrap();
            assert_eq!(*bytes, later, "a store came after protect had returned");
        }
        pager.drop_pages(PageRange::new(page, 1)).unwrap();
    });
}

#[test]
fn nothing_is_written_after_all_is_protected() {
    check("nothing_is_written_after_all_is_protected", |pager, page, bytes| {
        pager.protect_all().unwrap();
        pager.read(page, bytes).unwrap();
        let mut later = [0; PAGE_BYTES];
        pager.read(page, &mut later).unwrap();
        assert_eq!(*bytes, later, "a store came after all was protected");
        pager.drop_pages(PageRange::new(page, 1)).unwrap();
    });
}

/// The check can fail: without protection first, stores are lost.
#[test]
fn reading_before_protecting_is_caught() {
    const CONTESTS_MAX: u32 = 20;
    let test = "reading_before_protecting_is_caught";
    if cores().len() == 1 {
        return common::skip(test, &"one core: the writer cannot run beside the pager");
    }
    let is_caught = (0..CONTESTS_MAX).any(|_| {
        // A thread of its own each time, because a contest pins its thread.
        let contest = || {
            let mut space = space(test)?;
            Some(contest(&mut space, |pager, page, bytes| {
                pager.read(page, bytes).unwrap();
                pager.protect(page).unwrap();
                pager.drop_pages(PageRange::new(page, 1)).unwrap();
            }))
        };
        let result = std::thread::scope(|scope| scope.spawn(contest).join().unwrap());
        result.is_none_or(|(lost, _)| lost > 0)
    });
    assert!(is_caught, "no store lost in {CONTESTS_MAX} contests of {ROUNDS} rounds: the check is blind");
}
