//! The kernel's helpers that the programs of the trace call.
//!
//! Owns all `unsafe` of these programs. Must not decide anything.
#![expect(unsafe_code, reason = "maps and helpers are raw pointers")]

use aya_ebpf::bindings::BPF_RB_NO_WAKEUP;
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns};
use aya_ebpf::maps::{LruHashMap, PerCpuArray, RingBuf};
use dsm_fast::TraceRecord;

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Some helpers are for GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Process and thread that this runs in.
#[inline(always)]
pub fn who() -> (u32, u32) {
    let both = bpf_get_current_pid_tgid();
    ((both >> 32) as u32, both as u32)
}

/// Nanoseconds of CLOCK_MONOTONIC.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: takes nothing.
    unsafe { bpf_ktime_get_ns() }
}

/// Whether the thread is in the map.
#[inline(always)]
pub fn is_known(threads: &LruHashMap<u32, u32>, thread: u32) -> bool {
    // SAFETY: the value is not looked at.
    unsafe { threads.get(&thread) }.is_some()
}

/// Puts the thread into the map: the oldest ones go for it.
#[inline(always)]
pub fn remember(threads: &LruHashMap<u32, u32>, thread: u32) {
    if !is_known(threads, thread) {
        // One that cannot be put in now is put in at its next fault.
        threads.insert(&thread, &1, 0).unwrap_or_default();
    }
}

/// Puts a record into the ring without waking its reader, who looks by himself; false if there is no room.
#[inline(always)]
pub fn put(records: &RingBuf, record: TraceRecord) -> bool {
    let Some(mut entry) = records.reserve::<TraceRecord>(0) else { return false };
    entry.write(record);
    entry.submit(u64::from(BPF_RB_NO_WAKEUP));
    true
}

/// Adds one to this processor's counter.
#[inline(always)]
pub fn count(counters: &PerCpuArray<u64>) {
    if let Some(count) = counters.get_ptr_mut(0) {
        // SAFETY: the map gave a valid pointer to this processor's own element.
        unsafe { *count += 1 };
    }
}
