//! What can go wrong with local hosts.
//!
//! Owns the error type. Must not know how the text is shown.

use std::io;
use std::path::PathBuf;

/// Result with [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Why hosts could not be made, used or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not root.
    #[error("local hosts need root (uid is {uid}): run with sudo")]
    NotRoot {
        /// Effective uid seen.
        uid: u32,
    },
    /// A count out of range.
    #[error("{count} hosts asked for: give 1 to {max}")]
    Count {
        /// What was asked.
        count: usize,
        /// What is possible.
        max: usize,
    },
    /// The name cannot be used.
    #[error("instance name `{name}`: use 1 to 24 of a-z, 0-9 and -")]
    Name {
        /// The name.
        name: String,
    },
    /// The instance exists.
    #[error("local hosts `{instance}` are up already: `cargo xtask hosts down` first")]
    Up {
        /// Its name.
        instance: String,
    },
    /// The instance does not exist.
    #[error("local hosts `{instance}` are not up: `cargo xtask hosts up N` first")]
    NotUp {
        /// Its name.
        instance: String,
    },
    /// Another process holds the instance.
    #[error("local hosts `{instance}` are in use by another process: wait for it to end")]
    Busy {
        /// Its name.
        instance: String,
    },
    /// No host of that number.
    #[error("host {index} does not exist: hosts are 0 to {last}")]
    NoHost {
        /// What was asked.
        index: usize,
        /// Highest number.
        last: usize,
    },
    /// A program that must exist does not.
    #[error("{path} does not exist: build it with `cargo build --release -p {package}`", path = path.display())]
    NoBinary {
        /// Where it was looked for.
        path: PathBuf,
        /// Cargo package.
        package: &'static str,
    },
    /// A command failed.
    #[error("`{command}` failed ({status}): {stderr}")]
    Command {
        /// The command line.
        command: String,
        /// Exit status in words.
        status: String,
        /// What it said.
        stderr: String,
    },
    /// A file or process operation failed.
    #[error("cannot {what} {path}", path = path.display())]
    Io {
        /// The operation.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An agent ended or never answered.
    #[error("agent on {host} {what}; its log {log} ends:\n{tail}", log = log.display())]
    Agent {
        /// Host name.
        host: String,
        /// What happened.
        what: String,
        /// Log file.
        log: PathBuf,
        /// Last lines of it.
        tail: String,
    },
}
