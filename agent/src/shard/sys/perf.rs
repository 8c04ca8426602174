//! Perf events of one process: its page faults and the switches of its threads, time-stamped by the kernel.
//!
//! Owns the events, their rings and the memory barriers between kernel and reader. Must not know what the records are for.
#![expect(unsafe_code, reason = "perf_event_open(2), its ioctl and its ring have no safe wrapper among our crates")]

use super::records::{self, Record};
use nix::errno::Errno;
use nix::unistd::{SysconfVar, sysconf};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of records in one ring. A power of two. It is memory that cannot be swapped, one ring per processor and job.
const RING_BYTES: usize = 1 << 18;
/// The control page before them.
const CONTROL_BYTES: usize = 4096;
/// With less room than this the kernel may have dropped a record, or the note that it did.
const ROOM_LEAST: usize = 256;
/// `data_head` and `data_tail` of `struct perf_event_mmap_page`.
const HEAD_OFFSET: usize = 1024;
const TAIL_OFFSET: usize = 1032;

const PERF_TYPE_SOFTWARE: u32 = 1;
const PERF_COUNT_SW_PAGE_FAULTS: u64 = 2;
const PERF_SAMPLE_TID: u64 = 1 << 1;
const PERF_SAMPLE_TIME: u64 = 1 << 2;
const PERF_SAMPLE_ADDR: u64 = 1 << 3;
const INHERIT: u64 = 1 << 1;
const SAMPLE_ID_ALL: u64 = 1 << 18;
const USE_CLOCKID: u64 = 1 << 25;
const CONTEXT_SWITCH: u64 = 1 << 26;
/// Threads inherit the event, child processes do not. Since linux 5.13.
const INHERIT_THREAD: u64 = 1 << 35;
const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 1 << 3;
/// `_IO('$', 5)`
const PERF_EVENT_IOC_SET_OUTPUT: libc::c_ulong = 0x2405;

const _: () = assert!(RING_BYTES.is_power_of_two() && ROOM_LEAST < RING_BYTES / 4);
const _: () = assert!(size_of::<Attributes>() == 112, "PERF_ATTR_SIZE_VER5");

/// `struct perf_event_attr` as of linux 4.1.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    breakpoint_kind: u32,
    config1: u64,
    config2: u64,
    branch_sample_type: u64,
    sample_regs_user: u64,
    sample_stack_user: u32,
    clockid: i32,
    sample_regs_interrupt: u64,
    aux_watermark: u32,
    sample_stack_max: u32,
}

/// Why a process cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No right to.
    #[error(
        "{call} for process {process} refused ({errno}): run the agent as root or with CAP_PERFMON and CAP_IPC_LOCK, or set \
         kernel.perf_event_paranoid to -1"
    )]
    Refused {
        /// The call.
        call: &'static str,
        /// The process.
        process: i32,
        /// What the kernel said.
        #[source]
        errno: Errno,
    },
    /// Anything else.
    #[error(
        "{call} for process {process} failed ({errno}): use linux 5.13 or newer with CONFIG_PERF_EVENTS, and raise the limit of \
         open files"
    )]
    Failed {
        /// The call.
        call: &'static str,
        /// The process.
        process: i32,
        /// What the kernel said.
        #[source]
        errno: Errno,
    },
    /// The process has no threads to watch.
    #[error("process {process} cannot be watched: it has ended")]
    Gone {
        /// The process.
        process: i32,
    },
}

/// The records of one process, one ring per processor; dropping it ends the events.
#[derive(Debug)]
pub struct Rings {
    rings: Vec<Ring>,
    /// Events of further threads, which write to the rings.
    _others: Vec<OwnedFd>,
    /// Bytes of the ring that is being read.
    bytes: Vec<u8>,
}

/// What [`Rings::read`] could not give.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::shard) struct Loss {
    /// Records the kernel had no room for.
    pub(in crate::shard) records: u64,
    /// Whether a ring was full: more may be lost, which the kernel says later.
    pub(in crate::shard) is_full: bool,
}

impl Rings {
    /// Watches all threads that `process` has and will have.
    ///
    /// A thread that another one is making right now may be missed: call it while the process waits.
    ///
    /// # Errors
    /// Without the right to it, or when the process has ended.
    pub fn open(process: i32) -> Result<Self, OpenError> {
        let failed = |call, errno| match errno {
            Errno::EACCES | Errno::EPERM => OpenError::Refused { call, process, errno },
            _ => OpenError::Failed { call, process, errno },
        };
        let threads = threads(process);
        let processors = sysconf(SysconfVar::_NPROCESSORS_CONF).ok().flatten().unwrap_or(1);
        let (mut rings, mut others) = (Vec::new(), Vec::new());
        for processor in 0..libc::c_int::try_from(processors).unwrap_or(1) {
            let mut own: Option<Ring> = None;
            for thread in &threads {
                let event = match open_event(*thread, processor) {
                    Ok(event) => event,
                    // A thread that has ended, or a processor that is off.
                    Err(Errno::ESRCH | Errno::ENODEV) => continue,
                    Err(errno) => return Err(failed("perf_event_open", errno)),
                };
                match &own {
                    None => own = Some(Ring::map(event).map_err(|errno| failed("mmap of a perf ring", errno))?),
                    Some(ring) => {
                        redirect(&event, &ring.event).map_err(|errno| failed("PERF_EVENT_IOC_SET_OUTPUT", errno))?;
                        others.push(event);
                    }
                }
            }
            rings.extend(own);
        }
        if rings.is_empty() {
            return Err(OpenError::Gone { process });
        }
        Ok(Self { rings, _others: others, bytes: Vec::with_capacity(RING_BYTES) })
    }

    /// Takes all records out of the rings and appends them to `records`: those of one processor in the order of time.
    pub(in crate::shard) fn read(&mut self, records: &mut Vec<Record>) -> Loss {
        let mut loss = Loss::default();
        for ring in &mut self.rings {
            self.bytes.clear();
            loss.is_full |= ring.take(&mut self.bytes);
            loss.records = loss.records.saturating_add(records::parse(&self.bytes, records));
        }
        loss
    }

    /// Whether a ring is at least a quarter full.
    pub(in crate::shard) fn is_quarter_full(&self) -> bool {
        self.rings.iter().any(|ring| ring.unread() >= RING_BYTES / 4)
    }
}

/// One event and its ring.
#[derive(Debug)]
struct Ring {
    /// Before the descriptor: the mapping goes first.
    memory: Mapping,
    /// Position up to which records were taken.
    tail: u64,
    event: OwnedFd,
}

impl Ring {
    fn map(event: OwnedFd) -> Result<Self, Errno> {
        Ok(Self { memory: Mapping::new(libc::MAP_SHARED, event.as_raw_fd())?, tail: 0, event })
    }

    fn unread(&self) -> usize {
        // Acquire: the records before the head are written before the head is.
        let head = self.memory.position(HEAD_OFFSET).load(Ordering::Acquire);
        usize::try_from(head.wrapping_sub(self.tail)).unwrap_or(RING_BYTES).min(RING_BYTES)
    }

    /// Appends the unread bytes to `bytes` and frees their place; returns whether the ring was full.
    fn take(&mut self, bytes: &mut Vec<u8>) -> bool {
        let unread = self.unread();
        let first = (self.tail % RING_BYTES as u64) as usize;
        let before_end = unread.min(RING_BYTES - first);
        self.memory.copy(first, before_end, bytes);
        self.memory.copy(0, unread - before_end, bytes);
        self.tail = self.tail.wrapping_add(unread as u64);
        // Release: the records have been copied before the kernel may write over them.
        self.memory.position(TAIL_OFFSET).store(self.tail, Ordering::Release);
        RING_BYTES - unread < ROOM_LEAST
    }
}

/// The memory of a ring: the control page and the records.
#[derive(Debug)]
struct Mapping(NonNull<u8>);

// SAFETY: the mapping belongs to the process, not to a thread, and is reached through its one owner alone; the kernel, which
// writes to it, orders its writes by `data_head` for readers on any processor.
unsafe impl Send for Mapping {}

impl Mapping {
    const BYTES: usize = CONTROL_BYTES + RING_BYTES;

    fn new(flags: libc::c_int, fd: libc::c_int) -> Result<Self, Errno> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: without an address of ours the kernel chooses a free one; nothing that exists is changed.
        let memory = unsafe { libc::mmap(std::ptr::null_mut(), Self::BYTES, protection, flags, fd, 0) };
        if memory == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        NonNull::new(memory.cast()).map(Self).ok_or(Errno::ENOMEM)
    }

    /// A position in the control page, which the kernel writes and reads, too.
    fn position(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8) && offset < CONTROL_BYTES, "positions stand in the control page");
        // SAFETY: the offset is inside the mapping, which lives as long as `self`, and aligned; both sides access the word only
        // as a whole, we through this atomic.
        unsafe { AtomicU64::from_ptr(self.0.as_ptr().add(offset).cast()) }
    }

    /// Appends `count` bytes from `offset` of the records on. They must be unread: the kernel leaves those alone.
    fn copy(&self, offset: usize, count: usize, to: &mut Vec<u8>) {
        assert!(offset + count <= RING_BYTES, "records stand in the ring");
        to.reserve(count);
        // SAFETY: the source is inside the mapping by the assertion; the target was reserved; a mapping of ours and a Vec do not
        // overlap; the kernel does not write to records between `data_tail` and `data_head`, and any byte is a valid u8.
        unsafe {
            std::ptr::copy_nonoverlapping(self.0.as_ptr().add(CONTROL_BYTES + offset), to.as_mut_ptr().add(to.len()), count);
        }
        // SAFETY: the capacity was reserved and the bytes have just been written.
        unsafe { to.set_len(to.len() + count) };
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours alone, of this length, and nothing borrowed from it outlives `self`.
        let result = unsafe { libc::munmap(self.0.as_ptr().cast(), Self::BYTES) };
        debug_assert_eq!(result, 0, "a mapping of ours can be unmapped");
    }
}

/// Threads of `process`; none if it has ended.
fn threads(process: i32) -> Vec<i32> {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{process}/task")) else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// Starts to record the faults and switches of `thread`, and of all it makes, on `processor`.
///
/// Nothing is excluded: a system call may fault as well.
fn open_event(thread: i32, processor: libc::c_int) -> Result<OwnedFd, Errno> {
    let attributes = Attributes {
        kind: PERF_TYPE_SOFTWARE,
        size: size_of::<Attributes>() as u32,
        config: PERF_COUNT_SW_PAGE_FAULTS,
        sample_period: 1,
        sample_type: PERF_SAMPLE_TID | PERF_SAMPLE_TIME | PERF_SAMPLE_ADDR,
        flags: INHERIT | INHERIT_THREAD | SAMPLE_ID_ALL | USE_CLOCKID | CONTEXT_SWITCH,
        clockid: libc::CLOCK_MONOTONIC,
        ..Attributes::default()
    };
    let no_group: libc::c_int = -1;
    // SAFETY: the kernel reads `size` bytes of the live structure; the other arguments are integers.
    let event = Errno::result(unsafe {
        libc::syscall(libc::SYS_perf_event_open, &raw const attributes, thread, processor, no_group, PERF_FLAG_FD_CLOEXEC)
    })?;
    // SAFETY: the call succeeded, so the value is a new descriptor (they fit an int) that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(event as libc::c_int) })
}

/// Lets `event` write to the ring of `target`, which is of the same processor.
fn redirect(event: &OwnedFd, target: &OwnedFd) -> Result<(), Errno> {
    // SAFETY: the request takes a descriptor by value and touches no memory of ours.
    Errno::result(unsafe { libc::ioctl(event.as_raw_fd(), PERF_EVENT_IOC_SET_OUTPUT, target.as_raw_fd()) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::super::records::{What, tests::fault};
    use super::*;

    /// A ring that no kernel writes to, with its positions at `start`.
    fn ring(start: u64) -> Ring {
        let memory = Mapping::new(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1).unwrap();
        memory.position(HEAD_OFFSET).store(start, Ordering::Relaxed);
        let event = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        Ring { memory, tail: start, event }
    }

    /// Does what the kernel does: bytes, then the head.
    fn write(ring: &Ring, bytes: &[u8]) {
        let head = ring.memory.position(HEAD_OFFSET).load(Ordering::Relaxed);
        for (at, byte) in (head..).zip(bytes) {
            let offset = CONTROL_BYTES + (at % RING_BYTES as u64) as usize;
            // SAFETY: the offset is inside the mapping, and nothing else accesses it in a test.
            unsafe { ring.memory.0.as_ptr().add(offset).write(*byte) };
        }
        ring.memory.position(HEAD_OFFSET).store(head + bytes.len() as u64, Ordering::Release);
    }

    #[test]
    fn records_survive_the_ends_of_the_ring() {
        // The record wraps, in its header and in its body; the positions pass 2^32.
        for start in [0, RING_BYTES as u64 - 4, RING_BYTES as u64 - 20, (1_u64 << 32) - 12] {
            let mut ring = ring(start);
            for round in 1..4 {
                let (mut bytes, mut records) = (Vec::new(), Vec::new());
                write(&ring, &fault(7, round, 0x1000));
                write(&ring, &fault(8, round, 0x2000));
                assert!(!ring.take(&mut bytes));
                assert_eq!(records::parse(&bytes, &mut records), 0);
                let expected = [(7, 0x1000), (8, 0x2000)].map(|(thread, address)| Record {
                    at_ns: round,
                    thread,
                    what: What::Fault { address },
                });
                assert_eq!(records, expected);
                let tail = ring.memory.position(TAIL_OFFSET).load(Ordering::Relaxed);
                assert_eq!(tail, start + round * 64, "the kernel may use the place again");
            }
        }
    }

    #[test]
    fn a_full_ring_is_noticed() {
        #[track_caller]
        fn check(bytes: usize, is_full: bool) {
            let (mut ring, mut taken) = (ring(40), Vec::new());
            write(&ring, &vec![0; bytes]);
            assert_eq!((ring.unread(), ring.take(&mut taken), taken.len()), (bytes, is_full, bytes));
            assert_eq!((ring.unread(), ring.take(&mut taken)), (0, false));
        }
        check(0, false);
        check(RING_BYTES - ROOM_LEAST, false);
        check(RING_BYTES - 24, true);
        check(RING_BYTES, true);
    }
}
