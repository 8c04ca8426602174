//! What the driver and the slots of a host share: its node, under a lock.
//!
//! Owns who has to be told after the node was used. Must not decide anything.

use super::driver::Input;
use crate::exit::Failure;
use dvm_disa::machine::report::Report;
use dvm_runners::{Event, Host, Message, Nanos, Node, Program, Run};
use std::collections::BTreeMap;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use std::time::Instant;

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
}

/// What is for the driver.
#[derive(Debug)]
pub struct Outcome {
    /// Messages to others.
    pub messages: Vec<(Host, Message)>,
    /// Output of committed runners, and where it begins among all.
    pub output: (u64, Vec<u8>),
    /// What came of the program, if it is over, and how many runners ended where.
    pub over: Option<(Report, BTreeMap<Host, u64>)>,
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
    state: Mutex<State>,
    slots: Vec<Sender<ToSlot>>,
    driver: Sender<Input>,
    begun: Instant,
}

impl Shared {
    /// A node and its slots before anything has happened.
    pub fn new(node: Node, program: Arc<Program>, slots: Vec<Sender<ToSlot>>, driver: Sender<Input>) -> Self {
        let state = State { node, over: None, is_stranded: false, is_told: false };
        Self { program, state: Mutex::new(state), slots, driver, begun: Instant::now() }
    }

    /// The time on the node's clock.
    pub fn now(&self) -> Nanos {
        Nanos(self.begun.elapsed().as_nanos() as u64)
    }

    /// Lets a slot use the node, and tells whom that concerns. The lock is held meanwhile.
    ///
    /// # Panics
    /// Another slot did while it used the node, whose state nobody knows now: this one ends like that one.
    pub fn with<T>(&self, act: impl FnOnce(&mut Node, Nanos) -> T) -> T {
        let mut state = self.state.lock().expect("no other slot panicked while it used the node");
        let done = act(&mut state.node, self.now());
        self.distribute(&mut state);
        let concerns_driver = !state.node.is_quiet() || state.over.is_some() || state.node.poll_timeout().is_some();
        if concerns_driver && !state.is_told {
            state.is_told = true;
            // A driver that is gone has ended the run.
            self.driver.send(Input::Work).unwrap_or(());
        }
        done
    }

    /// Lets the driver use the node; what is for it. A node that a slot panicked with is used no more.
    pub fn drive(&self, act: impl FnOnce(&mut Node, Nanos)) -> Result<Outcome, Failure> {
        let panicked = |_| Failure::Internal("a runner's thread panicked while it used the node".to_owned());
        let mut state = self.state.lock().map_err(panicked)?;
        act(&mut state.node, self.now());
        self.distribute(&mut state);
        state.is_told = false;
        let messages = std::iter::from_fn(|| state.node.poll_transmit()).collect();
        let (output, due) = (state.node.take_output(), state.node.poll_timeout());
        let over = state.over.take().map(|report| (report, state.node.ends()));
        Ok(Outcome { messages, output, over, root: state.node.root(), is_stranded: state.is_stranded, due })
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
