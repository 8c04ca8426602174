//! Peers come, shake hands, are heard of, and are lost.
//!
//! Owns sessions, leases and the timers of peers. Must not know sockets or what messages mean.

use crate::endpoint::{Notice, Place};
use crate::handshake::Agreement;
use crate::limits::PEERS_MAX;
use crate::peer::{Peer, Session};
use crate::receive::Drop;
use crate::tags::{header_tag, sip};
use crate::{Class, Endpoint, LostReason, Nanos, TransportError};
use dsm_wire::{Header, Kind, NodeId};
use std::net::SocketAddr;

/// `page` of a Ping that asks for a report of credits: the class plus one. 0 asks for a Pong.
const PROBE: u64 = 1;

impl Endpoint {
    /// Begins (again) to talk with `node`; [`crate::Event::PeerUp`] follows. A lost peer may be added again.
    ///
    /// # Errors
    /// [`TransportError::Peer`].
    pub fn add_peer(&mut self, now: Nanos, node: NodeId, urgent: SocketAddr, bulk: SocketAddr) -> Result<(), TransportError> {
        if node == self.identity.me || self.peer_count >= PEERS_MAX {
            return Err(TransportError::Peer { node, max: PEERS_MAX });
        }
        self.remove_peer(node);
        let place = usize::from(node.0);
        if self.peers.len() <= place {
            self.peers.resize_with(place + 1, Place::default);
        }
        let peer = Box::new(Peer::new(now, self.identity.me, node, [urgent, bulk]));
        self.timer_at = self.timer_at.min(peer.poll_timeout());
        self.peers[place] = Place::Known(peer);
        self.peer_count += 1;
        Ok(())
    }

    /// Forgets `node` and what was to be sent to it; no event follows.
    pub fn remove_peer(&mut self, node: NodeId) {
        self.replace(node, Place::Unknown);
    }

    /// Does what time asks for.
    pub(crate) fn handle_timers(&mut self, now: Nanos) -> Result<(), TransportError> {
        if now < self.timer_at {
            return Ok(());
        }
        self.timer_at = Nanos(u64::MAX);
        for place in 0..self.peers.len() {
            let Place::Known(peer) = &mut self.peers[place] else { continue };
            let node = peer.node;
            if let Some(reason) = peer.is_lost(now) {
                self.lose(node, reason);
                continue;
            }
            let greeting = peer.handshake.handle_timeout(&self.identity, now)?;
            let is_ping_due = peer.is_ping_due(now);
            let probes = match &mut peer.session {
                Some(session) => [Class::Urgent, Class::Bulk].map(|class| session.credits[class as usize].is_probe_due(now)),
                None => [false; 2],
            };
            self.timer_at = self.timer_at.min(peer.poll_timeout());
            if let Some(greeting) = greeting {
                self.queue_greeting(node, &greeting);
            }
            if is_ping_due {
                self.queue_own(node, Kind::Ping, Class::Urgent, 0, 0);
            }
            for (class, is_due) in [Class::Urgent, Class::Bulk].into_iter().zip(probes) {
                if is_due {
                    self.counters.credit_probes += 1;
                    self.queue_own(node, Kind::Ping, class, PROBE + class as u64, 0);
                }
            }
        }
        Ok(())
    }

    /// A handshake message came; nothing about it is believed yet.
    pub(crate) fn handle_greeting(
        &mut self,
        now: Nanos,
        from: NodeId,
        kind: Kind,
        header: &Header,
        payload: &[u8],
    ) -> Result<(), Drop> {
        if header.payload_tag.get() != sip(self.greeting_key, payload) {
            return Err(Drop::PayloadTag);
        }
        if kind == Kind::HandshakeFinish {
            return self.handle_finish(now, from, header, payload);
        }
        if header.header_tag.get() != header_tag(self.greeting_key, header) {
            return Err(Drop::HeaderTag);
        }
        let Some(Place::Known(peer)) = self.peers.get_mut(usize::from(from.0)) else { return Err(Drop::UnknownPeer) };
        if kind == Kind::HandshakeInit {
            let reply = peer.handshake.handle_init(&self.identity, now, payload).map_err(|_| Drop::Handshake)?;
            self.timer_at = self.timer_at.min(peer.poll_timeout());
            let answered = peer.handshake.answered_pair();
            if let Some(reply) = reply {
                self.queue_greeting(from, &reply);
            }
            if let Some(key) = answered {
                self.notices.push_back(Notice::Answered(from, key));
            }
        } else {
            let (agreement, finish) = peer.handshake.handle_reply(now, payload).map_err(|_| Drop::Handshake)?;
            self.queue_greeting(from, &finish);
            self.begin_session(now, from, agreement);
        }
        Ok(())
    }

    fn handle_finish(&mut self, now: Nanos, from: NodeId, header: &Header, payload: &[u8]) -> Result<(), Drop> {
        let Some(Place::Known(peer)) = self.peers.get_mut(usize::from(from.0)) else { return Err(Drop::UnknownPeer) };
        let tag = header.header_tag.get();
        if peer.handshake.answered_pair().is_some_and(|pair| header_tag(pair, header) == tag) {
            let agreement = peer.handshake.handle_finish(payload).map_err(|_| Drop::Handshake)?;
            self.begin_session(now, from, agreement);
        } else if peer.session.as_ref().is_none_or(|session| header_tag(session.agreement.pair, header) != tag) {
            return Err(Drop::HeaderTag);
        }
        // First or repeated: the asker waits for a word under the new key. Proves nothing further, so the lease is not renewed.
        self.queue_own(from, Kind::Pong, Class::Urgent, 0, 0);
        Ok(())
    }

    /// Both sides agreed: from here on frames flow.
    pub(crate) fn begin_session(&mut self, now: Nanos, node: NodeId, agreement: Agreement) {
        let Some(Place::Known(peer)) = self.peers.get_mut(usize::from(node.0)) else { return };
        let before = peer.session.as_ref().map(|session| session.agreement.peer.incarnation);
        if before.is_some_and(|before| before != agreement.peer.incarnation) {
            self.lose(node, LostReason::Restarted);
            return;
        }
        peer.on_session(now, Session::new(agreement, self.identity.offer.windows));
        self.notices.push_back(Notice::Session(node, agreement.pair, peer.addresses[Class::Urgent as usize]));
        self.timer_at = self.timer_at.min(peer.poll_timeout());
        self.counters.handshakes_done += 1;
        if before.is_none() {
            self.notices.push_back(Notice::Up(node));
        }
        self.mark_pending(node);
    }

    /// An authentic frame of the transport itself came.
    pub(crate) fn handle_own(&mut self, from: NodeId, kind: Kind, header: &Header) {
        let Some(Place::Known(peer)) = self.peers.get_mut(usize::from(from.0)) else { return };
        let Some(session) = &mut peer.session else { return };
        match kind {
            Kind::Ping => match class_of(header.page.get().wrapping_sub(PROBE)) {
                Some(class) => {
                    let highest = session.windows[class as usize].highest();
                    self.queue_own(from, Kind::Credit, Class::Urgent, class as u64, highest);
                }
                None => self.queue_own(from, Kind::Pong, Class::Urgent, 0, 0),
            },
            Kind::Credit => {
                if let Some(class) = class_of(header.page.get())
                    && session.credits[class as usize].on_report(header.request.get())
                {
                    self.mark_pending(from);
                }
            }
            _ => {}
        }
    }

    fn lose(&mut self, node: NodeId, reason: LostReason) {
        self.replace(node, Place::Lost);
        self.counters.peers_lost += 1;
        self.notices.push_back(Notice::Lost(node, reason));
    }

    /// Puts `new` in the place of `node` and frees what waited for it.
    fn replace(&mut self, node: NodeId, new: Place) {
        let Some(place) = self.peers.get_mut(usize::from(node.0)) else { return };
        if let Place::Known(mut peer) = std::mem::replace(place, new) {
            self.peer_count -= 1;
            peer.drain().for_each(|slot| self.slots.give_back(slot));
            self.pending.retain(|pending| *pending != node);
        }
    }
}

fn class_of(word: u64) -> Option<Class> {
    [Class::Urgent, Class::Bulk].into_iter().find(|class| *class as u64 == word)
}
