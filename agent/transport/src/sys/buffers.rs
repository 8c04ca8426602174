//! Receive buffers lent to the kernel (a provided buffer ring) and send slots lent to it one submission at a time.
//!
//! Owns who may touch which bytes when: a receive buffer is ours between its completion and its recycling, a send slot whenever
//! no submission of it is in flight. Must not know what the bytes mean.
#![expect(unsafe_code, reason = "memory shared with the kernel")]

use super::region::Region;
use io_uring::types::BufRingEntry;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, Ordering};

/// A ring of equal receive buffers of one socket.
pub(crate) struct BufferRing {
    entries: Region,
    memory: Region,
    count: u16,
    size: usize,
    tail: u16,
    held: Vec<bool>,
    held_count: u16,
}

impl BufferRing {
    /// Makes `count` (a power of two) buffers of `size` bytes and registers them as `group`.
    pub(crate) fn new(io: &io_uring::IoUring, group: u16, count: u16, size: usize) -> io::Result<BufferRing> {
        assert!(count.is_power_of_two(), "the kernel masks the tail");
        let entries = Region::new(usize::from(count) * size_of::<BufRingEntry>())?;
        let memory = Region::new(usize::from(count) * size)?;
        let address = entries.at(0, usize::from(count) * size_of::<BufRingEntry>()) as u64;
        // SAFETY: the entries are page-aligned, hold `count` entries, and outlive the ring (Ring drops the ring first, or leaks them).
        unsafe { io.submitter().register_buf_ring_with_flags(address, count, group, 0)? };
        let held = vec![true; usize::from(count)];
        let mut ring = BufferRing { entries, memory, count, size, tail: 0, held, held_count: count };
        for index in 0..count {
            ring.recycle(index);
        }
        Ok(ring)
    }

    /// Notes that the kernel filled buffer `index`.
    pub(crate) fn take(&mut self, index: u16) {
        assert!(!self.held[usize::from(index)], "the kernel fills only buffers it was lent");
        self.held[usize::from(index)] = true;
        self.held_count += 1;
    }

    /// The first `length` bytes of a filled buffer.
    pub(crate) fn bytes(&self, index: u16, length: usize) -> &[u8] {
        assert!(self.held[usize::from(index)], "the buffer is ours");
        let start = self.memory.at(usize::from(index) * self.size, length.min(self.size));
        // SAFETY: the bytes are inside the region, initialised (zeroed by mmap), and the kernel does not write them while we hold
        // the buffer; recycling needs &mut self, so the borrow has ended by then.
        unsafe { std::slice::from_raw_parts(start, length.min(self.size)) }
    }

    /// Lends buffer `index` to the kernel again.
    pub(crate) fn recycle(&mut self, index: u16) {
        assert!(self.held[usize::from(index)], "the buffer is ours");
        self.held[usize::from(index)] = false;
        self.held_count -= 1;
        let place = usize::from(self.tail & (self.count - 1)) * size_of::<BufRingEntry>();
        let entry = self.entries.at(place, size_of::<BufRingEntry>()).cast::<BufRingEntry>();
        let address = self.memory.at(usize::from(index) * self.size, self.size) as u64;
        // SAFETY: the entry is inside the region, aligned to 16, and not read by the kernel before the tail moves past it; no other
        // reference to it exists. The fields written do not overlap the tail (which lies in the reserved field of entry 0).
        let entry = unsafe { &mut *entry };
        entry.set_addr(address);
        entry.set_len(self.size as u32);
        entry.set_bid(index);
        self.tail = self.tail.wrapping_add(1);
        let first = self.entries.at(0, size_of::<BufRingEntry>()).cast::<BufRingEntry>().cast_const();
        // SAFETY: `first` is the first entry of the ring, as the call demands.
        let tail = unsafe { BufRingEntry::tail(first) };
        // SAFETY: the tail is an aligned u16 inside the region, valid as long as self; both sides access it atomically.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        // Release: the entry is written before the kernel sees the tail that covers it.
        tail.store(self.tail, Ordering::Release);
    }

    /// Whether at least half of the buffers are with the kernel.
    pub(crate) fn is_half_lent(&self) -> bool {
        self.held_count <= self.count / 2
    }

    /// See [`Region::leak`].
    pub(crate) fn leak(&mut self) {
        self.entries.leak();
        self.memory.leak();
    }
}

/// A socket address as the kernel reads it.
#[derive(Clone, Copy)]
pub(crate) struct RawAddress {
    storage: libc::sockaddr_storage,
    length: libc::socklen_t,
}

impl RawAddress {
    fn unspecified() -> RawAddress {
        // SAFETY: sockaddr_storage is plain integers; all zero is a value (family AF_UNSPEC).
        RawAddress { storage: unsafe { std::mem::zeroed() }, length: 0 }
    }

    fn set(&mut self, address: SocketAddr) {
        *self = RawAddress::unspecified();
        let storage = (&raw mut self.storage).cast::<u8>();
        match address {
            SocketAddr::V4(v4) => {
                let raw = libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: v4.port().to_be(),
                    sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                    sin_zero: [0; 8],
                };
                // SAFETY: sockaddr_storage is larger than, and aligned for, every sockaddr.
                unsafe { storage.cast::<libc::sockaddr_in>().write(raw) };
                self.length = size_of::<libc::sockaddr_in>() as libc::socklen_t;
            }
            SocketAddr::V6(v6) => {
                let raw = libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as libc::sa_family_t,
                    sin6_port: v6.port().to_be(),
                    sin6_flowinfo: v6.flowinfo(),
                    sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                    sin6_scope_id: v6.scope_id(),
                };
                // SAFETY: as above.
                unsafe { storage.cast::<libc::sockaddr_in6>().write(raw) };
                self.length = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
            }
        }
    }
}

/// Send slots of several sizes in one region, each with its own destination.
pub(crate) struct SendArena {
    memory: Region,
    bounds: Vec<(usize, usize)>,
    addresses: Box<[RawAddress]>,
    in_flight: Vec<u16>,
}

/// What a submission needs to point at.
pub(crate) struct SendParts {
    pub(crate) bytes: *const u8,
    pub(crate) address: *const libc::sockaddr,
    pub(crate) address_length: libc::socklen_t,
}

impl SendArena {
    /// Slots of the given sizes, numbered in that order.
    pub(crate) fn new(sizes: &[usize]) -> io::Result<SendArena> {
        let mut end = 0;
        let bounds = sizes
            .iter()
            .map(|size| {
                let start = end;
                end += size.next_multiple_of(64);
                (start, *size)
            })
            .collect();
        Ok(SendArena {
            memory: Region::new(end)?,
            bounds,
            addresses: vec![RawAddress::unspecified(); sizes.len()].into_boxed_slice(),
            in_flight: vec![0; sizes.len()],
        })
    }

    /// The bytes of slot `slot`.
    ///
    /// # Panics
    /// While a submission of it is in flight.
    pub(crate) fn bytes_mut(&mut self, slot: u32) -> &mut [u8] {
        assert_eq!(self.in_flight[slot as usize], 0, "the slot is not with the kernel");
        let (start, length) = self.bounds[slot as usize];
        // SAFETY: inside the region, initialised, disjoint from every other slot, and the kernel does not read it now; the borrow
        // of self keeps it from being submitted meanwhile.
        unsafe { std::slice::from_raw_parts_mut(self.memory.at(start, length), length) }
    }

    /// Sets where submissions of `slot` go.
    pub(crate) fn set_address(&mut self, slot: u32, address: SocketAddr) {
        assert_eq!(self.in_flight[slot as usize], 0, "the slot is not with the kernel");
        self.addresses[slot as usize].set(address);
    }

    /// Lends bytes `offset..offset + length` of `slot` to one submission.
    pub(crate) fn lend(&mut self, slot: u32, offset: usize, length: usize) -> SendParts {
        let (start, size) = self.bounds[slot as usize];
        assert!(offset + length <= size, "inside the slot");
        self.in_flight[slot as usize] += 1;
        let address = &self.addresses[slot as usize];
        SendParts {
            bytes: self.memory.at(start + offset, length),
            address: (&raw const address.storage).cast(),
            address_length: address.length,
        }
    }

    /// Takes `slot` back from one submission.
    pub(crate) fn take_back(&mut self, slot: u32) {
        assert_ne!(self.in_flight[slot as usize], 0, "the slot was with the kernel");
        self.in_flight[slot as usize] -= 1;
    }

    /// Gives memory and addresses up, because the kernel may still read them.
    pub(crate) fn leak(&mut self) {
        self.memory.leak();
        std::mem::forget(std::mem::take(&mut self.addresses));
    }
}
