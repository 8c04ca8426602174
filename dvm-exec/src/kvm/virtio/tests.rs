//! A driver that keeps the rules, drivers that break them, and drivers by chance.

use super::block::{Disk, SECTOR};
use super::console::Console;
use super::*;
use proptest::prelude::*;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;
use virtio_bindings::bindings::virtio_blk::*;
use virtio_bindings::bindings::virtio_config::*;
use virtio_bindings::bindings::virtio_mmio::*;
use vm_memory::{Bytes, GuestAddress};

const MEMORY_BYTES: usize = 1 << 18;
const TABLE: u64 = 0x1000;
const AVAILABLE: u64 = 0x2000;
const USED_RING: u64 = 0x3000;
const HEADER: u64 = 0x4000;
const STATUS: u64 = 0x4100;
const DATA: u64 = 0x5000;
const SIZE: u16 = 8;
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const READY: u32 = 15;
const DISK: usize = 1;
const SCREEN: usize = 0;

#[derive(Clone, Default)]
struct Screen(Arc<Mutex<Vec<u8>>>);

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("as it should be").extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A driver of both devices, and what they are of.
struct Driver {
    bus: Bus,
    memory: &'static Memory,
    screen: Screen,
    file: PathBuf,
    /// Requests so far, by queue of a device.
    made: [u16; 2],
}

impl Drop for Driver {
    fn drop(&mut self) {
        std::fs::remove_file(&self.file).expect("as it should be");
    }
}

impl Driver {
    fn new(test: &str, options: &str) -> Self {
        let file = std::env::temp_dir().join(format!("dvm-virtio-{}-{test}", std::process::id()));
        let content: Vec<u8> = (0..16 * SECTOR).map(|index| (index / SECTOR) as u8).collect();
        std::fs::write(&file, content).expect("as it should be");
        let memory = Memory::from_ranges(&[(GuestAddress(0), MEMORY_BYTES)]).expect("as it should be");
        let memory: &'static Memory = Box::leak(Box::new(memory));
        let screen = Screen::default();
        let disk =
            Disk::open(&format!("{}{options}", file.display()).parse().expect("as it should be")).expect("as it should be");
        let bus = Bus::new(vec![Box::new(Console::new(Box::new(screen.clone()))), Box::new(disk)], memory);
        Self { bus, memory, screen, file, made: [0; 2] }
    }

    fn read(&self, slot: usize, register: u32) -> u32 {
        let mut data = [0; 4];
        self.bus.read(slot, u64::from(register), &mut data);
        u32::from_le_bytes(data)
    }

    fn write(&self, slot: usize, register: u32, value: u32) -> Wish {
        self.bus.write(slot, u64::from(register), &value.to_le_bytes())
    }

    /// Takes a device over, with its queue at the usual place.
    fn take(&mut self, slot: usize, queue: u32) {
        assert_eq!(self.write(slot, VIRTIO_MMIO_STATUS, 0), Wish::Answered(u32::MAX));
        self.memory.write_slice(&[0; 0x3000], GuestAddress(TABLE)).expect("as it should be");
        self.made = [0; 2];
        self.write(slot, VIRTIO_MMIO_STATUS, 3);
        self.write(slot, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
        self.write(slot, VIRTIO_MMIO_DRIVER_FEATURES, 1);
        self.write(slot, VIRTIO_MMIO_STATUS, 11);
        assert_eq!(self.read(slot, VIRTIO_MMIO_STATUS), 11);
        assert_eq!(self.queue(slot, queue, SIZE.into(), [TABLE, AVAILABLE, USED_RING]), Wish::None);
        assert_eq!(self.read(slot, VIRTIO_MMIO_QUEUE_READY), 1);
        self.write(slot, VIRTIO_MMIO_STATUS, READY);
    }

    fn queue(&self, slot: usize, queue: u32, size: u32, places: [u64; 3]) -> Wish {
        self.write(slot, VIRTIO_MMIO_QUEUE_SEL, queue);
        self.write(slot, VIRTIO_MMIO_QUEUE_NUM, size);
        for (register, place) in
            [VIRTIO_MMIO_QUEUE_DESC_LOW, VIRTIO_MMIO_QUEUE_AVAIL_LOW, VIRTIO_MMIO_QUEUE_USED_LOW].iter().zip(places)
        {
            self.write(slot, *register, place as u32);
            self.write(slot, register + 4, (place >> 32) as u32);
        }
        self.write(slot, VIRTIO_MMIO_QUEUE_READY, 1)
    }

    fn describe(&self, index: u16, address: u64, length: u32, flags: u16, next: u16) {
        let place = GuestAddress(TABLE + u64::from(index) * 16);
        self.memory.write_obj(address, place).expect("as it should be");
        self.memory.write_obj(length, GuestAddress(place.0 + 8)).expect("as it should be");
        self.memory.write_obj(flags, GuestAddress(place.0 + 12)).expect("as it should be");
        self.memory.write_obj(next, GuestAddress(place.0 + 14)).expect("as it should be");
    }

    /// Asks for the chain that begins with descriptor `head`; gives the reasons to interrupt and what was written, if it was served.
    fn ask(&mut self, slot: usize, queue: usize, head: u16) -> (Option<u32>, u32) {
        let made = self.made[queue];
        self.memory.write_obj(head, GuestAddress(AVAILABLE + 4 + u64::from(made % SIZE) * 2)).expect("as it should be");
        self.made[queue] = made + 1;
        self.memory.write_obj(made + 1, GuestAddress(AVAILABLE + 2)).expect("as it should be");
        let mut reasons = None;
        while self.bus.serve_one(slot, queue, |raised| reasons = Some(raised)) {}
        let used: u16 = self.memory.read_obj(GuestAddress(USED_RING + 2)).expect("as it should be");
        if used != made + 1 {
            return (reasons, 0);
        }
        let place = USED_RING + 4 + u64::from(made % SIZE) * 8;
        assert_eq!(self.memory.read_obj::<u32>(GuestAddress(place)).expect("as it should be"), u32::from(head));
        (reasons, self.memory.read_obj(GuestAddress(place + 4)).expect("as it should be"))
    }

    /// A request to the disk over `count` bytes at [`DATA`]; gives its status and how much was written.
    fn request(&mut self, kind: u32, sector: u64, count: u32) -> (u8, u32) {
        self.memory.write_obj(u64::from(kind), GuestAddress(HEADER)).expect("as it should be");
        self.memory.write_obj(sector, GuestAddress(HEADER + 8)).expect("as it should be");
        self.memory.write_obj(0xee_u8, GuestAddress(STATUS)).expect("as it should be");
        let way = if kind == VIRTIO_BLK_T_OUT { 0 } else { WRITE };
        self.describe(0, HEADER, 16, NEXT, 1);
        self.describe(1, DATA, count, NEXT | way, 2);
        self.describe(2, STATUS, 1, WRITE, 0);
        let (reasons, written) = self.ask(DISK, 0, 0);
        assert_eq!(reasons, Some(USED));
        (self.memory.read_obj(GuestAddress(STATUS)).expect("as it should be"), written)
    }

    fn data(&self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.memory.read_slice(&mut bytes, GuestAddress(DATA)).expect("as it should be");
        bytes
    }
}

#[test]
fn devices_say_what_they_are() {
    let driver = Driver::new("registers", ",ro");
    for (slot, id) in [(SCREEN, 3), (DISK, 2), (2, 0), (7, 0)] {
        let found =
            [VIRTIO_MMIO_MAGIC_VALUE, VIRTIO_MMIO_VERSION, VIRTIO_MMIO_DEVICE_ID].map(|register| driver.read(slot, register));
        assert_eq!(found, [0x7472_6976, 2, id]);
    }
    let mut capacity = [0; 8];
    driver.bus.read(DISK, u64::from(VIRTIO_MMIO_CONFIG), &mut capacity);
    assert_eq!(u64::from_le_bytes(capacity), 16);
    let features = driver.read(DISK, VIRTIO_MMIO_DEVICE_FEATURES);
    assert_eq!(features >> VIRTIO_BLK_F_RO & 1, 1);
    assert_eq!((place(VIRTIO), place(VIRTIO + 0x1064)), (Some((0, 0)), Some((1, 0x64))));
    assert_eq!((place(VIRTIO - 1), place(VIRTIO + 0x8000)), (None, None));
    let mut word = [0; 4];
    assert_eq!(driver.bus.read(2, u64::from(VIRTIO_MMIO_INTERRUPT_STATUS), &mut word), Wish::Reasons);
    assert_eq!(driver.write(DISK, VIRTIO_MMIO_INTERRUPT_ACK, 3), Wish::Answered(3));
    driver.write(DISK, VIRTIO_MMIO_STATUS, 3);
    driver.write(DISK, VIRTIO_MMIO_STATUS, 11);
    assert_eq!(driver.read(DISK, VIRTIO_MMIO_STATUS), 3, "no driver of old devices");
}

#[test]
fn a_disk_keeps_what_is_written() {
    let mut driver = Driver::new("disk", "");
    driver.take(DISK, 0);
    assert_eq!(driver.request(VIRTIO_BLK_T_IN, 3, 1024), (0, 1025));
    assert_eq!(driver.data(1024), [[3; 512], [4; 512]].concat());
    driver.memory.write_slice(&[0xaa; 1024], GuestAddress(DATA)).expect("as it should be");
    assert_eq!(driver.request(VIRTIO_BLK_T_OUT, 15, 512), (0, 1));
    assert_eq!(driver.request(VIRTIO_BLK_T_FLUSH, 0, 0).0, 0);
    assert_eq!(driver.request(VIRTIO_BLK_T_IN, 14, 1024), (0, 1025));
    assert_eq!(driver.data(1024), [[14; 512], [0xaa; 512]].concat());
    assert_eq!(std::fs::read(&driver.file).expect("as it should be")[15 * 512..], [0xaa; 512]);
    assert_eq!(driver.request(VIRTIO_BLK_T_GET_ID, 0, 20), (0, 21));
    assert_eq!(driver.data(4), *b"dvm\0");
    for (kind, sector, count, status) in [
        (VIRTIO_BLK_T_IN, 16, 512, VIRTIO_BLK_S_IOERR),
        (VIRTIO_BLK_T_IN, 15, 1024, VIRTIO_BLK_S_IOERR),
        (VIRTIO_BLK_T_IN, u64::MAX, 512, VIRTIO_BLK_S_IOERR),
        (VIRTIO_BLK_T_OUT, 0, 100, VIRTIO_BLK_S_IOERR),
        (VIRTIO_BLK_T_DISCARD, 0, 512, VIRTIO_BLK_S_UNSUPP),
        (99, 0, 512, VIRTIO_BLK_S_UNSUPP),
    ] {
        assert_eq!(u32::from(driver.request(kind, sector, count).0), status, "{kind} {sector} {count}");
    }
    assert_eq!(driver.read(DISK, VIRTIO_MMIO_STATUS), READY);
}

#[test]
fn disks_are_of_one_guest_or_not_written() {
    let mut driver = Driver::new("read-only", ",ro");
    driver.take(DISK, 0);
    assert_eq!(driver.request(VIRTIO_BLK_T_IN, 1, 512), (0, 513));
    assert_eq!(driver.request(VIRTIO_BLK_T_OUT, 1, 512), (1, 1));
    let name = driver.file.display().to_string();
    assert!(Disk::open(&format!("{name},ro").parse().expect("as it should be")).is_ok(), "several may read");
    assert!(Disk::open(&name.parse().expect("as it should be")).is_err_and(|reason| reason.contains("another guest")));
    for (file, words) in [("/nowhere", "No such file"), ("/dev/null", "whole sectors")] {
        assert!(Disk::open(&file.parse().expect("as it should be")).is_err_and(|reason| reason.contains(words)), "{file}");
    }
    assert!(",ro".parse::<block::DiskName>().is_err());
}

#[test]
fn a_console_shows_and_is_typed_to() {
    let mut driver = Driver::new("console", "");
    driver.take(SCREEN, 1);
    driver.memory.write_slice(b"hello, you", GuestAddress(DATA)).expect("as it should be");
    driver.describe(0, DATA, 7, NEXT, 1);
    driver.describe(1, DATA + 7, 3, 0, 0);
    assert_eq!(driver.ask(SCREEN, 1, 0), (Some(USED), 0));
    assert_eq!(*driver.screen.0.lock().expect("as it should be"), b"hello, you");
    driver.take(SCREEN, 0);
    driver.describe(3, DATA, 4, WRITE, 0);
    assert_eq!(driver.ask(SCREEN, 0, 3), (None, 0), "nobody has typed");
    assert_eq!(driver.bus.type_in(SCREEN, b"abcdef"), 6);
    assert!(driver.bus.serve_one(SCREEN, 0, |reasons| assert_eq!(reasons, USED)));
    assert_eq!(driver.data(4), *b"abcd");
    driver.memory.write_obj(1_u16, GuestAddress(AVAILABLE)).expect("as it should be");
    assert_eq!(driver.ask(SCREEN, 0, 3), (None, 2), "the driver wants no interrupts");
    let typed = driver.bus.type_in(SCREEN, &[0; 5000]);
    assert_eq!((typed, driver.bus.type_in(SCREEN, &[0])), (4096, 0));
    assert_eq!(driver.bus.type_in(DISK, &[0]), 0);
}

#[test]
fn who_breaks_the_rules_has_to_reset() {
    let mut driver = Driver::new("rules", "");
    let end = MEMORY_BYTES as u64;
    // What begins with descriptor 0, and what is wrong with it.
    type Descriptors = &'static [(u64, u32, u16, u16)];
    let chains: [(&str, Descriptors); 10] = [
        ("outside memory", &[(1 << 40, 16, NEXT, 1), (STATUS, 1, WRITE, 0)]),
        ("half outside", &[(HEADER, 16, NEXT, 1), (MEMORY_BYTES as u64 - 8, 16, WRITE, 0)]),
        ("beyond all addresses", &[(u64::MAX - 8, 16, NEXT, 1), (STATUS, 1, WRITE, 0)]),
        ("a circle", &[(HEADER, 16, NEXT, 1), (STATUS, 1, NEXT | WRITE, 1)]),
        ("on to nowhere", &[(HEADER, 16, NEXT, 99)]),
        ("nothing", &[(HEADER, 0, 0, 0)]),
        ("no status", &[(HEADER, 16, 0, 0)]),
        ("no header", &[(STATUS, 1, WRITE, 0)]),
        ("the wrong order", &[(STATUS, 1, NEXT | WRITE, 1), (HEADER, 16, 0, 0)]),
        ("too long", &[(HEADER, u32::MAX, NEXT, 1), (HEADER, u32::MAX, NEXT, 0)]),
    ];
    for (what, descriptors) in chains {
        driver.take(DISK, 0);
        for (index, (address, length, flags, next)) in (0..).zip(descriptors) {
            driver.describe(index, *address, *length, *flags, *next);
        }
        assert_eq!(driver.ask(DISK, 0, 0), (Some(CHANGED), 0), "{what}");
        assert_eq!(driver.read(DISK, VIRTIO_MMIO_STATUS), READY | VIRTIO_CONFIG_S_NEEDS_RESET, "{what}");
        assert_eq!(driver.ask(DISK, 0, 0), (None, 0), "{what}: nothing more is done");
        driver.take(DISK, 0);
        assert_eq!(driver.request(VIRTIO_BLK_T_IN, 3, 512), (0, 513), "{what}: after a reset");
    }
    driver.take(DISK, 0);
    assert_eq!(driver.ask(DISK, 0, 700), (Some(CHANGED), 0), "no such descriptor");
    driver.take(DISK, 0);
    driver.memory.write_obj(500_u16, GuestAddress(AVAILABLE + 2)).expect("as it should be");
    assert!(driver.bus.serve_one(DISK, 0, |reasons| assert_eq!(reasons, CHANGED)), "more requests than there is room for");
    for (size, places) in [
        (0, [TABLE, AVAILABLE, USED_RING]),
        (7, [TABLE, AVAILABLE, USED_RING]),
        (65544, [TABLE, AVAILABLE, USED_RING]),
        (512, [TABLE, AVAILABLE, USED_RING]),
        (8, [TABLE + 4, AVAILABLE, USED_RING]),
        (8, [end - 16, AVAILABLE, USED_RING]),
        (8, [TABLE, 1 << 50, USED_RING]),
        (8, [TABLE, AVAILABLE, u64::MAX - 3]),
    ] {
        driver.take(DISK, 0);
        driver.write(DISK, VIRTIO_MMIO_QUEUE_READY, 0);
        assert_eq!(driver.queue(DISK, 0, size, places), Wish::Raise(CHANGED), "{size} {places:x?}");
        assert_eq!(driver.read(DISK, VIRTIO_MMIO_QUEUE_READY), 0);
    }
}

#[test]
fn requests_are_served_by_the_devices_thread() {
    let mut driver = Driver::new("thread", "");
    driver.take(DISK, 0);
    let driver = Box::leak(Box::new(driver));
    let (raised, reasons) = channel();
    let bus: &'static Bus = &driver.bus;
    std::thread::spawn(move || bus.serve(DISK, |reasons| raised.send(reasons).expect("as it should be")));
    driver.describe(0, HEADER, 16, NEXT, 1);
    driver.describe(1, STATUS, 1, WRITE, 0);
    driver.memory.write_obj(u64::from(VIRTIO_BLK_T_FLUSH), GuestAddress(HEADER)).expect("as it should be");
    for made in 1..20_u16 {
        driver.memory.write_obj(made, GuestAddress(AVAILABLE + 2)).expect("as it should be");
        assert_eq!(driver.write(DISK, VIRTIO_MMIO_QUEUE_NOTIFY, 0), Wish::None);
        assert_eq!(reasons.recv_timeout(Duration::from_secs(20)), Ok(USED));
    }
    assert_eq!(driver.write(DISK, VIRTIO_MMIO_QUEUE_NOTIFY, u32::MAX), Wish::None, "no such queue");
    std::fs::remove_file(&driver.file).expect("as it should be");
}

/// A descriptor that is often nearly right.
fn descriptor() -> impl Strategy<Value = (u64, u32, u16, u16)> {
    let address = prop_oneof![Just(HEADER), Just(STATUS), Just(DATA), 0..MEMORY_BYTES as u64 + 100, any::<u64>()];
    let length = prop_oneof![Just(0_u32), Just(1), Just(16), Just(512), 0..5000_u32, any::<u32>()];
    (address, length, prop_oneof![0..4_u16, any::<u16>()], prop_oneof![0..SIZE, any::<u16>()])
}

proptest! {
    #[test]
    fn no_driver_is_too_odd(
        descriptors in proptest::collection::vec(descriptor(), SIZE as usize),
        header in (prop_oneof![0..12_u64, any::<u64>()], prop_oneof![0..20_u64, any::<u64>()]),
        uses in proptest::collection::vec((0..3_usize, 0..0x120_u64, any::<u32>(), 0..9_usize, 0..6), 0..60),
    ) {
        let mut driver = Driver::new("chance", "");
        for (slot, queues) in [(DISK, 1), (SCREEN, 2)] {
            for queue in 0..queues {
                driver.take(slot, queue);
                for (index, (address, length, flags, next)) in (0..).zip(&descriptors) {
                    driver.describe(index, *address, *length, *flags, *next);
                }
                driver.memory.write_obj(header.0, GuestAddress(HEADER)).expect("as it should be");
                driver.memory.write_obj(header.1, GuestAddress(HEADER + 8)).expect("as it should be");
                for (slot, register, value, length, kind) in &uses {
                    let length = *length.min(&8);
                    match kind {
                        0 => drop(driver.bus.read(*slot, *register, &mut [0; 8][..length])),
                        1 => drop(driver.bus.write(*slot, register & !3, &value.to_le_bytes())),
                        2 => drop(driver.bus.type_in(*slot, &value.to_le_bytes())),
                        3 => drop(driver.memory.write_obj(*value as u16, GuestAddress(AVAILABLE + 2))),
                        4 => {
                            let place = AVAILABLE + 4 + register % 16 * 2;
                            driver.memory.write_obj(*value as u16 % (SIZE + 1), GuestAddress(place)).expect("as it should be");
                        }
                        _ => {
                            let mut left = 300;
                            while left > 0 && driver.bus.serve_one(*slot, *value as usize % 3, |_| {}) {
                                left -= 1;
                            }
                            prop_assert!(left > 0, "more requests than a queue has");
                        }
                    }
                }
            }
        }
    }
}
