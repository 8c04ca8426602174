//! The I/O APIC: lines of devices in, commands to local APICs out.
//!
//! Owns pins, the redirection table and what is under way of level interrupts. Must not know who serves a vector.

use crate::command::{Command, Mode, Target, Width};
use crate::limits::PINS;

/// Where its two registers lie.
pub const BASE_ADDRESS: u64 = 0xfec0_0000;
/// How much of the address space it answers.
pub const BYTES: u64 = 0x20;

const SELECT: u64 = 0x00;
const WINDOW: u64 = 0x10;
const VERSION_VALUE: u32 = 0x11 | (PINS as u32 - 1) << 16;
const LOGICAL: u64 = 1 << 11;
const REMOTE: u64 = 1 << 14;
const LEVEL: u64 = 1 << 15;
const MASKED: u64 = 1 << 16;
/// What the guest cannot write: delivery status and remote IRR, and what is reserved.
const WRITABLE: u64 = 0xff00_0000_0001_afff;

/// The state.
#[derive(Clone, Debug)]
pub struct IoApic {
    select: u8,
    id: u8,
    entries: [u64; PINS],
    asserted: u32,
}

impl Default for IoApic {
    fn default() -> Self {
        Self { select: 0, id: 0, entries: [MASKED; PINS], asserted: 0 }
    }
}

impl IoApic {
    /// The guest reads at `offset`.
    pub fn read_bytes(&self, offset: u64, data: &mut [u8]) {
        let value = match offset {
            SELECT => u32::from(self.select),
            WINDOW => self.register(),
            _ => 0,
        };
        data.fill(0);
        data.iter_mut().zip(value.to_le_bytes()).for_each(|(to, from)| *to = from);
    }

    /// The guest writes at `offset`; what is sent by that is handed out.
    pub fn write_bytes(&mut self, offset: u64, data: &[u8]) -> Option<Command> {
        let mut bytes = [0; 4];
        bytes.iter_mut().zip(data).for_each(|(to, from)| *to = *from);
        let value = u32::from_le_bytes(bytes);
        match offset {
            SELECT => {
                self.select = value as u8;
                None
            }
            WINDOW => self.write_register(value),
            _ => None,
        }
    }

    fn register(&self) -> u32 {
        match (self.select, self.selected()) {
            (0 | 2, _) => u32::from(self.id) << 24,
            (1, _) => VERSION_VALUE,
            (select, Some(pin)) => (self.entries[pin] >> (u32::from(select & 1) * 32)) as u32,
            (_, None) => 0,
        }
    }

    fn write_register(&mut self, value: u32) -> Option<Command> {
        let Some(pin) = self.selected() else {
            if self.select == 0 {
                self.id = (value >> 24) as u8 & 15;
            }
            return None;
        };
        let (entry, value) = (self.entries[pin], u64::from(value));
        let whole = if self.select & 1 == 0 { entry & !0xffff_ffff | value } else { entry & 0xffff_ffff | value << 32 };
        self.entries[pin] = whole & WRITABLE | entry & REMOTE;
        if whole & LEVEL == 0 {
            self.entries[pin] &= !REMOTE;
        }
        self.serve_level(pin)
    }

    fn selected(&self) -> Option<usize> {
        let pin = usize::from(self.select.checked_sub(0x10)?) / 2;
        (pin < PINS).then_some(pin)
    }

    /// A device asserts its line or lets go of it; a pin that there is not is none.
    pub fn set_line(&mut self, pin: usize, is_asserted: bool) -> Option<Command> {
        let entry = *self.entries.get(pin)?;
        let was_asserted = self.asserted & 1 << pin != 0;
        if is_asserted {
            self.asserted |= 1 << pin;
        } else {
            self.asserted &= !(1 << pin);
        }
        if entry & LEVEL != 0 {
            return self.serve_level(pin);
        }
        (is_asserted && !was_asserted && entry & MASKED == 0).then(|| command(entry))
    }

    /// A processor has ended the level interrupt `vector`; lines that are asserted still come again: gives them with their pins.
    pub fn end_of_interrupt(&mut self, vector: u8) -> Vec<(usize, Command)> {
        let mut again = Vec::new();
        for pin in 0..PINS {
            let entry = self.entries[pin];
            if entry & (LEVEL | REMOTE) == LEVEL | REMOTE && entry as u8 == vector {
                self.entries[pin] &= !REMOTE;
                again.extend(self.serve_level(pin).map(|command| (pin, command)));
            }
        }
        again
    }

    fn serve_level(&mut self, pin: usize) -> Option<Command> {
        let entry = self.entries[pin];
        let is_due = self.asserted & 1 << pin != 0 && entry & (LEVEL | MASKED | REMOTE) == LEVEL;
        is_due.then(|| {
            self.entries[pin] |= REMOTE;
            command(entry)
        })
    }
}

fn command(entry: u64) -> Command {
    let destination = (entry >> 56) as u32;
    let target = if entry & LOGICAL == 0 {
        Target::Physical(destination, Width::Narrow)
    } else {
        Target::Logical(destination, Width::Narrow)
    };
    let mode = match Mode::from_bits((entry >> 8) as u32) {
        // A device starts no processor.
        Mode::Startup => Mode::Nothing,
        mode => mode,
    };
    Command { mode, vector: entry as u8, is_level: entry & LEVEL != 0, target }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(apic: &mut IoApic, pin: u8, entry: u64) -> Vec<Command> {
        let mut sent = Vec::new();
        for (half, value) in [(1, entry >> 32), (0, entry)] {
            sent.extend(apic.write_bytes(SELECT, &[0x10 + pin * 2 + half, 0, 0, 0]));
            sent.extend(apic.write_bytes(WINDOW, &(value as u32).to_le_bytes()));
        }
        sent
    }

    fn entry(apic: &mut IoApic, pin: u8) -> u64 {
        let mut half = |half| {
            assert_eq!(apic.write_bytes(SELECT, &[0x10 + pin * 2 + half]), None);
            let mut data = [0; 4];
            apic.read_bytes(WINDOW, &mut data);
            u64::from(u32::from_le_bytes(data))
        };
        half(1) << 32 | half(0)
    }

    #[test]
    fn edges_come_once() {
        let mut apic = IoApic::default();
        assert_eq!(apic.set_line(4, true), None, "masked");
        assert_eq!(apic.set_line(4, false), None);
        assert_eq!(program(&mut apic, 4, 0x0300_0000_0000_0034), []);
        let sent = apic.set_line(4, true).unwrap();
        assert_eq!((sent.vector, sent.is_level, sent.target), (0x34, false, Target::Physical(3, Width::Narrow)));
        assert_eq!(apic.set_line(4, true), None);
        assert_eq!(apic.set_line(4, false), None);
        assert!(apic.set_line(4, true).is_some());
        assert_eq!(apic.set_line(24, true), None, "no such pin");
    }

    #[test]
    fn levels_come_again_until_the_line_falls() {
        let mut apic = IoApic::default();
        assert_eq!(program(&mut apic, 9, LEVEL | LOGICAL | 0x0100_0000_0000_0059), []);
        let sent = apic.set_line(9, true).unwrap();
        assert_eq!((sent.vector, sent.is_level, sent.target), (0x59, true, Target::Logical(1, Width::Narrow)));
        assert_eq!(entry(&mut apic, 9) & REMOTE, REMOTE);
        assert_eq!((apic.set_line(9, true), apic.set_line(9, false), apic.set_line(9, true)), (None, None, None), "under way");
        assert_eq!(apic.end_of_interrupt(0x58), []);
        assert_eq!(apic.end_of_interrupt(0x59), [(9, sent)]);
        assert_eq!(apic.set_line(9, false), None);
        assert_eq!(apic.end_of_interrupt(0x59), []);
        assert_eq!(entry(&mut apic, 9) & REMOTE, 0);
        // Asserted while masked: comes when unmasked.
        assert_eq!(program(&mut apic, 9, LEVEL | MASKED | 0x59), []);
        assert_eq!(apic.set_line(9, true), None);
        assert_eq!(program(&mut apic, 9, LEVEL | 0x59).len(), 1);
    }

    #[test]
    fn identification() {
        let mut apic = IoApic::default();
        let mut data = [0; 4];
        assert_eq!(apic.write_bytes(SELECT, &[1]), None);
        apic.read_bytes(WINDOW, &mut data);
        assert_eq!(u32::from_le_bytes(data), 0x0017_0011);
    }
}
