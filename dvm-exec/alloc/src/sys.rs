//! The allocator's memory: slabs, lists through freed blocks, and the exported functions.
//!
//! Owns all unsafe code. Must not allocate by other means than mmap, nor use thread-local storage with destructors that
//! allocate: it is what they would call.

use crate::{ALIGNMENT, CLASSES, HEAD_BYTES, SLAB_BYTES, SMALL_BYTES_MAX, bytes_of, class_of};
use std::ffi::{c_int, c_void};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// Bytes mapped at a time for slabs of one thread.
const CHUNK_BYTES: usize = 1 << 20;
const PAGE_BYTES: usize = 4096;
/// Stands at the start of a slab or of a mapping with one block.
const SMALL: usize = 0x736d_616c_6c5f_6476;
const LARGE: usize = 0x6c61_7267_655f_6476;

/// The start of a slab, on a page of its own; or of the page before a large block, with only the first three words used.
#[repr(C)]
struct Head {
    kind: usize,
    /// A slab: bytes of its blocks. A large block: bytes that can be used.
    bytes: usize,
    /// A large block: start of its mapping.
    mapping: *mut u8,
    /// A large block: length of its mapping.
    mapped: usize,
    /// Slab: whose it is.
    owner: AtomicPtr<Heap>,
    /// Blocks freed by other threads; taken over as a whole.
    strangers: AtomicPtr<Free>,
    /// Blocks that never were in use begin here, for the owner.
    fresh: *mut u8,
    end: *mut u8,
    /// The heap's next slab of this class.
    next: *mut Head,
}

const _: () = assert!(size_of::<Head>() <= HEAD_BYTES);

/// A freed block.
struct Free {
    next: *mut Free,
}

/// What one thread allocates from; heaps are never unmapped, but taken over.
#[repr(C, align(4096))]
struct Heap {
    free: [*mut Free; CLASSES],
    slabs: [*mut Head; CLASSES],
    /// The rest of the chunk that slabs are cut from.
    chunk: *mut u8,
    chunk_end: *mut u8,
    /// The next heap without a thread.
    idle: *mut Heap,
}

/// Heaps of threads that have ended.
static IDLE: AtomicPtr<Heap> = AtomicPtr::new(null_mut());
/// Held while the list of idle heaps is changed.
static IDLE_LOCK: AtomicUsize = AtomicUsize::new(0);
/// The key whose destructor gives a thread's heap back; one more than its number, 0 before it is made.
static KEY: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static HEAP: std::cell::Cell<*mut Heap> = const { std::cell::Cell::new(null_mut()) };
}

fn map(bytes: usize) -> *mut u8 {
    // SAFETY: a fresh anonymous mapping touches nothing that exists.
    let mapped = unsafe {
        libc::mmap(null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
    };
    if mapped == libc::MAP_FAILED { null_mut() } else { mapped.cast() }
}

fn no_memory() -> *mut c_void {
    // SAFETY: errno of the calling thread.
    unsafe { *libc::__errno_location() = libc::ENOMEM };
    null_mut()
}

fn with_idle<T>(body: impl FnOnce() -> T) -> T {
    while IDLE_LOCK.compare_exchange_weak(0, 1, Ordering::Acquire, Ordering::Relaxed).is_err() {
        // SAFETY: yields the processor.
        unsafe { libc::sched_yield() };
    }
    let result = body();
    IDLE_LOCK.store(0, Ordering::Release);
    result
}

/// The calling thread's heap, null without memory.
fn heap() -> *mut Heap {
    let own = HEAP.with(std::cell::Cell::get);
    if own.is_null() { begin() } else { own }
}

#[cold]
fn begin() -> *mut Heap {
    let idle = with_idle(|| {
        let first = IDLE.load(Ordering::Relaxed);
        if !first.is_null() {
            // SAFETY: heaps stay mapped, and an idle one is only touched under the lock.
            IDLE.store(unsafe { (*first).idle }, Ordering::Relaxed);
        }
        first
    });
    // A fresh mapping is zero, and zeros are an empty heap.
    let own = if idle.is_null() { map(size_of::<Heap>()).cast::<Heap>() } else { idle };
    if own.is_null() {
        return own;
    }
    HEAP.with(|slot| slot.set(own));
    let mut key = KEY.load(Ordering::Acquire);
    if key == 0 {
        let mut made = 0;
        // SAFETY: `end` is a function for the life of the process: this library is never unloaded before the threads end.
        if unsafe { libc::pthread_key_create(&raw mut made, Some(end)) } == 0 {
            let number = made as usize + 1;
            // Whoever is later keeps a key without use.
            key = KEY.compare_exchange(0, number, Ordering::AcqRel, Ordering::Acquire).map_or_else(|first| first, |_| number);
        }
    }
    if key != 0 {
        // SAFETY: the key was made above or by another thread. It may allocate: HEAP is set already.
        unsafe { libc::pthread_setspecific(key as u32 - 1, own.cast()) };
    }
    own
}

/// A thread ends: its heap, with its slabs, waits for the next one.
unsafe extern "C" fn end(own: *mut c_void) {
    let own = own.cast::<Heap>();
    HEAP.with(|slot| slot.set(null_mut()));
    with_idle(|| {
        // SAFETY: the thread that used the heap is the calling one, and leaves it here.
        unsafe { (*own).idle = IDLE.load(Ordering::Relaxed) };
        IDLE.store(own, Ordering::Relaxed);
    });
}

fn head_of(block: *mut u8) -> *mut Head {
    // A large block starts a page behind its head and at no slab boundary that is not its own.
    let slab = (block as usize & !(SLAB_BYTES - 1)) as *mut Head;
    let page = (block as usize - PAGE_BYTES) & !(PAGE_BYTES - 1);
    if (block as usize).is_multiple_of(SLAB_BYTES) { page as *mut Head } else { slab }
}

/// A block of `class` for the calling thread.
///
/// # Safety
/// `own` is the calling thread's heap.
unsafe fn take(own: *mut Heap, class: usize) -> *mut u8 {
    // SAFETY: the heap is the caller's alone; slabs in its lists are mapped for ever and theirs to cut.
    unsafe {
        let first = (*own).free[class];
        if !first.is_null() {
            (*own).free[class] = (*first).next;
            return first.cast();
        }
        let slab = (*own).slabs[class];
        if !slab.is_null() && (*slab).fresh < (*slab).end {
            return cut(slab);
        }
        let mut other = slab;
        while !other.is_null() {
            if !(*other).strangers.load(Ordering::Relaxed).is_null() {
                let freed = (*other).strangers.swap(null_mut(), Ordering::Acquire);
                (*own).free[class] = (*freed).next;
                return freed.cast();
            }
            other = (*other).next;
        }
        let slab = new_slab(own, class);
        if slab.is_null() { null_mut() } else { cut(slab) }
    }
}

/// # Safety
/// The slab is the calling thread's and has a fresh block.
unsafe fn cut(slab: *mut Head) -> *mut u8 {
    // SAFETY: as the caller promises.
    unsafe {
        let block = (*slab).fresh;
        (*slab).fresh = block.add((*slab).bytes);
        block
    }
}

/// # Safety
/// `own` is the calling thread's heap.
unsafe fn new_slab(own: *mut Heap, class: usize) -> *mut Head {
    // SAFETY: the heap is the caller's alone; the chunk's rest is memory nobody else knows.
    unsafe {
        if (*own).chunk == (*own).chunk_end {
            let raw = map(CHUNK_BYTES + SLAB_BYTES);
            if raw.is_null() {
                return null_mut();
            }
            (*own).chunk = raw.add(raw.align_offset(SLAB_BYTES));
            (*own).chunk_end = (*own).chunk.add(CHUNK_BYTES);
        }
        let slab = (*own).chunk.cast::<Head>();
        (*own).chunk = (*own).chunk.add(SLAB_BYTES);
        let (bytes, start) = (bytes_of(class), slab.cast::<u8>().add(HEAD_BYTES));
        let end = start.add((SLAB_BYTES - HEAD_BYTES) / bytes * bytes);
        slab.write(Head {
            kind: SMALL,
            bytes,
            mapping: null_mut(),
            mapped: 0,
            owner: AtomicPtr::new(own),
            strangers: AtomicPtr::new(null_mut()),
            fresh: start,
            end,
            next: (*own).slabs[class],
        });
        (*own).slabs[class] = slab;
        slab
    }
}

/// A block with a mapping of its own, at a slab boundary (or `alignment`, if that is more), its head on the page before.
fn take_large(bytes: usize, alignment: usize) -> *mut u8 {
    let alignment = alignment.max(SLAB_BYTES);
    let Some(mapped) = bytes.checked_next_multiple_of(PAGE_BYTES).and_then(|bytes| bytes.checked_add(alignment + PAGE_BYTES))
    else {
        return null_mut();
    };
    let mapping = map(mapped);
    if mapping.is_null() {
        return mapping;
    }
    let block = ((mapping as usize + PAGE_BYTES).next_multiple_of(alignment)) as *mut u8;
    let usable = mapping as usize + mapped - block as usize;
    // SAFETY: the page before the block lies in the fresh mapping.
    unsafe {
        let head = block.sub(PAGE_BYTES).cast::<Head>();
        (&raw mut (*head).kind).write(LARGE);
        (&raw mut (*head).bytes).write(usable);
        (&raw mut (*head).mapping).write(mapping);
        (&raw mut (*head).mapped).write(mapped);
    }
    block
}

fn allocate(bytes: usize, alignment: usize) -> *mut c_void {
    // Blocks of a class that is a multiple of the alignment, behind a head that is one, are aligned.
    let wanted = if alignment > ALIGNMENT { bytes.max(1).checked_next_multiple_of(alignment) } else { Some(bytes) };
    let block = match wanted {
        Some(wanted)
            if wanted <= SMALL_BYTES_MAX && alignment <= HEAD_BYTES && bytes_of(class_of(wanted)).is_multiple_of(alignment) =>
        {
            let own = heap();
            // SAFETY: the heap is the calling thread's.
            if own.is_null() { null_mut() } else { unsafe { take(own, class_of(wanted)) } }
        }
        Some(_) => take_large(bytes, alignment),
        None => null_mut(),
    };
    if block.is_null() { no_memory() } else { block.cast() }
}

fn usable(block: *mut u8) -> usize {
    // SAFETY: the block came from this allocator, so that its head is there.
    unsafe { (*head_of(block)).bytes }
}

/// Allocates; the C function.
#[unsafe(no_mangle)]
pub extern "C" fn malloc(bytes: usize) -> *mut c_void {
    allocate(bytes, ALIGNMENT)
}

/// Frees; the C function.
///
/// # Safety
/// `block` is null or came from this allocator and was not freed since.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free(block: *mut c_void) {
    if block.is_null() {
        return;
    }
    let head = head_of(block.cast());
    // SAFETY: the block's head stays mapped while the block is in use; the block is the caller's to give.
    unsafe {
        if (*head).kind == LARGE {
            libc::munmap((*head).mapping.cast(), (*head).mapped);
            return;
        }
        let (own, freed) = (heap(), block.cast::<Free>());
        if (*head).owner.load(Ordering::Relaxed) == own {
            let class = class_of((*head).bytes);
            (*freed).next = (*own).free[class];
            (*own).free[class] = freed;
            return;
        }
        let mut first = (*head).strangers.load(Ordering::Relaxed);
        loop {
            (*freed).next = first;
            match (*head).strangers.compare_exchange_weak(first, freed, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(seen) => first = seen,
            }
        }
    }
}

/// Allocates zeros; the C function.
#[unsafe(no_mangle)]
pub extern "C" fn calloc(count: usize, bytes: usize) -> *mut c_void {
    let Some(bytes) = count.checked_mul(bytes) else { return no_memory() };
    let block = allocate(bytes, ALIGNMENT);
    if !block.is_null() && bytes <= SMALL_BYTES_MAX {
        // SAFETY: the block has at least so many bytes. A large one is a fresh mapping.
        unsafe { block.cast::<u8>().write_bytes(0, bytes) };
    }
    block
}

/// Changes a block's size; the C function.
///
/// # Safety
/// As [`free`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realloc(block: *mut c_void, bytes: usize) -> *mut c_void {
    if block.is_null() {
        return malloc(bytes);
    }
    if bytes == 0 {
        // SAFETY: as the caller promises.
        unsafe { free(block) };
        return null_mut();
    }
    let former = usable(block.cast());
    if bytes <= former && bytes >= former / 2 {
        return block;
    }
    let moved = malloc(bytes);
    if !moved.is_null() {
        // SAFETY: both blocks have so many bytes and are different; the old one is the caller's to give.
        unsafe {
            moved.cast::<u8>().copy_from_nonoverlapping(block.cast(), former.min(bytes));
            free(block);
        }
    }
    moved
}

/// Allocates at an alignment; the C function.
#[unsafe(no_mangle)]
pub extern "C" fn memalign(alignment: usize, bytes: usize) -> *mut c_void {
    allocate(bytes, alignment.max(ALIGNMENT).checked_next_power_of_two().unwrap_or(1 << 40))
}

/// Allocates at an alignment; the C function.
#[unsafe(no_mangle)]
pub extern "C" fn aligned_alloc(alignment: usize, bytes: usize) -> *mut c_void {
    memalign(alignment, bytes)
}

/// Allocates at an alignment; the C function.
///
/// # Safety
/// `place` can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn posix_memalign(place: *mut *mut c_void, alignment: usize, bytes: usize) -> c_int {
    if !alignment.is_power_of_two() || !alignment.is_multiple_of(size_of::<usize>()) {
        return libc::EINVAL;
    }
    let block = memalign(alignment, bytes);
    if block.is_null() {
        return libc::ENOMEM;
    }
    // SAFETY: as the caller promises.
    unsafe { *place = block };
    0
}

/// Allocates whole pages; the C function.
#[unsafe(no_mangle)]
pub extern "C" fn valloc(bytes: usize) -> *mut c_void {
    memalign(PAGE_BYTES, bytes)
}

/// Bytes of a block; the C function.
#[unsafe(no_mangle)]
pub extern "C" fn malloc_usable_size(block: *mut c_void) -> usize {
    if block.is_null() { 0 } else { usable(block.cast()) }
}
