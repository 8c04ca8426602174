//! The program's threads on a member: each asks its shadow at the root over its own connection.
//!
//! Owns that conversation. Must not execute calls.

use super::calls::Class;
use super::clone::CloneRequest;
use super::sigframe::{SignalInfo, ThreadState};
use super::thread::Thread;
use super::wire::SignalOrder;
use crate::sys::context::{Context, Verdict};
use crate::sys::signal::Frame;

/// A thread's connection to its shadow.
pub struct Link {}

pub fn take_signals(_thread: &Thread, _context: &Context, _frame: Frame) -> Verdict {
    todo!()
}
pub fn resolve(_address: u64, _error: u64) -> bool {
    false
}
pub fn report_fault(_link: &mut Link, _info: &SignalInfo, _rip: u64) -> SignalOrder {
    todo!()
}
pub fn tell_mask(_link: &mut Link, _mask: u64) {}
pub fn end_call(_thread: &Thread, _context: &Context, _frame: Frame, _call: Option<(i64, [u64; 6])>) {}
pub fn delegate(_link: &mut Link, _context: &Context, _number: i64, _arguments: &[u64; 6], _class: &Class) -> i64 {
    todo!()
}
pub fn end_thread(_link: &mut Link, _status: i32) {}
pub fn start_thread(_link: &mut Link, _request: &CloneRequest, _state: ThreadState, _mask: u64) -> i64 {
    todo!()
}
