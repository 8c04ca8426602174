//! The connections of a run: at the root one to each member, at a member the one to the root.
//!
//! Owns packets on their way, and passing on. Must not know what they mean.

use super::driver::Input;
use super::spawn;
use super::wire::{Packet, Setup};
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

/// The ways to other hosts.
#[derive(Debug)]
pub struct Peers {
    senders: Senders,
    /// Who is told of hosts that cannot be reached. Without one no host can be done without.
    losses: Option<mpsc::Sender<Input>>,
}

impl Peers {
    /// The root's: the connections are of members 1, 2 and so on.
    pub fn of_root(connections: Vec<Connection>, inputs: &mpsc::Sender<Input>) -> Result<Self, Failure> {
        let (mut senders, mut receivers) = (BTreeMap::new(), Vec::new());
        for (host, Connection { sender, receiver }) in (1..).map(Host).zip(connections) {
            senders.insert(host, Mutex::new(sender));
            receivers.push((host, receiver));
        }
        let senders: Senders = Arc::new(senders);
        for (host, mut receiver) in receivers {
            let (senders, inputs) = (Arc::clone(&senders), inputs.clone());
            spawn("peer", move || {
                let error = receive_all(&mut receiver, |packet| match packet {
                    Packet::Message { from, to, message } if from == host && to == Host(0) => {
                        inputs.send(Input::Message(from, message)).map_err(|_| ConnectionError::Closed)
                    }
                    Packet::Message { from, to, message } if from == host => {
                        let passed = pass(&senders, to, &[Packet::Message { from, to, message }]);
                        passed.or_else(|error| lose(&inputs, to, &error))
                    }
                    Packet::Message { .. } | Packet::Setup(_) => Ok(()),
                });
                // A driver that is gone has ended the run already.
                lose(&inputs, host, &error).unwrap_or(());
            })?;
        }
        Ok(Self { senders, losses: Some(inputs.clone()) })
    }

    /// A member's, with what the root says first.
    pub fn of_member(connection: Connection, inputs: &mpsc::Sender<Input>) -> Result<(Self, Setup), Failure> {
        let Connection { sender, mut receiver } = connection;
        let failed = |error: ConnectionError| Failure::Internal(format!("the root of the run: {error}"));
        let mut packets = receive(&mut receiver).map_err(failed)?.into_iter();
        let Some(Packet::Setup(setup)) = packets.next() else {
            return Err(Failure::Internal("the root of the run did not say what to run".to_owned()));
        };
        let inputs = inputs.clone();
        spawn("root", move || {
            let to_driver = |packet| match packet {
                Packet::Message { from, message, .. } => {
                    inputs.send(Input::Message(from, message)).map_err(|_| ConnectionError::Closed)
                }
                Packet::Setup(_) => Ok(()),
            };
            let early = packets.try_for_each(to_driver);
            let end = early.err().unwrap_or_else(|| receive_all(&mut receiver, to_driver));
            let input = match end {
                ConnectionError::Closed => Input::Ended,
                other => Input::Failed(Failure::Internal(format!("the root of the run: {other}"))),
            };
            inputs.send(input).unwrap_or(());
        })?;
        let senders = Arc::new(BTreeMap::from([(Host(0), Mutex::new(sender))]));
        Ok((Self { senders, losses: None }, setup))
    }

    /// Sends packets to a host, or to the root, which passes them on. The root goes on without a host that cannot be reached.
    pub fn send(&self, to: Host, packets: &[Packet]) -> Result<(), Failure> {
        let passed = match (pass(&self.senders, to, packets), &self.losses) {
            (Err(error), Some(inputs)) => lose(inputs, to, &error),
            (passed, _) => passed,
        };
        passed.map_err(|error| Failure::Internal(format!("host {} of the run: {error}", to.0)))
    }

    /// The next host on the way to `to`.
    pub fn way(&self, to: Host) -> Host {
        if self.senders.contains_key(&to) { to } else { Host(0) }
    }
}

/// Tells the driver that a host is gone.
fn lose(inputs: &mpsc::Sender<Input>, host: Host, error: &ConnectionError) -> Result<(), ConnectionError> {
    inputs.send(Input::Lost(host, error.to_string())).map_err(|_| ConnectionError::Closed)
}

fn pass(senders: &Senders, to: Host, packets: &[Packet]) -> Result<(), ConnectionError> {
    let Some(sender) = senders.get(&to) else { return Ok(()) };
    let bytes = postcard::to_stdvec(packets).map_err(|error| std::io::Error::other(error.to_string()))?;
    let mut sender = sender.lock().unwrap_or_else(PoisonError::into_inner);
    let mut chunks = bytes.chunks(RUNNERS_BYTES_MAX).peekable();
    while let Some(chunk) = chunks.next() {
        sender.send(&Message::Runners { bytes: chunk.to_vec(), is_last: chunks.peek().is_none() })?;
    }
    Ok(())
}

fn receive(receiver: &mut Receiver) -> Result<Vec<Packet>, ConnectionError> {
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
