//! Why a guest, or its machine, ends other than by the guest's own word, and with which status.
//!
//! Owns the reasons and their statuses, which docs/kvm.md tables. Must not print.

use crate::exit;
use std::io;
use thiserror::Error;

/// A reason.
#[derive(Debug, Error)]
pub enum Failure {
    /// The image cannot be run.
    #[error("{name}: {reason}")]
    Image {
        /// Its file.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A disk cannot be used.
    #[error("{0}")]
    Disk(String),
    /// This host cannot.
    #[error("{what}: {source}: {fix}")]
    Host {
        /// What it cannot do.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
        /// What to do.
        fix: &'static str,
    },
    /// The command line asks for what no machine has.
    #[error("{0}")]
    Settings(String),
    /// A processor gave up: an exception while it reported another.
    #[error("triple fault of processor {cpu}: {state}")]
    TripleFault {
        /// Its number.
        cpu: usize,
        /// Registers, and what was refused before.
        state: String,
    },
    /// The guest touched an address where nothing is.
    #[error("processor {cpu} touched {address:#x}, where there is neither memory nor a device: {state}")]
    Nowhere {
        /// Its number.
        cpu: usize,
        /// The address.
        address: u64,
        /// Registers.
        state: String,
    },
    /// KVM cannot go on with the guest.
    #[error("processor {cpu}: KVM ends with {reason}: {state}")]
    Kvm {
        /// Its number.
        cpu: usize,
        /// The exit.
        reason: String,
        /// Registers.
        state: String,
    },
    /// A device interrupts without end, and no processor asks it why.
    #[error("interrupt storm: line {pin} of the I/O APIC came again 100000 times, and no processor asked its device why")]
    Storm {
        /// The line.
        pin: usize,
    },
    /// An operator names a guest that there is not.
    #[error("no guest `{0}` of this user runs on this host: dvm-exec kvm ps lists them")]
    NoGuest(String),
    /// A guest cannot do what an operator asks.
    #[error("guest `{guest}`: {reason}")]
    Refused {
        /// Its name.
        guest: String,
        /// Why not.
        reason: String,
    },
    /// A guest, or hosts of it, do not answer an operator.
    #[error("guest `{guest}`: no answer in time: {who}; it is as before")]
    Silent {
        /// Its name.
        guest: String,
        /// Who does not answer.
        who: String,
    },
    /// A host of the guest was lost.
    #[error("host {host} lost: {reason}")]
    HostLost {
        /// Its name.
        host: String,
        /// What was seen.
        reason: String,
    },
    /// A host of the guest cannot go on.
    #[error("host {host}: {reason}")]
    Elsewhere {
        /// Its name.
        host: String,
        /// The status of that.
        status: u8,
        /// Why.
        reason: String,
    },
    /// The job could not be had, or not be kept.
    #[error("{0}")]
    Job(#[from] exit::Failure),
}

impl Failure {
    /// The exit status.
    pub fn status(&self) -> u8 {
        match self {
            Self::Settings(_) => 2,
            Self::Image { .. } | Self::Disk(_) => 60,
            Self::Host { .. } => 61,
            Self::TripleFault { .. } => 62,
            Self::Nowhere { .. } => 63,
            Self::Kvm { .. } => 64,
            Self::Storm { .. } => 65,
            Self::NoGuest(_) => 66,
            Self::Refused { .. } => 67,
            Self::Silent { .. } => 68,
            Self::HostLost { .. } => 87,
            Self::Elsewhere { status, .. } => *status,
            Self::Job(failure) => failure.code(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table in the document is the golden copy: a status never changes its meaning unnoticed.
    #[test]
    fn every_status_stands_in_the_document() {
        let text = String::new;
        let (cpu, what, fix) = (0, "", "");
        let statuses = [
            Failure::Settings(text()),
            Failure::Image { name: text(), reason: text() },
            Failure::Host { what, source: io::ErrorKind::NotFound.into(), fix },
            Failure::TripleFault { cpu, state: text() },
            Failure::Nowhere { cpu, address: 0, state: text() },
            Failure::Kvm { cpu, reason: text(), state: text() },
            Failure::Storm { pin: 0 },
            Failure::NoGuest(text()),
            Failure::Refused { guest: text(), reason: text() },
            Failure::Silent { guest: text(), who: text() },
            Failure::HostLost { host: text(), reason: text() },
        ]
        .map(|failure| failure.status());
        let document = include_str!("../../../docs/kvm.md");
        let ours = document.split("\n## Exit status\n").nth(1).and_then(|text| text.split("\n## ").next()).unwrap();
        let rows = ours.lines().filter_map(|row| row.strip_prefix("| ")?.split(' ').next()?.parse().ok());
        assert_eq!(rows.collect::<Vec<u8>>(), statuses);
    }
}
