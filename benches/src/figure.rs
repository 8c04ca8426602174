//! A figure: what was measured, its floor, and the bar between them.
//!
//! Owns the arithmetic and the text. Must not know how it was measured.

use serde::Serialize;
use std::fmt;
use std::time::Duration;

const SECONDS_ABOVE_NS: u64 = 10_000_000;

/// Repeated measurements of one thing, sorted: nanoseconds where nothing else is said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Samples(Vec<u64>);

impl Samples {
    /// Sorts them.
    pub fn new(mut values: Vec<u64>) -> Self {
        values.sort_unstable();
        Self(values)
    }

    /// One measurement of a time.
    pub fn of(time: Duration) -> Self {
        Self(vec![u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)])
    }

    /// The value that `per_mille` of a thousand samples do not exceed; 0 without samples.
    pub fn quantile(&self, per_mille: usize) -> u64 {
        let last = self.0.len().saturating_sub(1);
        self.0.get((self.0.len() * per_mille / 1000).min(last)).copied().unwrap_or(0)
    }

    /// The median.
    pub fn median(&self) -> u64 {
        self.quantile(500)
    }

    /// Takes the samples of another round of the same thing.
    pub fn merge(&mut self, other: Self) {
        self.0.extend(other.0);
        self.0.sort_unstable();
    }

    /// Number of samples.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

/// Which side of the bar is good.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bar {
    /// The ratio must not exceed it.
    AtMost(f64),
    /// The ratio must reach it.
    AtLeast(f64),
    /// The ratio is as it is.
    None,
}

/// One line of the report.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    /// What is compared.
    pub name: String,
    /// Measured with us; the unit is in the name.
    pub measured: f64,
    /// Measured without us, in the same run.
    pub floor: f64,
    /// `measured / floor`.
    pub ratio: f64,
    /// What it must be.
    pub bar: Bar,
    /// Distribution or breakdown, in words.
    pub detail: String,
}

impl Figure {
    /// A figure from two numbers of the same unit.
    pub fn new(name: &str, measured: f64, floor: f64, bar: Bar, detail: String) -> Self {
        Self { name: name.into(), measured, floor, ratio: measured / floor, bar, detail }
    }

    /// Whether the bar is met.
    pub fn holds(&self) -> bool {
        match self.bar {
            Bar::AtMost(most) => self.ratio <= most,
            Bar::AtLeast(least) => self.ratio >= least,
            Bar::None => true,
        }
    }

    fn verdict(&self) -> &'static str {
        if self.holds() { "ok    " } else { "MISSED" }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (verdict, bar) = match self.bar {
            Bar::AtMost(most) => (self.verdict(), format!("bar <= {most}")),
            Bar::AtLeast(least) => (self.verdict(), format!("bar >= {least}")),
            Bar::None => ("      ", "no bar".into()),
        };
        let Self { name, measured, floor, ratio, detail, .. } = self;
        write!(f, "{verdict} {name}: {measured:.3} against {floor:.3}, ratio {ratio:.2} ({bar}); {detail}")
    }
}

/// In seconds if the median is above 10 ms.
impl fmt::Display for Samples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p50, p99, most] = [500, 990, 1000].map(|at| self.quantile(at));
        let count = self.count();
        if p50 > SECONDS_ABOVE_NS {
            let [p50, p99, most] = [p50, p99, most].map(seconds);
            write!(f, "{count} samples, p50 {p50:.3} p99 {p99:.3} max {most:.3} s")
        } else {
            let [p50, p99, most] = [p50, p99, most].map(microseconds);
            write!(f, "{count} samples, p50 {p50:.1} p99 {p99:.1} max {most:.1} us")
        }
    }
}

/// Nanoseconds as microseconds.
#[expect(clippy::cast_precision_loss, reason = "latencies of hours do not occur")]
pub fn microseconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1000.0
}

/// Nanoseconds as seconds.
pub fn seconds(nanoseconds: u64) -> f64 {
    microseconds(nanoseconds) / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_and_bars() {
        let samples = Samples::new((1..=1000).rev().collect());
        assert_eq!([500, 990, 1000].map(|at| samples.quantile(at)), [501, 991, 1000]);
        assert_eq!(Samples::default().median(), 0);
        assert_eq!(Samples::new(vec![9, 1, 5]).median(), 5);
        assert_eq!(Samples::new(vec![2000]).to_string(), "1 samples, p50 2.0 p99 2.0 max 2.0 us");
        assert_eq!(Samples::of(Duration::from_secs(2)).to_string(), "1 samples, p50 2.000 p99 2.000 max 2.000 s");
        let figure = |measured, bar| Figure::new("x", measured, 2.0, bar, String::new());
        assert!(figure(3.0, Bar::AtMost(1.5)).holds());
        assert!(!figure(3.1, Bar::AtMost(1.5)).holds());
        assert!(figure(1.0, Bar::AtLeast(0.5)).holds());
        assert!(!figure(0.9, Bar::AtLeast(0.5)).holds());
        assert!(figure(9.0, Bar::None).holds());
        assert_eq!(figure(9.0, Bar::None).to_string(), "       x: 9.000 against 2.000, ratio 4.50 (no bar); ");
    }
}
