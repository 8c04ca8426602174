//! The connections of a run: at the root one to each member, at a member the one to the root; or each with every other.
//!
//! Owns packets on their way, and passing on. Must not know what they mean.

use super::driver::Input;
use super::shared::Shared;
use super::spawn;
use super::wire::Packet;
use crate::exit::Failure;
use crate::process::connection::{Connection, ConnectionError, Receiver, Sender};
use crate::process::wire::{Message as Frame, RUNNERS_BYTES_MAX};
use dvm_runners::{Host, Message};
use std::collections::BTreeMap;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};

/// Longest batch of packets, put together from several messages.
const BATCH_BYTES_MAX: usize = 2 << 30;

type Senders = Arc<BTreeMap<Host, Mutex<Sender>>>;

/// What a host that cannot be reached is to the driver.
type Missed = fn(Host, String) -> Input;

/// The ways to other hosts.
#[derive(Debug)]
pub struct Ways {
    senders: Senders,
    /// Who is told of hosts that cannot be reached. Without one no host can be done without.
    losses: Option<(mpsc::Sender<Input>, Missed)>,
}

/// Who has connections with whom.
#[derive(Clone, Copy, Debug)]
enum Shape {
    /// This is the root, which passes on what members say to each other.
    Root,
    /// This is a member with a way to the root alone.
    Member,
    /// Everybody has a way to everybody.
    All,
}

/// The connections before anything is heard.
#[derive(Debug)]
pub struct Peers {
    /// The ways out.
    pub ways: Arc<Ways>,
    shape: Shape,
    receivers: Vec<(Host, Receiver)>,
    /// What came with what the root said first.
    early: Vec<Packet>,
    inputs: mpsc::Sender<Input>,
}

impl Peers {
    /// The root's, which passes on what members say to each other: the connections are of members 1, 2 and so on.
    pub fn of_root(connections: Vec<Connection>, inputs: &mpsc::Sender<Input>) -> Self {
        Self::new(Shape::Root, (1..).map(Host).zip(connections), Vec::new(), inputs)
    }

    /// A member's that has a way to the root alone; `early` came with what the root said first.
    pub fn of_member(connection: Connection, early: Vec<Packet>, inputs: &mpsc::Sender<Input>) -> Self {
        Self::new(Shape::Member, [(Host(0), connection)].into_iter(), early, inputs)
    }

    /// Those of a host that has a way to every other one, of a run that may go on without any of them. `early` came from the root
    /// with what it said first.
    pub fn of_all(connections: Vec<(Host, Connection)>, early: Vec<Packet>, inputs: &mpsc::Sender<Input>) -> Self {
        Self::new(Shape::All, connections.into_iter(), early, inputs)
    }

    fn new(
        shape: Shape,
        connections: impl Iterator<Item = (Host, Connection)>,
        early: Vec<Packet>,
        inputs: &mpsc::Sender<Input>,
    ) -> Self {
        let (senders, receivers) = split(connections);
        let losses = match shape {
            Shape::Root => Some((inputs.clone(), Input::Lost as Missed)),
            Shape::Member => None,
            Shape::All => Some((inputs.clone(), Input::Unreachable as Missed)),
        };
        Self { ways: Arc::new(Ways { senders, losses }), shape, receivers, early, inputs: inputs.clone() }
    }

    /// From now on what comes is heard by `shared`, which is host `me`. Who hears never waits for another host: whatever two hosts
    /// have to say to each other, both listen.
    pub fn listen(self, me: Host, shared: &Arc<Shared>) -> Result<(), Failure> {
        let Self { ways, shape, receivers, mut early, inputs } = self;
        for (host, mut receiver) in receivers {
            let ears = Ears { me, host, shape, shared: Arc::clone(shared), ways: Arc::clone(&ways), inputs: inputs.clone() };
            let early = if host == Host(0) { std::mem::take(&mut early) } else { Vec::new() };
            spawn("peer", move || {
                let mut next = Ok(early);
                let error = loop {
                    if let Err(error) = next.and_then(|packets| ears.hear(packets)) {
                        break error;
                    }
                    next = receive(&mut receiver);
                };
                ears.end(&error);
            })?;
        }
        Ok(())
    }
}

/// Who hears what one host says.
struct Ears {
    me: Host,
    host: Host,
    shape: Shape,
    shared: Arc<Shared>,
    ways: Arc<Ways>,
    inputs: mpsc::Sender<Input>,
}

impl Ears {
    fn hear(&self, packets: Vec<Packet>) -> Result<(), ConnectionError> {
        let mut messages = Vec::new();
        for packet in packets {
            match packet {
                // A member hears of others by the root only.
                Packet::Message { from, to, message } if matches!(self.shape, Shape::Member) || from == self.host => {
                    if to == self.me {
                        messages.push((from, message));
                    } else if matches!(self.shape, Shape::Root) {
                        let passed = pass(&self.ways.senders, to, &[Packet::Message { from, to, message }]);
                        passed.or_else(|error| miss(&self.inputs, Input::Lost, to, &error))?;
                    }
                }
                Packet::Over if matches!(self.shape, Shape::All) => {
                    self.hand_in(messages);
                    return self.inputs.send(Input::Ended).map_err(|_| ConnectionError::Closed);
                }
                Packet::Message { .. } | Packet::Setup(_) | Packet::Hello(_) | Packet::Over => {}
            }
        }
        self.hand_in(messages);
        Ok(())
    }

    fn hand_in(&self, messages: Vec<(Host, Message)>) {
        if !messages.is_empty() {
            self.shared.answer(|node, now| node.handle_messages(now, messages));
        }
    }

    /// The connection has ended.
    fn end(&self, error: &ConnectionError) {
        let told = match (self.shape, error) {
            (Shape::Root, _) => miss(&self.inputs, Input::Lost, self.host, error),
            (Shape::All, _) => miss(&self.inputs, Input::Unreachable, self.host, error),
            (Shape::Member, ConnectionError::Closed) => self.inputs.send(Input::Ended).map_err(|_| ConnectionError::Closed),
            (Shape::Member, other) => {
                let failure = Failure::Internal(format!("the root of the run: {other}"));
                self.inputs.send(Input::Failed(failure)).map_err(|_| ConnectionError::Closed)
            }
        };
        // A driver that is gone has ended the run already.
        told.unwrap_or(());
    }
}

impl Ways {
    /// Sends packets to a host, or to the root, which passes them on. A run may go on without a host that cannot be reached.
    pub fn send(&self, to: Host, packets: &[Packet]) -> Result<(), Failure> {
        self.done(to, pass(&self.senders, to, packets))
    }

    /// Sends a node's messages without waiting for anybody: whether all are sent. Else [`Ways::finish`] has to follow, before
    /// anything else is sent for the node.
    pub fn try_send(&self, me: Host, messages: Vec<(Host, Message)>) -> Result<bool, Failure> {
        let mut packets: BTreeMap<Host, Vec<Packet>> = BTreeMap::new();
        for (to, message) in messages {
            packets.entry(self.way(to)).or_default().push(Packet::Message { from: me, to, message });
        }
        let mut is_sent = true;
        for (way, packets) in packets {
            let Some(sender) = self.senders.get(&way) else { continue };
            let mut sender = sender.lock().unwrap_or_else(PoisonError::into_inner);
            let tried = in_parts(&packets, |part| {
                is_sent &= sender.try_send(part)?;
                Ok(())
            });
            if tried.is_err() {
                self.done(way, tried)?;
            }
        }
        Ok(is_sent)
    }

    /// Sends what [`Ways::try_send`] has left.
    pub fn finish(&self) -> Result<(), Failure> {
        self.senders.iter().try_for_each(|(host, sender)| {
            let finished = sender.lock().unwrap_or_else(PoisonError::into_inner).finish();
            self.done(*host, finished)
        })
    }

    fn done(&self, to: Host, sent: Result<(), ConnectionError>) -> Result<(), Failure> {
        let passed = match (sent, &self.losses) {
            (Err(error), Some((inputs, missed))) => miss(inputs, *missed, to, &error),
            (passed, _) => passed,
        };
        passed.map_err(|error| Failure::Internal(format!("host {} of the run: {error}", to.0)))
    }

    /// Tells all others that the run is over.
    pub fn tell_over(&self) {
        // Who is gone needs not be told.
        self.senders.keys().for_each(|host| pass(&self.senders, *host, &[Packet::Over]).unwrap_or(()));
    }

    /// The next host on the way to `to`.
    fn way(&self, to: Host) -> Host {
        if self.senders.contains_key(&to) { to } else { Host(0) }
    }
}

fn split(connections: impl Iterator<Item = (Host, Connection)>) -> (Senders, Vec<(Host, Receiver)>) {
    let (mut senders, mut receivers) = (BTreeMap::new(), Vec::new());
    for (host, Connection { sender, receiver }) in connections {
        senders.insert(host, Mutex::new(sender));
        receivers.push((host, receiver));
    }
    (Arc::new(senders), receivers)
}

/// Tells the driver that a host cannot be reached.
fn miss(inputs: &mpsc::Sender<Input>, missed: Missed, host: Host, error: &ConnectionError) -> Result<(), ConnectionError> {
    inputs.send(missed(host, error.to_string())).map_err(|_| ConnectionError::Closed)
}

fn pass(senders: &Senders, to: Host, packets: &[Packet]) -> Result<(), ConnectionError> {
    let Some(sender) = senders.get(&to) else { return Ok(()) };
    let mut sender = sender.lock().unwrap_or_else(PoisonError::into_inner);
    // Others may have left something, which comes first.
    sender.finish()?;
    send(&mut sender, packets)
}

/// Sends packets over a connection.
pub fn send(sender: &mut Sender, packets: &[Packet]) -> Result<(), ConnectionError> {
    in_parts(packets, |part| sender.send(part))
}

/// Has packets sent in messages that are not too long.
fn in_parts(packets: &[Packet], mut send: impl FnMut(&Frame) -> Result<(), ConnectionError>) -> Result<(), ConnectionError> {
    let bytes = postcard::to_stdvec(packets).map_err(|error| std::io::Error::other(error.to_string()))?;
    let mut chunks = bytes.chunks(RUNNERS_BYTES_MAX).peekable();
    while let Some(chunk) = chunks.next() {
        send(&Frame::Runners { bytes: chunk.to_vec(), is_last: chunks.peek().is_none() })?;
    }
    Ok(())
}

/// The next packets of a connection.
pub fn receive(receiver: &mut Receiver) -> Result<Vec<Packet>, ConnectionError> {
    let mut all = Vec::new();
    loop {
        let Frame::Runners { bytes, is_last } = receiver.receive(None)? else {
            return Err(std::io::Error::other("a message that is out of place").into());
        };
        all.extend(bytes);
        if all.len() > BATCH_BYTES_MAX {
            return Err(std::io::Error::other("a batch is too long").into());
        }
        if is_last {
            return postcard::from_bytes(&all).map_err(|error| std::io::Error::other(error.to_string()).into());
        }
    }
}
