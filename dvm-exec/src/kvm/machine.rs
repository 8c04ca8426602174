//! One guest on this host: its processors' APICs, its devices, and what goes between them.
//!
//! Owns the routing of interrupts, accesses to devices, and time. Must not call KVM: that is for the processors' threads.

use super::boot::Shape;
use super::devices::{Devices, Outcome};
use super::failure::Failure;
use super::life::Life;
use super::message::Access;
use crate::sys::vm::{Kicker, timestamp};
use dvm_apic::{Command, Deadline, Directory, Effect, Identity, LocalApic, Now, Signal};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How long the clock's thread sleeps when no timer runs.
const IDLE: Duration = Duration::from_secs(3600);

/// A guest, as this host has it.
pub struct Machine {
    /// Its processors; of those of other hosts only the places.
    pub processors: Vec<Processor>,
    /// Where in its life it is.
    pub life: Life,
    /// The host of each processor, and this one.
    hosts: Vec<u16>,
    here: u16,
    directory: Mutex<Directory>,
    /// None on a host that has none.
    devices: Option<Mutex<Devices>>,
    elsewhere: Option<Box<dyn Elsewhere>>,
    clock: Clock,
}

/// The other hosts of a guest.
pub trait Elsewhere: Send + Sync {
    /// `signal` is for processor `cpu` of `host`.
    fn deliver(&self, cpu: usize, host: u16, signal: Signal);

    /// Processor `cpu` of this host is named so now; returns when all know.
    fn rename(&self, cpu: usize, identity: Identity);

    /// A level interrupt has ended; the devices are there.
    fn end_of_interrupt(&self, vector: u8);

    /// Uses a device there: whether it is one, and what was read.
    fn access(&self, access: Access) -> (bool, Vec<u8>);
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
    /// A guest of this shape. The first of its processors boots.
    pub fn new(shape: &Shape, devices: Option<Devices>, elsewhere: Option<Box<dyn Elsewhere>>) -> Self {
        let apics: Vec<_> = (0..shape.hosts.len()).map(|cpu| LocalApic::new(cpu as u32, cpu == 0)).collect();
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
            hosts: shape.hosts.clone(),
            here: shape.here,
            directory: Mutex::new(directory),
            devices: devices.map(Mutex::new),
            elsewhere,
            clock: Clock {
                start: Instant::now(),
                tsc_offset: AtomicU64::new(0),
                tsc_khz: shape.tsc_khz,
                is_changed: Mutex::new(false),
                changed: Condvar::new(),
            },
        }
    }

    /// The processors of this host.
    pub fn local(&self) -> impl Iterator<Item = (usize, &Processor)> {
        self.processors.iter().enumerate().filter(|(cpu, _)| self.hosts[*cpu] == self.here)
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

    fn devices(&self) -> Option<MutexGuard<'_, Devices>> {
        self.devices.as_ref().map(|devices| devices.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Every processor has to look what there is to do: the stage of life has changed.
    pub fn rouse_all(&self) {
        self.local().for_each(|(_, processor)| processor.rouse());
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

    /// `signal` is for processor `cpu`; one that asks for it itself looks anyway.
    fn deliver(&self, cpu: usize, signal: Signal, sender: Option<usize>) {
        match (&self.elsewhere, self.processors.get(cpu)) {
            (Some(elsewhere), Some(_)) if self.hosts[cpu] != self.here => elsewhere.deliver(cpu, self.hosts[cpu], signal),
            (_, Some(processor)) => {
                if processor.apic().accept(signal) && sender != Some(cpu) {
                    processor.rouse();
                }
            }
            (_, None) => {}
        }
    }

    /// `signal` has come from another host for processor `cpu`.
    pub fn arrive(&self, cpu: usize, signal: Signal) {
        self.deliver(cpu, signal, None);
    }

    fn directory(&self) -> MutexGuard<'_, Directory> {
        self.directory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, command: &Command, sender: Option<usize>) {
        let Some(signal) = command.signal() else { return };
        let meant = self.directory().resolve(command, sender);
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
            Effect::EndOfInterrupt { vector } => self.end_of_interrupt(vector),
            Effect::Renamed => self.rename(cpu),
            Effect::None => {}
        }
    }

    /// A processor, here or elsewhere, has ended a level interrupt.
    pub fn end_of_interrupt(&self, vector: u8) {
        match (self.devices(), &self.elsewhere) {
            (Some(mut devices), _) => {
                let again = devices.end_of_interrupt(vector);
                drop(devices);
                self.send_all(&again);
            }
            (None, Some(elsewhere)) => elsewhere.end_of_interrupt(vector),
            (None, None) => {}
        }
    }

    /// Everybody learns how processor `cpu` is named now.
    pub fn rename(&self, cpu: usize) {
        let identity = self.processors[cpu].apic().identity();
        self.set_identity(cpu, identity);
        if let Some(elsewhere) = &self.elsewhere {
            elsewhere.rename(cpu, identity);
        }
    }

    /// This host learns how processor `cpu` is named now.
    pub fn set_identity(&self, cpu: usize, identity: Identity) {
        self.directory().set(cpu, identity);
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
            None => self.fetch(Access::Read(address, data.len() as u8), data),
        }
    }

    /// Processor `cpu` writes to one; false if nothing is there.
    pub fn write(&self, cpu: usize, address: u64, data: &[u8]) -> bool {
        match apic_offset(address) {
            Some(offset) => {
                self.change(cpu, |apic, now| ((), apic.write_bytes(offset, data, now)));
                true
            }
            None => self.access(Access::Write(address, data.to_vec())).0,
        }
    }

    /// A processor reads a port.
    pub fn port_in(&self, port: u16, data: &mut [u8]) {
        self.fetch(Access::PortIn(port, data.len() as u8), data);
    }

    /// A processor writes a port.
    pub fn port_out(&self, port: u16, data: &[u8]) {
        self.access(Access::PortOut(port, data.to_vec()));
    }

    fn fetch(&self, access: Access, data: &mut [u8]) -> bool {
        let (is_there, bytes) = self.access(access);
        data.fill(0xff);
        data.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
        is_there
    }

    /// A processor, here or elsewhere, uses a device: whether there is one, and what was read.
    pub fn access(&self, access: Access) -> (bool, Vec<u8>) {
        let Some(mut devices) = self.devices() else {
            return self.elsewhere.as_ref().map_or((false, Vec::new()), |elsewhere| elsewhere.access(access));
        };
        let mut data = Vec::new();
        let outcome = match access {
            Access::PortIn(port, bytes) => {
                data.resize(usize::from(bytes), 0);
                Outcome::Sends(devices.port_in(port, &mut data))
            }
            Access::PortOut(port, bytes) => devices.port_out(port, &bytes),
            Access::Read(address, bytes) => {
                data.resize(usize::from(bytes), 0);
                if devices.read(address, &mut data) { Outcome::Sends(Vec::new()) } else { Outcome::Nowhere }
            }
            Access::Write(address, bytes) => devices.write(address, &bytes),
        };
        drop(devices);
        match outcome {
            Outcome::Sends(commands) => self.send_all(&commands),
            Outcome::Shutdown(status) => self.stop(status),
            Outcome::Nowhere => return (false, data),
        }
        (true, data)
    }

    /// Input for the serial line; waits while the guest takes none.
    pub fn type_in(&self, mut bytes: &[u8]) {
        const PAUSE: Duration = Duration::from_millis(2);
        while !bytes.is_empty() && !self.life.is_over() {
            let Some(mut devices) = self.devices() else { return };
            let (taken, sent) = devices.type_in(bytes);
            drop(devices);
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
            for (_, processor) in self.local() {
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
