//! What machine code and we tell each other: the frame that it is called with.
//!
//! Owns the layout. Must not know what is in the fields.

/// A frame; the sites of the unit follow it.
#[derive(Debug)]
#[repr(C)]
pub struct Frame {
    /// The register window.
    pub window: *mut u64,
    /// Instructions that may still be executed.
    pub left: u64,
    /// The address of the next instruction.
    pub pc: u64,
    /// The address of the instruction executed last.
    pub last: u64,
    /// For those that are called by machine code.
    pub runtime: *mut u8,
    /// Stored to and never read.
    pub unread: u64,
}

/// What a place that accesses memory knows of it, in this run.
///
/// Machine code takes `address - base`; if that is below `room`, all bytes of the site lie from that distance behind `host` on. A
/// site with a constant address has the first of its bytes at `host`, once that is not 0.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct SiteState {
    /// The first address of the region.
    pub base: u64,
    /// How far behind it the site may begin, and one more; 0 if nothing is known.
    pub room: u64,
    /// Where the region is in this process.
    pub host: u64,
}

/// Offsets for machine code.
pub mod offset {
    use super::{Frame, SiteState};
    use std::mem::{offset_of, size_of};

    /// Of the register window.
    pub const WINDOW: i32 = offset_of!(Frame, window) as i32;
    /// Of the fuel.
    pub const LEFT: i32 = offset_of!(Frame, left) as i32;
    /// Of the next instruction.
    pub const PC: i32 = offset_of!(Frame, pc) as i32;
    /// Of the last instruction.
    pub const LAST: i32 = offset_of!(Frame, last) as i32;
    /// Of what nobody reads.
    pub const UNREAD: i32 = offset_of!(Frame, unread) as i32;
    const SITES: usize = size_of::<Frame>();

    /// Base, room and host of a site.
    pub const fn site(index: usize) -> [i32; 3] {
        let at = SITES + index * size_of::<SiteState>();
        [
            (at + offset_of!(SiteState, base)) as i32,
            (at + offset_of!(SiteState, room)) as i32,
            (at + offset_of!(SiteState, host)) as i32,
        ]
    }
}

/// Why machine code came back.
pub mod status {
    /// The instruction at `pc` is the interpreter's.
    pub const SURRENDER: u64 = 0;
    /// It jumped out of the unit.
    pub const LEFT: u64 = 1;
    /// The runner has ended, or has to be looked at anew.
    pub const ENDED: u64 = 2;
}
