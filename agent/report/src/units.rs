//! Numbers as people read them.
//!
//! Owns the rounding. Must not know what is counted.

/// Nanoseconds in the unit that suits them.
#[must_use]
pub fn duration(ns: u64) -> String {
    let value = ns as f64;
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{} us", three_digits(value / 1e3)),
        1_000_000..1_000_000_000 => format!("{} ms", three_digits(value / 1e6)),
        _ => format!("{} s", three_digits(value / 1e9)),
    }
}

/// A number with K, M, G or T.
#[must_use]
pub fn count(number: u64) -> String {
    let value = number as f64;
    match number {
        0..10_000 => number.to_string(),
        10_000..1_000_000 => format!("{}K", three_digits(value / 1e3)),
        1_000_000..1_000_000_000 => format!("{}M", three_digits(value / 1e6)),
        1_000_000_000..1_000_000_000_000 => format!("{}G", three_digits(value / 1e9)),
        _ => format!("{}T", three_digits(value / 1e12)),
    }
}

fn three_digits(value: f64) -> String {
    let digits = if value < 9.995 {
        2
    } else if value < 99.95 {
        1
    } else {
        0
    };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_three_digits() {
        let times = [0, 999, 1_500, 23_456, 123_456, 2_300_000, 61_000_000_000].map(duration);
        assert_eq!(times, ["0 ns", "999 ns", "1.50 us", "23.5 us", "123 us", "2.30 ms", "61.0 s"]);
        assert_eq!([0, 9_999, 12_345, 1_234_567, 5_000_000_000].map(count), ["0", "9999", "12.3K", "1.23M", "5.00G"]);
    }
}
