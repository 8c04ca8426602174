//! The handshake with one peer: Noise NNpsk0 in three messages, each sent again until the next one comes.
//!
//! Owns who speaks first, what is repeated, and what the two sides agree on. Must not know sockets, slots or frames' headers.
//!
//! ```text
//!  lower node             higher node        The lower node's Init wins when both begin; the higher one waits a moment first.
//!   Asking ──Init──────────> (answers)       Reply carries the pair key, drawn by the answerer: a replayed Init cannot
//!   Proving <──Reply──────── Answered        yield a key that was used before, and disturbs nothing: the old session lives
//!   Proving ──Finish───────> Agreed          until the new Finish (or any frame tagged under the new key) proves that the
//!   Agreed <──any frame───── Agreed          asker is alive.
//! ```

use crate::limits::{FINISH_RETRIES_MAX, HANDSHAKE_COURTESY, HANDSHAKE_RETRY_MAX, HANDSHAKE_RETRY_MIN};
use crate::sys::random;
use crate::tags::SipKey;
use crate::{Nanos, TransportError};
use dsm_wire::{Kind, NodeId, SpaceId};
use std::time::Duration;

const PATTERN: &str = "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s";
const OFFER_BYTES: usize = 8 + 16 + 4 + 4;
const PAIR_BYTES: usize = 16;
const MESSAGE_BYTES_MAX: usize = 160;

/// What this endpoint brings to every handshake.
pub(crate) struct Identity {
    pub(crate) me: NodeId,
    pub(crate) space: SpaceId,
    pub(crate) cluster: u32,
    pub(crate) cluster_key: [u8; 32],
    pub(crate) offer: Offer,
}

/// What each side tells the other.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Offer {
    /// Random, new at each start.
    pub(crate) incarnation: u64,
    /// Key of the sender's payload tags.
    pub(crate) publisher: SipKey,
    /// Credits the other side gets, in bytes: urgent, bulk.
    pub(crate) windows: [u32; 2],
}

/// What a finished handshake yields.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Agreement {
    /// Key of header tags, both ways.
    pub(crate) pair: SipKey,
    /// What the peer told.
    pub(crate) peer: Offer,
}

/// A handshake message to send.
pub(crate) struct Greeting {
    pub(crate) kind: Kind,
    pub(crate) payload: Vec<u8>,
    /// Whether it was sent before.
    pub(crate) is_retry: bool,
    /// Key of its header tag, if not the greeting key.
    pub(crate) pair: Option<SipKey>,
}

/// Why a handshake message is refused.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused;

enum Asking {
    /// Nothing asked.
    Silent,
    /// Init sent.
    Init { noise: Box<snow::HandshakeState>, init: Vec<u8> },
    /// Reply came, Finish sent, no frame under the new key yet.
    Finish { pair: SipKey, finish: Vec<u8>, sent: u32 },
}

struct Answered {
    init: Vec<u8>,
    reply: Vec<u8>,
    noise: snow::TransportState,
    agreement: Agreement,
}

/// The handshake with one peer.
pub(crate) struct Handshake {
    peer: NodeId,
    asking: Asking,
    answered: Option<Box<Answered>>,
    retry_at: Option<Nanos>,
    retry_interval: Duration,
}

impl Handshake {
    /// Begins with `peer`: at once if we are the lower node, else after a moment.
    pub(crate) fn new(now: Nanos, me: NodeId, peer: NodeId) -> Handshake {
        let first = if me < peer { now } else { now.after(HANDSHAKE_COURTESY) };
        Handshake { peer, asking: Asking::Silent, answered: None, retry_at: Some(first), retry_interval: HANDSHAKE_RETRY_MIN }
    }

    /// When [`Handshake::handle_timeout`] wants to be called.
    pub(crate) fn poll_timeout(&self) -> Option<Nanos> {
        self.retry_at
    }

    /// Says, or says again, what is to be said now.
    pub(crate) fn handle_timeout(&mut self, identity: &Identity, now: Nanos) -> Result<Option<Greeting>, TransportError> {
        if self.retry_at.is_none_or(|at| at > now) {
            return Ok(None);
        }
        self.retry_at = Some(now.after(self.retry_interval));
        self.retry_interval = (self.retry_interval * 2).min(HANDSHAKE_RETRY_MAX);
        match &mut self.asking {
            Asking::Init { init, .. } => Ok(Some(greeting(Kind::HandshakeInit, init.clone(), true, None))),
            Asking::Finish { pair, finish, sent } if *sent < FINISH_RETRIES_MAX => {
                *sent += 1;
                Ok(Some(greeting(Kind::HandshakeFinish, finish.clone(), true, Some(*pair))))
            }
            Asking::Silent | Asking::Finish { .. } => {
                let mut noise = begin(identity, identity.me, self.peer, true).map_err(TransportError::Noise)?;
                let mut init = vec![0; MESSAGE_BYTES_MAX];
                let length = noise.write_message(&identity.offer.to_bytes(), &mut init).map_err(TransportError::Noise)?;
                init.truncate(length);
                self.asking = Asking::Init { noise: Box::new(noise), init: init.clone() };
                Ok(Some(greeting(Kind::HandshakeInit, init, false, None)))
            }
        }
    }

    /// The peer asks. Returns the answer; none if our own Init goes first.
    pub(crate) fn handle_init(&mut self, identity: &Identity, now: Nanos, payload: &[u8]) -> Result<Option<Greeting>, Refused> {
        if let Some(answered) = &self.answered
            && answered.init == payload
        {
            return Ok(Some(greeting(Kind::HandshakeReply, answered.reply.clone(), true, None)));
        }
        if matches!(self.asking, Asking::Init { .. }) && identity.me < self.peer {
            return Ok(None);
        }
        let answered = answer(identity, self.peer, payload)?;
        let reply = answered.reply.clone();
        self.answered = Some(Box::new(answered));
        if matches!(self.asking, Asking::Init { .. }) {
            self.asking = Asking::Silent;
            self.retry_interval = HANDSHAKE_RETRY_MAX;
            self.retry_at = Some(now.after(HANDSHAKE_RETRY_MAX));
        }
        Ok(Some(greeting(Kind::HandshakeReply, reply, false, None)))
    }

    /// The peer answers our Init. Returns what was agreed, and the Finish.
    pub(crate) fn handle_reply(&mut self, now: Nanos, payload: &[u8]) -> Result<(Agreement, Greeting), Refused> {
        let Asking::Init { noise, .. } = &mut self.asking else { return Err(Refused) };
        let mut plain = [0; MESSAGE_BYTES_MAX];
        let length = noise.read_message(payload, &mut plain).map_err(|_| Refused)?;
        let (offer, pair) = plain[..length].split_first_chunk::<OFFER_BYTES>().ok_or(Refused)?;
        let pair = SipKey::from_bytes(pair.try_into().map_err(|_| Refused)?);
        let Asking::Init { noise, .. } = std::mem::replace(&mut self.asking, Asking::Silent) else { return Err(Refused) };
        let mut transport = noise.into_transport_mode().map_err(|_| Refused)?;
        let mut finish = vec![0; MESSAGE_BYTES_MAX];
        let length = transport.write_message(&[], &mut finish).map_err(|_| Refused)?;
        finish.truncate(length);
        self.retry_interval = HANDSHAKE_RETRY_MIN;
        self.retry_at = Some(now.after(HANDSHAKE_RETRY_MIN));
        self.asking = Asking::Finish { pair, finish: finish.clone(), sent: 1 };
        self.answered = None;
        let agreement = Agreement { pair, peer: Offer::from_bytes(offer) };
        Ok((agreement, greeting(Kind::HandshakeFinish, finish, false, Some(pair))))
    }

    /// The key under which the peer would speak if it has our Reply.
    pub(crate) fn answered_pair(&self) -> Option<SipKey> {
        self.answered.as_ref().map(|answered| answered.agreement.pair)
    }

    /// The peer finishes; its header tag, under [`Handshake::answered_pair`], was right.
    pub(crate) fn handle_finish(&mut self, payload: &[u8]) -> Result<Agreement, Refused> {
        let answered = self.answered.as_mut().ok_or(Refused)?;
        let mut plain = [0; MESSAGE_BYTES_MAX];
        let length = answered.noise.read_message(payload, &mut plain).map_err(|_| Refused)?;
        if length == 0 { self.on_proved().ok_or(Refused) } else { Err(Refused) }
    }

    /// A frame under [`Handshake::answered_pair`] proved that the peer is alive and has our Reply.
    pub(crate) fn on_proved(&mut self) -> Option<Agreement> {
        let answered = self.answered.take()?;
        self.asking = Asking::Silent;
        self.retry_at = None;
        Some(answered.agreement)
    }

    /// A frame under the agreed key came: nothing needs to be said again.
    pub(crate) fn on_confirmed(&mut self) {
        if matches!(self.asking, Asking::Finish { .. }) {
            self.asking = Asking::Silent;
            self.retry_at = None;
        }
    }
}

impl Offer {
    fn to_bytes(self) -> [u8; OFFER_BYTES] {
        let mut bytes = [0; OFFER_BYTES];
        bytes[..8].copy_from_slice(&self.incarnation.to_le_bytes());
        bytes[8..24].copy_from_slice(&self.publisher.to_bytes());
        bytes[24..28].copy_from_slice(&self.windows[0].to_le_bytes());
        bytes[28..32].copy_from_slice(&self.windows[1].to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; OFFER_BYTES]) -> Offer {
        let (incarnation, rest) = bytes.split_first_chunk().expect("32 bytes hold 8");
        let (publisher, rest) = rest.split_first_chunk().expect("24 bytes hold 16");
        let (urgent, bulk) = rest.split_first_chunk().expect("8 bytes hold 4");
        let bulk = bulk.try_into().expect("4 bytes are left");
        Offer {
            incarnation: u64::from_le_bytes(*incarnation),
            publisher: SipKey::from_bytes(*publisher),
            windows: [u32::from_le_bytes(*urgent), u32::from_le_bytes(bulk)],
        }
    }
}

fn greeting(kind: Kind, payload: Vec<u8>, is_retry: bool, pair: Option<SipKey>) -> Greeting {
    Greeting { kind, payload, is_retry, pair }
}

fn answer(identity: &Identity, peer: NodeId, init: &[u8]) -> Result<Answered, Refused> {
    let mut noise = begin(identity, peer, identity.me, false).map_err(|_| Refused)?;
    let mut plain = [0; MESSAGE_BYTES_MAX];
    let length = noise.read_message(init, &mut plain).map_err(|_| Refused)?;
    let offer = Offer::from_bytes(plain[..length].try_into().map_err(|_| Refused)?);
    let pair = random::<PAIR_BYTES>().map_err(|_| Refused)?;
    let mut reply = vec![0; MESSAGE_BYTES_MAX];
    let told = [identity.offer.to_bytes().as_slice(), &pair].concat();
    let length = noise.write_message(&told, &mut reply).map_err(|_| Refused)?;
    reply.truncate(length);
    let noise = noise.into_transport_mode().map_err(|_| Refused)?;
    let agreement = Agreement { pair: SipKey::from_bytes(pair), peer: offer };
    Ok(Answered { init: init.to_vec(), reply, noise, agreement })
}

fn begin(identity: &Identity, asker: NodeId, answerer: NodeId, is_asker: bool) -> Result<snow::HandshakeState, snow::Error> {
    let mut prologue = b"dvm transport 1".to_vec();
    prologue.extend_from_slice(&identity.cluster.to_le_bytes());
    prologue.extend_from_slice(&identity.space.0.to_le_bytes());
    prologue.extend_from_slice(&asker.0.to_le_bytes());
    prologue.extend_from_slice(&answerer.0.to_le_bytes());
    let builder = snow::Builder::new(PATTERN.parse()?).psk(0, &identity.cluster_key)?.prologue(&prologue)?;
    if is_asker { builder.build_initiator() } else { builder.build_responder() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Nanos = Nanos(1_000_000);

    fn identity(me: u16, key: u8) -> Identity {
        let offer = Offer { incarnation: u64::from(me) + 100, publisher: SipKey(me.into(), 7), windows: [1, 2] };
        Identity { me: NodeId(me), space: SpaceId(5), cluster: 6, cluster_key: [key; 32], offer }
    }

    fn ask(handshake: &mut Handshake, identity: &Identity, now: Nanos) -> Greeting {
        handshake.handle_timeout(identity, now).unwrap().expect("due")
    }

    #[test]
    fn three_messages_agree() {
        let (a, b) = (identity(1, 9), identity(2, 9));
        let (mut at_a, mut at_b) = (Handshake::new(NOW, a.me, b.me), Handshake::new(NOW, b.me, a.me));
        assert!(at_b.handle_timeout(&b, NOW).unwrap().is_none(), "the higher node waits");
        let init = ask(&mut at_a, &a, NOW);
        let reply = at_b.handle_init(&b, NOW, &init.payload).unwrap().expect("an answer");
        let again = at_b.handle_init(&b, NOW, &init.payload).unwrap().expect("the same answer");
        assert_eq!(reply.payload, again.payload);
        let (agreed_a, finish) = at_a.handle_reply(NOW, &reply.payload).unwrap();
        assert!(at_a.handle_reply(NOW, &reply.payload).is_err(), "one reply only");
        let agreed_b = at_b.handle_finish(&finish.payload).unwrap();
        assert!(agreed_a.pair == agreed_b.pair && agreed_a.peer == b.offer && agreed_b.peer == a.offer);
        assert!(at_b.handle_finish(&finish.payload).is_err(), "one finish only");
        assert_eq!(at_b.poll_timeout(), None);
        assert!(at_a.poll_timeout().is_some(), "finish is repeated until confirmed");
        at_a.on_confirmed();
        assert_eq!(at_a.poll_timeout(), None);
    }

    #[test]
    fn lower_nodes_init_wins() {
        let (a, b) = (identity(1, 9), identity(2, 9));
        let (mut at_a, mut at_b) = (Handshake::new(NOW, a.me, b.me), Handshake::new(NOW, b.me, a.me));
        let late = NOW.after(HANDSHAKE_COURTESY);
        let from_a = ask(&mut at_a, &a, late);
        let from_b = ask(&mut at_b, &b, late);
        assert!(at_a.handle_init(&a, late, &from_b.payload).unwrap().is_none());
        let reply = at_b.handle_init(&b, late, &from_a.payload).unwrap().expect("b gives way");
        let (agreed, finish) = at_a.handle_reply(late, &reply.payload).unwrap();
        assert!(at_b.handle_finish(&finish.payload).unwrap().pair == agreed.pair);
    }

    #[test]
    fn strangers_and_wrong_addresses_are_refused() {
        let (a, b) = (identity(1, 9), identity(2, 9));
        let mut at_a = Handshake::new(NOW, a.me, b.me);
        let init = ask(&mut at_a, &a, NOW).payload;
        let refuses =
            |identity: &Identity, init: &[u8]| Handshake::new(NOW, identity.me, a.me).handle_init(identity, NOW, init).is_err();
        assert!(refuses(&identity(2, 8), &init), "other cluster key");
        assert!(refuses(&identity(3, 9), &init), "meant for another node");
        assert!(refuses(&Identity { space: SpaceId(4), ..identity(2, 9) }, &init), "another space");
        assert!(refuses(&Identity { cluster: 4, ..identity(2, 9) }, &init), "another cluster");
        assert!(refuses(&b, &init[..init.len() - 1]), "cut short");
        assert!(refuses(&b, &[]), "empty");
        assert!(!refuses(&b, &init));
    }

    #[test]
    fn replayed_init_proves_nothing() {
        let (a, b) = (identity(1, 9), identity(2, 9));
        let (mut at_a, mut at_b) = (Handshake::new(NOW, a.me, b.me), Handshake::new(NOW, b.me, a.me));
        let init = ask(&mut at_a, &a, NOW);
        let reply = at_b.handle_init(&b, NOW, &init.payload).unwrap().unwrap();
        let (_, finish) = at_a.handle_reply(NOW, &reply.payload).unwrap();
        at_b.handle_finish(&finish.payload).unwrap();
        let second = at_b.handle_init(&b, NOW, &init.payload).unwrap().unwrap();
        assert_ne!(reply.payload, second.payload, "a new key each time");
        assert!(at_b.handle_finish(&finish.payload).is_err(), "the old finish does not fit it");
    }

    #[test]
    fn unconfirmed_finish_begins_anew() {
        let (a, b) = (identity(1, 9), identity(2, 9));
        let (mut at_a, mut at_b) = (Handshake::new(NOW, a.me, b.me), Handshake::new(NOW, b.me, a.me));
        let init = ask(&mut at_a, &a, NOW);
        let reply = at_b.handle_init(&b, NOW, &init.payload).unwrap().unwrap();
        at_a.handle_reply(NOW, &reply.payload).unwrap();
        let mut kinds = Vec::new();
        while kinds.last() != Some(&Kind::HandshakeInit) {
            let now = at_a.poll_timeout().expect("keeps trying");
            kinds.push(ask(&mut at_a, &a, now).kind);
        }
        assert_eq!(kinds.len(), FINISH_RETRIES_MAX as usize);
    }
}
