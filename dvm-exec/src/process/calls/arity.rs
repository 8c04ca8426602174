//! How many arguments each call has.
//!
//! Owns the numbers, one digit a call in the order of the table. Must not know what the arguments are.

use super::table;

const LOW: &[u8; 335] = b"33312223363214403443321505333333120221304333663323233455500314213341245332112232112212212322333122211403011002000222233331111222432223612223232231112221003265212101252214221366666466666603555444333222216336215336616653104434211222414432663541552365545320324434534345343365123644464632144244213215545525453214236656345332635133666421564";
const HIGH: &[u8; 46] = b"4264352533223434565434212544464644444336654555";

/// How many arguments call `number` has; 6 for one that nobody knows.
#[must_use]
pub fn arity(number: u64) -> usize {
    let digit = match number.checked_sub(table::HIGH_FIRST) {
        Some(index) => usize::try_from(index).ok().and_then(|index| HIGH.get(index)),
        None => usize::try_from(number).ok().and_then(|index| LOW.get(index)),
    };
    digit.map_or(6, |digit| usize::from(digit - b'0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_have_their_arguments() {
        let check = |number: i64, count| assert_eq!(arity(number as u64), count, "{number}");
        check(libc::SYS_read, 3);
        check(libc::SYS_getpid, 0);
        check(libc::SYS_mmap, 6);
        check(libc::SYS_openat, 4);
        check(libc::SYS_statx, 5);
        check(libc::SYS_clone3, 2);
        check(libc::SYS_futex_waitv, 5);
        check(9_999, 6);
    }
}
