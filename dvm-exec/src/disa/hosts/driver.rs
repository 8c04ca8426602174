//! The driver of one host's node: makes node, connections and slots known to each other, and does what may take waiting.
//!
//! Owns the loop. Must not decide anything.

use super::super::engine;
use super::peers::{Peers, Ways};
use super::shared::{Outcome, Shared};
use super::slot::{self, Slots};
use super::wire::Setup;
use crate::exit::Failure;
use dvm_disa::code::Code;
use dvm_disa::machine::effects::Ids;
use dvm_disa::machine::report::Report;
use dvm_runners::limits::TOLD_WORDS_MAX;
use dvm_runners::{Config, Host, Node, Program};
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
    /// Somebody has used the node, and there is something to send or to show.
    Work,
    /// Somebody has begun to send, and would have to wait for room to go on.
    Unsent,
    /// The root has ended the run.
    Ended,
    /// A host is gone, for this reason: the run goes on without it. Where the run outlives its root, all hosts agree about that;
    /// otherwise only the root is told.
    Lost(Host, String),
    /// A host cannot be reached from here, for this reason: all hosts are to agree whether it is gone.
    Unreachable(Host, String),
    /// The run cannot go on.
    Failed(Failure),
}

/// Where a run is seen.
pub trait Show {
    /// Output of runners that have committed, which begins at this place of all.
    fn output(&mut self, begin: u64, bytes: &[u8]) -> Result<(), Failure>;

    /// This host shows the run from now on.
    fn follow(&mut self, root: Host);

    /// A host is of the run no more.
    fn lost(&mut self, host: Host, reason: &str);

    /// A host cannot be reached from here.
    fn unreachable(&mut self, host: Host, reason: String);
}

/// How a run has ended for a host.
#[derive(Debug)]
pub enum End {
    /// It is over, at this host: what came of it, and what each host did for it.
    Here(Box<Report>, Shares),
    /// The root has ended it.
    Elsewhere,
}

/// What hosts did for a run, as far as the log and their own word say.
#[derive(Debug)]
pub struct Shares {
    /// How many runners ended on each.
    pub ends: BTreeMap<Host, u64>,
    /// How long commits of each took that needed another host, in nanoseconds.
    pub took: BTreeMap<Host, Vec<u64>>,
}

/// The driver.
#[derive(Debug)]
pub struct Driver {
    shared: Arc<Shared>,
    ways: Arc<Ways>,
    outlives_root: bool,
    /// Hosts that are gone.
    lost: BTreeSet<Host>,
}

impl Driver {
    /// Starts the slots.
    pub fn new(setup: &Setup, program: Arc<Program>, peers: Peers, inputs: Sender<Input>) -> Result<Self, Failure> {
        let Setup { me, slots, copies, .. } = setup;
        let refused = |reason: String| Failure::Internal(format!("the program of the run: {reason}"));
        let place = usize::from(me.0);
        let own = *slots.get(place).ok_or_else(|| Failure::Internal(format!("host {place} is not among {}", slots.len())))?;
        let step = slots.iter().sum::<usize>() as u64;
        let first = 1 + slots[..place].iter().sum::<usize>() as u64;
        let config = Config {
            me: *me,
            slots: slots.clone(),
            program: Arc::clone(&program),
            told_words_max: TOLD_WORDS_MAX,
            copies: *copies,
        };
        let code = Arc::new(Code::verified(&program.object.text).map_err(|error| refused(error.to_string()))?);
        let engine = engine::of(&program.object, program.settings.tier).map_err(|error| refused(error.to_string()))?;
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..own).map(|_| channel()).unzip();
        let ways = Arc::clone(&peers.ways);
        let shared = Arc::new(Shared::new((*me, Node::new(config)), program, senders, inputs.clone(), Arc::clone(&ways)));
        for (next, receiver) in (first..).zip(receivers) {
            let slots = Slots { shared: Arc::clone(&shared), code: Arc::clone(&code), engine: Arc::clone(&engine) };
            slot::start(slots, Ids { next, step }, receiver, inputs.clone())?;
        }
        peers.listen(*me, &shared)?;
        Ok(Self { shared, ways, outlives_root: *copies > 1, lost: BTreeSet::new() })
    }

    /// Runs to the end of the program; at a member, until the root has ended the run.
    pub fn run(mut self, inputs: &Receiver<Input>, show: &mut impl Show) -> Result<End, Failure> {
        let mut outcome = self.shared.drive(|node, now| node.handle_start(now))?;
        let mut followed = None;
        loop {
            let Outcome { output: (begin, output), over, root, is_stranded, due } = outcome;
            if followed.replace(root) != Some(root) {
                show.follow(root);
            }
            if !output.is_empty() {
                show.output(begin, &output)?;
            }
            if is_stranded {
                return Err(Failure::Internal("all hosts that had the log of the run are lost".to_owned()));
            }
            if let Some((report, shares)) = over {
                if self.outlives_root {
                    self.ways.tell_over();
                }
                return Ok(End::Here(Box::new(report), shares));
            }
            self.shared.send()?;
            let wait = due.map_or(WAIT_MAX, |due| Duration::from_nanos(due.0.saturating_sub(self.shared.now().0)));
            let first = match inputs.recv_timeout(wait.min(WAIT_MAX)) {
                Ok(input) => Some(input),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Failure::Internal("all threads of the run are gone".to_owned()));
                }
            };
            let mut lost = Vec::new();
            for input in first.into_iter().chain(inputs.try_iter().take(BATCH_MAX)) {
                match input {
                    Input::Work => {}
                    Input::Unsent => self.shared.finish()?,
                    // Its connection and its agent both tell.
                    Input::Lost(host, reason) => {
                        if self.lost.insert(host) {
                            show.lost(host, &reason);
                            lost.push(host);
                        }
                    }
                    Input::Unreachable(host, reason) => {
                        if !self.lost.contains(&host) {
                            show.unreachable(host, reason);
                        }
                    }
                    Input::Ended => return Ok(End::Elsewhere),
                    Input::Failed(failure) => return Err(failure),
                }
            }
            outcome = self.shared.drive(|node, now| {
                node.handle_timeout(now);
                lost.into_iter().for_each(|host| node.handle_lost(now, host));
            })?;
        }
    }
}
