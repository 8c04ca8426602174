//! Whether the program would be quicker on one host.
//!
//! Owns the rule by which `--place auto` brings all threads to the root, and spreads them again. Must not know threads, hosts
//! beyond the root's processors, or how a thread is moved.
//!
//! Threads that compute use processors; threads that wait for pages of other hosts use none. On one host nobody waits: as many
//! of both as the root has processors would compute. If that is clearly more than compute now, and stays so, all are gathered.
//! Once the root's processors are all used, spreading is tried again; each try that ends gathered makes the next one later.

use std::time::Duration;

/// For so long it must have been better to gather, or to spread.
const SUSTAINED: Duration = Duration::from_secs(1);
/// Threads that wait for pages on the average, below which nobody is gathered.
const STALLED_LEAST: f64 = 0.5;
/// What one host must promise, as a multiple of what computes now.
const GAIN_LEAST: f64 = 1.25;
/// Part of the root's processors above which it counts as used whole.
const FULL: f64 = 0.85;
const SPREAD_EARLIEST: Duration = Duration::from_secs(4);
const SPREAD_LATEST: Duration = Duration::from_secs(128);

/// What the program did in an interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// Length of the interval.
    pub interval: Duration,
    /// Processors used on all hosts, on the average.
    pub computing: f64,
    /// Threads that waited for pages of other hosts, on the average.
    pub stalled: f64,
}

/// What shall be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// All threads go to the root.
    Gather,
    /// They go where they would have gone at first.
    Spread,
}

/// The rule and its memory.
#[derive(Clone, Debug)]
pub struct Gather {
    /// Processors of the root.
    processors: f64,
    is_gathered: bool,
    /// Since when the other state would be better.
    sustained: Duration,
    /// How long the present state has lasted.
    lasted: Duration,
    /// How long the next gathered state lasts at least.
    patience: Duration,
}

impl Gather {
    /// Spread, on a root with so many processors.
    #[must_use]
    pub fn new(processors: u32) -> Self {
        Self {
            processors: f64::from(processors),
            is_gathered: false,
            sustained: Duration::ZERO,
            // The first gathering follows no try.
            lasted: SPREAD_LATEST,
            patience: SPREAD_EARLIEST,
        }
    }

    /// Takes in an interval; says what shall be done after it.
    pub fn observe(&mut self, load: Load) -> Option<Order> {
        self.lasted += load.interval;
        let wants_other = if self.is_gathered { self.is_full(load) } else { self.would_gain(load) };
        self.sustained = if wants_other { self.sustained + load.interval } else { Duration::ZERO };
        if self.sustained < SUSTAINED || (self.is_gathered && self.lasted < self.patience) {
            return None;
        }
        if !self.is_gathered && self.lasted < self.patience {
            // The last try was in vain.
            self.patience = (self.patience * 2).min(SPREAD_LATEST);
        }
        self.is_gathered = !self.is_gathered;
        (self.sustained, self.lasted) = (Duration::ZERO, Duration::ZERO);
        Some(if self.is_gathered { Order::Gather } else { Order::Spread })
    }

    fn would_gain(&self, load: Load) -> bool {
        let together = self.processors.min(load.computing + load.stalled);
        load.stalled >= STALLED_LEAST && together >= load.computing * GAIN_LEAST
    }

    fn is_full(&self, load: Load) -> bool {
        load.computing >= self.processors * FULL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(250);

    /// Orders and the interval in which each came.
    fn orders(gather: &mut Gather, intervals: usize, load: impl Fn(bool) -> (f64, f64)) -> Vec<(usize, Order)> {
        let mut is_gathered = gather.is_gathered;
        let mut orders = Vec::new();
        for interval in 0..intervals {
            let (computing, stalled) = load(is_gathered);
            if let Some(order) = gather.observe(Load { interval: INTERVAL, computing, stalled }) {
                is_gathered = order == Order::Gather;
                orders.push((interval, order));
            }
        }
        orders
    }

    #[test]
    fn threads_that_mostly_wait_are_gathered_and_stay_if_one_host_is_enough() {
        let mut gather = Gather::new(2);
        let fights = |is_gathered| if is_gathered { (1.2, 0.0) } else { (0.3, 1.5) };
        assert_eq!(orders(&mut gather, 400, fights), [(3, Order::Gather)]);
    }

    #[test]
    fn threads_that_compute_stay_where_they_are() {
        // Many processors keep busy although some threads wait; short fights are borne.
        for (computing, stalled) in [(7.0, 4.0), (1.9, 0.6), (4.0, 0.0), (0.1, 0.3)] {
            assert_eq!(orders(&mut Gather::new(2), 100, |_| (computing, stalled)), []);
        }
        let mut gather = Gather::new(2);
        for _ in 0..50 {
            assert_eq!(orders(&mut gather, 3, |_| (0.2, 2.0)), []);
            assert_eq!(orders(&mut gather, 1, |_| (3.0, 0.1)), []);
        }
    }

    #[test]
    fn spreading_is_tried_again_and_less_and_less_often() {
        let mut gather = Gather::new(2);
        let hopeless = |is_gathered| if is_gathered { (2.0, 0.0) } else { (0.3, 2.0) };
        let orders = orders(&mut gather, 400, hopeless);
        let spreads: Vec<usize> = orders.iter().filter(|order| order.1 == Order::Spread).map(|order| order.0).collect();
        let waits: Vec<usize> = spreads.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(spreads.len() >= 3 && waits.windows(2).all(|pair| pair[1] > pair[0]), "{orders:?}");
    }

    #[test]
    fn a_fight_that_is_over_lets_them_spread_for_good() {
        let mut gather = Gather::new(2);
        assert_eq!(orders(&mut gather, 10, |is_gathered| if is_gathered { (1.0, 0.0) } else { (0.2, 2.0) }).len(), 1);
        assert_eq!(orders(&mut gather, 400, |is_gathered| if is_gathered { (2.0, 0.0) } else { (4.0, 0.1) }).len(), 1);
        assert!(!gather.is_gathered);
    }
}
