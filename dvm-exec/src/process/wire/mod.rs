//! What the husks of one job say to each other, and how a stranger is kept from saying it.
//!
//! Owns the messages, their bytes and their authentication. Must not know sockets, threads or what a message does.
//!
//! A frame is `length u32 | body | tag u64`, little-endian; `length` counts body and tag. The tag is SipHash-2-4 under the
//! session's key over (direction, sequence, body); of a body of 512 bytes and more, the whole groups of 64 bytes are hashed in eight
//! lanes ([`lanes`]), and the tag is over (direction, sequence, the lanes' hashes, what is left of the body, its length). The session's
//! key comes from the job key and one nonce of each side, so that no frame of one connection is good on another.

use siphasher::sip::SipHasher24;
use siphasher::sip128::Hasher128;
use std::hash::Hasher;
use std::ops::Range;
use thiserror::Error;

mod codec;
pub mod lanes;
#[cfg(test)]
mod tests;

use super::moving::Luggage;
use super::sigframe::{Action, AltStack, SignalInfo, ThreadState};
use super::vma::{Found, Protection};
use crate::sys::cpu::Scheduling;
use crate::sys::lanes::lanes;

/// Payload bytes a call may carry, in or out.
pub const INLINE_BYTES_MAX: usize = 64 * 1024;
/// Longest body.
pub const BODY_BYTES_MAX: usize = INLINE_BYTES_MAX + 8 * 1024;
/// Bytes before the body.
pub const LENGTH_BYTES: usize = 4;
/// Bytes after the body.
pub const TAG_BYTES: usize = 8;
/// Buffers one call may carry.
pub const BUFFERS_MAX: usize = 6;
/// Bytes of a floating-point state.
pub const FLOATING_BYTES_MAX: usize = 16 * 1024;
/// Longest line about a traced call.
pub const TRACE_BYTES_MAX: usize = 1024;
/// Longest answer to a question about a host.
pub const TOLD_BYTES_MAX: usize = INLINE_BYTES_MAX;
/// Most bytes of a part of what runners' hosts say to each other.
pub const RUNNERS_BYTES_MAX: usize = INLINE_BYTES_MAX;
/// Kinds of calls in a member's figures.
pub const FIGURES_CALLS_MAX: usize = 400;

// A full call, a full answer and full figures fit a body.
const _: () = assert!(INLINE_BYTES_MAX + 2048 < BODY_BYTES_MAX && FIGURES_CALLS_MAX * 20 + 64 < BODY_BYTES_MAX);

/// Which side of a connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The root husk.
    Root,
    /// A member's.
    Member,
}

/// A buffer that travels in a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Buffer {
    /// Which argument points to it, 0 to 5.
    pub argument: u8,
    /// Its contents.
    pub bytes: Vec<u8>,
}

/// A buffer the call may fill.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// Which argument points to it, 0 to 5.
    pub argument: u8,
    /// Its size.
    pub bytes: u32,
}

/// A system call to be run by the shadow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Call {
    /// Its number.
    pub number: u32,
    /// Arguments as the program gave them.
    pub arguments: [u64; 6],
    /// What input buffers hold. With none of either, the call runs on raw arguments.
    pub inputs: Vec<Buffer>,
    /// What output buffers can take. An argument in both is read and written.
    pub outputs: Vec<Room>,
}

/// A signal for the thread to take, with what the program wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignalOrder {
    /// siginfo.
    pub info: SignalInfo,
    /// The program's action at the time.
    pub action: Action,
}

/// What came of a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Return {
    /// Result or negative errno.
    pub value: i64,
    /// Contents for the output buffers.
    pub outputs: Vec<Buffer>,
    /// A signal to take before going on.
    pub signal: Option<SignalOrder>,
    /// A signal waits at the root, to be asked for before the program goes on.
    pub is_signalled: bool,
}

/// A thread to be started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ThreadStart {
    /// Registers.
    pub state: ThreadState,
    /// Signal mask.
    pub mask: u64,
    /// Thread id, as the program sees it.
    pub tid: i32,
    /// Process id, as the program sees it.
    pub pid: i32,
    /// Address to clear at the end, 0 for none.
    pub clear_tid: u64,
    /// Alternate stack.
    pub altstack: AltStack,
    /// Whether its delegated calls are told on the service connection.
    pub is_traced: bool,
    /// How it is scheduled, if otherwise than the program was at its start.
    pub scheduling: Option<Scheduling>,
    /// What it brings along, if it was on another host before.
    pub luggage: Luggage,
}

/// What the root asks a member's husk about its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// The text of /proc/meminfo.
    Memory,
    /// The first block of /proc/cpuinfo.
    Processor,
    /// The lines of /proc/stat about processors.
    Times,
    /// What the husk has used: [`super::ask::Usage`].
    Usage,
    /// What a thread has used: [`super::ask::ThreadUsage`].
    Thread(i32),
    /// Have the thread scheduled so from now on; the answer is the call's result.
    Schedule(i32, Scheduling),
}

/// A message. The comment says who sends it, on which connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Root, thread connection, first: run this thread.
    Start(Box<ThreadStart>),
    /// Member, thread: run this call.
    Call(Call),
    /// Member, thread: clone or clone3 by a thread in this state.
    Clone {
        /// The call, raw.
        call: Call,
        /// The caller's state, after the call's instruction.
        state: Box<ThreadState>,
        /// The caller's signal mask.
        mask: u64,
    },
    /// Root, thread: answer to Call, Clone, SetMask and Fault.
    Return(Return),
    /// Member, thread: the program changed this thread's mask. Answered by Return.
    SetMask(u64),
    /// Member, thread: a processor exception the member cannot resolve. Answered by Return with a signal, or the job ends.
    Fault {
        /// What the kernel said.
        info: SignalInfo,
        /// Where.
        ip: u64,
        /// Whether the thread blocks it: no handler can be run.
        is_blocked: bool,
    },
    /// Member, thread: the thread has left its stack and ends. No answer.
    ExitThread {
        /// exit's argument.
        status: i32,
    },
    /// Member, thread or service: what is at this address? Answered by MapAnswer.
    MapQuery {
        /// The address.
        address: u64,
    },
    /// Root: answer to MapQuery.
    MapAnswer {
        /// Area or hole.
        range: Range<u64>,
        /// Its rights.
        protection: Protection,
        /// What it is.
        found: Found,
    },
    /// Root, service: lower these pages to these rights, answered by ProtectDone; with tag 0: they have these rights, no answer.
    Protect {
        /// Comes back.
        tag: u64,
        /// Pages.
        range: Range<u64>,
        /// At most these rights.
        protection: Protection,
    },
    /// Member, service: it is so.
    ProtectDone {
        /// Tag of the request.
        tag: u64,
    },
    /// Root, service: interrupt this thread; it has a signal, or none if a call is only to be broken off.
    Kick {
        /// Thread id, as the program sees it.
        tid: i32,
        /// The signal.
        signal: Option<SignalOrder>,
    },
    /// Root, service: the program has ended; leave. Member: this host cannot go on.
    Exit {
        /// Wait status, or the husk's own exit code.
        status: i32,
    },
    /// Root, service: add this to clocks that count from the boot.
    ClockOffset {
        /// Nanoseconds to add.
        correction_ns: i64,
    },
    /// Root, service: this thread shall go to another host, when it comes out of its call or its code.
    Move {
        /// Thread id, as the program sees it.
        tid: i32,
    },
    /// Member, thread: the thread has left its stack and goes on elsewhere. No answer.
    Depart(Box<ThreadStart>),
    /// Member, service: a thread of the program runs on this kernel thread from now on.
    Carrier {
        /// Thread id, as the program sees it.
        tid: i32,
        /// Kernel thread there.
        carrier: i32,
    },
    /// Either, service: what the parts of a guest say to each other; its first makes the member a part of one.
    Guest(Vec<u8>),
    /// Root, service: make the program's threads there pass a memory barrier. Answered by ProtectDone.
    Barrier {
        /// Comes back.
        tag: u64,
    },
    /// Root, service: tell about this host. Answered by Told.
    Ask {
        /// Comes back.
        tag: u64,
        /// What about it.
        question: Question,
    },
    /// Member, service: the answer; empty if there is none.
    Told {
        /// Tag of the request.
        tag: u64,
        /// Text or words, as the question says.
        answer: Vec<u8>,
    },
    /// Member, service: a line about a delegated call of a traced thread.
    Traced {
        /// At most [`TRACE_BYTES_MAX`] bytes.
        line: Vec<u8>,
    },
    /// Both ways: a part of what the hosts of a DISA program say to each other.
    Runners {
        /// At most [`RUNNERS_BYTES_MAX`] bytes.
        bytes: Vec<u8>,
        /// Whether nothing of it follows.
        is_last: bool,
    },
    /// Member, service: figures of this husk at the end.
    Figures {
        /// User time of the program's threads.
        user_ns: u64,
        /// System time.
        system_ns: u64,
        /// Threads run.
        threads: u32,
        /// Delegated calls: number, how many, nanoseconds from request to answer in all. At most one entry a number.
        calls: Vec<(u32, u64, u64)>,
    },
}

/// Why bytes are refused. The connection is closed and the job ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum WireError {
    /// The length is impossible.
    #[error("frame of {bytes} bytes refused: 9 to {max} are allowed", max = BODY_BYTES_MAX + TAG_BYTES)]
    Length {
        /// What it said.
        bytes: u32,
    },
    /// The tag is wrong: forged, replayed, or out of order.
    #[error("frame {sequence} failed authentication")]
    Forged {
        /// Its place in the stream.
        sequence: u64,
    },
    /// Authentic, but not a message of this version.
    #[error("frame is malformed: {0}")]
    Malformed(&'static str),
    /// A message to be sent is too long.
    #[error("message of {bytes} bytes is too long, at most {BODY_BYTES_MAX} travel")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
}

/// The sending half of a connection's authentication.
#[derive(Clone, Debug)]
pub struct Sealer {
    key: [u8; 16],
    direction: u8,
    sequence: u64,
}

/// The receiving half.
#[derive(Clone, Debug)]
pub struct Opener {
    key: [u8; 16],
    direction: u8,
    sequence: u64,
}

/// Both halves for one side. Each side first sends its 8 random nonce bytes, unframed, then reads the other's.
#[must_use]
pub fn session(job_key: &[u8; 16], side: Side, root_nonce: u64, member_nonce: u64) -> (Sealer, Opener) {
    let mut hasher = siphasher::sip128::SipHasher24::new_with_key(job_key);
    hasher.write(b"dvm husk session");
    hasher.write(&root_nonce.to_le_bytes());
    hasher.write(&member_nonce.to_le_bytes());
    let key = hasher.finish128().as_bytes();
    let (own, other) = match side {
        Side::Root => (FROM_ROOT, FROM_MEMBER),
        Side::Member => (FROM_MEMBER, FROM_ROOT),
    };
    (Sealer { key, direction: own, sequence: 0 }, Opener { key, direction: other, sequence: 0 })
}

/// Bodies of so many bytes are hashed in lanes: one chain over 4 KiB takes as long as the rest of the way through a husk.
const LANED_BYTES_MIN: usize = 512;
const FROM_ROOT: u8 = 1;
const FROM_MEMBER: u8 = 2;

/// Reads a frame's first four bytes: how many follow.
///
/// # Errors
/// [`WireError::Length`].
pub fn frame_bytes(length: [u8; LENGTH_BYTES]) -> Result<usize, WireError> {
    let bytes = u32::from_le_bytes(length);
    let count = bytes as usize;
    if count <= TAG_BYTES || count > BODY_BYTES_MAX + TAG_BYTES {
        return Err(WireError::Length { bytes });
    }
    Ok(count)
}

impl Sealer {
    /// Appends the next frame to `out`.
    ///
    /// # Errors
    /// [`WireError::TooLong`]; nothing was appended.
    pub fn seal(&mut self, message: &Message, out: &mut Vec<u8>) -> Result<(), WireError> {
        let start = out.len();
        out.extend_from_slice(&[0; LENGTH_BYTES]);
        codec::encode(message, out);
        let body = start + LENGTH_BYTES;
        let bytes = out.len() - body;
        if bytes > BODY_BYTES_MAX {
            out.truncate(start);
            return Err(WireError::TooLong { bytes });
        }
        let tag = tag(&self.key, self.direction, self.sequence, &out[body..]);
        out.extend_from_slice(&tag);
        out[start..body].copy_from_slice(&((bytes + TAG_BYTES) as u32).to_le_bytes());
        self.sequence += 1;
        Ok(())
    }
}

impl Opener {
    /// Reads the next frame from the bytes that followed its length.
    ///
    /// # Errors
    /// [`WireError`]. Nothing received makes this panic.
    pub fn open(&mut self, frame: &[u8]) -> Result<Message, WireError> {
        let forged = WireError::Forged { sequence: self.sequence };
        let Some((body, given)) = frame.split_last_chunk::<TAG_BYTES>() else { return Err(forged) };
        // One comparison of whole words: its time does not tell how many bytes were right.
        let expected = tag(&self.key, self.direction, self.sequence, body);
        if u64::from_le_bytes(expected) != u64::from_le_bytes(*given) {
            return Err(forged);
        }
        self.sequence += 1;
        codec::decode(body)
    }
}

fn tag(key: &[u8; 16], direction: u8, sequence: u64, body: &[u8]) -> [u8; TAG_BYTES] {
    let mut hasher = SipHasher24::new_with_key(key);
    hasher.write(&[direction]);
    hasher.write(&sequence.to_le_bytes());
    if body.len() < LANED_BYTES_MIN {
        hasher.write(body);
    } else {
        let (groups, rest) = body.as_chunks();
        for hash in lanes(key, groups) {
            hasher.write(&hash.to_le_bytes());
        }
        hasher.write(rest);
        hasher.write(&(body.len() as u64).to_le_bytes());
    }
    hasher.finish().to_le_bytes()
}
