//! The connections of a run: at the root one to each member, at a member the one to the root; or each with every other.
//!
//! Owns packets on their way, and passing on. Must not know what they mean.

use super::driver::Input;
use super::spawn;
use super::wire::Packet;
use crate::exit::Failure;
use crate::process::connection::{Connection, ConnectionError, Receiver, Sender};
use crate::process::wire::{Message, RUNNERS_BYTES_MAX};
use dvm_runners::Host;
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
pub struct Peers {
    senders: Senders,
    /// Who is told of hosts that cannot be reached. Without one no host can be done without.
    losses: Option<(mpsc::Sender<Input>, Missed)>,
}

impl Peers {
    /// The root's, which passes on what members say to each other: the connections are of members 1, 2 and so on.
    pub fn of_root(connections: Vec<Connection>, inputs: &mpsc::Sender<Input>) -> Result<Self, Failure> {
        let (senders, receivers) = split((1..).map(Host).zip(connections));
        for (host, mut receiver) in receivers {
            let (senders, inputs) = (Arc::clone(&senders), inputs.clone());
            spawn("peer", move || {
                let error = receive_all(&mut receiver, |packet| match packet {
                    Packet::Message { from, to, message } if from == host && to == Host(0) => {
                        inputs.send(Input::Message(from, message)).map_err(|_| ConnectionError::Closed)
                    }
                    Packet::Message { from, to, message } if from == host => {
                        let passed = pass(&senders, to, &[Packet::Message { from, to, message }]);
                        passed.or_else(|error| miss(&inputs, Input::Lost, to, &error))
                    }
                    Packet::Message { .. } | Packet::Setup(_) | Packet::Hello(_) | Packet::Over => Ok(()),
                });
                // A driver that is gone has ended the run already.
                miss(&inputs, Input::Lost, host, &error).unwrap_or(());
            })?;
        }
        Ok(Self { senders, losses: Some((inputs.clone(), Input::Lost)) })
    }

    /// A member's that has a way to the root alone; `early` came with what the root said first.
    pub fn of_member(connection: Connection, early: Vec<Packet>, inputs: &mpsc::Sender<Input>) -> Result<Self, Failure> {
        let Connection { sender, mut receiver } = connection;
        let inputs = inputs.clone();
        spawn("root", move || {
            let to_driver = |packet| match packet {
                Packet::Message { from, message, .. } => {
                    inputs.send(Input::Message(from, message)).map_err(|_| ConnectionError::Closed)
                }
                Packet::Setup(_) | Packet::Hello(_) | Packet::Over => Ok(()),
            };
            let early = early.into_iter().try_for_each(to_driver);
            let end = early.err().unwrap_or_else(|| receive_all(&mut receiver, to_driver));
            let input = match end {
                ConnectionError::Closed => Input::Ended,
                other => Input::Failed(Failure::Internal(format!("the root of the run: {other}"))),
            };
            inputs.send(input).unwrap_or(());
        })?;
        Ok(Self { senders: Arc::new(BTreeMap::from([(Host(0), Mutex::new(sender))])), losses: None })
    }

    /// Those of a host that has a way to every other one, of a run that may go on without any of them. `early` came from the root
    /// with what it said first.
    pub fn of_all(
        me: Host,
        connections: Vec<(Host, Connection)>,
        mut early: Vec<Packet>,
        inputs: &mpsc::Sender<Input>,
    ) -> Result<Self, Failure> {
        let (senders, receivers) = split(connections.into_iter());
        for (host, mut receiver) in receivers {
            let inputs = inputs.clone();
            let early = if host == Host(0) { std::mem::take(&mut early) } else { Vec::new() };
            spawn("peer", move || {
                let to_driver = |packet| {
                    let input = match packet {
                        Packet::Message { from, to, message } if from == host && to == me => Input::Message(from, message),
                        Packet::Over => Input::Ended,
                        Packet::Message { .. } | Packet::Setup(_) | Packet::Hello(_) => return Ok(()),
                    };
                    inputs.send(input).map_err(|_| ConnectionError::Closed)
                };
                let early = early.into_iter().try_for_each(to_driver);
                let error = early.err().unwrap_or_else(|| receive_all(&mut receiver, to_driver));
                miss(&inputs, Input::Unreachable, host, &error).unwrap_or(());
            })?;
        }
        Ok(Self { senders, losses: Some((inputs.clone(), Input::Unreachable)) })
    }

    /// Sends packets to a host, or to the root, which passes them on. A run may go on without a host that cannot be reached.
    pub fn send(&self, to: Host, packets: &[Packet]) -> Result<(), Failure> {
        let passed = match (pass(&self.senders, to, packets), &self.losses) {
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
    pub fn way(&self, to: Host) -> Host {
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
    send(&mut sender, packets)
}

/// Sends packets over a connection.
pub fn send(sender: &mut Sender, packets: &[Packet]) -> Result<(), ConnectionError> {
    let bytes = postcard::to_stdvec(packets).map_err(|error| std::io::Error::other(error.to_string()))?;
    let mut chunks = bytes.chunks(RUNNERS_BYTES_MAX).peekable();
    while let Some(chunk) = chunks.next() {
        sender.send(&Message::Runners { bytes: chunk.to_vec(), is_last: chunks.peek().is_none() })?;
    }
    Ok(())
}

/// The next packets of a connection.
pub fn receive(receiver: &mut Receiver) -> Result<Vec<Packet>, ConnectionError> {
    let mut all = Vec::new();
    loop {
        let Message::Runners { bytes, is_last } = receiver.receive(None)? else {
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

/// Receives until the connection ends.
fn receive_all(receiver: &mut Receiver, mut act: impl FnMut(Packet) -> Result<(), ConnectionError>) -> ConnectionError {
    loop {
        let done = receive(receiver).and_then(|packets| packets.into_iter().try_for_each(&mut act));
        if let Err(error) = done {
            return error;
        }
    }
}
