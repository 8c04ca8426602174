//! One guest on this host: its processors' APICs, its devices, and what goes between them.
//!
//! Owns the routing of interrupts, accesses to devices, and time. Must not call KVM: that is for the processors' threads.

use super::boot::Shape;
use super::clock::{Clock, IDLE};
use super::devices::{Devices, Outcome, Storm};
use super::failure::Failure;
use super::figures::{Figures, Row, count};
use super::life::Life;
use super::message::{Access, Message};
use super::pvclock::Scale;
use super::rate::Counter;
use super::virtio::{self, Bus, Wish};
use crate::process::connection::ConnectionError;
use crate::process::ear::{Desk, Ear};
use crate::process::wire::Message as Envelope;
use crate::sys::vm::Kicker;
use dvm_apic::{Command, Directory, Effect, Identity, LocalApic, Now, Signal};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

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
    devices: Option<(Mutex<Devices>, Bus)>,
    elsewhere: Option<Box<dyn Elsewhere>>,
    clock: Clock,
    /// When the guest's clock began, in nanoseconds since 1970.
    pub began_ns: u64,
    scale: Mutex<Scale>,
    /// How many scales there have been.
    scales: AtomicU32,
}

/// The other hosts of a guest.
pub trait Elsewhere: Send + Sync {
    /// `signal` is for processor `cpu` of `host`. `before_wait` is called if this thread has to wait for that.
    fn deliver(&self, cpu: usize, host: u16, signal: Signal, before_wait: &dyn Fn());

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
    /// What its thread listens to while it is in the guest.
    pub desk: Desk,
    /// What it has done.
    pub figures: Figures,
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

    /// Before the processor looks what there is to do: whether somebody ended its stay in the guest.
    pub fn look(&self) -> bool {
        self.kicker.get().is_some_and(Kicker::clear)
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
        self.desk.close();
        self.wake.wait(apic).unwrap_or_else(PoisonError::into_inner)
    }
}

impl Machine {
    /// A guest of this shape. The first of its processors boots.
    pub fn new(shape: &Shape, devices: Option<(Devices, Bus)>, elsewhere: Option<Box<dyn Elsewhere>>) -> Self {
        let apics: Vec<_> = (0..shape.hosts.len()).map(|cpu| LocalApic::new(cpu as u32, cpu == 0)).collect();
        let directory = Directory::new(apics.iter().map(LocalApic::identity).collect());
        let processor = |apic| Processor {
            apic: Mutex::new(apic),
            wake: Condvar::new(),
            kicker: OnceLock::new(),
            desk: Desk::default(),
            figures: Figures::default(),
        };
        Self {
            processors: apics.into_iter().map(processor).collect(),
            life: Life::default(),
            hosts: shape.hosts.clone(),
            here: shape.here,
            directory: Mutex::new(directory),
            devices: devices.map(|(devices, bus)| (Mutex::new(devices), bus)),
            elsewhere,
            clock: Clock::new(shape.tsc_khz),
            began_ns: shape.began_ns,
            scale: Mutex::new(Scale::new(shape.clock_tsc, shape.tsc_khz)),
            scales: AtomicU32::new(0),
        }
    }

    /// The processors of this host.
    pub fn local(&self) -> impl Iterator<Item = (usize, &Processor)> {
        self.processors.iter().enumerate().filter(|(cpu, _)| self.hosts[*cpu] == self.here)
    }

    /// The guest's time.
    pub fn now(&self) -> Now {
        self.clock.now()
    }

    /// The guest's time-stamp counter is this, here. To be called once, before a processor runs.
    pub fn set_counter(&self, counter: Counter) {
        self.clock.set_counter(counter);
    }

    /// What the guest's clock is here.
    pub fn scale(&self) -> Scale {
        *self.scale.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many there have been before that.
    pub fn scales(&self) -> u32 {
        self.scales.load(Ordering::Acquire)
    }

    /// It is this from now on: every processor leaves the guest to learn it.
    pub fn set_scale(&self, scale: Scale) {
        *self.scale.lock().unwrap_or_else(PoisonError::into_inner) = scale;
        // Release: who sees the number finds the scale.
        self.scales.fetch_add(1, Ordering::Release);
        self.rouse_all();
    }

    /// Processor `cpu` has ended an interrupt without a write.
    pub fn end_silently(&self, cpu: usize) {
        let effect = self.processors[cpu].apic().end_silently();
        self.perform(cpu, effect);
    }

    /// What the processors of this host have done.
    pub fn figures(&self) -> Vec<Row> {
        self.local().map(|(cpu, processor)| processor.figures.row(cpu, self.here)).collect()
    }

    fn devices(&self) -> Option<MutexGuard<'_, Devices>> {
        self.devices.as_ref().map(|(devices, _)| devices.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Every processor has to look what there is to do: the stage of life has changed.
    pub fn rouse_all(&self) {
        self.local().for_each(|(_, processor)| processor.rouse());
    }

    /// The processors of this host leave the guest and are held, timers with them; true if they ran before.
    pub fn pause(&self) -> bool {
        let is_changed = self.life.pause();
        if is_changed {
            self.clock.hold();
            self.rouse_all();
        }
        is_changed
    }

    /// Waits until every processor of this host is held, at most `latest`; false if one is not.
    pub fn wait_for_held(&self, latest: Duration) -> bool {
        self.life.wait_for_held(self.local().count(), latest)
    }

    /// The processors of this host go on.
    pub fn resume(&self) {
        if self.life.is_paused() {
            self.clock.release();
        }
        self.life.resume();
        // Its thread looks again now that the stage has changed.
        self.clock.rewind();
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
            (Some(elsewhere), Some(_)) if self.hosts[cpu] != self.here => {
                let before_wait = || sender.into_iter().for_each(|cpu| self.processors[cpu].desk.close());
                elsewhere.deliver(cpu, self.hosts[cpu], signal, &before_wait);
            }
            (_, Some(processor)) => {
                if processor.apic().accept(signal) && sender != Some(cpu) {
                    processor.rouse();
                }
            }
            (_, None) => {}
        }
    }

    /// `signal` has come from another host for processor `cpu`, which may listen itself after that; gives the listening back then.
    ///
    /// # Errors
    /// The connection's, if it ended meanwhile.
    pub fn arrive_by(&self, mut ear: Ear, cpu: usize, signal: Signal) -> Result<Ear, ConnectionError> {
        self.deliver(cpu, signal, None);
        match self.local().find(|(local, _)| *local == cpu) {
            Some((_, processor)) => ear.handle_message_for(cpu, &processor.desk, || processor.rouse()),
            None => {
                ear.end_row();
                Ok(ear)
            }
        }
    }

    /// Processor `cpu` listens to what comes from other hosts: false if it is not for it alone.
    pub fn take(&self, cpu: usize, envelope: &Envelope) -> bool {
        let Envelope::Guest(bytes) = envelope else { return false };
        match Message::decode(bytes) {
            Ok(Message::Signal(meant, signal)) if meant as usize == cpu => {
                // It looks after this anyway.
                self.processors[cpu].apic().accept(signal);
                true
            }
            Ok(_) | Err(_) => false,
        }
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
            Effect::EndOfInterrupt { vector } => {
                self.processors[cpu].desk.close();
                self.end_of_interrupt(vector);
            }
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
                match again {
                    Ok(again) => self.send_all(&again),
                    Err(Storm { pin }) => self.fail(Failure::Storm { pin }),
                }
            }
            (None, Some(elsewhere)) => elsewhere.end_of_interrupt(vector),
            (None, None) => {}
        }
    }

    /// Everybody learns how processor `cpu` is named now.
    pub fn rename(&self, cpu: usize) {
        // It waits until others know.
        self.processors[cpu].desk.close();
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
            None => {
                self.processors[cpu].desk.close();
                self.fetch(Access::Read(address, data.len() as u8), data)
            }
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
                self.processors[cpu].desk.close();
                self.access(Access::Write(address, data.to_vec())).0
            }
        }
    }

    /// Processor `cpu` reads a port.
    pub fn port_in(&self, cpu: usize, port: u16, data: &mut [u8]) {
        self.processors[cpu].desk.close();
        self.fetch(Access::PortIn(port, data.len() as u8), data);
    }

    /// Processor `cpu` writes a port.
    pub fn port_out(&self, cpu: usize, port: u16, data: &[u8]) {
        self.processors[cpu].desk.close();
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
        let Some((_, bus)) = &self.devices else {
            return self.elsewhere.as_ref().map_or((false, Vec::new()), |elsewhere| elsewhere.access(access));
        };
        let mut data = Vec::new();
        if let Access::PortIn(_, bytes) | Access::Read(_, bytes) = access {
            data.resize(usize::from(bytes), 0);
        }
        if let Access::Read(address, _) | Access::Write(address, _) = access
            && let Some((slot, register)) = virtio::place(address)
        {
            let wish = match access {
                Access::Write(_, bytes) => bus.write(slot, register, &bytes),
                _ => bus.read(slot, register, &mut data),
            };
            self.settle(slot, wish, &mut data);
            return (true, data);
        }
        let Some(mut devices) = self.devices() else { return (false, data) };
        let outcome = match access {
            Access::PortIn(port, _) => Outcome::Sends(devices.port_in(port, &mut data)),
            Access::PortOut(port, bytes) => devices.port_out(port, &bytes),
            Access::Read(address, _) if devices.read(address, &mut data) => Outcome::Sends(Vec::new()),
            Access::Read(..) => Outcome::Nowhere,
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

    /// What the use of a virtio device asks of its interrupt.
    fn settle(&self, slot: usize, wish: Wish, data: &mut [u8]) {
        let Some(mut devices) = self.devices() else { return };
        let sent = match wish {
            Wish::None => return,
            Wish::Reasons => {
                data.iter_mut().zip(devices.reasons(slot).to_le_bytes()).for_each(|(to, from)| *to = from);
                return;
            }
            Wish::Answered(reasons) => devices.acknowledge(slot, reasons),
            Wish::Raise(reasons) => devices.raise(slot, reasons),
        };
        drop(devices);
        self.send_all(&sent);
    }

    /// The places of virtio devices that are here.
    pub fn slots(&self) -> Vec<usize> {
        self.devices.as_ref().map_or_else(Vec::new, |(_, bus)| bus.occupied().collect())
    }

    /// The thread of the virtio device at `slot`: serves its requests for ever.
    pub fn serve(&self, slot: usize) {
        if let Some((_, bus)) = &self.devices {
            bus.serve(slot, |reasons| self.settle(slot, Wish::Raise(reasons), &mut []));
        }
    }

    /// Input for the serial line, or the virtio device at `slot`; waits while the guest takes none.
    pub fn type_in(&self, mut bytes: &[u8], slot: Option<usize>) {
        const PAUSE: Duration = Duration::from_millis(2);
        while !bytes.is_empty() && !self.life.is_over() {
            let Some((_, bus)) = &self.devices else { return };
            let taken = match slot {
                Some(slot) => bus.type_in(slot, bytes),
                None => self.type_in_serial(bytes),
            };
            bytes = bytes.get(taken..).unwrap_or_default();
            if taken == 0 {
                std::thread::sleep(PAUSE);
            }
        }
    }

    fn type_in_serial(&self, bytes: &[u8]) -> usize {
        let Some(mut devices) = self.devices() else { return 0 };
        let (taken, sent) = devices.type_in(bytes);
        drop(devices);
        self.send_all(&sent);
        taken
    }

    /// The clock's thread: looks after all timers until the guest is over.
    pub fn keep_time(&self) {
        while !self.life.is_over() {
            if self.life.is_paused() {
                self.clock.sleep(IDLE);
                continue;
            }
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

fn apic_offset(address: u64) -> Option<u32> {
    let offset = address.checked_sub(dvm_apic::local::BASE_ADDRESS)?;
    (offset < super::layout::PAGE).then_some(offset as u32)
}
