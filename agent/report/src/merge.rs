//! Histograms added and subtracted without losing resolution.
//!
//! Owns what may be merged with what. Must not know names or hosts.

use hdrhistogram::Histogram;

/// Why two histograms are not merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// One has coarser buckets: in a sum nobody could tell its values from exact ones.
    #[error("{ours} and {theirs} significant digits cannot be merged; install the same release on all hosts")]
    Digits {
        /// Of the sum.
        ours: u8,
        /// Of what is added.
        theirs: u8,
    },
    /// They begin at different values, which shifts all buckets.
    #[error("lowest values of {ours} and {theirs} ns cannot be merged; install the same release on all hosts")]
    Lowest {
        /// Of the sum.
        ours: u64,
        /// Of what is added.
        theirs: u64,
    },
}

/// Adds `more` to `sum`, whose range grows if it must: what comes out is the histogram of the samples of both.
///
/// # Errors
/// When their buckets differ; `sum` is as before.
pub fn add(sum: &mut Histogram<u64>, more: &Histogram<u64>) -> Result<(), MergeError> {
    if sum.sigfig() != more.sigfig() {
        return Err(MergeError::Digits { ours: sum.sigfig(), theirs: more.sigfig() });
    }
    if sum.low() != more.low() {
        return Err(MergeError::Lowest { ours: sum.low(), theirs: more.low() });
    }
    if more.high() > sum.high() {
        let mut wide =
            Histogram::new_with_bounds(sum.low(), more.high(), sum.sigfig()).expect("bounds of a histogram that exists");
        wide.add(&*sum).expect("the wider one holds what the narrower holds");
        *sum = wide;
    }
    sum.add(more).expect("every value of a histogram that is not wider fits");
    Ok(())
}

/// What came after `before` was taken from the same source; all of `now` if the source began anew meanwhile.
#[must_use]
pub fn interval(now: &Histogram<u64>, before: &Histogram<u64>) -> Histogram<u64> {
    let mut rest = now.clone();
    match rest.subtract(before) {
        Ok(()) => rest,
        Err(_) => now.clone(),
    }
}
