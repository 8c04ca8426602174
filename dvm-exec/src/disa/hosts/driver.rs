//! The driver of one host's node: the only place that knows node, connections and slots.
//!
//! Owns the loop. Must not decide anything.

use super::super::engine;
use super::peers::Peers;
use super::shared::{Outcome, Shared};
use super::slot::{self, Slots};
use super::wire::{Packet, Setup};
use crate::exit::Failure;
use dvm_disa::code::Code;
use dvm_disa::machine::effects::Ids;
use dvm_disa::machine::report::Report;
use dvm_runners::limits::TOLD_WORDS_MAX;
use dvm_runners::{Config, Host, Message, Node, Program};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// Longest wait for anything: then the node is asked whether something is due.
const WAIT_MAX: Duration = Duration::from_secs(1);
/// Inputs taken at once, so that one answer does for many.
const BATCH_MAX: usize = 1024;

/// What comes to the driver.
#[derive(Debug)]
pub enum Input {
    /// A message of another host.
    Message(Host, Message),
    /// A slot has used the node, and there is something to send or to show.
    Work,
    /// The root has ended the run.
    Ended,
    /// A host is gone, for this reason: the run goes on without it. Only at the root.
    Lost(Host, String),
    /// The run cannot go on.
    Failed(Failure),
}

/// Where a run is seen.
pub trait Show {
    /// Output of runners that have committed.
    fn output(&mut self, bytes: &[u8]) -> Result<(), Failure>;

    /// A host is of the run no more.
    fn lost(&mut self, host: Host, reason: &str);
}

/// The driver.
#[derive(Debug)]
pub struct Driver {
    me: Host,
    shared: Arc<Shared>,
    peers: Peers,
    /// Hosts that are gone.
    lost: BTreeSet<Host>,
}

impl Driver {
    /// Starts the slots.
    pub fn new(setup: &Setup, program: Arc<Program>, peers: Peers, inputs: Sender<Input>) -> Result<Self, Failure> {
        let Setup { me, slots, .. } = setup;
        let refused = |reason: String| Failure::Internal(format!("the program of the run: {reason}"));
        let place = usize::from(me.0);
        let own = *slots.get(place).ok_or_else(|| Failure::Internal(format!("host {place} is not among {}", slots.len())))?;
        let step = slots.iter().sum::<usize>() as u64;
        let first = 1 + slots[..place].iter().sum::<usize>() as u64;
        let config =
            Config { me: *me, slots: slots.clone(), program: Arc::clone(&program), told_words_max: TOLD_WORDS_MAX, copies: 1 };
        let code = Arc::new(Code::verified(&program.object.text).map_err(|error| refused(error.to_string()))?);
        let engine = engine::of(&program.object, program.settings.tier).map_err(|error| refused(error.to_string()))?;
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..own).map(|_| channel()).unzip();
        let shared = Arc::new(Shared::new(Node::new(config), program, senders, inputs.clone()));
        for (next, receiver) in (first..).zip(receivers) {
            let slots = Slots { shared: Arc::clone(&shared), code: Arc::clone(&code), engine: Arc::clone(&engine) };
            slot::start(slots, Ids { next, step }, receiver, inputs.clone())?;
        }
        Ok(Self { me: *me, shared, peers, lost: BTreeSet::new() })
    }

    /// Runs to the end of the program; at a member, until the root has ended the run.
    pub fn run(mut self, inputs: &Receiver<Input>, show: &mut impl Show) -> Result<(Report, BTreeMap<Host, u64>), Failure> {
        let mut outcome = self.shared.drive(|node, now| node.handle_start(now))?;
        loop {
            let Outcome { messages, output, over, due } = outcome;
            if !output.is_empty() {
                show.output(&output)?;
            }
            if let Some(over) = over {
                return Ok(over);
            }
            self.send(messages)?;
            let wait = due.map_or(WAIT_MAX, |due| Duration::from_nanos(due.0.saturating_sub(self.shared.now().0)));
            let first = match inputs.recv_timeout(wait.min(WAIT_MAX)) {
                Ok(input) => Some(input),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Failure::Internal("all threads of the run are gone".to_owned()));
                }
            };
            let (mut messages, mut lost) = (Vec::new(), Vec::new());
            for input in first.into_iter().chain(inputs.try_iter().take(BATCH_MAX)) {
                match input {
                    Input::Message(from, message) => messages.push((from, message)),
                    Input::Work => {}
                    // Its connection and its agent both tell.
                    Input::Lost(host, reason) => {
                        if self.lost.insert(host) {
                            show.lost(host, &reason);
                            lost.push(host);
                        }
                    }
                    Input::Ended => return Ok((Report::default(), BTreeMap::new())),
                    Input::Failed(failure) => return Err(failure),
                }
            }
            outcome = self.shared.drive(|node, now| {
                node.handle_messages(now, messages);
                lost.into_iter().for_each(|host| node.handle_lost(now, host));
            })?;
        }
    }

    fn send(&self, messages: Vec<(Host, Message)>) -> Result<(), Failure> {
        let mut packets: BTreeMap<Host, Vec<Packet>> = BTreeMap::new();
        for (to, message) in messages {
            packets.entry(self.peers.way(to)).or_default().push(Packet::Message { from: self.me, to, message });
        }
        packets.into_iter().try_for_each(|(way, packets)| self.peers.send(way, &packets))
    }
}
