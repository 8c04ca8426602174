//! What a second host brings to programs that use all processors, beside what a second core brings them natively.
//!
//! Owns these figures. Must not know what the programs do. Each host has one core.

use crate::bed::{Bed, processors};
use crate::figure::{Bar, Figure, Samples, seconds};
use crate::list::{Bench, LONG_ROUNDS, ONE_CORE, counter, in_turns, on_two_cores};
use crate::work::{self, Work};
use anyhow::{Result, ensure};
use dvm_hosts::Job;

/// All of them.
pub const BENCHES: [Bench; 2] = [Bench { name: "povray", run: povray }, Bench { name: "xz", run: xz }];

const PIXELS: usize = 640;
const TEXT_MEBIBYTES: usize = 32;
const BOTH_CORES: &str = "0,1";

/// Times of a program with one thread to a core, on one core and on two, without us and over hosts.
struct Gain {
    one_native: Samples,
    one: Samples,
    two_native: Samples,
    two: Samples,
    faults: u64,
}

impl Gain {
    fn measure(bed: &mut Bed, work: impl Fn(&Bed, usize) -> Result<Work>) -> Result<Self> {
        ensure!(processors() >= 2, "needs two processors");
        on_two_cores(bed)?;
        let (alone, shared) = (work(bed, 1)?, work(bed, 2)?);
        let job = |work: &Work, hosts: &str| Job::new(&work.program, "").options(["--hosts", hosts]).arguments(&work.arguments);
        let [one_native, one, two_native, two, faults] = in_turns(bed, LONG_ROUNDS, |bed| {
            let (one_native, _) = bed.native(ONE_CORE, &alone.program, &alone.arguments)?;
            let (two_native, _) = bed.native(BOTH_CORES, &shared.program, &shared.arguments)?;
            let one = bed.job(job(&alone, "h0"), ONE_CORE)?;
            let two = bed.job(job(&shared, "h0,h1"), ONE_CORE)?;
            let faults = Samples::new(vec![counter(&two, "faults_remote")?]);
            Ok([Samples::of(one_native), Samples::of(one.elapsed), Samples::of(two_native), Samples::of(two.elapsed), faults])
        })?;
        Ok(Self { one_native, one, two_native, two, faults: faults.median() })
    }

    /// The time on one host, against native; the gain of two hosts over `from`, against the native one.
    fn times(&self) -> [f64; 4] {
        [&self.one_native, &self.one, &self.two_native, &self.two].map(|times| seconds(times.median()))
    }

    fn ones(&self) -> String {
        format!("native on one core: {}; one host: {}", self.one_native, self.one)
    }

    fn twos(&self) -> String {
        let Self { two_native, two, faults, .. } = self;
        format!("native on two cores: {two_native}; two hosts of one core: {two}, {faults} remote faults")
    }

    /// Of two hosts over one, against that of two cores over one.
    fn over_one_host(&self, name: &str) -> Figure {
        let [one_native, one, two_native, two] = self.times();
        let detail = format!("{}; {}", self.ones(), self.twos());
        Figure::new(name, one / two, one_native / two_native, Bar::AtLeast(0.9), detail)
    }
}

fn povray(bed: &mut Bed) -> Result<Vec<Figure>> {
    let gain = Gain::measure(bed, |bed, threads| work::povray(bed, threads, PIXELS))?;
    let [one_native, one, two_native, two] = gain.times();
    let native_gain = one_native / two_native;
    Ok(vec![
        Figure::new("povray on one host (s)", one, one_native, Bar::AtMost(1.1), gain.ones()),
        Figure::new("povray's gain from a second host", one_native / two, native_gain, Bar::AtLeast(0.85), gain.twos()),
        gain.over_one_host("povray on two hosts over one host"),
    ])
}

fn xz(bed: &mut Bed) -> Result<Vec<Figure>> {
    let gain = Gain::measure(bed, |bed, threads| work::xz(bed, threads, TEXT_MEBIBYTES))?;
    Ok(vec![gain.over_one_host("xz on two hosts over one host")])
}
