//! The ring: two receiving sockets, sends from slots, watched descriptors, one system call per batch.
//!
//! Owns submissions and completions, and keeps everything the kernel points at alive. Must not know frames or peers.
#![expect(unsafe_code, reason = "io_uring submissions point at memory")]

use super::buffers::{BufferRing, SendArena};
use crate::limits::{BULK_BUFFERS, COMPLETIONS_MAX, SUBMISSIONS_MAX, URGENT_BUFFERS};
use crate::{Class, Nanos};
use io_uring::{IoUring, cqueue, opcode, squeue, types};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};

const KIND_SHIFT: u32 = 56;
const KIND_RECEIVE: u64 = 1;
const KIND_SEND: u64 = 2;
const KIND_POLL: u64 = 3;
const KIND_CANCEL: u64 = 4;
const KIND_ALARM: u64 = 5;
const PAYLOAD: u64 = (1 << KIND_SHIFT) - 1;

/// One completed operation.
pub(crate) enum Completion {
    /// A datagram lies in a buffer, which is ours until recycled.
    Received { class: Class, buffer: u16, length: usize },
    /// One submission of a slot is over.
    Sent { slot: u32, error: Option<i32> },
    /// A watched descriptor is ready; `armed` says whether the watch goes on.
    Polled { name: u64, armed: bool, failed: bool },
}

/// How long [`Ring::enter`] may wait.
#[derive(Clone, Copy)]
pub(crate) enum Patience {
    /// Not at all; makes no system call when the kernel has nothing for us.
    None,
    /// Until something happens or this time has come; an alarm set for an earlier time, which nobody may need any more, ends the
    /// wait too.
    Until {
        /// The present.
        now: Nanos,
        /// When to come back.
        at: Nanos,
    },
    /// Until something happens.
    Forever,
}

/// What a ring is made of.
pub(crate) struct RingConfig<'a> {
    /// Urgent and bulk socket.
    pub(crate) sockets: [UdpSocket; 2],
    /// Bytes of a receive buffer.
    pub(crate) receive_bytes: usize,
    /// Bytes of each send slot.
    pub(crate) slot_bytes: &'a [usize],
}

/// See the file's head. Fields drop in order: the ring before what it points at.
pub(crate) struct Ring {
    io: IoUring,
    receive: [BufferRing; 2],
    send: SendArena,
    sockets: [UdpSocket; 2],
    armed: [bool; 2],
    rearmed: u64,
    in_flight: usize,
    is_enabled: bool,
    alarm: Option<Nanos>,
    alarm_after: Box<types::Timespec>,
}

// SAFETY: until `enter` first runs the ring is disabled and tied to no thread; afterwards the kernel refuses other threads
// (SINGLE_ISSUER), which shows as an error, not as a race: every access needs &mut self. The memory behind it is plain.
unsafe impl Send for Ring {}

impl Ring {
    /// Sets the ring up, disabled: the first [`Ring::enter`] ties it to its thread.
    pub(crate) fn new(config: RingConfig<'_>) -> io::Result<Ring> {
        let io = IoUring::builder()
            .dontfork()
            .setup_cqsize(COMPLETIONS_MAX)
            .setup_submit_all()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_r_disabled()
            .build(SUBMISSIONS_MAX)?;
        let receive = [
            BufferRing::new(&io, 0, URGENT_BUFFERS, config.receive_bytes)?,
            BufferRing::new(&io, 1, BULK_BUFFERS, config.receive_bytes)?,
        ];
        let send = SendArena::new(config.slot_bytes)?;
        io.submitter().register_files(&config.sockets.each_ref().map(AsRawFd::as_raw_fd))?;
        Ok(Ring {
            io,
            receive,
            send,
            sockets: config.sockets,
            armed: [false; 2],
            rearmed: 0,
            in_flight: 0,
            is_enabled: false,
            alarm: None,
            alarm_after: Box::new(types::Timespec::new()),
        })
    }

    /// The socket of `class`.
    pub(crate) fn socket(&self, class: Class) -> &UdpSocket {
        &self.sockets[class as usize]
    }

    /// The bytes of a received datagram.
    pub(crate) fn received(&self, class: Class, buffer: u16, length: usize) -> &[u8] {
        self.receive[class as usize].bytes(buffer, length)
    }

    /// Gives a receive buffer back to the kernel.
    pub(crate) fn recycle(&mut self, class: Class, buffer: u16) {
        self.receive[class as usize].recycle(buffer);
    }

    /// The bytes of a slot that is not in flight.
    pub(crate) fn slot_mut(&mut self, slot: u32) -> &mut [u8] {
        self.send.bytes_mut(slot)
    }

    /// Where a slot that is not in flight goes.
    pub(crate) fn set_address(&mut self, slot: u32, address: SocketAddr) {
        self.send.set_address(slot, address);
    }

    /// Times a receive had run out of buffers.
    pub(crate) fn rearmed(&self) -> u64 {
        self.rearmed
    }

    /// Submits bytes `offset..offset + length` of `slot` on the socket of `class` with the next [`Ring::enter`].
    pub(crate) fn push_send(&mut self, class: Class, slot: u32, offset: usize, length: usize) -> io::Result<()> {
        let parts = self.send.lend(slot, offset, length);
        let entry = opcode::Send::new(types::Fixed(class as u32), parts.bytes, length as u32)
            .flags(libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
            .dest_addr(parts.address)
            .dest_addr_len(parts.address_length)
            .build()
            .user_data(KIND_SEND << KIND_SHIFT | u64::from(slot));
        self.in_flight += 1;
        self.push(&entry)
    }

    /// Watches `fd` under `name` until cancelled.
    pub(crate) fn push_poll(&mut self, fd: RawFd, name: u64) -> io::Result<()> {
        let entry = opcode::PollAdd::new(types::Fd(fd), libc::POLLIN as u32)
            .multi(true)
            .build()
            .user_data(KIND_POLL << KIND_SHIFT | name & PAYLOAD);
        self.push(&entry)
    }

    /// Ends the watch `name`.
    pub(crate) fn push_poll_cancel(&mut self, name: u64) -> io::Result<()> {
        let entry = opcode::AsyncCancel::new(KIND_POLL << KIND_SHIFT | name & PAYLOAD)
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS)
            .user_data(KIND_CANCEL << KIND_SHIFT);
        self.push(&entry)
    }

    /// Submits everything pushed and waits until something besides our own sends completes, as long as `patience` says.
    pub(crate) fn enter(&mut self, patience: Patience) -> io::Result<()> {
        if !self.is_enabled {
            self.io.submitter().register_enable_rings()?;
            self.is_enabled = true;
        }
        for class in [Class::Urgent, Class::Bulk] {
            if !self.armed[class as usize] && self.receive[class as usize].is_half_lent() {
                self.push_receive(class)?;
            }
        }
        let result = match patience {
            Patience::None => {
                let queue = self.io.submission();
                if queue.is_empty() && !queue.taskrun() && !queue.cq_overflow() {
                    return Ok(());
                }
                drop(queue);
                self.io.submit()
            }
            Patience::Until { now, at } => {
                self.set_alarm(now, at)?;
                self.io.submit_and_wait(self.awaited())
            }
            Patience::Forever => self.io.submit_and_wait(self.awaited()),
        };
        match result {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                // A signal, or completions must be taken first: the caller looks and comes again.
                Some(libc::EINTR | libc::EAGAIN | libc::EBUSY) => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// Completions to wait for: sends complete inside the call (MSG_DONTWAIT); one more is something that happened.
    fn awaited(&self) -> usize {
        self.in_flight + 1
    }

    /// Sees to it that a completion comes at `at` or before. A wait with a time limit of its own would start and stop a timer of
    /// the kernel each time; where that leaves a virtual machine it costs 8 us, twice per remote fault. An alarm that stays
    /// set while later ones come and go costs nothing, and one wake-up too early when it rings.
    fn set_alarm(&mut self, now: Nanos, at: Nanos) -> io::Result<()> {
        if self.alarm.is_some_and(|set| set <= at) {
            return Ok(());
        }
        *self.alarm_after = types::Timespec::from(at.since(now));
        let after: *const types::Timespec = &raw const *self.alarm_after;
        let name = KIND_ALARM << KIND_SHIFT;
        let entry = match self.alarm {
            // Fails only when the alarm has rung just now, and then we come back at once.
            Some(_) => opcode::TimeoutUpdate::new(name, after)
                .build()
                .flags(squeue::Flags::SKIP_SUCCESS)
                .user_data(KIND_CANCEL << KIND_SHIFT),
            None => opcode::Timeout::new(after).build().user_data(name),
        };
        self.alarm = Some(at);
        self.push(&entry)
    }

    /// Hands every completion so far to `handle`.
    pub(crate) fn drain(&mut self, mut handle: impl FnMut(Completion)) {
        let Ring { io, receive, send, armed, rearmed, in_flight, alarm, .. } = self;
        for entry in io.completion() {
            let payload = entry.user_data() & PAYLOAD;
            match entry.user_data() >> KIND_SHIFT {
                KIND_RECEIVE => {
                    let class = if payload == Class::Urgent as u64 { Class::Urgent } else { Class::Bulk };
                    if !cqueue::more(entry.flags()) {
                        armed[class as usize] = false;
                        *rearmed += 1;
                    }
                    if let Some(buffer) = cqueue::buffer_select(entry.flags()) {
                        receive[class as usize].take(buffer);
                        handle(Completion::Received { class, buffer, length: usize::try_from(entry.result()).unwrap_or(0) });
                    }
                }
                KIND_SEND => {
                    let slot = payload as u32;
                    send.take_back(slot);
                    *in_flight -= 1;
                    handle(Completion::Sent { slot, error: (entry.result() < 0).then_some(-entry.result()) });
                }
                KIND_POLL => {
                    handle(Completion::Polled { name: payload, armed: cqueue::more(entry.flags()), failed: entry.result() < 0 })
                }
                KIND_ALARM => *alarm = None,
                _ => {}
            }
        }
    }

    fn push_receive(&mut self, class: Class) -> io::Result<()> {
        let entry = opcode::RecvMulti::new(types::Fixed(class as u32), class as u16)
            .build()
            .user_data(KIND_RECEIVE << KIND_SHIFT | class as u64);
        self.armed[class as usize] = true;
        self.push(&entry)
    }

    fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        loop {
            // SAFETY: what the entry points at is a send slot (lent: neither written nor freed before its completion),
            // the alarm's time (read when it is submitted, kept until the next one), or nothing.
            // Slots, addresses and receive buffers live as long as the ring, or are leaked with it.
            if unsafe { self.io.submission().push(entry) }.is_ok() {
                return Ok(());
            }
            self.enter_full()?;
        }
    }

    /// The submission queue is full: submits without waiting.
    fn enter_full(&mut self) -> io::Result<()> {
        if self.is_enabled { self.io.submit().map(drop) } else { Err(io::ErrorKind::StorageFull.into()) }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // A receive still armed could complete into memory we are about to unmap.
        let timeout = Some(types::Timespec::new().sec(1));
        let cancelled = match self.io.submitter().register_sync_cancel(timeout, types::CancelBuilder::any()) {
            Ok(()) => true,
            Err(error) => error.raw_os_error() == Some(libc::ENOENT) || !self.is_enabled,
        };
        if !cancelled {
            self.receive.iter_mut().for_each(BufferRing::leak);
            self.send.leak();
        }
    }
}
