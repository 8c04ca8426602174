//! One run of runners: nodes, links, slots and a virtual clock.
//!
//! Owns the agenda. Must not judge: that is the checker's.

use super::checker::{Checker, Record};
use super::plan::{Loss, Plan};
use super::script::{Script, Step, script};
use crate::sim::rng::Rng;
use dvm_disa::machine::Settings;
use dvm_disa::machine::effects::{Ids, Kept, page_of};
use dvm_disa::machine::memory::Used;
use dvm_disa::machine::page::{Page, Words};
use dvm_disa::machine::report::Statistics;
use dvm_disa::machine::runner::Ran;
use dvm_disa::map::{self, PAGE_BYTES, WORD_BYTES};
use dvm_disa::memory::Born;
use dvm_disa::object::{Object, Rules};
use dvm_disa::trap::{Trap, TrapKind};
use dvm_runners::link::{Frame, Link};
use dvm_runners::plant::{self, Plant};
use dvm_runners::{Config, Event, Host, Message, Nanos, Node, Program, Run, RunKey};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Virtual time within which every run must be over.
const TIME_NS_MAX: u64 = 60_000_000_000;
/// Steps within which it must be, too.
const STEPS_MAX: u64 = 5_000_000;

/// What came of a run that passed.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Ends judged.
    pub judged: u64,
    /// What the root counted.
    pub statistics: Statistics,
    /// Hosts lost.
    pub losses: u64,
    /// Roots that took over from another.
    pub successions: u64,
    /// Runs that nobody could go on with, since all hosts that had the log were lost before another had it.
    pub stranded: u64,
    /// Most versions kept at one host when all was over.
    pub versions: usize,
}

/// What must not be.
#[derive(Clone, Debug)]
pub struct Failure {
    /// When.
    pub at_ns: u64,
    /// What.
    pub reason: String,
    /// What happened before.
    pub trail: Vec<String>,
}

#[derive(Debug)]
enum What {
    Frame {
        from: usize,
        to: usize,
        frame: Frame<Message>,
    },
    Step {
        host: usize,
        key: RunKey,
    },
    Wake {
        host: usize,
    },
    Stop {
        host: usize,
    },
    Lose {
        host: usize,
    },
    /// A host hears of so many losses.
    Told {
        host: usize,
        count: usize,
    },
}

/// A run in a slot.
#[derive(Debug)]
struct Active {
    run: Run,
    script: Script,
    next: usize,
    value: u64,
    pages: BTreeMap<u64, (Page, Page)>,
    record: Record,
}

#[derive(Debug)]
struct Place {
    node: Node,
    links: Vec<Link<Message>>,
    active: BTreeMap<RunKey, Active>,
    /// Runs that are over, by runner and snapshot, until the root says what became of them.
    records: BTreeMap<(u64, u64), Record>,
    ids: Vec<Ids>,
    /// When it is woken next, if that is planned.
    wakes: Option<u64>,
    is_stopped: bool,
    /// Losses it has heard of.
    told: usize,
}

struct World {
    plan: Plan,
    rng: Rng,
    now: u64,
    agenda: BTreeMap<(u64, u64), What>,
    order: u64,
    places: Vec<Place>,
    /// Hosts that the membership has given up, in its order.
    lost: Vec<usize>,
    /// Hosts that are not, or will not be, as far as it is decided.
    doomed: BTreeSet<usize>,
    /// Roots so far.
    roots: BTreeSet<usize>,
    checker: Checker,
    trail: Option<Vec<String>>,
    outcome: Option<Outcome>,
}

/// Runs a plan, with a bug if one is planted.
///
/// # Errors
/// What a checker found.
pub fn run(plan: &Plan, planted: Option<Plant>, has_trail: bool) -> Result<Outcome, Failure> {
    plant::set(planted);
    let mut world = World::new(plan, has_trail);
    let result = world.run();
    plant::set(None);
    result.map_err(|reason| Failure { at_ns: world.now, reason, trail: world.trail.take().unwrap_or_default() })
}

impl World {
    fn new(plan: &Plan, has_trail: bool) -> Self {
        let rules = Rules { is_page_grain: plan.is_page_grain, is_serializable: plan.is_serializable };
        let object = Object { rules, ..Object::default() };
        let settings = Settings { seed: plan.seed, ..Settings::default() };
        let program = Arc::new(Program::new(object, settings));
        let lanes: usize = plan.slots.iter().sum();
        let mut lane = 0;
        let places = (0..plan.slots.len()).map(|me| {
            let config = Config {
                me: Host(me as u16),
                slots: plan.slots.clone(),
                program: Arc::clone(&program),
                told_words_max: plan.told_words_max,
                copies: plan.copies,
            };
            let ids = (0..plan.slots[me]).map(|slot| Ids { next: 1 + (lane + slot) as u64, step: lanes as u64 }).collect();
            lane += plan.slots[me];
            Place {
                node: Node::new(config),
                links: plan.slots.iter().map(|_| Link::default()).collect(),
                active: BTreeMap::new(),
                records: BTreeMap::new(),
                ids,
                wakes: None,
                is_stopped: false,
                told: 0,
            }
        });
        let places = places.collect();
        Self {
            rng: Rng::new(plan.seed),
            now: 0,
            agenda: BTreeMap::new(),
            order: 0,
            places,
            lost: Vec::new(),
            doomed: BTreeSet::new(),
            roots: BTreeSet::from([0]),
            checker: Checker::new(plan),
            trail: has_trail.then(Vec::new),
            outcome: None,
            plan: plan.clone(),
        }
    }

    fn run(&mut self) -> Result<Outcome, String> {
        for loss in self.plan.losses.clone() {
            self.doom(loss);
        }
        self.places[0].node.handle_start(Nanos(0));
        self.drive(0)?;
        for _ in 0..STEPS_MAX {
            if let Some(outcome) = self.outcome.take() {
                return Ok(outcome);
            }
            let Some(((at, _), what)) = self.agenda.pop_first() else { return Err("nothing happens any more".into()) };
            self.now = at;
            if at > TIME_NS_MAX {
                break;
            }
            let host = self.perform(what);
            if let Some(host) = host {
                self.drive(host)?;
            }
        }
        Err(format!("not over in time: {:?}", self.places[0].node.poll_timeout()))
    }

    fn say(&mut self, line: impl FnOnce() -> String) {
        if let Some(trail) = &mut self.trail {
            trail.push(format!("{:>12} {}", self.now, line()));
        }
    }

    fn plan_at(&mut self, at: u64, what: What) {
        self.order += 1;
        self.agenda.insert((at, self.order), what);
    }

    /// Lets it happen; the host to which it happened, unless that is stopped.
    fn perform(&mut self, what: What) -> Option<usize> {
        let now = Nanos(self.now);
        match what {
            What::Frame { from, to, frame } => {
                let place = self.places.get_mut(to).filter(|place| !place.is_stopped)?;
                place.links[from].handle_frame(now, frame);
                let arrived: Vec<(Host, Message)> =
                    std::iter::from_fn(|| place.links[from].poll_arrived()).map(|message| (Host(from as u16), message)).collect();
                for (_, message) in &arrived {
                    self.say(|| format!("{from} -> {to} {}", brief(message)));
                }
                self.places[to].node.handle_messages(now, arrived);
                Some(to)
            }
            What::Step { host, key } => {
                if self.places[host].is_stopped {
                    return None;
                }
                self.step(host, key);
                Some(host)
            }
            What::Wake { host } => {
                let place = self.places.get_mut(host).filter(|place| !place.is_stopped)?;
                place.wakes = None;
                place.node.handle_timeout(now);
                place.links.iter_mut().for_each(|link| link.handle_timeout(now));
                Some(host)
            }
            What::Stop { host } => {
                self.say(|| format!("{host} stops"));
                self.places[host].is_stopped = true;
                None
            }
            What::Lose { host } => {
                self.say(|| format!("{host} is given up"));
                self.lost.push(host);
                let count = self.lost.len();
                for host in 0..self.places.len() {
                    let at = self.now + self.rng.between(1, self.plan.told_ns_max);
                    self.plan_at(at, What::Told { host, count });
                }
                None
            }
            What::Told { host, count } => {
                self.hear(host, count);
                (!self.places[host].is_stopped).then_some(host)
            }
        }
    }

    /// A host will be lost.
    fn doom(&mut self, loss: Loss) {
        if self.doomed.insert(loss.host) {
            if !loss.is_alive {
                self.plan_at(loss.at_ns, What::Stop { host: loss.host });
            }
            self.plan_at(loss.at_ns + loss.lease_ns, What::Lose { host: loss.host });
        }
    }

    /// The membership tells a host of losses: in its order, and of its own, which ends it, before those that came later.
    fn hear(&mut self, host: usize, count: usize) {
        let place = &mut self.places[host];
        while place.told < count && !place.is_stopped {
            let lost = self.lost[place.told];
            place.told += 1;
            if lost == host {
                place.is_stopped = true;
            } else {
                place.node.handle_lost(Nanos(self.now), Host(lost as u16));
            }
        }
        let told = self.places[host].told;
        self.say(|| format!("{host} has heard of {told} losses"));
    }

    /// The run is over, or nobody can go on.
    fn end(&mut self, statistics: Statistics, stranded: u64) {
        let alive = (0..self.places.len()).filter(|host| !self.doomed.contains(host));
        let versions = alive.map(|host| self.places[host].node.versions()).max();
        self.outcome = Some(Outcome {
            judged: self.checker.judged,
            statistics,
            losses: self.lost.len() as u64,
            successions: self.roots.len() as u64 - 1,
            stranded,
            versions: versions.unwrap_or_default(),
        });
    }

    /// Takes everything that a host has to do or say.
    fn drive(&mut self, host: usize) -> Result<(), String> {
        let now = Nanos(self.now);
        while let Some(run) = self.places[host].node.poll_run() {
            let script = script(&self.plan, &run.runner);
            let (key, record) = (run.key, Record { epoch: run.epoch.0, ..Record::default() });
            self.say(|| format!("{host} runs {} on {}", run.runner.id, run.epoch.0));
            let active = Active { run, script, next: 0, value: 0, pages: BTreeMap::new(), record };
            self.places[host].active.insert(key, active);
            self.soon(host, key);
        }
        while let Some(event) = self.places[host].node.poll_event() {
            match event {
                Event::PageReady(key) => self.soon(host, key),
                Event::Happened(end) => {
                    self.say(|| format!("{} of {} ended {:?} at {}", end.id, end.host.0, end.state, end.at.0));
                    let records = &self.places[usize::from(end.host.0)].records;
                    let record = records.get(&(end.id, end.epoch.0)).ok_or("an end without a run")?.clone();
                    self.checker.end(&end, &record)?;
                }
                Event::Over(report) => {
                    let (begin, bytes) = self.places[host].node.take_output();
                    self.checker.released(begin, &bytes)?;
                    self.checker.over(&report)?;
                    self.end(report.statistics, 0);
                }
                Event::Stranded => {
                    let stopped = |host: &usize| self.places[*host].is_stopped || self.lost.contains(host);
                    let lost = (0..self.places.len()).filter(stopped).count();
                    if lost < self.plan.copies {
                        return Err(format!("{lost} hosts are lost, and nobody has the log"));
                    }
                    self.end(Statistics::default(), 1);
                }
            }
        }
        let (begin, bytes) = self.places[host].node.take_output();
        if !bytes.is_empty() {
            self.checker.released(begin, &bytes)?;
        }
        if self.places[host].node.is_covered() && self.roots.insert(host) {
            self.say(|| format!("{host} is the root, and others have the log"));
            let loss = self.plan.chain.iter().find(|loss| loss.host == host).copied();
            if let Some(loss) = loss {
                self.doom(Loss { at_ns: self.now + loss.at_ns, ..loss });
            }
        }
        while let Some((to, message)) = self.places[host].node.poll_transmit() {
            self.places[host].links[usize::from(to.0)].handle_send(now, message);
        }
        for to in 0..self.places.len() {
            while let Some(frame) = self.places[host].links[to].poll_transmit() {
                self.transmit(host, to, &frame);
            }
        }
        let place = &self.places[host];
        let due = place.links.iter().map(Link::poll_timeout).chain([place.node.poll_timeout()]).flatten().min();
        if let Some(Nanos(at)) = due.filter(|due| place.wakes.is_none_or(|planned| due.0 < planned)) {
            let at = at.max(self.now + 1);
            self.places[host].wakes = Some(at);
            self.plan_at(at, What::Wake { host });
        }
        Ok(())
    }

    fn transmit(&mut self, from: usize, to: usize, frame: &Frame<Message>) {
        let is_between = |pair: &[usize; 2]| *pair == [from, to] || *pair == [to, from];
        let is_cut = self.plan.partitions.iter().any(|(begin, end, pair)| (*begin..*end).contains(&self.now) && is_between(pair));
        if is_cut || self.rng.chance(self.plan.loss) {
            return;
        }
        let copies = if self.rng.chance(self.plan.duplicates) { 2 } else { 1 };
        for _ in 0..copies {
            let at = self.now + self.rng.between(self.plan.delay_ns_min, self.plan.delay_ns_max);
            self.plan_at(at, What::Frame { from, to, frame: frame.clone() });
        }
    }

    fn soon(&mut self, host: usize, key: RunKey) {
        let at = self.now + self.rng.between(1, self.plan.step_ns_max);
        self.plan_at(at, What::Step { host, key });
    }

    /// One access of a run, or its end.
    fn step(&mut self, host: usize, key: RunKey) {
        let place = &mut self.places[host];
        let Some(active) = place.active.get_mut(&key) else { return };
        let Some(step) = active.script.steps.get(active.next).copied() else {
            return self.finish(host, key);
        };
        let address = match step {
            Step::Read(address) | Step::Write(address, _) => address,
        };
        let page = address / PAGE_BYTES;
        if let Entry::Vacant(entry) = active.pages.entry(page) {
            let Some(twin) = place.node.page(key, page) else { return };
            entry.insert((twin.clone(), twin));
        }
        if let Some((twin, own)) = active.pages.get_mut(&page) {
            let word = (address % PAGE_BYTES / WORD_BYTES) as usize;
            let is_own = own.word(word) != twin.word(word);
            match step {
                Step::Read(_) => {
                    active.value = own.word(word);
                    if !is_own {
                        active.record.reads.push((address, active.value));
                    }
                }
                Step::Write(_, change) => {
                    let value = (active.value + change) % self.plan.values;
                    own.write(word * WORD_BYTES as usize, &value.to_le_bytes());
                }
            }
        }
        active.next += 1;
        self.soon(host, key);
    }

    fn finish(&mut self, host: usize, key: RunKey) {
        let now = Nanos(self.now);
        let place = &mut self.places[host];
        let Some(active) = place.active.remove(&key) else { return };
        let Active { run, script, pages, mut record, .. } = active;
        let mut kept = Kept::default();
        let mut used = Used::default();
        for (page, (twin, own)) in pages {
            used.read.push(page);
            let words: Words = own.changed(&twin);
            for word in words.iter() {
                record.writes.push((page * PAGE_BYTES + word as u64 * WORD_BYTES, own.word(word)));
            }
            if !words.is_empty() {
                used.changed.insert(page, (words, own));
            }
        }
        for spawn in &script.spawns {
            let ids = &mut place.ids[run.slot];
            let id = ids.next;
            ids.next += ids.step;
            let Some(stack) = page_of(map::STACKS, id) else { continue };
            kept.children.push((Born { id, stack }, spawn.clone()));
            record.children.push((id, spawn.clone()));
        }
        kept.output = [run.runner.id.to_le_bytes(), run.epoch.0.to_le_bytes()].concat();
        record.output.clone_from(&kept.output);
        record.deletes = script.end == Some(dvm_disa::types::ExitMode::CommitDelete);
        record.is_plain_abort = script.end == Some(dvm_disa::types::ExitMode::Abort);
        // The same runner may run again on the same snapshot, since this run counts for nothing: it is that one that is judged.
        if place.node.is_wanted(key) {
            place.records.insert((run.runner.id, run.epoch.0), record);
        }
        let end = script.end.ok_or(Trap { kind: TrapKind::Div0, pc: 0 });
        let ran = Ran { epoch: run.epoch, end, pc: 0, last: 0, used, kept, fuel_used: 1, runner: run.runner, record: 0 };
        place.node.handle_ran(now, key, ran);
    }
}

fn brief(message: &Message) -> String {
    let text = format!("{message:?}");
    text.chars().take(160).collect()
}
