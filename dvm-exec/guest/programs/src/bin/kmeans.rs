//! k-means of PARTS * POINTS points of 8 integers, 16 clusters: the same points and the same result as programs/kmeans.dc has.
//!
//! Owns the computation. Each processor makes a share of the parts and keeps them: between rounds only sums and centroids travel.
//! Words of the command line: points of a part, rounds; 25,000 and 10 without; `times` has each processor tell at the end how long
//! it computed and waited, in us. Says `begin` when the points are there.

#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};
use dvm_kit::processor::Each;
use dvm_kit::sys::memory::{read, write};
use dvm_kit::{Barrier, Page, alloc, boot, guest, print, processor, time};

const PARTS: u64 = 40;
const SEED: u64 = 0xd15a_0001;
const D: usize = 8;
const K: usize = 16;
/// Numbers of the generator that the centres take, and each point.
const FIRST: u64 = (K * D) as u64;
const CALLS: u64 = D as u64 + 1;

/// What a processor has seen of the points: sums of the clusters, then their counts.
const SUMS: usize = K * D + K;
/// Most processors.
const CPUS_MAX: usize = 64;

static TOGETHER: Barrier = Barrier::new();
static MEANS: Page<[AtomicU64; K * D]> = Page([const { AtomicU64::new(0) }; K * D]);
static SHARES: Each<[AtomicU64; SUMS], CPUS_MAX> = Each::new([const { Page([const { AtomicU64::new(0) }; SUMS]) }; CPUS_MAX]);

guest!(main);

/// The n-th number of splitmix64.
fn splitmix(n: u64) -> u64 {
    let mut z = SEED.wrapping_add((n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

/// Makes `points` points, `first` being the number of the first of them.
fn make(first: u64, points: u64, place: u64) {
    for point in 0..points {
        let n = FIRST + (first + point) * CALLS;
        let centre = splitmix(n) % K as u64 * D as u64;
        for d in 0..D as u64 {
            let r = splitmix(n + 1 + d);
            let sum = (r & 0xffff) + (r >> 16 & 0xffff) + (r >> 32 & 0xffff) + (r >> 48);
            let x = (8192 + splitmix(centre + d) % 49152) as i64 + (sum as i64 - 4 * 32768) / 8;
            write(place + (point * D as u64 + d) * 8, x.clamp(0, 65535) as u64);
        }
    }
}

fn nearest(point: &[i64; D], means: &[[i64; D]; K]) -> usize {
    let (mut best, mut least) = (0, i64::MAX);
    for (k, mean) in means.iter().enumerate() {
        let distance = point.iter().zip(mean).map(|(p, m)| (p - m) * (p - m)).sum();
        if distance < least {
            (best, least) = (k, distance);
        }
    }
    best
}

fn point_at(place: u64) -> [i64; D] {
    core::array::from_fn(|d| read(place + d as u64 * 8) as i64)
}

/// Adds this processor's points to the clusters they are nearest to.
fn round(places: &[u64], points: u64) {
    let means: [[i64; D]; K] =
        core::array::from_fn(|k| core::array::from_fn(|d| MEANS[k * D + d].load(Ordering::Acquire) as i64));
    let (mut sums, mut counts) = ([[0; D]; K], [0; K]);
    for place in places {
        for index in 0..points {
            let point = point_at(place + index * D as u64 * 8);
            let k = nearest(&point, &means);
            sums[k].iter_mut().zip(point).for_each(|(sum, x)| *sum += x);
            counts[k] += 1;
        }
    }
    let all = sums.iter().flatten().chain(&counts);
    SHARES.own().iter().zip(all).for_each(|(share, value)| share.store(*value as u64, Ordering::Release));
}

fn join(cpus: usize) {
    let sum = |index: usize| SHARES.iter().take(cpus).map(|share| share[index].load(Ordering::Acquire) as i64).sum::<i64>();
    for k in 0..K {
        let count = sum(K * D + k);
        for d in 0..D {
            if count != 0 {
                MEANS[k * D + d].store((sum(k * D + d) / count) as u64, Ordering::Release);
            }
        }
    }
}

/// FNV-1a of the centroids.
fn hash() -> u64 {
    dvm_guests::fnv1a(MEANS.iter().flat_map(|mean| mean.load(Ordering::Acquire).to_le_bytes()))
}

fn words() -> (u64, u64) {
    let mut words = boot::command_line().split(' ').filter_map(|word| word.parse().ok());
    (words.next().unwrap_or(25_000), words.next().unwrap_or(10))
}

fn main(cpu: usize) -> u8 {
    let (points, rounds) = words();
    let cpus = processor::count();
    if cpus > CPUS_MAX {
        return 1;
    }
    let mut places = [0; PARTS as usize];
    let mut own = 0;
    for part in (0..PARTS).filter(|part| *part as usize * cpus / PARTS as usize == cpu) {
        let Some(place) = alloc::pages(points * D as u64 * 8) else {
            print!("kmeans: no memory for {points} points more: raise --mem\n");
            dvm_kit::shutdown(2);
        };
        make(part * points, points, place);
        places[own] = place;
        own += 1;
        if part == 0 {
            (0..K * D).for_each(|index| MEANS[index].store(read(place + index as u64 * 8), Ordering::Release));
        }
    }
    TOGETHER.wait(cpus);
    if cpu == 0 {
        print!("begin\n");
    }
    let mut spent = [0; 4];
    for _ in 0..rounds {
        let stamps = [
            time::now(),
            after(|| round(&places[..own], points)),
            after(|| TOGETHER.wait(cpus)),
            after(|| {
                if cpu == 0 {
                    join(cpus);
                }
            }),
            after(|| TOGETHER.wait(cpus)),
        ];
        spent.iter_mut().zip(stamps.windows(2)).for_each(|(sum, pair)| *sum += pair[1] - pair[0]);
    }
    if cpu == 0 {
        print!("{:016x}\n", hash());
    }
    if boot::command_line().split(' ').any(|word| word == "times") {
        TOGETHER.wait(cpus);
        let [round, came, joined, went] = spent.map(|ticks| time::ns(ticks) / 1000);
        print!("processor {cpu}: rounds {round}, waited {came}, joined {joined}, waited {went}\n");
        TOGETHER.wait(cpus);
    }
    0
}

/// When that is done.
fn after(work: impl FnOnce()) -> u64 {
    work();
    time::now()
}
