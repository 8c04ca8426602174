//! Shadows: the root's threads that stand for the program's threads on other hosts.
//!
//! Owns the root's end of a thread's connection. Must not know what a call does.

use super::husk::Root;
use super::sigframe::ThreadState;
use super::thread::Task;
use std::sync::Arc;

/// Starts the thread on its host and serves its calls until it ends.
pub fn serve(_root: &'static Root, _task: &Arc<Task>, _state: &ThreadState, _mask: u64) {
    todo!()
}
