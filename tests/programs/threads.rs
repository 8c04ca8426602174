//! Rust std threads: scoped threads, channels, a Mutex with Condvar, RwLock, thread locals, Arc and panics caught at a join.
//!
//! Owns deterministic output. Must not know hosts. usage: threads [count]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, RwLock, mpsc};
use std::thread;
use std::time::Duration;

thread_local! {
    static LOCAL: Cell<u64> = const { Cell::new(0) };
}

fn mix(mut value: u64) -> u64 {
    value ^= value >> 33;
    value = value.wrapping_mul(0xff51_afd7_ed55_8ccd);
    value ^ (value >> 33)
}

/// Words counted in shards, merged at the end: allocation of many small strings in all threads.
fn count_words(count: usize) -> u64 {
    let table = Mutex::new(BTreeMap::<String, u64>::new());
    thread::scope(|scope| {
        for thread in 0..count {
            let table = &table;
            scope.spawn(move || {
                let mut mine = BTreeMap::<String, u64>::new();
                for index in 0..20_000_u64 {
                    let word = format!("word-{}", mix(index * 64 + thread as u64) % 500);
                    *mine.entry(word).or_default() += 1;
                }
                let mut table = table.lock().unwrap();
                for (word, seen) in mine {
                    *table.entry(word).or_default() += seen;
                }
            });
        }
    });
    let table = table.into_inner().unwrap();
    assert_eq!(table.values().sum::<u64>(), 20_000 * count as u64);
    table.iter().fold(0, |hash, (word, seen)| mix(hash ^ word.len() as u64 ^ (seen << 8)))
}

/// A pipeline: one source, `count` workers, one sink.
fn pipeline(count: usize) -> u64 {
    let (work_in, work_out) = mpsc::sync_channel::<u64>(16);
    let (done_in, done_out) = mpsc::channel::<u64>();
    let work_out = Arc::new(Mutex::new(work_out));
    let workers: Vec<_> = (0..count)
        .map(|_| {
            let (work, done) = (Arc::clone(&work_out), done_in.clone());
            thread::spawn(move || {
                loop {
                    let Ok(value) = work.lock().unwrap().recv() else { return };
                    let mut hash = value;
                    for _ in 0..20_000 {
                        hash = mix(hash.wrapping_add(1));
                    }
                    done.send(hash).unwrap();
                }
            })
        })
        .collect();
    drop(done_in);
    for value in 0..300 {
        work_in.send(value).unwrap();
    }
    drop(work_in);
    let sum = done_out.iter().fold(0_u64, u64::wrapping_add);
    for worker in workers {
        worker.join().unwrap();
    }
    sum
}

/// Turns taken in order through one condition variable.
fn turns(count: usize) -> u64 {
    let turn = Arc::new((Mutex::new(0_u64), Condvar::new()));
    let rounds = 40_u64;
    let threads: Vec<_> = (0..count as u64)
        .map(|me| {
            let turn = Arc::clone(&turn);
            thread::spawn(move || {
                let (lock, changed) = &*turn;
                for round in 0..rounds {
                    let mut now = lock.lock().unwrap();
                    while *now != round * count as u64 + me {
                        now = changed.wait_timeout(now, Duration::from_secs(5)).unwrap().0;
                    }
                    *now += 1;
                    changed.notify_all();
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    *turn.0.lock().unwrap()
}

/// Readers see writers' pairs whole; a thread that panics is caught at its join.
fn readers_and_panics(count: usize) -> u64 {
    let pair = Arc::new(RwLock::new((0_u64, 0_u64)));
    let reads = Arc::new(AtomicU64::new(0));
    let threads: Vec<_> = (0..count)
        .map(|me| {
            let (pair, reads) = (Arc::clone(&pair), Arc::clone(&reads));
            thread::spawn(move || {
                for round in 0..200 {
                    if round % 10 == 0 {
                        let mut pair = pair.write().unwrap();
                        pair.0 += 1;
                        pair.1 += 1;
                    } else {
                        let pair = pair.read().unwrap();
                        assert_eq!(pair.0, pair.1);
                        reads.fetch_add(1, Ordering::Relaxed);
                    }
                    LOCAL.with(|local| local.set(local.get() + 1));
                }
                assert_eq!(LOCAL.with(Cell::get), 200);
                if me == 0 {
                    std::panic::panic_any(7_u64);
                }
            })
        })
        .collect();
    let mut panicked = 0;
    for thread in threads {
        if let Err(payload) = thread.join() {
            panicked += payload.downcast_ref::<u64>().copied().unwrap_or(1000);
        }
    }
    pair.read().unwrap().0 + reads.load(Ordering::Relaxed) + panicked
}

fn main() {
    std::panic::set_hook(Box::new(|_| {}));
    let count = std::env::args().nth(1).map_or(6, |text| text.parse().expect("a number of threads"));
    println!("words {:016x}", count_words(count));
    println!("pipeline {:016x}", pipeline(count));
    println!("turns {}", turns(count));
    println!("readers {}", readers_and_panics(count));
}
