//! The interrupt machinery of a PC as pure state machines: local APICs, an I/O APIC, and their messages between hosts.
//!
//! Owns what the architecture says of registers, priorities and delivery. Must not know KVM, threads, clocks or sockets: `now` is
//! an argument, and what is to be done comes back as a value.
//!
//! ```text
//! guest write -> LocalApic::write -> Effect::Send(Command) -> Directory::resolve -> Signal per processor -> LocalApic::accept
//! device line -> IoApic::set_line -> Command -----------------^                                              |
//!                IoApic::end_of_interrupt <- Effect::EndOfInterrupt <- LocalApic::write(EOI)  <- guest <-----+
//! ```

#![forbid(unsafe_code)]

pub mod command;
pub mod directory;
pub mod io;
pub mod limits;
pub mod link;
pub mod local;
pub mod timer;
pub mod vectors;

pub use command::{Command, Mode, Signal};
pub use directory::{Directory, Identity};
pub use io::IoApic;
pub use local::{Effect, Fault, LocalApic};
pub use timer::{Deadline, Now};
