//! What the kernel says about a stopped thread.
//!
//! Owns the decoding of userfaultfd messages. Must not decide what a fault means: the kind is a hint, the page's own state
//! decides (a page may have changed between the message and its answer).

use dsm_wire::{Line, PageNumber};

/// A thread of the executor waits for a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The page.
    pub page: PageNumber,
    /// Where in the page; line 0 if the kernel was not asked to say (UFFD_FEATURE_EXACT_ADDRESS).
    pub line: Line,
    /// Whether it wants to write (a hint).
    pub write: bool,
    /// Whether the bytes are there and only the mapping is missing (a hint).
    pub minor: bool,
    /// The thread, in its own process-id namespace.
    pub thread: u32,
}

/// Whether a drain emptied the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Nothing is left: wait for the descriptor.
    Empty,
    /// The limit was reached: drain again before waiting.
    More,
}

/// Bytes of one message.
pub(crate) const MESSAGE_BYTES: usize = 32;

const EVENT_PAGEFAULT: u8 = 0x12;
const FLAG_WRITE: u64 = 1 << 0;
const FLAG_WP: u64 = 1 << 1;
const FLAG_MINOR: u64 = 1 << 2;

/// The fault in `message` (`struct uffd_msg`), `None` for any other event.
pub(crate) fn decode(message: &[u8; MESSAGE_BYTES]) -> Option<Fault> {
    let (words, _) = message.as_chunks::<8>();
    let flags = u64::from_ne_bytes(words[1]);
    let address = u64::from_ne_bytes(words[2]);
    let thread = u64::from_ne_bytes(words[3]) as u32;
    (message[0] == EVENT_PAGEFAULT).then_some(Fault {
        page: PageNumber::containing(address),
        line: Line::containing(address),
        write: flags & (FLAG_WRITE | FLAG_WP) != 0,
        minor: flags & FLAG_MINOR != 0,
        thread,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages() {
        #[track_caller]
        fn check(event: u8, flags: u64, expected: Option<(bool, bool)>) {
            let mut message = [0; MESSAGE_BYTES];
            message[0] = event;
            message[8..16].copy_from_slice(&flags.to_ne_bytes());
            message[16..24].copy_from_slice(&0x7654_3210_u64.to_ne_bytes());
            message[24..28].copy_from_slice(&77_u32.to_ne_bytes());
            let expected =
                expected.map(|(write, minor)| Fault { page: PageNumber(0x7_6543), line: Line(8), write, minor, thread: 77 });
            assert_eq!(decode(&message), expected, "{event:#x} {flags:#x}");
        }
        check(0x12, 0, Some((false, false)));
        check(0x12, FLAG_WRITE, Some((true, false)));
        check(0x12, FLAG_WP, Some((true, false)));
        check(0x12, FLAG_WRITE | FLAG_MINOR, Some((true, true)));
        check(0x13, 0, None);
    }
}
