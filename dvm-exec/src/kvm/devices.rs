//! The devices of a guest, on the one host that has them: I/O APIC, serial line, shutdown.
//!
//! Owns their addresses and states. Must not know processors: what they send is handed out.

use super::layout::{VIRTIO_PIN, VIRTIO_SLOTS};
use dvm_apic::{Command, IoApic, io};
use std::convert::Infallible;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use vm_superio::serial::NoEvents;
use vm_superio::{Serial, Trigger};

const SERIAL_FIRST: u16 = 0x3f8;
const SERIAL_LAST: u16 = 0x3ff;
const SERIAL_PIN: usize = 4;
/// A byte written here ends the guest with that status.
const SHUTDOWN: u16 = 0xf4;
/// Controller of the keyboard, which also resets a PC.
const KEYBOARD: u16 = 0x64;
const KEYBOARD_RESET: u8 = 0xfe;
/// Clock and memory of a PC: none here.
const CMOS: u16 = 0x71;

/// So often a line may come again before the guest is taken to have lost it.
const UNANSWERED_MAX: u32 = 100_000;

/// What a write to a device asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Send these.
    Sends(Vec<Command>),
    /// End the guest.
    Shutdown(u8),
    /// There is no device.
    Nowhere,
}

/// A line that comes again and again, and no processor asks its device why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Storm {
    /// Its pin.
    pub pin: usize,
}

/// What sets a line of the kernel's I/O APIC.
pub type Outside = Box<dyn Fn(u32, bool) + Send>;

/// All devices.
pub struct Devices {
    io: IoApic,
    serial: Serial<Line, NoEvents, Box<dyn Write + Send>>,
    line: Line,
    /// Why each virtio device interrupts.
    reasons: [u32; VIRTIO_SLOTS],
    /// How often its line has come again since a processor asked.
    unanswered: [u32; VIRTIO_SLOTS],
    outside: Option<Outside>,
}

/// The interrupt line of the serial port: remembers that it was raised.
#[derive(Clone, Default)]
struct Line(Arc<AtomicBool>);

impl Trigger for Line {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        self.0.store(true, Ordering::Relaxed);
        Ok(())
    }
}

impl Devices {
    /// Devices whose serial line is written to `console`; the I/O APIC may be the kernel's.
    pub fn new(console: Box<dyn Write + Send>, outside: Option<Outside>) -> Self {
        let line = Line::default();
        Self {
            io: IoApic::default(),
            serial: Serial::new(line.clone(), console),
            line,
            reasons: [0; VIRTIO_SLOTS],
            unanswered: [0; VIRTIO_SLOTS],
            outside,
        }
    }

    /// The guest writes to a port; where nothing is, a PC takes no notice.
    pub fn port_out(&mut self, port: u16, data: &[u8]) -> Outcome {
        match (port, data) {
            (SHUTDOWN, [status, ..]) => return Outcome::Shutdown(*status),
            (KEYBOARD, [KEYBOARD_RESET, ..]) => return Outcome::Shutdown(0),
            (SERIAL_FIRST..=SERIAL_LAST, _) => {
                for byte in data {
                    // A console that nobody reads any more is no business of the guest.
                    self.serial.write((port - SERIAL_FIRST) as u8, *byte).unwrap_or(());
                }
            }
            _ => {}
        }
        Outcome::Sends(self.pulse())
    }

    /// The guest reads a port; where nothing is, all bits are set.
    pub fn port_in(&mut self, port: u16, data: &mut [u8]) -> Vec<Command> {
        match port {
            SERIAL_FIRST..=SERIAL_LAST => data.fill_with(|| self.serial.read((port - SERIAL_FIRST) as u8)),
            CMOS => data.fill(0),
            _ => data.fill(0xff),
        }
        self.pulse()
    }

    /// The guest writes to an address that is not memory.
    pub fn write(&mut self, address: u64, data: &[u8]) -> Outcome {
        match address.checked_sub(io::BASE_ADDRESS) {
            Some(offset) if offset < io::BYTES => Outcome::Sends(self.io.write_bytes(offset, data).into_iter().collect()),
            Some(_) | None => Outcome::Nowhere,
        }
    }

    /// The guest reads such an address; false if there is no device.
    pub fn read(&mut self, address: u64, data: &mut [u8]) -> bool {
        match address.checked_sub(io::BASE_ADDRESS) {
            Some(offset) if offset < io::BYTES => {
                self.io.read_bytes(offset, data);
                true
            }
            Some(_) | None => false,
        }
    }

    /// A processor has ended a level interrupt.
    ///
    /// # Errors
    /// It came again too often.
    pub fn end_of_interrupt(&mut self, vector: u8) -> Result<Vec<Command>, Storm> {
        let again = self.io.end_of_interrupt(vector);
        for (pin, _) in &again {
            if let Some(count) = pin.checked_sub(VIRTIO_PIN).and_then(|slot| self.unanswered.get_mut(slot)) {
                *count += 1;
                if *count == UNANSWERED_MAX {
                    return Err(Storm { pin: *pin });
                }
            }
        }
        Ok(again.into_iter().map(|(_, command)| command).collect())
    }

    /// Why the virtio device at `slot` interrupts.
    pub fn reasons(&mut self, slot: usize) -> u32 {
        self.answered(slot);
        self.reasons.get(slot).copied().unwrap_or(0)
    }

    /// It interrupts for these reasons, too.
    pub fn raise(&mut self, slot: usize, reasons: u32) -> Vec<Command> {
        self.change(slot, |before| before | reasons)
    }

    /// A processor has seen these reasons.
    pub fn acknowledge(&mut self, slot: usize, reasons: u32) -> Vec<Command> {
        self.answered(slot);
        self.change(slot, |before| before & !reasons)
    }

    fn answered(&mut self, slot: usize) {
        if let Some(count) = self.unanswered.get_mut(slot) {
            *count = 0;
        }
    }

    fn change(&mut self, slot: usize, change: impl FnOnce(u32) -> u32) -> Vec<Command> {
        let Some(reasons) = self.reasons.get_mut(slot) else { return Vec::new() };
        *reasons = change(*reasons);
        let is_asserted = *reasons != 0;
        self.set_line(VIRTIO_PIN + slot, is_asserted).into_iter().collect()
    }

    /// Input for the serial line; gives how much of it there was room for.
    pub fn type_in(&mut self, bytes: &[u8]) -> (usize, Vec<Command>) {
        let room = self.serial.fifo_capacity().min(bytes.len());
        let taken = self.serial.enqueue_raw_bytes(bytes.get(..room).unwrap_or_default()).unwrap_or(0);
        (taken, self.pulse())
    }

    /// The line is one of edges: up and down again.
    fn pulse(&mut self) -> Vec<Command> {
        if !self.line.0.swap(false, Ordering::Relaxed) {
            return Vec::new();
        }
        let sent = self.set_line(SERIAL_PIN, true);
        self.set_line(SERIAL_PIN, false);
        sent.into_iter().collect()
    }

    fn set_line(&mut self, pin: usize, is_asserted: bool) -> Option<Command> {
        if let Some(set) = &self.outside {
            set(pin as u32, is_asserted);
            return None;
        }
        self.io.set_line(pin, is_asserted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::Mutex;

    #[derive(Clone, Default)]
    struct Screen(Arc<Mutex<Vec<u8>>>);

    impl Write for Screen {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn devices() -> (Devices, Screen) {
        let screen = Screen::default();
        (Devices::new(Box::new(screen.clone()), None), screen)
    }

    #[test]
    fn the_console_speaks_and_listens() {
        let (mut devices, screen) = devices();
        for entry in [[0x19, 0], [0x18, 0x34]] {
            assert_eq!(devices.write(io::BASE_ADDRESS, &[entry[0]]), Outcome::Sends(Vec::new()));
            assert_eq!(devices.write(io::BASE_ADDRESS + 0x10, &[entry[1], 0, 0, 0]), Outcome::Sends(Vec::new()));
        }
        assert_eq!(devices.port_out(0x3f8, b"hi"), Outcome::Sends(Vec::new()));
        assert_eq!(*screen.0.lock().unwrap(), b"hi");
        assert_eq!(devices.port_out(0x3f9, &[1]), Outcome::Sends(Vec::new()), "interrupts on");
        let (taken, sent) = devices.type_in(b"x");
        assert_eq!((taken, sent.len(), sent[0].vector), (1, 1, 0x34));
        let mut data = [0];
        assert_eq!(devices.port_in(0x3f8, &mut data), []);
        assert_eq!(data, *b"x");
    }

    #[test]
    fn ends_and_holes() {
        let (mut devices, _) = devices();
        assert_eq!(devices.port_out(0xf4, &[7, 0, 0, 0]), Outcome::Shutdown(7));
        assert_eq!(devices.port_out(0x64, &[0xfe]), Outcome::Shutdown(0));
        assert_eq!(devices.port_out(0x80, &[1]), Outcome::Sends(Vec::new()));
        assert_eq!(devices.write(0xe000_0000, &[1]), Outcome::Nowhere);
        let mut data = [0; 4];
        devices.port_in(0x80, &mut data);
        assert_eq!((data, devices.read(io::BASE_ADDRESS + io::BYTES, &mut data)), ([0xff; 4], false));
    }

    #[test]
    fn lines_of_levels_stay_until_they_are_answered() {
        let (mut devices, _) = devices();
        let entry = (0x10 + 2 * (VIRTIO_PIN + 1)) as u8;
        for (register, value) in [(entry + 1, 0), (entry, 0x8041_u32)] {
            devices.write(io::BASE_ADDRESS, &[register]);
            devices.write(io::BASE_ADDRESS + 0x10, &value.to_le_bytes());
        }
        assert_eq!(devices.raise(1, 1).len(), 1);
        assert_eq!(devices.raise(1, 2), [], "under way");
        assert_eq!(devices.end_of_interrupt(0x41).map(|again| again.len()), Ok(1));
        assert_eq!((devices.reasons(1), devices.acknowledge(1, 1)), (3, Vec::new()));
        assert_eq!(devices.acknowledge(1, 2), []);
        assert_eq!((devices.end_of_interrupt(0x41), devices.reasons(1)), (Ok(Vec::new()), 0));
        assert_eq!((devices.raise(99, 1), devices.reasons(99)), (Vec::new(), 0), "no such place");
    }

    #[test]
    fn a_line_that_nobody_answers_is_a_storm() {
        let (mut devices, _) = devices();
        let entry = (0x10 + 2 * VIRTIO_PIN) as u8;
        devices.write(io::BASE_ADDRESS, &[entry]);
        devices.write(io::BASE_ADDRESS + 0x10, &0x8041_u32.to_le_bytes());
        devices.raise(0, 1);
        for _ in 1..UNANSWERED_MAX {
            assert!(devices.end_of_interrupt(0x41).is_ok());
        }
        devices.reasons(0);
        for _ in 1..UNANSWERED_MAX {
            assert!(devices.end_of_interrupt(0x41).is_ok(), "somebody asked");
        }
        assert_eq!(devices.end_of_interrupt(0x41), Err(Storm { pin: VIRTIO_PIN }));
    }

    proptest! {
        #[test]
        fn no_access_is_too_odd(accesses in proptest::collection::vec((any::<u16>(), any::<[u8; 8]>(), 0..9_usize, 0..5), 0..300)) {
            let (mut devices, _) = devices();
            for (port, data, length, kind) in accesses {
                let mut data = data[..length.min(8)].to_vec();
                let port = if port & 1 == 0 { port } else { 0x3f8 + port % 9 };
                match kind {
                    0 => drop(devices.port_out(port, &data)),
                    1 => drop(devices.port_in(port, &mut data)),
                    2 => drop(devices.write(io::BASE_ADDRESS + u64::from(port % 0x30), &data)),
                    3 => drop(devices.read(io::BASE_ADDRESS + u64::from(port % 0x30), &mut data)),
                    _ => drop(devices.type_in(&data)),
                }
            }
        }
    }
}
