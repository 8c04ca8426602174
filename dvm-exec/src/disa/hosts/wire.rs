//! What the husks of a run of runners say to each other.
//!
//! Owns the packets and their bytes. Must not know sockets.

use dvm_disa::machine::Settings;
use dvm_runners::{Host, Message};
use serde::{Deserialize, Serialize};

/// A packet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Packet {
    /// Root to member, first: the run.
    Setup(Setup),
    /// Member to member, first: who it is.
    Hello(Host),
    /// The run is over.
    Over,
    /// A node's message; where members have no ways to each other, the root passes on what is for another.
    Message {
        /// Who says it.
        from: Host,
        /// To whom.
        to: Host,
        /// What.
        message: Message,
    },
}

/// A run as its hosts must know it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Setup {
    /// The host that is told.
    pub me: Host,
    /// Runners at a time, by host.
    pub slots: Vec<usize>,
    /// Hosts that have the log. With more than one every host has a way to every other one.
    pub copies: usize,
    /// The program, as an ELF file.
    pub object: Vec<u8>,
    /// Limits, input, arguments, files.
    pub settings: Settings,
}
