//! One exit code per cause, for this program and for refusals that `dvm-exec` returns.
//!
//! Owns the numbers; `docs/operating.md` has them as a table. Must not know how a cause is found.

use std::fmt;

macro_rules! codes {
    ($(#[$doc:meta])* $name:ident { $($(#[doc = $text:literal])* $variant:ident = $code:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum $name { $($(#[doc = $text])* $variant = $code,)* }

        impl $name {
            /// All causes with their code and meaning, in order.
            #[cfg(test)]
            const TABLE: &'static [(u8, &'static str, &'static str)] =
                &[$(($code, stringify!($variant), concat!($($text),*)),)*];

            /// The code as the caller sees it.
            #[must_use]
            pub fn code(self) -> u8 {
                self as u8
            }
        }
    };
}

codes! {
    /// Exit codes of `dvm-agent`.
    Exit {
        /// done
        Success = 0,
        /// something that should not happen; the message is worth a bug report
        Internal = 1,
        /// the command line is wrong
        Usage = 2,
        /// a configuration file cannot be read
        ConfigUnreadable = 10,
        /// a configuration file has an unknown key or a bad value
        ConfigInvalid = 11,
        /// the cluster key is missing, malformed or open to others
        Key = 12,
        /// the node's name is not in the cluster's list
        NotMember = 13,
        /// another agent serves this control socket
        AlreadyRunning = 14,
        /// the control socket cannot be made
        Socket = 15,
        /// the control address, or the one for metrics, cannot be bound
        Address = 16,
        /// the kernel lacks something that the agent cannot do without
        Kernel = 17,
        /// no agent answers at the control socket
        NoAgent = 20,
        /// the agent's answer is not understood
        BadAnswer = 21,
        /// doctor found something missing
        Unhealthy = 22,
        /// nothing can be traced: no programs built in, no right to, or the kernel refuses
        Untraceable = 23,
        /// a file of --output cannot be written
        Output = 24,
        /// the report to compare with cannot be read
        Report = 25,
        /// etcd cannot be reached, or refuses this host
        Membership = 26,
        /// the host cannot be drained
        Drain = 27,
        /// the drained host had not left within --wait
        Draining = 28,
    }
}

codes! {
    /// Codes of refusals: `dvm-exec` exits with them and prints the reason.
    Refusal {
        /// a host named is not in the cluster
        UnknownHost = 80,
        /// a host of the job cannot be reached
        Unreachable = 81,
        /// a host of the job refused its part
        MemberRefused = 83,
        /// dvm-exec and dvm-agent are of different releases
        Version = 84,
        /// the host takes part in too many jobs
        TooManyJobs = 85,
        /// this kernel offers no /dev/userfaultfd
        NoUserfaultfd = 86,
        /// a host of the job was lost
        HostLost = 87,
        /// the agent is ending
        AgentEnding = 88,
        /// this host cannot do its part
        Local = 89,
        /// the first packet was not a request the agent knows
        NotRequest = 90,
        /// a host of the job is being drained
        Draining = 91,
    }
}

/// Why a command ends: the exit code and what to print.
#[derive(Debug)]
pub struct Failure {
    /// Exit code.
    pub exit: Exit,
    /// What to print.
    pub error: anyhow::Error,
}

impl Failure {
    /// A failure with this code and text.
    pub fn new(exit: Exit, error: impl Into<anyhow::Error>) -> Self {
        Self { exit, error: error.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table in the operator's guide is the golden copy: a code never changes its meaning unnoticed.
    #[test]
    fn every_code_stands_in_the_guide() {
        let guide = include_str!("../../docs/operating.md");
        for (code, name, text) in Exit::TABLE.iter().chain(Refusal::TABLE) {
            let line = format!("| {code} | {name} |{text} |");
            assert!(guide.lines().any(|row| row == line), "docs/operating.md lacks the line: {line}");
        }
        let ours = guide.split("### dvm-exec itself").next().unwrap();
        let rows = ours.lines().filter(|row| row.starts_with("| ") && row[2..].starts_with(|c: char| c.is_ascii_digit()));
        let known = Exit::TABLE.len() + Refusal::TABLE.len();
        assert_eq!(rows.count(), known, "docs/operating.md has rows for codes that do not exist");
    }

    #[test]
    fn codes_are_distinct() {
        let mut codes: Vec<u8> = Exit::TABLE.iter().chain(Refusal::TABLE).map(|row| row.0).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Exit::TABLE.len() + Refusal::TABLE.len());
    }
}
