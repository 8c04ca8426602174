//! One guest on this host: its processors' APICs, its devices, and what goes between them.
//!
//! Owns the routing of interrupts, accesses to devices, and time. Must not call KVM: that is for the processors' threads.

use super::devices::{Devices, Outcome};
use super::failure::Failure;
use super::life::Life;
use crate::sys::vm::{Kicker, timestamp};
use dvm_apic::{Command, Deadline, Directory, Effect, LocalApic, Now, Signal};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How long the clock's thread sleeps when no timer runs.
const IDLE: Duration = Duration::from_secs(3600);

/// A guest.
pub struct Machine {
    /// Its processors.
    pub processors: Vec<Processor>,
    /// Where in its life it is.
    pub life: Life,
    directory: Mutex<Directory>,
    devices: Mutex<Devices>,
    clock: Clock,
}

/// One processor, as others see it.
pub struct Processor {
    apic: Mutex<LocalApic>,
    /// It waits to be started or woken.
    wake: Condvar,
    kicker: OnceLock<Kicker>,
    /// What it has done.
    pub figures: Figures,
}

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

struct Clock {
    start: Instant,
    /// What the guest's time-stamp counter is ahead of this host's.
    tsc_offset: AtomicU64,
    tsc_khz: u64,
    is_changed: Mutex<bool>,
    changed: Condvar,
}

impl Processor {
    /// Its APIC.
    pub fn apic(&self) -> MutexGuard<'_, LocalApic> {
        self.apic.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread that calls this runs it.
    pub fn set_kicker(&self, kicker: Kicker) {
        self.kicker.get_or_init(|| kicker);
    }

    /// Before the processor looks what there is to do.
    pub fn look(&self) {
        if let Some(kicker) = self.kicker.get() {
            kicker.clear();
        }
    }

    /// It has to look what there is to do.
    pub fn rouse(&self) {
        // Whoever waits holds the APIC while it looks, so the news cannot fall between.
        drop(self.apic());
        self.wake.notify_all();
        if let Some(kicker) = self.kicker.get() {
            kicker.kick();
        }
    }

    /// Waits with its APIC, which others may use meanwhile.
    pub fn wait<'a>(&'a self, apic: MutexGuard<'a, LocalApic>) -> MutexGuard<'a, LocalApic> {
        self.wake.wait(apic).unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds one to a figure.
pub fn count(figure: &AtomicU64) {
    figure.fetch_add(1, Ordering::Relaxed);
}

impl Machine {
    /// A guest with so many processors, of which the first boots.
    pub fn new(processors: usize, devices: Devices, tsc_khz: u64) -> Self {
        let apics: Vec<_> = (0..processors).map(|cpu| LocalApic::new(cpu as u32, cpu == 0)).collect();
        let directory = Directory::new(apics.iter().map(LocalApic::identity).collect());
        let processor = |apic| Processor {
            apic: Mutex::new(apic),
            wake: Condvar::new(),
            kicker: OnceLock::new(),
            figures: Figures::default(),
        };
        Self {
            processors: apics.into_iter().map(processor).collect(),
            life: Life::default(),
            directory: Mutex::new(directory),
            devices: Mutex::new(devices),
            clock: Clock {
                start: Instant::now(),
                tsc_offset: AtomicU64::new(0),
                tsc_khz,
                is_changed: Mutex::new(false),
                changed: Condvar::new(),
            },
        }
    }

    /// The guest's time.
    pub fn now(&self) -> Now {
        let tsc = timestamp().wrapping_add(self.clock.tsc_offset.load(Ordering::Relaxed));
        Now { ns: self.clock.start.elapsed().as_nanos() as u64, tsc }
    }

    /// What the guest's time-stamp counter is ahead of this host's.
    pub fn set_tsc_offset(&self, offset: u64) {
        self.clock.tsc_offset.store(offset, Ordering::Relaxed);
    }

    fn devices(&self) -> MutexGuard<'_, Devices> {
        self.devices.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every processor has to look what there is to do: the stage of life has changed.
    pub fn rouse_all(&self) {
        self.processors.iter().for_each(Processor::rouse);
    }

    /// The guest ended itself.
    pub fn stop(&self, status: u8) {
        if self.life.stop(status) {
            self.rouse_all();
        }
    }

    /// The guest is ended.
    pub fn fail(&self, failure: Failure) {
        if self.life.fail(failure) {
            self.rouse_all();
        }
    }

    /// `signal` reaches processor `cpu`; one that asks for it itself looks anyway.
    fn deliver(&self, cpu: usize, signal: Signal, sender: Option<usize>) {
        let Some(processor) = self.processors.get(cpu) else { return };
        if processor.apic().accept(signal) && sender != Some(cpu) {
            processor.rouse();
        }
    }

    fn send(&self, command: &Command, sender: Option<usize>) {
        let Some(signal) = command.signal() else { return };
        let meant = self.directory.lock().unwrap_or_else(PoisonError::into_inner).resolve(command, sender);
        for cpu in meant {
            self.deliver(cpu, signal, sender);
        }
    }

    fn send_all(&self, commands: &[Command]) {
        commands.iter().for_each(|command| self.send(command, None));
    }

    /// What a write of processor `cpu` to its APIC asks of others.
    fn perform(&self, cpu: usize, effect: Effect) {
        match effect {
            Effect::Send(command) => {
                count(&self.processors[cpu].figures.sent);
                self.send(&command, Some(cpu));
            }
            Effect::EndOfInterrupt { vector } => {
                let again = self.devices().end_of_interrupt(vector);
                self.send_all(&again);
            }
            Effect::Renamed => self.rename(cpu),
            Effect::None => {}
        }
    }

    /// Everybody learns how processor `cpu` is named now.
    pub fn rename(&self, cpu: usize) {
        let identity = self.processors[cpu].apic().identity();
        self.directory.lock().unwrap_or_else(PoisonError::into_inner).set(cpu, identity);
    }

    /// Processor `cpu` does something to its APIC.
    fn change<T>(&self, cpu: usize, change: impl FnOnce(&mut LocalApic, Now) -> (T, Effect)) -> T {
        let mut apic = self.processors[cpu].apic();
        let before = apic.poll_timeout();
        let (value, effect) = change(&mut apic, self.now());
        let is_timer_changed = apic.poll_timeout() != before;
        drop(apic);
        if is_timer_changed {
            self.clock.rewind();
        }
        self.perform(cpu, effect);
        value
    }

    /// Processor `cpu` reads a model-specific register; none if there is no such register.
    pub fn read_register(&self, cpu: usize, index: u32) -> Option<u64> {
        self.change(cpu, |apic, now| (apic.read_msr(index, now).ok(), Effect::None))
    }

    /// Processor `cpu` writes one; false if it cannot.
    pub fn write_register(&self, cpu: usize, index: u32, value: u64) -> bool {
        self.change(cpu, |apic, now| match apic.write_msr(index, value, now) {
            Ok(effect) => (true, effect),
            Err(_) => (false, Effect::None),
        })
    }

    /// Processor `cpu` reads an address that is not memory; false if nothing is there.
    pub fn read(&self, cpu: usize, address: u64, data: &mut [u8]) -> bool {
        match apic_offset(address) {
            Some(offset) => {
                self.change(cpu, |apic, now| (apic.read_bytes(offset, data, now), Effect::None));
                true
            }
            None => self.devices().read(address, data),
        }
    }

    /// Processor `cpu` writes to one; false if nothing is there.
    pub fn write(&self, cpu: usize, address: u64, data: &[u8]) -> bool {
        match apic_offset(address) {
            Some(offset) => {
                self.change(cpu, |apic, now| ((), apic.write_bytes(offset, data, now)));
                true
            }
            None => {
                let outcome = self.devices().write(address, data);
                self.conclude(outcome)
            }
        }
    }

    /// A processor reads a port.
    pub fn port_in(&self, port: u16, data: &mut [u8]) {
        let sent = self.devices().port_in(port, data);
        self.send_all(&sent);
    }

    /// A processor writes a port.
    pub fn port_out(&self, port: u16, data: &[u8]) {
        let outcome = self.devices().port_out(port, data);
        self.conclude(outcome);
    }

    fn conclude(&self, outcome: Outcome) -> bool {
        match outcome {
            Outcome::Sends(commands) => self.send_all(&commands),
            Outcome::Shutdown(status) => self.stop(status),
            Outcome::Nowhere => return false,
        }
        true
    }

    /// Input for the serial line; waits while the guest takes none.
    pub fn type_in(&self, mut bytes: &[u8]) {
        const PAUSE: Duration = Duration::from_millis(2);
        while !bytes.is_empty() && !self.life.is_over() {
            let (taken, sent) = self.devices().type_in(bytes);
            self.send_all(&sent);
            bytes = bytes.get(taken..).unwrap_or_default();
            if taken == 0 {
                std::thread::sleep(PAUSE);
            }
        }
    }

    /// The clock's thread: looks after all timers until the guest is over.
    pub fn keep_time(&self) {
        while !self.life.is_over() {
            let now = self.now();
            let mut next = IDLE;
            for processor in &self.processors {
                let mut apic = processor.apic();
                let is_due = apic.handle_timeout(now);
                if let Some(deadline) = apic.poll_timeout() {
                    next = next.min(self.clock.until(deadline, now));
                }
                drop(apic);
                if is_due {
                    processor.rouse();
                }
            }
            self.clock.sleep(next);
        }
    }
}

impl Clock {
    /// A timer has changed.
    fn rewind(&self) {
        *self.is_changed.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    fn sleep(&self, longest: Duration) {
        let is_changed = self.is_changed.lock().unwrap_or_else(PoisonError::into_inner);
        let mut slept = self
            .changed
            .wait_timeout_while(is_changed, longest, |is_changed| !*is_changed)
            .unwrap_or_else(PoisonError::into_inner);
        *slept.0 = false;
    }

    fn until(&self, deadline: Deadline, now: Now) -> Duration {
        match deadline {
            Deadline::Ns(at) => Duration::from_nanos(at.saturating_sub(now.ns)),
            Deadline::Tsc(at) => {
                let ticks = u128::from(at.saturating_sub(now.tsc));
                let ns = ticks * 1_000_000 / u128::from(self.tsc_khz.max(1));
                Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX)).min(IDLE)
            }
        }
    }
}

fn apic_offset(address: u64) -> Option<u32> {
    let offset = address.checked_sub(dvm_apic::local::BASE_ADDRESS)?;
    (offset < super::layout::PAGE).then_some(offset as u32)
}
