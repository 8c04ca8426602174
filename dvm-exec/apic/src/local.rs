//! One local APIC: xAPIC and x2APIC.
//!
//! Owns its registers, what it accepts, and which interrupt its processor takes next. Must not know other APICs: what is meant for
//! them is handed out as an [`Effect`].
//!
//! ```text
//! accept -> IRR --(class above PPR)--> poll_interrupt, acknowledge -> ISR --(EOI)--> gone, Effect::EndOfInterrupt if level
//! ```

pub mod registers;

use crate::command::{Command, Signal};
use crate::directory::{Identity, Model};
use crate::timer::{Deadline, Now, Timer};
use crate::vectors::Vectors;

/// What a write of a register asks of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send it.
    Send(Command),
    /// Tell the I/O APIC of the end of a level interrupt.
    EndOfInterrupt {
        /// Its vector.
        vector: u8,
    },
    /// Tell the directory of every host before the processor goes on.
    Renamed,
    /// Nothing.
    None,
}

/// A register that is not there, or a value it does not take: the processor gets #GP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault;

/// What stands in the base register as the mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Off,
    Narrow,
    Wide,
}

/// What reached the processor beside vectors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Latched {
    is_nmi: bool,
    is_init: bool,
    startup: Option<u8>,
}

/// What the processor does next that is no vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Resets itself and waits for its start.
    Reset,
    /// Starts in real mode at this page.
    Start {
        /// Number of the page.
        page: u8,
    },
    /// Takes an NMI.
    Nmi,
}

/// Entries of the local vector table, in the order of their registers from 0x320.
const LVT_TIMER: usize = 0;
const LVT_ERROR: usize = 5;
const LVT_MASKED: u32 = 1 << 16;
/// Bits of each that can be written: timer, thermal, performance, LINT0, LINT1, error.
const LVT_WRITABLE: [u32; 6] = [0x7_00ff, 0x1_07ff, 0x1_07ff, 0x1_a7ff, 0x1_a7ff, 0x1_00ff];
const SPURIOUS_ENABLED: u32 = 1 << 8;
const ERROR_SEND_ILLEGAL: u32 = 1 << 5;
const ERROR_RECEIVE_ILLEGAL: u32 = 1 << 6;
const ERROR_REGISTER: u32 = 1 << 7;

/// The state.
#[derive(Clone, Debug)]
pub struct LocalApic {
    id: u32,
    is_bootstrap: bool,
    mode: Mode,
    task_priority: u8,
    logical: u32,
    /// Destination format: flat if all ones in the highest four bits.
    format: u32,
    spurious: u32,
    requests: Vectors,
    in_service: Vectors,
    /// Vectors that came as level.
    levels: Vectors,
    errors_pending: u32,
    errors: u32,
    command_low: u32,
    command_high: u32,
    table: [u32; 6],
    timer: Timer,
    latched: Latched,
    waits_for_start: bool,
}

impl LocalApic {
    /// The APIC of processor `id` after power-on; the bootstrap processor runs, the others wait for their start.
    #[must_use]
    pub fn new(id: u32, is_bootstrap: bool) -> Self {
        Self {
            id,
            is_bootstrap,
            mode: Mode::Narrow,
            task_priority: 0,
            logical: 0,
            format: u32::MAX,
            spurious: 0xff,
            requests: Vectors::default(),
            in_service: Vectors::default(),
            levels: Vectors::default(),
            errors_pending: 0,
            errors: 0,
            command_low: 0,
            command_high: 0,
            table: [LVT_MASKED; 6],
            timer: Timer::default(),
            latched: Latched::default(),
            waits_for_start: !is_bootstrap,
        }
    }

    /// By what it is known.
    #[must_use]
    pub fn identity(&self) -> Identity {
        let model = match self.mode {
            Mode::Off => Model::Off,
            Mode::Narrow if self.format >> 28 == 15 => Model::Flat,
            Mode::Narrow => Model::Cluster,
            Mode::Wide => Model::Wide,
        };
        let logical = if self.mode == Mode::Wide { Identity::wide_logical(self.id) } else { self.logical };
        Identity { id: self.id, logical, model }
    }

    /// Something reaches this processor. True if it may have to be woken.
    pub fn accept(&mut self, signal: Signal) -> bool {
        match signal {
            Signal::Interrupt { vector, is_level } => return self.accept_vector(vector, is_level),
            Signal::Nmi => self.latched.is_nmi = !self.waits_for_start || self.latched.is_nmi,
            Signal::Init => {
                // What was under way before a reset is forgotten by it.
                self.latched = Latched { is_init: true, ..Latched::default() };
            }
            Signal::Startup { page } => {
                if !self.waits_for_start && !self.latched.is_init {
                    return false;
                }
                self.latched.startup.get_or_insert(page);
            }
        }
        true
    }

    fn accept_vector(&mut self, vector: u8, is_level: bool) -> bool {
        if vector < 16 {
            self.raise_error(ERROR_RECEIVE_ILLEGAL);
            return false;
        }
        if !self.is_enabled() {
            return false;
        }
        if is_level {
            self.levels.insert(vector);
        } else {
            self.levels.remove(vector);
        }
        self.requests.insert(vector)
    }

    /// What is to be done before any vector.
    pub fn poll_order(&mut self) -> Option<Order> {
        if std::mem::take(&mut self.latched.is_init) {
            self.reset();
            return Some(Order::Reset);
        }
        if self.waits_for_start {
            let page = self.latched.startup.take()?;
            self.waits_for_start = false;
            return Some(Order::Start { page });
        }
        std::mem::take(&mut self.latched.is_nmi).then_some(Order::Nmi)
    }

    /// Whether the processor does not run until it is told to.
    #[must_use]
    pub fn waits_for_start(&self) -> bool {
        self.waits_for_start
    }

    /// Whether a processor that halted goes on.
    #[must_use]
    pub fn is_wakeful(&self) -> bool {
        let Latched { is_nmi, is_init, startup } = self.latched;
        is_nmi || is_init || startup.is_some() || self.poll_interrupt().is_some()
    }

    /// The vector that the processor may take now.
    #[must_use]
    pub fn poll_interrupt(&self) -> Option<u8> {
        self.requests.highest().filter(|vector| self.is_enabled() && class(*vector) > class(self.processor_priority()))
    }

    /// The processor takes that vector.
    pub fn acknowledge(&mut self) -> Option<u8> {
        let vector = self.poll_interrupt()?;
        self.requests.remove(vector);
        self.in_service.insert(vector);
        Some(vector)
    }

    /// Whether nobody waits for the end of the interrupt that the processor is in: no other vector, and no I/O APIC.
    #[must_use]
    pub fn may_end_silently(&self) -> bool {
        let only = self.in_service.only().filter(|vector| !self.levels.contains(*vector));
        only.is_some() && self.requests.highest().is_none()
    }

    /// The processor has ended it without a write of the register, which it may where [`LocalApic::may_end_silently`].
    pub fn end_silently(&mut self) -> Effect {
        self.end_of_interrupt()
    }

    /// The task priority as control register 8 shows it.
    #[must_use]
    pub fn control_register(&self) -> u8 {
        self.task_priority >> 4
    }

    /// The guest wrote control register 8.
    pub fn set_control_register(&mut self, value: u8) {
        if value != self.control_register() {
            self.task_priority = value << 4;
        }
    }

    /// When [`LocalApic::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Deadline> {
        self.timer.poll_timeout()
    }

    /// Time has passed. True if the processor may have to be woken.
    pub fn handle_timeout(&mut self, now: Now) -> bool {
        if !self.timer.handle_timeout(now) {
            return false;
        }
        let entry = self.table[LVT_TIMER];
        entry & LVT_MASKED == 0 && self.accept_vector(entry as u8, false)
    }

    /// The base register.
    #[must_use]
    pub fn base(&self) -> u64 {
        let mode = match self.mode {
            Mode::Off => 0,
            Mode::Narrow => 1 << 11,
            Mode::Wide => 3 << 10,
        };
        BASE_ADDRESS | u64::from(self.is_bootstrap) << 8 | mode
    }

    /// The guest writes the base register.
    ///
    /// # Errors
    /// A change of mode that the architecture forbids, or another address.
    pub fn set_base(&mut self, value: u64) -> Result<Effect, Fault> {
        let wanted = match (value >> 10) & 3 {
            0 => Mode::Off,
            2 => Mode::Narrow,
            3 => Mode::Wide,
            _ => return Err(Fault),
        };
        let is_forbidden = matches!((self.mode, wanted), (Mode::Wide, Mode::Narrow) | (Mode::Off, Mode::Wide));
        if is_forbidden || value & !0xd00 != BASE_ADDRESS {
            return Err(Fault);
        }
        if wanted == self.mode {
            return Ok(Effect::None);
        }
        if self.mode == Mode::Off || wanted == Mode::Off {
            let (waits, latched) = (self.waits_for_start, self.latched);
            self.reset();
            (self.waits_for_start, self.latched) = (waits, latched);
        }
        self.mode = wanted;
        Ok(Effect::Renamed)
    }

    /// What INIT does: all but the number and the mode is as after power-on.
    fn reset(&mut self) {
        let latched = self.latched;
        *self = Self { mode: self.mode, latched, ..Self::new(self.id, self.is_bootstrap) };
        // The bootstrap processor, too, starts by the ROM after an INIT; here there is none, so it waits like all others.
        self.waits_for_start = true;
    }

    fn is_enabled(&self) -> bool {
        self.mode != Mode::Off && self.spurious & SPURIOUS_ENABLED != 0
    }

    fn processor_priority(&self) -> u8 {
        let serviced = self.in_service.highest().unwrap_or(0);
        if class(self.task_priority) >= class(serviced) { self.task_priority } else { serviced & 0xf0 }
    }

    fn raise_error(&mut self, error: u32) {
        let is_new = self.errors_pending & error == 0;
        self.errors_pending |= error;
        let entry = self.table[LVT_ERROR];
        // An error entry with an illegal vector must not raise itself again.
        if is_new && entry & LVT_MASKED == 0 && entry as u8 >= 16 {
            self.accept_vector(entry as u8, false);
        }
    }

    fn end_of_interrupt(&mut self) -> Effect {
        let Some(vector) = self.in_service.highest() else { return Effect::None };
        self.in_service.remove(vector);
        if self.levels.contains(vector) { Effect::EndOfInterrupt { vector } } else { Effect::None }
    }
}

/// Where the registers lie for a guest in xAPIC mode, on every processor.
pub const BASE_ADDRESS: u64 = 0xfee0_0000;

const fn class(vector: u8) -> u8 {
    vector >> 4
}
