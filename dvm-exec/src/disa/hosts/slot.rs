//! A slot: a thread that runs one runner after the other on snapshots of the node.
//!
//! Owns the run at hand. Must not know hosts, or what becomes of a run.
//!
//! Runners of a host are threads of its husk, not processes: a page of a snapshot is then a reference to the version that the node
//! has, without a copy, a system call or a fault.

use super::driver::Input;
use super::shared::{Shared, ToSlot};
use super::spawn;
use crate::exit::Failure;
use dvm_disa::code::Code;
use dvm_disa::engine::Engine;
use dvm_disa::machine::arena::Pool;
use dvm_disa::machine::effects::Ids;
use dvm_disa::machine::memory::Snapshot;
use dvm_disa::machine::page::Page;
use dvm_disa::machine::runner::{self, Ground};
use dvm_disa::map::Range;
use dvm_runners::{Run, RunKey};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};

/// What every slot of a host has.
#[derive(Clone, Debug)]
pub struct Slots {
    /// The node.
    pub shared: Arc<Shared>,
    /// The program's text.
    pub code: Arc<Code>,
    /// What runs it.
    pub engine: Arc<dyn Engine + Send + Sync>,
}

/// Starts the thread of a slot. A panic there ends the run.
pub fn start(slots: Slots, ids: Ids, receiver: Receiver<ToSlot>, driver: Sender<Input>) -> Result<(), Failure> {
    spawn("slot", move || {
        let served = catch_unwind(AssertUnwindSafe(|| serve(&slots, ids, &receiver)));
        if served.is_err() {
            driver.send(Input::Failed(Failure::Internal("a runner's thread panicked".to_owned()))).unwrap_or(());
        }
    })
}

fn serve(Slots { shared, code, engine }: &Slots, mut ids: Ids, receiver: &Receiver<ToSlot>) {
    let program = &*shared.program;
    while let Ok(message) = receiver.recv() {
        // A page that came for a run that is over.
        let ToSlot::Run(Run { key, runner, epoch, .. }) = message else { continue };
        let ground = Ground {
            object: &program.object,
            code,
            settings: &program.settings,
            engine: &**engine,
            epoch,
            shared: Pages { shared, key, receiver },
            arena: Heap(shared),
            ids: &mut ids,
        };
        let ran = runner::run(runner, ground);
        shared.with_end(|node, now| node.handle_ran(now, key, ran));
    }
}

/// Shared memory as the snapshot of a run shows it.
struct Pages<'a> {
    shared: &'a Shared,
    key: RunKey,
    receiver: &'a Receiver<ToSlot>,
}

impl Snapshot for Pages<'_> {
    fn alike(&mut self, page: u64) -> std::ops::Range<u64> {
        self.shared.with(|node, _| node.unchanged(page))
    }

    fn page(&mut self, page: u64) -> Page {
        loop {
            if let Some(contents) = self.shared.with(|node, _| node.page(self.key, page)) {
                return contents;
            }
            // Asked for at once: nothing goes on here before it comes.
            self.shared.answer(|_, _| {});
            if self.receiver.recv().is_err() {
                // The run has ended, and soon the process will: there is nothing to go on with.
                loop {
                    std::thread::park();
                }
            }
        }
    }
}

/// Memory that runners of this host may allocate.
struct Heap<'a>(&'a Shared);

impl Pool for Heap<'_> {
    fn take(&mut self, bytes: u64) -> Option<Range> {
        self.0.with(|node, _| node.arena().take(bytes))
    }

    fn give_back(&mut self, range: Range) {
        self.0.with(|node, _| node.arena().give_back(range));
    }

    fn has(&self, base: u64) -> bool {
        self.0.with(|node, _| node.arena().has(base))
    }
}
