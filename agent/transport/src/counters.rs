//! What happened to frames, by stable names.
//!
//! Owns the names. Must not know what raises them.

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        /// Counts since the endpoint was bound. Names are stable.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)+
        }

        impl Counters {
            /// Every counter with its name, in a fixed order.
            pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                [$((stringify!($name), self.$name),)+].into_iter()
            }
        }
    };
}

counters! {
    /// Datagrams' worth of frames handed to the kernel, urgent socket.
    frames_out_urgent,
    /// The same, bulk socket.
    frames_out_bulk,
    /// Frames accepted from the urgent socket.
    frames_in_urgent,
    /// Frames accepted from the bulk socket.
    frames_in_bulk,
    /// Frames accepted that a peer's kernel programs sent.
    frames_in_kernel,
    /// Bytes of frames handed to the kernel, headers included.
    bytes_out,
    /// Bytes of frames accepted.
    bytes_in,
    /// Dropped: fewer than 64 bytes.
    dropped_short,
    /// Dropped: another protocol version.
    dropped_version,
    /// Dropped: no such kind.
    dropped_kind,
    /// Dropped: payload length does not fit the flags.
    dropped_length,
    /// Dropped: a field has a value its kind does not allow.
    dropped_field,
    /// Dropped: another cluster's fingerprint.
    dropped_cluster,
    /// Dropped: another membership epoch.
    dropped_epoch,
    /// Dropped: for another node or space.
    dropped_destination,
    /// Dropped: from a node that is no peer, or is lost.
    dropped_unknown_peer,
    /// Dropped: no session with the peer yet.
    dropped_no_session,
    /// Dropped: header tag wrong (forged, damaged, or of an older session).
    dropped_header_tag,
    /// Dropped: payload tag wrong.
    dropped_payload_tag,
    /// Dropped: sequence seen before, or too old to tell.
    dropped_replay,
    /// Dropped: a handshake message that does not decrypt or fits no handshake of ours.
    dropped_handshake,
    /// Dropped: a fragment that contradicts its siblings.
    dropped_fragment,
    /// Pages given up because a fragment never came, or the table was full.
    fragments_expired,
    /// Handshakes finished.
    handshakes_done,
    /// Handshake messages sent again.
    handshake_retries,
    /// Peers lost.
    peers_lost,
    /// Sends refused: queue to the peer full.
    refused_queue_full,
    /// Sends refused: no slot free.
    refused_no_slot,
    /// Sends refused: peer unknown, lost, or payload wrong.
    refused_peer,
    /// Times a page had to wait for credits.
    no_credit,
    /// Probes sent because credits stayed out.
    credit_probes,
    /// Receive buffers ran out; the receive was armed again.
    receive_rearmed,
    /// Sends the kernel put off (socket buffer full); sent again later.
    send_blocked,
    /// Sends the kernel refused; the frame is lost.
    send_failed,
    /// Sockets whose buffers are smaller than wanted (no CAP_NET_ADMIN and small net.core.rmem_max).
    buffers_small,
    /// Frames the fault plan lost.
    injected_loss,
    /// Frames the fault plan doubled.
    injected_duplicate,
    /// Frames the fault plan held back.
    injected_delay,
}
