//! The programs of `dvm-agent trace`: they record when a thread faults, what its agent does about it, and when it runs again.
//!
//! Owns what is recorded of whom: threads whose faults the traced agent has read before. Must not know how records are joined.
#![no_std]
#![no_main]

mod sys;

use aya_ebpf::macros::{map, raw_tracepoint, uprobe};
use aya_ebpf::maps::{LruHashMap, PerCpuArray, RingBuf};
use aya_ebpf::programs::{ProbeContext, RawTracePointContext};
use dsm_fast::{TraceKind, TraceRecord};

const THREADS_MAX: u32 = 16_384;
const RECORDS_BYTES: u32 = 8 << 20;
const PAGE_SHIFT: u32 = 12;

/// Threads that are recorded.
#[map]
pub static THREADS: LruHashMap<u32, u32> = LruHashMap::with_max_entries(THREADS_MAX, 0);

/// See `dsm_fast`, here and below.
#[map]
pub static RECORDS: RingBuf = RingBuf::with_byte_size(RECORDS_BYTES, 0);

#[map]
pub static LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// On page faults of user space, and of the kernel on its behalf.
#[raw_tracepoint]
pub fn dvm_trace_fault(context: RawTracePointContext) -> i32 {
    of_thread(TraceKind::Fault, context.arg::<u64>(0) >> PAGE_SHIFT)
}

/// On switches, before the thread goes.
#[raw_tracepoint(tracepoint = "sched_switch")]
pub fn dvm_trace_out(_context: RawTracePointContext) -> i32 {
    of_thread(TraceKind::Out, 0)
}

/// On switches, when the thread is back.
#[raw_tracepoint(tracepoint = "sched_exit_tp")]
pub fn dvm_trace_in(_context: RawTracePointContext) -> i32 {
    of_thread(TraceKind::In, 0)
}

/// `dvm_mark_fault_read(page, thread)`: from now on the thread is recorded.
#[uprobe]
pub fn dvm_trace_read(context: ProbeContext) -> u32 {
    let thread = context.arg::<u64>(1).unwrap_or(0) as u32;
    sys::remember(&THREADS, thread);
    mark(&context, TraceKind::Read, thread, 1)
}

/// `dvm_mark_request_out(page, count)`
#[uprobe]
pub fn dvm_trace_asked(context: ProbeContext) -> u32 {
    let count = context.arg::<u64>(1).unwrap_or(0) as u32;
    mark(&context, TraceKind::Asked, 0, count)
}

/// `dvm_mark_grant_in(page, count)`
#[uprobe]
pub fn dvm_trace_answered(context: ProbeContext) -> u32 {
    let count = context.arg::<u64>(1).unwrap_or(0) as u32;
    mark(&context, TraceKind::Answered, 0, count)
}

/// `dvm_mark_installed(page, is_remote)`
#[uprobe]
pub fn dvm_trace_installed(context: ProbeContext) -> u32 {
    let is_remote = context.arg::<u64>(1).unwrap_or(0) as u32;
    mark(&context, TraceKind::Installed, 0, is_remote)
}

#[inline(always)]
fn of_thread(kind: TraceKind, page: u64) -> i32 {
    let (by, thread) = sys::who();
    if sys::is_known(&THREADS, thread) {
        record(TraceRecord { at_ns: sys::now(), page, by, thread, kind: kind as u32, count: 1 });
    }
    0
}

#[inline(always)]
fn mark(context: &ProbeContext, kind: TraceKind, thread: u32, count: u32) -> u32 {
    let (_, by) = sys::who();
    let page = context.arg::<u64>(0).unwrap_or(0);
    record(TraceRecord { at_ns: sys::now(), page, by, thread, kind: kind as u32, count });
    0
}

#[inline(always)]
fn record(record: TraceRecord) {
    if !sys::put(&RECORDS, record) {
        sys::count(&LOST);
    }
}
