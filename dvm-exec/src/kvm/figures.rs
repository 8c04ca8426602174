//! What processors have done, as they count it and as it is told.
//!
//! Owns the names of the figures. Must not know who asks.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// Names of the figures, in the order of [`Row::counts`].
pub const NAMES: [&str; 7] = ["exits", "ports", "addresses", "registers", "halts", "interrupts", "sent"];

/// What a processor has done.
#[derive(Debug, Default)]
pub struct Figures {
    /// Times it left the guest.
    pub exits: AtomicU64,
    /// For a port.
    pub ports: AtomicU64,
    /// For an address that is not memory.
    pub addresses: AtomicU64,
    /// For a model-specific register.
    pub registers: AtomicU64,
    /// To halt.
    pub halts: AtomicU64,
    /// Interrupts it took.
    pub interrupts: AtomicU64,
    /// Interrupts and starts it sent.
    pub sent: AtomicU64,
}

/// The same at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Number of the processor.
    pub cpu: u32,
    /// The place of its host in the job.
    pub host: u16,
    /// By [`NAMES`].
    pub counts: [u64; NAMES.len()],
}

/// Adds one to a figure.
pub fn count(figure: &AtomicU64) {
    // Relaxed: a figure publishes nothing.
    figure.fetch_add(1, Ordering::Relaxed);
}

impl Figures {
    /// What it has done until now.
    pub fn row(&self, cpu: usize, host: u16) -> Row {
        let counts = [&self.exits, &self.ports, &self.addresses, &self.registers, &self.halts, &self.interrupts, &self.sent];
        Row { cpu: cpu as u32, host, counts: counts.map(|figure| figure.load(Ordering::Relaxed)) }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cpu {}", self.cpu)?;
        NAMES.iter().zip(self.counts).try_for_each(|(name, count)| write!(f, " {name} {count}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_figure_stands_under_its_name() {
        let figures = Figures::default();
        count(&figures.ports);
        count(&figures.sent);
        count(&figures.sent);
        let text = figures.row(3, 1).to_string();
        assert_eq!(text, "cpu 3 exits 0 ports 1 addresses 0 registers 0 halts 0 interrupts 0 sent 2");
    }
}
