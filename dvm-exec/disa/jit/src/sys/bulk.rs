//! What machine code calls for instructions over many bytes.
//!
//! Owns the work on memory that may be accessed directly. Must not trap: it declines, and the interpreter executes the instruction.
//!
//! Up to the bytes that the interpreter handles at once, all pages are asked for before anything is done, in the interpreter's order:
//! the same pages are accessed, whatever the bytes say.

use super::Runtime;
use crate::frame::Frame;
use dvm_disa::interpreter::fnv1a;
use dvm_disa::limits::{BULK_BYTES_PER_FUEL, BULK_CHUNK_BYTES};
use dvm_disa::map::{PAGE_BYTES, Range, WINDOW};
use dvm_disa::memory::Access;
use std::mem::MaybeUninit;
use std::ptr;
use std::slice;

/// The answer to machine code.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Done {
    /// 1 if the instruction is executed; 0: nothing has happened.
    is_done: u64,
    /// Its result.
    value: u64,
}

const DECLINED: Done = Done { is_done: 0, value: 0 };

/// A range in this process: on one page, or on two.
type Parts = [(*mut u8, usize); 2];

/// The address of [`copy`], for machine code.
pub fn copy_address() -> u64 {
    copy as *const () as u64
}

/// The address of [`fill`], for machine code.
pub fn fill_address() -> u64 {
    fill as *const () as u64
}

/// The address of [`compare`], for machine code.
pub fn compare_address() -> u64 {
    compare as *const () as u64
}

/// The address of [`find`], for machine code.
pub fn find_address() -> u64 {
    find as *const () as u64
}

/// The address of [`hash`], for machine code.
pub fn hash_address() -> u64 {
    hash as *const () as u64
}

/// # Safety
/// As for [`super::step`]; so for all functions here.
unsafe extern "sysv64" fn copy(frame: *mut Frame, from: u64, bytes: u64, to: u64) -> Done {
    let act = |runtime: &mut Runtime<'_>| {
        let from = runtime.parts(Range::new(from, bytes), Access::Load)?;
        let to = runtime.parts(Range::new(to, bytes), Access::Store)?;
        let mut buffer = [const { MaybeUninit::<u8>::uninit() }; BULK_CHUNK_BYTES];
        let mut done = 0;
        for (host, count) in from {
            // SAFETY: these bytes may be read, and the buffer has room: both parts together are no longer.
            unsafe { ptr::copy_nonoverlapping(host, buffer[done..].as_mut_ptr().cast(), count) };
            done += count;
        }
        done = 0;
        for (host, count) in to {
            // SAFETY: these bytes may be written, and as many were read into the buffer.
            unsafe { ptr::copy_nonoverlapping(buffer[done..].as_ptr().cast(), host, count) };
            done += count;
        }
        Some(0)
    };
    // SAFETY: the caller's promise.
    unsafe { work(frame, bytes, act) }
}

unsafe extern "sysv64" fn fill(frame: *mut Frame, byte: u64, bytes: u64, to: u64) -> Done {
    let act = |runtime: &mut Runtime<'_>| {
        for (host, count) in runtime.parts(Range::new(to, bytes), Access::Store)? {
            // SAFETY: these bytes may be written.
            unsafe { ptr::write_bytes(host, byte as u8, count) };
        }
        Some(0)
    };
    // SAFETY: the caller's promise.
    unsafe { work(frame, bytes, act) }
}

unsafe extern "sysv64" fn compare(frame: *mut Frame, left: u64, right: u64, bytes: u64) -> Done {
    let act = |runtime: &mut Runtime<'_>| {
        let left = runtime.parts(Range::new(left, bytes), Access::Load)?;
        let right = runtime.parts(Range::new(right, bytes), Access::Load)?;
        if let ([left, (_, 0)], [right, (_, 0)]) = (left, right) {
            return Some(alike(bytes_of(left), bytes_of(right)));
        }
        Some(alike(left.into_iter().flat_map(bytes_of), right.into_iter().flat_map(bytes_of)))
    };
    // SAFETY: the caller's promise.
    unsafe { work(frame, bytes, act) }
}

unsafe extern "sysv64" fn find(frame: *mut Frame, byte: u64, base: u64, bytes: u64) -> Done {
    let act = |runtime: &mut Runtime<'_>| {
        let [one, two] = runtime.parts(Range::new(base, bytes), Access::Load)?.map(bytes_of);
        let position = |part: &[u8]| part.iter().position(|other| u64::from(*other) == byte);
        let found = position(one).or_else(|| position(two).map(|at| one.len() + at));
        Some(found.map_or(bytes, |at| at as u64))
    };
    // SAFETY: the caller's promise.
    unsafe { work(frame, bytes, act) }
}

unsafe extern "sysv64" fn hash(frame: *mut Frame, base: u64, bytes: u64, _: u64) -> Done {
    let act = |runtime: &mut Runtime<'_>| {
        let parts = runtime.parts(Range::new(base, bytes), Access::Load)?.map(bytes_of);
        Some(parts.into_iter().fold(fnv1a::OFFSET, fnv1a::add))
    };
    // SAFETY: the caller's promise.
    unsafe { work(frame, bytes, act) }
}

/// How many bytes are the same from the beginning on.
fn alike<'a>(left: impl IntoIterator<Item = &'a u8>, right: impl IntoIterator<Item = &'a u8>) -> u64 {
    left.into_iter().zip(right).take_while(|(left, right)| left == right).count() as u64
}

/// The bytes of a part that may be read.
fn bytes_of<'a>((host, count): (*mut u8, usize)) -> &'a [u8] {
    // SAFETY: `parts` found them, and nobody writes to them while an instruction that only reads is executed.
    unsafe { slice::from_raw_parts(host, count) }
}

/// Does the work and pays for it, if there is enough fuel.
///
/// # Safety
/// As for [`super::step`].
unsafe fn work(frame: *mut Frame, bytes: u64, act: impl FnOnce(&mut Runtime<'_>) -> Option<u64>) -> Done {
    if bytes > BULK_CHUNK_BYTES as u64 {
        return DECLINED;
    }
    // SAFETY: the caller's promise; nobody else has the frame meanwhile.
    let frame = unsafe { &mut *frame };
    let cost = 1 + bytes.div_ceil(BULK_BYTES_PER_FUEL);
    if frame.left < cost {
        return DECLINED;
    }
    // SAFETY: `enter` keeps the runtime where it is until machine code returns, and accesses it no more before that.
    let runtime = unsafe { &mut *frame.runtime.cast::<Runtime<'_>>() };
    let value = act(runtime);
    // Whatever was done with the processor, the window's address is taken anew.
    frame.window = runtime.processor.window().as_mut_ptr();
    let Some(value) = value else { return DECLINED };
    frame.left -= cost;
    Done { is_done: 1, value }
}

impl Runtime<'_> {
    /// Where a range of at most the bytes handled at once is in this process.
    fn parts(&mut self, range: Range, access: Access) -> Option<Parts> {
        let nothing = (ptr::dangling_mut(), 0);
        if range.bytes == 0 {
            return Some([nothing; 2]);
        }
        range.end()?;
        if WINDOW.overlaps(range) {
            return None;
        }
        let first = range.bytes.min(PAGE_BYTES - range.base % PAGE_BYTES);
        let mut part = |base, bytes| {
            let region = self.regions.find(Range::new(base, bytes), access, self.processor)?;
            Some((region.host.wrapping_add((base - region.range.base) as usize), bytes as usize))
        };
        let one = part(range.base, first)?;
        let rest = range.bytes - first;
        Some([one, if rest == 0 { nothing } else { part(range.base + first, rest)? }])
    }
}
