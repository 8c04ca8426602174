//! The driver of one host's node: the only place that knows node, connections and runner processes.
//!
//! Owns the loop. Must not decide anything.

use super::peers::Peers;
use super::runner::{Done, FromRunner, ToRunner};
use super::slot;
use super::wire::{Packet, Setup};
use crate::exit::Failure;
use dvm_disa::machine::effects::Kept;
use dvm_disa::machine::memory::Used;
use dvm_disa::machine::report::Report;
use dvm_disa::machine::runner::Ran;
use dvm_runners::limits::TOLD_WORDS_MAX;
use dvm_runners::{Config, Delta, Event, Host, Message, Nanos, Node, Program, Run, RunKey};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

/// Longest wait for anything: then the node is asked whether something is due.
const WAIT_MAX: Duration = Duration::from_secs(1);
/// Inputs taken at once, so that one answer does for many.
const BATCH_MAX: usize = 1024;

/// What comes to the driver.
#[derive(Debug)]
pub enum Input {
    /// A message of another host.
    Message(Host, Message),
    /// A runner process asks, or is done.
    Runner(usize, FromRunner),
    /// The root has ended the run.
    Ended,
    /// The run cannot go on.
    Failed(Failure),
}

/// One slot.
#[derive(Debug)]
struct Slot {
    process: Sender<ToRunner>,
    run: Option<Run>,
    ids: [u64; 2],
    /// A page that was asked for and is on its way.
    wanted: Option<u64>,
}

/// The driver.
#[derive(Debug)]
pub struct Driver {
    me: Host,
    node: Node,
    program: Arc<Program>,
    peers: Peers,
    slots: Vec<Slot>,
    begun: Instant,
    /// Runners ended, by host; only the root knows.
    ends: BTreeMap<Host, u64>,
    /// Keeps the channel open while no thread has an end of it.
    _inputs: Sender<Input>,
}

impl Driver {
    /// Starts the runner processes.
    pub fn new(setup: &Setup, program: Arc<Program>, peers: Peers, inputs: Sender<Input>) -> Result<Self, Failure> {
        let Setup { me, slots, object, settings } = setup;
        let place = usize::from(me.0);
        let own = *slots.get(place).ok_or_else(|| Failure::Internal(format!("host {place} is not among {}", slots.len())))?;
        let lanes = slots.iter().sum::<usize>() as u64;
        let first = slots[..place].iter().sum::<usize>() as u64;
        let start = |index: usize| -> Result<Slot, Failure> {
            let process = slot::start(index, object, settings, &inputs)?;
            Ok(Slot { process, run: None, ids: [1 + first + index as u64, lanes], wanted: None })
        };
        let running = (0..own).map(start).collect::<Result<_, _>>()?;
        let config = Config { me: *me, slots: slots.clone(), program: Arc::clone(&program), told_words_max: TOLD_WORDS_MAX };
        let node = Node::new(config);
        Ok(Self { me: *me, node, program, peers, slots: running, begun: Instant::now(), ends: BTreeMap::new(), _inputs: inputs })
    }

    /// Runs to the end of the program; at a member, until the root has ended the run.
    pub fn run(
        mut self,
        inputs: &Receiver<Input>,
        mut show: impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<(Report, BTreeMap<Host, u64>), Failure> {
        self.node.handle_start(self.now());
        loop {
            if let Some(mut report) = self.perform()? {
                show(&std::mem::take(&mut report.output))?;
                return Ok((report, self.ends));
            }
            let output = self.node.take_output();
            if !output.is_empty() {
                show(&output)?;
            }
            let due = self.node.poll_timeout().map(|due| Duration::from_nanos(due.0.saturating_sub(self.now().0)));
            let first = match inputs.recv_timeout(due.unwrap_or(WAIT_MAX).min(WAIT_MAX)) {
                Ok(input) => Some(input),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Failure::Internal("all threads of the run are gone".to_owned()));
                }
            };
            let mut messages = Vec::new();
            for input in first.into_iter().chain(inputs.try_iter().take(BATCH_MAX)) {
                match input {
                    Input::Message(from, message) => messages.push((from, message)),
                    Input::Runner(slot, answer) => self.on_runner(slot, answer)?,
                    Input::Ended => return Ok((Report::default(), self.ends)),
                    Input::Failed(failure) => return Err(failure),
                }
            }
            self.node.handle_messages(self.now(), messages);
        }
    }

    fn now(&self) -> Nanos {
        Nanos(self.begun.elapsed().as_nanos() as u64)
    }

    /// Does all that the node wants done; what came of the program if it is over.
    fn perform(&mut self) -> Result<Option<Report>, Failure> {
        while let Some(run) = self.node.poll_run() {
            let slot = &mut self.slots[run.slot];
            tell(slot, ToRunner::Run(run.runner.clone(), run.epoch, slot.ids))?;
            slot.run = Some(run);
        }
        let mut over = None;
        while let Some(event) = self.node.poll_event() {
            match event {
                Event::PageReady(key) => self.give_page(key)?,
                Event::Happened(end) => *self.ends.entry(end.host).or_default() += 1,
                Event::Over(report) => over = Some(*report),
            }
        }
        let mut packets: BTreeMap<Host, Vec<Packet>> = BTreeMap::new();
        while let Some((to, message)) = self.node.poll_transmit() {
            packets.entry(self.peers.way(to)).or_default().push(Packet::Message { from: self.me, to, message });
        }
        if over.is_none() {
            packets.into_iter().try_for_each(|(way, packets)| self.peers.send(way, &packets))?;
        }
        Ok(over)
    }

    fn give_page(&mut self, key: RunKey) -> Result<(), Failure> {
        let has_it = |slot: &&mut Slot| slot.run.as_ref().is_some_and(|run| run.key == key);
        let Some(slot) = self.slots.iter_mut().find(has_it) else { return Ok(()) };
        let Some(page) = slot.wanted else { return Ok(()) };
        if let Some(contents) = self.node.page(key, page) {
            slot.wanted = None;
            tell(slot, ToRunner::Page(Delta::whole(page, &contents)))?;
        }
        Ok(())
    }

    fn on_runner(&mut self, index: usize, answer: FromRunner) -> Result<(), Failure> {
        let now = self.now();
        let Some(slot) = self.slots.get_mut(index) else { return Ok(()) };
        let reply = match answer {
            FromRunner::Page(page) => {
                slot.wanted = Some(page);
                let key = slot.run.as_ref().map(|run| run.key);
                return key.map_or(Ok(()), |key| self.give_page(key));
            }
            FromRunner::Allocate(bytes) => ToRunner::Range(self.node.arena().take(bytes)),
            FromRunner::IsAllocated(base) => ToRunner::Freed(self.node.arena().has(base)),
            FromRunner::GiveBack(range) => {
                self.node.arena().give_back(range);
                ToRunner::Freed(true)
            }
            FromRunner::Open(name) => {
                let found = self.program.settings.place_of_files().find(|(file, _)| file.name == name);
                ToRunner::Range(found.map(|(_, range)| range))
            }
            FromRunner::Done(done) => {
                slot.ids[0] = done.next_id;
                if let Some(run) = slot.run.take() {
                    let key = run.key;
                    self.node.handle_ran(now, key, ran(run, *done));
                }
                return Ok(());
            }
        };
        tell(slot, reply)
    }
}

fn tell(slot: &Slot, message: ToRunner) -> Result<(), Failure> {
    slot.process.send(message).map_err(|_| Failure::Internal("a runner process is gone".to_owned()))
}

fn ran(run: Run, done: Done) -> Ran {
    let Done { end, pc, last, fuel_used, changed, read, children, output, log, taken, freed, .. } = done;
    let changed = changed.into_iter().map(|delta| (delta.page, (delta.words, delta.to_page()))).collect();
    let kept = Kept { children, output, log, taken, freed, retired: Vec::new(), answers: Vec::new() };
    Ran { runner: run.runner, epoch: run.epoch, end, pc, last, used: Used { changed, read }, kept, fuel_used, record: 0 }
}
