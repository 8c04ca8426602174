//! How much of everything: waits, sizes and counts that are relied on in several places.
//!
//! Owns the numbers. Must not know what they are for beyond that.

use std::time::Duration;

/// How long the agent may take to say more of a host whose husk, or memory, is gone.
pub const AGENT_LATEST: Duration = Duration::from_millis(700);
/// How long processors may take until they are held.
pub const HELD_LATEST: Duration = Duration::from_secs(5);
/// How long all hosts may take until they say so, or what their processors have done.
pub const ANSWERS_LATEST: Duration = Duration::from_secs(6);
/// How long they may take to go on because one of them is not held.
pub const TAKEN_BACK_LATEST: Duration = Duration::from_secs(1);
/// How long an operator's command waits for a guest.
pub const COMMAND_LATEST: Duration = Duration::from_secs(15);
/// How long a guest waits for the words of an operator's command.
pub const WORDS_LATEST: Duration = Duration::from_secs(2);
/// Longest of them, in bytes.
pub const WORDS_BYTES_MAX: u64 = 4096;

// A guest holds, takes that back if a host does not, and answers.
const _: () =
    assert!(HELD_LATEST.as_secs() < ANSWERS_LATEST.as_secs() && 2 * ANSWERS_LATEST.as_secs() < COMMAND_LATEST.as_secs());
