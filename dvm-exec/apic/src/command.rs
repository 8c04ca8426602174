//! What an interrupt command register, or a pin of the I/O APIC, asks for.
//!
//! Owns the layout of the command and what reaches a processor of it. Must not know who is meant: that is the directory's.

/// A command on its way to processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command {
    /// What is to happen there.
    pub mode: Mode,
    /// Vector, or page number of the start.
    pub vector: u8,
    /// The line stays asserted until the end of the interrupt.
    pub is_level: bool,
    /// To whom.
    pub target: Target,
}

/// To whom a command goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The sender.
    Oneself,
    /// All, the sender too.
    All,
    /// All but the sender.
    Others,
    /// By the number of the APIC; the width says how a broadcast looks.
    Physical(u32, Width),
    /// By the logical number that the guest gave it.
    Logical(u32, Width),
}

/// How wide a destination is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// Eight bits: xAPIC and I/O APIC.
    Narrow,
    /// 32 bits: x2APIC.
    Wide,
}

/// The delivery mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A vector for all that are meant.
    Fixed,
    /// A vector for one of those that are meant.
    LowestPriority,
    /// Not maskable.
    Nmi,
    /// Resets the processor, which then waits for its start.
    Init,
    /// Starts a processor that waits for it.
    Startup,
    /// System management, external controller, and what is reserved: nobody is reached.
    Nothing,
}

/// What reaches one processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// A maskable interrupt.
    Interrupt {
        /// Its vector.
        vector: u8,
        /// Its end is to be told to the I/O APIC.
        is_level: bool,
    },
    /// Not maskable.
    Nmi,
    /// Reset, then wait for the start.
    Init,
    /// Start at this page, in real mode.
    Startup {
        /// Number of the page.
        page: u8,
    },
}

impl Mode {
    /// The three bits of the delivery mode.
    #[must_use]
    pub fn from_bits(bits: u32) -> Self {
        match bits & 7 {
            0 => Self::Fixed,
            1 => Self::LowestPriority,
            4 => Self::Nmi,
            5 => Self::Init,
            6 => Self::Startup,
            _ => Self::Nothing,
        }
    }
}

impl Command {
    /// What a write of the interrupt command register asks for; nothing, if the guest only takes INIT back.
    #[must_use]
    pub fn from_register(low: u32, destination: u32, width: Width) -> Option<Self> {
        const LEVEL_ASSERT: u32 = 1 << 14;
        const TRIGGER_LEVEL: u32 = 1 << 15;
        const LOGICAL: u32 = 1 << 11;
        let mode = Mode::from_bits(low >> 8);
        if mode == Mode::Init && low & TRIGGER_LEVEL != 0 && low & LEVEL_ASSERT == 0 {
            return None;
        }
        let target = match (low >> 18) & 3 {
            0 if low & LOGICAL != 0 => Target::Logical(destination, width),
            0 => Target::Physical(destination, width),
            1 => Target::Oneself,
            2 => Target::All,
            _ => Target::Others,
        };
        // Between processors every vector is an edge, whatever the register says.
        Some(Self { mode, vector: low as u8, is_level: false, target })
    }

    /// Whether the vector is one that no processor accepts.
    #[must_use]
    pub fn is_illegal(&self) -> bool {
        matches!(self.mode, Mode::Fixed | Mode::LowestPriority) && self.vector < 16
    }

    /// What reaches each processor that is meant.
    #[must_use]
    pub fn signal(&self) -> Option<Signal> {
        match self.mode {
            Mode::Fixed | Mode::LowestPriority => Some(Signal::Interrupt { vector: self.vector, is_level: self.is_level }),
            Mode::Nmi => Some(Signal::Nmi),
            Mode::Init => Some(Signal::Init),
            Mode::Startup => Some(Signal::Startup { page: self.vector }),
            Mode::Nothing => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_of_a_kernel_at_start() {
        #[track_caller]
        fn check(low: u32, mode: Mode, target: Target) {
            let command = Command::from_register(low, 3, Width::Narrow).unwrap();
            assert_eq!((command.mode, command.target), (mode, target), "{low:#x}");
        }
        let third = Target::Physical(3, Width::Narrow);
        check(0x0000_4500, Mode::Init, third);
        check(0x0000_c500, Mode::Init, third);
        check(0x0000_4608, Mode::Startup, third);
        check(0x0000_08fd, Mode::Fixed, Target::Logical(3, Width::Narrow));
        check(0x0004_00fd, Mode::Fixed, Target::Oneself);
        check(0x0008_00fd, Mode::Fixed, Target::All);
        check(0x000c_0400, Mode::Nmi, Target::Others);
        check(0x000c_0200, Mode::Nothing, Target::Others);
        assert_eq!(Command::from_register(0x0000_8500, 3, Width::Narrow), None, "INIT taken back");
        assert!(Command::from_register(0x0000_000f, 3, Width::Narrow).unwrap().is_illegal());
    }
}
