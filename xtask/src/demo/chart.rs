//! A histogram drawn in text.
//!
//! Owns the scale: one line per doubling of the latency, bars as long as their share of the fullest line. Must not know what
//! was measured.

const BAR_WIDTH_MAX: u64 = 50;

/// Lines of the chart, from buckets of (upper bound in nanoseconds, samples).
#[must_use]
pub fn lines(buckets: &[(u64, u64)]) -> Vec<String> {
    let mut powers = [0_u64; 64];
    for (bound, count) in buckets {
        // A bucket belongs to the line whose bound, a power of two, is the first at or above its own.
        let power = bound.max(&1).next_power_of_two().trailing_zeros();
        if let Some(sum) = powers.get_mut(power as usize) {
            *sum += count;
        }
    }
    let Some(first) = powers.iter().position(|count| *count > 0) else { return vec!["none".into()] };
    let last = powers.iter().rposition(|count| *count > 0).unwrap_or(first);
    let most = powers.iter().copied().max().unwrap_or(1).max(1);
    (first..=last)
        .zip(powers.iter().skip(first))
        .map(|(power, count)| {
            let width = (count * BAR_WIDTH_MAX).div_ceil(most);
            let bar = "#".repeat(usize::try_from(width).unwrap_or(0));
            format!("<= {:>8} {bar} {count}", duration(1 << power))
        })
        .collect()
}

/// Nanoseconds in the unit that suits them.
#[must_use]
pub fn duration(nanoseconds: u64) -> String {
    match nanoseconds {
        0..1_000 => format!("{nanoseconds} ns"),
        1_000..1_000_000 => format!("{}.{} us", nanoseconds / 1_000, nanoseconds % 1_000 / 100),
        1_000_000..1_000_000_000 => format!("{}.{} ms", nanoseconds / 1_000_000, nanoseconds % 1_000_000 / 100_000),
        _ => format!("{}.{} s", nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000 / 100_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_follow_counts() {
        assert_eq!(lines(&[]), ["none"]);
        let lines = lines(&[(1000, 1), (1024, 1), (4000, 100), (4096, 0)]);
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[0], "<=   1.0 us # 2");
        assert_eq!(lines[1], "<=   2.0 us  0");
        assert_eq!(lines[2], format!("<=   4.0 us {} 100", "#".repeat(50)));
    }

    #[test]
    fn durations_have_units() {
        assert_eq!([0, 999, 1_500, 2_300_000, 61_000_000_000].map(duration), ["0 ns", "999 ns", "1.5 us", "2.3 ms", "61.0 s"]);
    }
}
