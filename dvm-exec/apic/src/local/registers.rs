//! The registers of a local APIC as the guest addresses them: a page in xAPIC mode, model-specific registers in x2APIC mode.
//!
//! Owns addresses, widths and what may be written where. Must not decide what is delivered.

use super::{
    ERROR_REGISTER, ERROR_SEND_ILLEGAL, Effect, Fault, LVT_MASKED, LVT_TIMER, LVT_WRITABLE, LocalApic, Mode, SPURIOUS_ENABLED,
};
use crate::command::{Command, Target, Width};
use crate::timer::{Now, TimerMode};

/// First of the registers of x2APIC mode, and how many there are.
pub const MSR_FIRST: u32 = 0x800;
/// Their number.
pub const MSR_COUNT: u32 = 0x100;
/// The deadline of the timer.
pub const MSR_TSC_DEADLINE: u32 = 0x6e0;
/// The base register.
pub const MSR_BASE: u32 = 0x1b;

const ID: u32 = 0x020;
const VERSION: u32 = 0x030;
const TASK_PRIORITY: u32 = 0x080;
const ARBITRATION_PRIORITY: u32 = 0x090;
const PROCESSOR_PRIORITY: u32 = 0x0a0;
const END_OF_INTERRUPT: u32 = 0x0b0;
const LOGICAL: u32 = 0x0d0;
const FORMAT: u32 = 0x0e0;
const SPURIOUS: u32 = 0x0f0;
const ERRORS: u32 = 0x280;
const COMMAND_LOW: u32 = 0x300;
const COMMAND_HIGH: u32 = 0x310;
const TABLE_FIRST: u32 = 0x320;
const TABLE_LAST: u32 = 0x370;
const INITIAL_COUNT: u32 = 0x380;
const CURRENT_COUNT: u32 = 0x390;
const DIVIDE: u32 = 0x3e0;
const SELF_COMMAND: u32 = 0x3f0;
/// Integrated APIC, six entries in its table.
const VERSION_VALUE: u32 = 0x0005_0014;
/// Delivery status and what is reserved cannot be written.
const COMMAND_WRITABLE: u32 = 0x000c_cfff;

impl LocalApic {
    /// The guest reads `data.len()` bytes at `offset` of the page.
    pub fn read_bytes(&mut self, offset: u32, data: &mut [u8], now: Now) {
        let within = (offset & 15) as usize;
        let value = match self.mode {
            Mode::Narrow if within + data.len() <= 4 => self.read(offset & !15, now).to_le_bytes(),
            Mode::Narrow | Mode::Off | Mode::Wide => [0xff; 4],
        };
        for (index, byte) in data.iter_mut().enumerate() {
            *byte = value.get((within + index) % 4).copied().unwrap_or(0);
        }
    }

    /// The guest writes `data` at `offset` of the page; only whole aligned registers are taken.
    pub fn write_bytes(&mut self, offset: u32, data: &[u8], now: Now) -> Effect {
        match <[u8; 4]>::try_from(data) {
            Ok(bytes) if offset & 15 == 0 && self.mode == Mode::Narrow => self.write(offset, u32::from_le_bytes(bytes), now),
            Ok(_) | Err(_) => Effect::None,
        }
    }

    /// The register at `offset`, in xAPIC mode.
    pub fn read(&mut self, offset: u32, now: Now) -> u32 {
        match self.register(offset, now) {
            Some(value) => value,
            None => {
                self.raise_error(ERROR_REGISTER);
                0
            }
        }
    }

    fn register(&self, offset: u32, now: Now) -> Option<u32> {
        let index = ((offset >> 4) & 7) as usize;
        Some(match offset {
            ID if self.mode == Mode::Wide => self.id,
            ID => self.id << 24,
            VERSION => VERSION_VALUE,
            TASK_PRIORITY => u32::from(self.task_priority),
            ARBITRATION_PRIORITY | PROCESSOR_PRIORITY => u32::from(self.processor_priority()),
            END_OF_INTERRUPT => 0,
            LOGICAL => self.identity().logical,
            FORMAT => self.format,
            SPURIOUS => self.spurious,
            0x100..=0x17f => self.in_service.word(index),
            0x180..=0x1ff => self.levels.word(index),
            0x200..=0x27f => self.requests.word(index),
            ERRORS => self.errors,
            COMMAND_LOW => self.command_low,
            COMMAND_HIGH => self.command_high,
            TABLE_FIRST..=TABLE_LAST => self.table[((offset - TABLE_FIRST) >> 4) as usize],
            INITIAL_COUNT => self.timer.initial(),
            CURRENT_COUNT => self.timer.current(now),
            DIVIDE => self.timer.divide(),
            _ => return None,
        })
    }

    /// Writes the register at `offset`, in xAPIC mode.
    pub fn write(&mut self, offset: u32, value: u32, now: Now) -> Effect {
        match offset {
            // The number is the processor's own: kernels never change it.
            ID | VERSION | PROCESSOR_PRIORITY | ARBITRATION_PRIORITY | CURRENT_COUNT | 0x100..=0x27f => Effect::None,
            LOGICAL => self.rename(|apic| apic.logical = value & 0xff00_0000),
            FORMAT => self.rename(|apic| apic.format = value | 0x0fff_ffff),
            COMMAND_HIGH => {
                self.command_high = value & 0xff00_0000;
                Effect::None
            }
            COMMAND_LOW => {
                self.command_low = value & COMMAND_WRITABLE;
                self.send(self.command_high >> 24, Width::Narrow)
            }
            _ => match self.write_common(offset, value, now) {
                Some(effect) => effect,
                None => {
                    self.raise_error(ERROR_REGISTER);
                    Effect::None
                }
            },
        }
    }

    /// Registers that both modes write alike.
    fn write_common(&mut self, offset: u32, value: u32, now: Now) -> Option<Effect> {
        match offset {
            TASK_PRIORITY => self.task_priority = value as u8,
            END_OF_INTERRUPT => return Some(self.end_of_interrupt()),
            SPURIOUS => {
                self.spurious = value & 0x3ff;
                if value & SPURIOUS_ENABLED == 0 {
                    self.table.iter_mut().for_each(|entry| *entry |= LVT_MASKED);
                }
            }
            ERRORS => self.errors = std::mem::take(&mut self.errors_pending),
            TABLE_FIRST..=TABLE_LAST if offset & 15 == 0 => self.write_table(((offset - TABLE_FIRST) >> 4) as usize, value),
            INITIAL_COUNT => self.timer.set_initial(value, now),
            DIVIDE => self.timer.set_divide(value, now),
            _ => return None,
        }
        Some(Effect::None)
    }

    fn write_table(&mut self, index: usize, value: u32) {
        let masked = if self.spurious & SPURIOUS_ENABLED == 0 { LVT_MASKED } else { 0 };
        self.table[index] = value & LVT_WRITABLE[index] | masked;
        if index == LVT_TIMER {
            self.timer.set_mode(TimerMode::from_register(value));
        }
    }

    fn rename(&mut self, change: impl FnOnce(&mut Self)) -> Effect {
        let before = self.identity();
        change(self);
        if self.identity() == before { Effect::None } else { Effect::Renamed }
    }

    fn send(&mut self, destination: u32, width: Width) -> Effect {
        match Command::from_register(self.command_low, destination, width) {
            Some(command) if command.is_illegal() => {
                self.raise_error(ERROR_SEND_ILLEGAL);
                Effect::None
            }
            Some(command) => Effect::Send(command),
            None => Effect::None,
        }
    }

    /// The guest reads a register of x2APIC mode, the base or the deadline.
    ///
    /// # Errors
    /// There is none, or it can only be written.
    pub fn read_msr(&mut self, index: u32, now: Now) -> Result<u64, Fault> {
        match index {
            MSR_BASE => Ok(self.base()),
            MSR_TSC_DEADLINE => Ok(self.timer.tsc_deadline()),
            _ => match self.wide_offset(index)? {
                COMMAND_LOW => Ok(u64::from(self.command_high) << 32 | u64::from(self.command_low)),
                END_OF_INTERRUPT | SELF_COMMAND | COMMAND_HIGH | FORMAT | ARBITRATION_PRIORITY => Err(Fault),
                offset => self.register(offset, now).map(u64::from).ok_or(Fault),
            },
        }
    }

    /// The guest writes such a register.
    ///
    /// # Errors
    /// There is none, it can only be read, or it does not take the value.
    pub fn write_msr(&mut self, index: u32, value: u64, now: Now) -> Result<Effect, Fault> {
        match index {
            MSR_BASE => return self.set_base(value),
            MSR_TSC_DEADLINE => {
                self.timer.set_tsc_deadline(value);
                return Ok(Effect::None);
            }
            _ => {}
        }
        let offset = self.wide_offset(index)?;
        let (low, high) = (value as u32, (value >> 32) as u32);
        if offset == COMMAND_LOW {
            if low & !COMMAND_WRITABLE != 0 {
                return Err(Fault);
            }
            (self.command_low, self.command_high) = (low, high);
            return Ok(self.send(high, Width::Wide));
        }
        let reserved = match offset {
            TASK_PRIORITY | SELF_COMMAND => !0xff,
            END_OF_INTERRUPT | ERRORS => u32::MAX,
            SPURIOUS => !0x3ff,
            DIVIDE => !0b1011,
            TABLE_FIRST..=TABLE_LAST => !(LVT_WRITABLE[((offset - TABLE_FIRST) >> 4) as usize] | 1 << 12 | 1 << 14),
            _ => 0,
        };
        if high != 0 || low & reserved != 0 {
            return Err(Fault);
        }
        if offset == SELF_COMMAND {
            self.command_low = low | 1 << 18;
            return Ok(match self.send(0, Width::Wide) {
                Effect::Send(command) => Effect::Send(Command { target: Target::Oneself, ..command }),
                other => other,
            });
        }
        self.write_common(offset, low, now).ok_or(Fault)
    }

    fn wide_offset(&self, index: u32) -> Result<u32, Fault> {
        match index.checked_sub(MSR_FIRST) {
            Some(number) if number < MSR_COUNT && self.mode == Mode::Wide => Ok(number << 4),
            Some(_) | None => Err(Fault),
        }
    }
}
