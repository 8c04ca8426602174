//! What the driver, the slots and those who hear other hosts share: the node of a host, under a lock.
//!
//! Owns who has to be told after the node was used, and that one at a time sends. Must not decide anything.
//!
//! Who hears a message has the node handle it and sends the answer, so that no other thread has to wake up for it. It never waits for
//! room: then the driver goes on.

use super::driver::{Input, Shares};
use super::peers::Ways;
use crate::exit::Failure;
use dvm_disa::machine::report::Report;
use dvm_runners::{Event, Host, Message, Nanos, Node, Program, Run};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

const NOBODY_PANICKED: &str = "no other slot panicked while it used the node";

/// To a slot.
#[derive(Debug)]
pub enum ToSlot {
    /// Run this one.
    Run(Run),
    /// The page asked for has come.
    PageReady,
}

/// What changes.
#[derive(Debug)]
struct State {
    node: Node,
    over: Option<Report>,
    is_stranded: bool,
    /// Whether the driver was told that there is something for it.
    is_told: bool,
    /// Whether somebody sends, who looks for more when that is done.
    is_sending: bool,
    /// The root, as the driver knows it.
    root: Host,
    /// When the driver looks by itself.
    due: Option<Nanos>,
}

impl State {
    /// Whether there is something that only the driver does.
    fn concerns_driver(&self) -> bool {
        let is_earlier = |due| self.due.is_none_or(|known| due < known);
        self.node.has_output()
            || self.node.has_messages() && !self.is_sending
            || self.over.is_some()
            || self.is_stranded
            || self.root != self.node.root()
            || self.node.poll_timeout().is_some_and(is_earlier)
    }
}

/// What is for the driver.
#[derive(Debug)]
pub struct Outcome {
    /// Output of committed runners, and where it begins among all.
    pub output: (u64, Vec<u8>),
    /// What came of the program, if it is over, and what hosts had to do with it.
    pub over: Option<(Report, Shares)>,
    /// The root, as far as is known here.
    pub root: Host,
    /// Whether nobody can go on: all hosts that had the log are lost.
    pub is_stranded: bool,
    /// When the node wants to be asked again.
    pub due: Option<Nanos>,
}

/// The node, and the ways to whom it concerns.
#[derive(Debug)]
pub struct Shared {
    /// The program.
    pub program: Arc<Program>,
    me: Host,
    state: Mutex<State>,
    slots: Vec<Sender<ToSlot>>,
    driver: Sender<Input>,
    ways: Arc<Ways>,
    begun: Instant,
}

impl Shared {
    /// A node and its slots before anything has happened.
    pub fn new(
        (me, node): (Host, Node),
        program: Arc<Program>,
        slots: Vec<Sender<ToSlot>>,
        driver: Sender<Input>,
        ways: Arc<Ways>,
    ) -> Self {
        let root = node.root();
        let state = State { node, over: None, is_stranded: false, is_told: false, is_sending: false, root, due: None };
        Self { program, me, state: Mutex::new(state), slots, driver, ways, begun: Instant::now() }
    }

    /// The time on the node's clock.
    pub fn now(&self) -> Nanos {
        Nanos(self.begun.elapsed().as_nanos() as u64)
    }

    /// Lets a slot use the node, and tells whom that concerns. The lock is held meanwhile. What is to be sent the driver sends.
    ///
    /// # Panics
    /// Another slot did while it used the node, whose state nobody knows now: this one ends like that one.
    pub fn with<T>(&self, act: impl FnOnce(&mut Node, Nanos) -> T) -> T {
        let mut state = self.state.lock().expect(NOBODY_PANICKED);
        let done = act(&mut state.node, self.now());
        self.distribute(&mut state);
        self.tell_driver(&mut state);
        done
    }

    /// The same; a slot that has nothing to do then sends what there is itself, which is sooner done than told.
    ///
    /// # Panics
    /// As there.
    pub fn with_end(&self, act: impl FnOnce(&mut Node, Nanos)) {
        let mut state = self.state.lock().expect(NOBODY_PANICKED);
        act(&mut state.node, self.now());
        self.distribute(&mut state);
        if state.node.has_free_slot() {
            return self.transmit(state);
        }
        self.tell_driver(&mut state);
    }

    /// Lets one who has heard something of another host use the node, and sends what is to be said to it. A node that a slot
    /// panicked with is used no more.
    pub fn answer(&self, act: impl FnOnce(&mut Node, Nanos)) {
        match self.lock() {
            Ok(mut state) => {
                act(&mut state.node, self.now());
                self.distribute(&mut state);
                self.transmit(state);
            }
            Err(failure) => self.fail(failure),
        }
    }

    /// Lets the driver use the node; what is for it. What is to be sent, [`Shared::send`] sends.
    pub fn drive(&self, act: impl FnOnce(&mut Node, Nanos)) -> Result<Outcome, Failure> {
        let mut state = self.lock()?;
        act(&mut state.node, self.now());
        self.distribute(&mut state);
        state.is_told = false;
        let output = state.node.take_output();
        (state.root, state.due) = (state.node.root(), state.node.poll_timeout());
        let over = state.over.take().map(|report| (report, Shares { ends: state.node.ends(), took: state.node.took() }));
        Ok(Outcome { output, over, root: state.root, is_stranded: state.is_stranded, due: state.due })
    }

    /// Sends all that there is, and waits for room if it must: the driver's.
    pub fn send(&self) -> Result<(), Failure> {
        let mut state = self.lock()?;
        while let Some(messages) = take(&mut state) {
            drop(state);
            if !self.ways.try_send(self.me, messages)? {
                self.ways.finish()?;
            }
            state = self.lock()?;
            state.is_sending = false;
        }
        Ok(())
    }

    /// Somebody else began to send, and would have had to wait: the driver's, too.
    pub fn finish(&self) -> Result<(), Failure> {
        self.ways.finish()?;
        self.lock()?.is_sending = false;
        Ok(())
    }

    fn lock(&self) -> Result<MutexGuard<'_, State>, Failure> {
        self.state.lock().map_err(|_| Failure::Internal("a runner's thread panicked while it used the node".to_owned()))
    }

    /// Sends all that there is. Where that would take waiting, the driver goes on with it.
    fn transmit<'a>(&'a self, mut state: MutexGuard<'a, State>) {
        while let Some(messages) = take(&mut state) {
            drop(state);
            let sent = self.ways.try_send(self.me, messages);
            state = match (sent, self.lock()) {
                (Ok(true), Ok(state)) => state,
                // A driver that is gone has ended the run.
                (Ok(false), _) => return self.driver.send(Input::Unsent).unwrap_or(()),
                (Err(failure), _) | (_, Err(failure)) => return self.fail(failure),
            };
            state.is_sending = false;
        }
        self.tell_driver(&mut state);
    }

    fn fail(&self, failure: Failure) {
        // As before.
        self.driver.send(Input::Failed(failure)).unwrap_or(());
    }

    fn tell_driver(&self, state: &mut State) {
        if !state.is_told && state.concerns_driver() {
            state.is_told = true;
            // A driver that is gone has ended the run.
            self.driver.send(Input::Work).unwrap_or(());
        }
    }

    fn distribute(&self, state: &mut State) {
        while let Some(event) = state.node.poll_event() {
            match event {
                Event::PageReady(key) => {
                    if let Some(slot) = state.node.slot(key) {
                        self.tell(slot, ToSlot::PageReady);
                    }
                }
                // The log counts them.
                Event::Happened(_) => {}
                Event::Stranded => state.is_stranded = true,
                Event::Over(report) => state.over = Some(*report),
            }
        }
        while let Some(run) = state.node.poll_run() {
            self.tell(run.slot, ToSlot::Run(run));
        }
    }

    fn tell(&self, slot: usize, message: ToSlot) {
        // A slot only ends by a panic, which its thread tells the driver.
        self.slots[slot].send(message).unwrap_or(());
    }
}

/// What there is to send, if nobody else sends: who takes it, sends it, and then looks for more.
fn take(state: &mut State) -> Option<Vec<(Host, Message)>> {
    if state.is_sending || !state.node.has_messages() {
        return None;
    }
    state.is_sending = true;
    Some(std::iter::from_fn(|| state.node.poll_transmit()).collect())
}
