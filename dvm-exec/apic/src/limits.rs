//! The bounds of the interrupt machinery.
//!
//! Owns every maximum. Must not know who keeps to it.

/// Processors of a guest: what eight bits of a physical destination name, less the broadcast.
pub const PROCESSORS_MAX: usize = 255;
/// Pins of the I/O APIC.
pub const PINS: usize = 24;
/// Shortest period of a periodic timer, in nanoseconds, as the kernel's own APIC has it: a shorter one is a storm.
pub const PERIOD_NS_MIN: u64 = 200_000;
/// Messages on the way to one host that it has not acknowledged.
pub const WINDOW: usize = 64;
/// Messages that wait for one host. A host that lets more pile up does not answer any more.
pub const WAITING_MAX: usize = 65_536;
/// When a message without an acknowledgement is sent again, in nanoseconds.
pub const RETRY_NS: u64 = 20_000_000;

const _: () = assert!(WINDOW <= WAITING_MAX);
