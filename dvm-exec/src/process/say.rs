//! What the husk tells the user: lines on a private copy of stderr, which the program cannot close or redirect.
//!
//! Owns that descriptor and which refusals were already named. Must not decide what is refused.

use super::{check, descriptors};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Kinds of refusals that are remembered; more are not named.
const KINDS_MAX: usize = 256;

static STDERR: OnceLock<File> = OnceLock::new();
/// Whether the copy is closed.
static IS_LEFT: AtomicBool = AtomicBool::new(false);
static NAMED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Keeps a copy of stderr for the husk. Until then, lines go to stderr itself.
pub fn keep_stderr() {
    if let Some(copy) = descriptors::duplicate_hidden(2) {
        STDERR.get_or_init(|| File::from(copy));
    }
}

/// In a forked child that lives on: lines go to the program's stderr, since who reads it may wait for its end.
pub fn leave_stderr() {
    IS_LEFT.store(true, Ordering::Relaxed);
}

/// Writes one line, prefixed with the program's name. A stderr that is gone is not an error.
pub fn line(text: &str) {
    raw(&format!("dvm-exec: {text}\n"));
}

/// Writes text as it is.
pub fn raw(text: &str) {
    let written = match STDERR.get().filter(|_| !IS_LEFT.load(Ordering::Relaxed)) {
        Some(mut file) => file.write_all(text.as_bytes()),
        None => std::io::stderr().write_all(text.as_bytes()),
    };
    written.unwrap_or(());
}

/// Names no refusal until the guard is dropped, so that a forked child finds the list whole.
pub fn freeze() -> impl Drop {
    NAMED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Names a refused kind of call, the first time it is met; under `--check` in the table at the end.
pub fn refused(kind: &str, reason: &str) {
    if check::is_on() {
        return check::refused(kind, reason);
    }
    if is_first(kind) {
        line(&format!("{kind} is not supported: {reason}"));
    }
}

fn is_first(kind: &str) -> bool {
    let mut named = NAMED.lock().unwrap_or_else(PoisonError::into_inner);
    named.len() < KINDS_MAX && named.insert(kind.to_owned())
}
