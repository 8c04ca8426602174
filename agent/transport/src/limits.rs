//! Every maximum and interval of the transport, and how they hang together.
//!
//! Owns numbers. Must not know code.

use std::time::Duration;

/// Peers of one endpoint.
pub const PEERS_MAX: usize = 1024;
/// Descriptors watched at once.
pub const WATCHES_MAX: usize = 256;

/// Interval of pings to a peer.
pub const PING_INTERVAL: Duration = Duration::from_millis(500);
/// Without an authenticated frame for this long a peer is lost.
pub const LEASE: Duration = Duration::from_millis(2500);

/// First interval after which a handshake message is sent again; doubles.
pub const HANDSHAKE_RETRY_MIN: Duration = Duration::from_millis(20);
/// Longest such interval.
pub const HANDSHAKE_RETRY_MAX: Duration = Duration::from_millis(320);
/// How long the higher node leaves the first word to the lower one.
pub const HANDSHAKE_COURTESY: Duration = Duration::from_millis(100);
/// Finishes sent without an answer before the handshake begins anew.
pub const FINISH_RETRIES_MAX: u32 = 8;
/// A peer whose handshake has not ended by then is lost.
pub const HANDSHAKE_GIVE_UP: Duration = Duration::from_secs(10);

/// Bytes of a slot for handshake messages, and for as many control frames as may leave in one datagram.
pub const SMALL_SLOT_BYTES: usize = 1024;
/// Slots for control frames and handshake messages.
pub const SMALL_SLOTS: usize = 2048;
/// Slots for one page.
pub const PAGE_SLOTS: usize = 512;
/// Slots for up to 16 pages.
pub const BATCH_SLOTS: usize = 128;

/// Handshake messages waiting for one peer.
pub const GREETINGS_MAX: usize = 8;
/// Control frames waiting for one peer.
pub const CONTROL_QUEUE_MAX: usize = 1024;
/// Urgent grants of bytes waiting for one peer.
pub const URGENT_QUEUE_MAX: usize = 256;
/// Bulk grants of bytes waiting for one peer.
pub const BULK_QUEUE_MAX: usize = 96;

/// Submissions one batch may make.
pub const SENDS_PER_BATCH_MAX: usize = 256;
/// Bulk bytes after which one batch submits no more bulk: bounds how long an urgent frame waits behind bulk in the kernel.
pub const BULK_BYTES_PER_BATCH: usize = 32 << 10;
/// Bulk bytes handed out after which the urgent socket is looked at again.
pub const BULK_BYTES_PER_LOOK: usize = 32 << 10;

/// Entries of the submission queue.
pub const SUBMISSIONS_MAX: u32 = 1024;
/// Entries of the completion queue.
pub const COMPLETIONS_MAX: u32 = 4096;
/// Receive buffers of the urgent socket (a power of two).
pub const URGENT_BUFFERS: u16 = 128;
/// Receive buffers of the bulk socket (a power of two).
pub const BULK_BUFFERS: u16 = 64;

/// Bytes of a receive buffer: as many datagrams as the kernel joins.
pub const RECEIVE_BYTES: usize = 64 << 10;

/// Wanted socket buffers, in bytes.
pub const SOCKET_BUFFER_BYTES: usize = 8 << 20;
/// Credits one peer gets at most, in bytes, per socket.
pub const CREDIT_WINDOW_MAX: u32 = 1024 << 10;
/// Credits one peer gets at least.
pub const CREDIT_WINDOW_MIN: u32 = 16 << 10;
/// The credit window is this part of the socket buffer: several peers fill it at once, and the kernel counts more than the bytes.
pub const CREDIT_BUFFER_SHARE: usize = 8;
/// A receiver reports when this part of the window is consumed; each report costs it a frame and its sender a wake-up.
pub const CREDIT_REPORT_SHARE: u32 = 2;
/// A sender without credits asks after this long.
pub const CREDIT_PROBE_INTERVAL: Duration = Duration::from_millis(4);

/// Sequences a replay window remembers (a multiple of 64).
pub const REPLAY_WINDOW: u64 = 8192;
/// Pages under reassembly at once.
pub const REASSEMBLIES_MAX: usize = 64;
/// A page whose fragments have not all come by then is given up.
pub const REASSEMBLY_TIMEOUT: Duration = Duration::from_millis(200);
/// Pieces of a page at most (the header has four bits).
pub const FRAGMENTS_MAX: usize = 16;
/// Largest UDP payload.
pub const DATAGRAM_MAX: usize = 65_507;
/// Datagrams the kernel cuts out of one send (UDP_MAX_SEGMENTS of Linux before 6.6).
pub const SEGMENTS_MAX: usize = 64;
/// Smallest MTU whose datagrams carry a sixteenth of a page.
pub const MTU_MIN: u16 = 48 + 64 + 256;

const _: () = {
    assert!(SENDS_PER_BATCH_MAX + WATCHES_MAX * 2 + 2 <= SUBMISSIONS_MAX as usize);
    assert!(URGENT_BUFFERS.is_power_of_two() && BULK_BUFFERS.is_power_of_two());
    assert!(
        (URGENT_BUFFERS + BULK_BUFFERS) as usize + SENDS_PER_BATCH_MAX + WATCHES_MAX * 2 <= COMPLETIONS_MAX as usize,
        "completions of one batch fit"
    );
    assert!(REPLAY_WINDOW.is_multiple_of(64) && REPLAY_WINDOW >= 4096);
    assert!(CONTROL_QUEUE_MAX + GREETINGS_MAX < SMALL_SLOTS, "one silent peer cannot take every slot");
    assert!(URGENT_QUEUE_MAX < PAGE_SLOTS && BULK_QUEUE_MAX < BATCH_SLOTS);
    assert!(LEASE.as_millis() >= 4 * PING_INTERVAL.as_millis(), "a lease survives the loss of several pings");
    assert!(CREDIT_WINDOW_MAX as usize >= BULK_BYTES_PER_BATCH);
    assert!(CREDIT_REPORT_SHARE >= 2, "what is consumed but not reported leaves room to send");
};
