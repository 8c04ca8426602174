//! The timer of a local APIC: one shot, periodic, or at a value of the time-stamp counter.
//!
//! Owns counts and deadlines. Must not know the vector, nor read a clock.

use crate::limits::PERIOD_NS_MIN;

/// The time, by both clocks a timer may follow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Nanoseconds of a clock that never goes back: the timer's counter before division.
    pub ns: u64,
    /// The guest's time-stamp counter.
    pub tsc: u64,
}

/// When the timer is to be looked at again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadline {
    /// At this time.
    Ns(u64),
    /// When the guest's time-stamp counter has this value.
    Tsc(u64),
}

/// How it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimerMode {
    /// Once for each count that is written.
    #[default]
    OneShot,
    /// Again and again.
    Periodic,
    /// At a value of the time-stamp counter.
    TscDeadline,
}

/// The timer.
#[derive(Clone, Debug, Default)]
pub struct Timer {
    mode: TimerMode,
    initial: u32,
    /// Divide configuration as written.
    divide: u32,
    deadline: Option<Deadline>,
}

impl TimerMode {
    /// Bits 17 and 18 of the timer's register.
    #[must_use]
    pub fn from_register(value: u32) -> Self {
        match (value >> 17) & 3 {
            0 => Self::OneShot,
            1 => Self::Periodic,
            _ => Self::TscDeadline,
        }
    }
}

impl Timer {
    /// Takes the mode; going to deadlines or away from them stops it.
    pub fn set_mode(&mut self, mode: TimerMode) {
        if (mode == TimerMode::TscDeadline) != (self.mode == TimerMode::TscDeadline) {
            self.deadline = None;
            self.initial = 0;
        }
        self.mode = mode;
    }

    /// Writes the initial count, which starts it, or stops it when 0.
    pub fn set_initial(&mut self, count: u32, now: Now) {
        if self.mode == TimerMode::TscDeadline {
            return;
        }
        self.initial = count;
        self.deadline = (count != 0).then(|| Deadline::Ns(now.ns.saturating_add(self.period_ns())));
    }

    /// The initial count.
    #[must_use]
    pub fn initial(&self) -> u32 {
        self.initial
    }

    /// What is left of the count.
    #[must_use]
    pub fn current(&self, now: Now) -> u32 {
        match self.deadline {
            Some(Deadline::Ns(at)) => {
                let left = at.saturating_sub(now.ns).div_ceil(self.divisor());
                u32::try_from(left).unwrap_or(u32::MAX).min(self.initial)
            }
            Some(Deadline::Tsc(_)) | None => 0,
        }
    }

    /// Writes the divide configuration; a count under way goes on from what is left of it.
    pub fn set_divide(&mut self, value: u32, now: Now) {
        let left = u64::from(self.current(now));
        self.divide = value & 0b1011;
        if let Some(Deadline::Ns(_)) = self.deadline {
            self.deadline = Some(Deadline::Ns(now.ns.saturating_add(left * self.divisor())));
        }
    }

    /// The divide configuration.
    #[must_use]
    pub fn divide(&self) -> u32 {
        self.divide
    }

    /// Writes the deadline register; outside that mode nothing happens.
    pub fn set_tsc_deadline(&mut self, value: u64) {
        if self.mode == TimerMode::TscDeadline {
            self.deadline = (value != 0).then_some(Deadline::Tsc(value));
        }
    }

    /// The deadline register.
    #[must_use]
    pub fn tsc_deadline(&self) -> u64 {
        match self.deadline {
            Some(Deadline::Tsc(value)) => value,
            Some(Deadline::Ns(_)) | None => 0,
        }
    }

    /// When it will expire.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Deadline> {
        self.deadline
    }

    /// Whether it has expired. Periods that were missed are one.
    pub fn handle_timeout(&mut self, now: Now) -> bool {
        match self.deadline {
            Some(Deadline::Tsc(at)) if at <= now.tsc => {
                self.deadline = None;
                true
            }
            Some(Deadline::Ns(at)) if at <= now.ns => {
                let period = self.period_ns().max(PERIOD_NS_MIN);
                let is_periodic = self.mode == TimerMode::Periodic;
                let periods = ((now.ns - at) / period).saturating_add(1);
                let next = at.saturating_add(periods.saturating_mul(period));
                self.deadline = is_periodic.then_some(Deadline::Ns(next));
                true
            }
            Some(Deadline::Tsc(_) | Deadline::Ns(_)) | None => false,
        }
    }

    fn divisor(&self) -> u64 {
        let code = (self.divide & 3) | (self.divide >> 1) & 4;
        1 << ((code + 1) & 7)
    }

    fn period_ns(&self) -> u64 {
        u64::from(self.initial) * self.divisor()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ns: u64) -> Now {
        Now { ns, tsc: ns.saturating_mul(2) }
    }

    #[test]
    fn divisors() {
        for (code, divisor) in
            [(0b0000, 2), (0b0001, 4), (0b0010, 8), (0b0011, 16), (0b1000, 32), (0b1001, 64), (0b1010, 128), (0b1011, 1)]
        {
            let mut timer = Timer::default();
            timer.set_divide(code, at(0));
            assert_eq!(timer.divisor(), divisor, "{code:#b}");
        }
    }

    #[test]
    fn one_shot_counts_down_once() {
        let mut timer = Timer::default();
        timer.set_divide(0b1011, at(0));
        timer.set_initial(1_000_000, at(500));
        assert_eq!(timer.current(at(500)), 1_000_000);
        assert_eq!(timer.current(at(400_500)), 600_000);
        assert!(!timer.handle_timeout(at(1_000_499)));
        assert_eq!(timer.poll_timeout(), Some(Deadline::Ns(1_000_500)));
        assert!(timer.handle_timeout(at(1_000_500)) && !timer.handle_timeout(at(u64::MAX)));
        assert_eq!((timer.current(at(1_000_500)), timer.initial()), (0, 1_000_000));
        timer.set_initial(5, at(0));
        timer.set_initial(0, at(0));
        assert_eq!(timer.poll_timeout(), None);
    }

    #[test]
    fn periods_stay_in_step_and_missed_ones_are_one() {
        let mut timer = Timer::default();
        timer.set_mode(TimerMode::Periodic);
        timer.set_divide(0b1011, at(0));
        timer.set_initial(1_000_000, at(0));
        assert!(timer.handle_timeout(at(1_000_100)));
        assert_eq!(timer.poll_timeout(), Some(Deadline::Ns(2_000_000)));
        assert!(timer.handle_timeout(at(7_500_000)) && !timer.handle_timeout(at(7_500_000)));
        assert_eq!(timer.poll_timeout(), Some(Deadline::Ns(8_000_000)));
        // A storm is slowed down.
        timer.set_initial(1, at(8_000_000));
        assert!(timer.handle_timeout(at(8_000_001)));
        assert_eq!(timer.poll_timeout(), Some(Deadline::Ns(8_000_001 + PERIOD_NS_MIN)));
    }

    #[test]
    fn deadlines_are_of_their_mode() {
        let mut timer = Timer::default();
        timer.set_tsc_deadline(10);
        assert_eq!(timer.tsc_deadline(), 0, "not in that mode");
        timer.set_mode(TimerMode::TscDeadline);
        timer.set_initial(7, at(0));
        assert_eq!((timer.initial(), timer.poll_timeout()), (0, None));
        timer.set_tsc_deadline(1000);
        assert_eq!(timer.poll_timeout(), Some(Deadline::Tsc(1000)));
        assert!(!timer.handle_timeout(at(499)) && timer.handle_timeout(at(500)) && !timer.handle_timeout(at(501)));
        assert_eq!(timer.tsc_deadline(), 0);
        timer.set_tsc_deadline(5000);
        timer.set_mode(TimerMode::OneShot);
        assert_eq!(timer.poll_timeout(), None);
    }
}
