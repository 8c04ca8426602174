//! Which host the next thread goes to.
//!
//! Owns the policies. Must not know hosts beyond their number and sizes.

use std::fmt;
use std::str::FromStr;

/// A policy of `--place`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Placement {
    /// One host after the other, the root included.
    RoundRobin,
    /// A host's processors first, then the next host.
    Fill,
    /// So many threads to a host, then the next.
    Block(u64),
    /// All at the root.
    Local,
    /// As round robin, then those that share pages are brought together.
    #[default]
    Auto,
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RoundRobin => f.write_str("rr"),
            Self::Fill => f.write_str("fill"),
            Self::Block(count) => write!(f, "block={count}"),
            Self::Local => f.write_str("local"),
            Self::Auto => f.write_str("auto"),
        }
    }
}

impl FromStr for Placement {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "rr" => Ok(Self::RoundRobin),
            "fill" => Ok(Self::Fill),
            "local" => Ok(Self::Local),
            "auto" => Ok(Self::Auto),
            _ => match text.strip_prefix("block=").map(str::parse) {
                Some(Ok(count)) if count > 0 => Ok(Self::Block(count)),
                _ => Err(format!("{text:?} is no placement: use rr, fill, block=N (N from 1), local or auto")),
            },
        }
    }
}

impl Placement {
    /// The host of thread `number` (the program's first thread is 0 and always at the root), when `living` program
    /// threads run on each host, which has `room` for so many.
    #[must_use]
    pub fn host(self, number: u64, living: &[usize], room: &[usize]) -> usize {
        let hosts = living.len() as u64;
        match self {
            Self::Local => 0,
            Self::RoundRobin | Self::Auto => {
                let first = (number % hosts) as usize;
                let order = (0..living.len()).map(|step| (first + step) % living.len());
                order.into_iter().find(|host| living[*host] < room[*host]).unwrap_or(first)
            }
            Self::Fill => {
                let free = (0..living.len()).find(|host| living[*host] < room[*host]);
                free.unwrap_or((number % hosts) as usize)
            }
            Self::Block(count) => (number / count % hosts) as usize,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies() {
        let none = [0; 3];
        let wide = [usize::MAX; 3];
        let hosts = |placement: Placement| (0..6).map(|number| placement.host(number, &none, &wide)).collect::<Vec<_>>();
        assert_eq!(hosts(Placement::RoundRobin), [0, 1, 2, 0, 1, 2]);
        assert_eq!(hosts(Placement::Block(2)), [0, 0, 1, 1, 2, 2]);
        assert_eq!(hosts(Placement::Local), [0; 6]);
        assert_eq!(Placement::Fill.host(5, &[2, 1, 0], &[2, 2, 2]), 1);
        assert_eq!(Placement::RoundRobin.host(1, &[0, 1, 0], &[1, 1, 1]), 2);
    }

    #[test]
    fn words() {
        assert_eq!("block=4".parse(), Ok(Placement::Block(4)));
        assert!("block=0".parse::<Placement>().is_err());
        assert!("spread".parse::<Placement>().is_err());
        for word in ["rr", "fill", "local", "auto", "block=7"] {
            assert_eq!(word.parse::<Placement>().map(|placement| placement.to_string()).as_deref(), Ok(word));
        }
    }
}
