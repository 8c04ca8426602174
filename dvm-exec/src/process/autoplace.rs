//! `--place auto`: looks at what the agents counted, and has threads moved.
//!
//! Owns the thread that does this, its interval, and what it says at the end. Must not choose ([`super::affinity`],
//! [`super::gather`]), nor move anybody by itself: a thread moves when it comes out of a call, or out of its own code
//! ([`super::moving`]).

use super::affinity::{Affinity, Move, Place, Supply};
use super::agent::Agent;
use super::gather::{Gather, Load, Order};
use super::husk::Root;
use super::moving;
use super::service;
use super::sharing::{self, Pages};
use super::stat;
use super::view::affinity::wished_host;
use super::view::usage;
use dvm_api::local::HostStatistics;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_millis(250);
/// The interval doubles up to this while hardly anybody waits for pages: a look costs every host some time.
const INTERVAL_MAX: Duration = Duration::from_secs(2);
/// A thread that moved stays for so long.
const STAY: Duration = Duration::from_secs(1);
/// How long a thread may take to leave before it is left where it is.
const LEAVING_LATEST: Duration = Duration::from_secs(1);
/// Remote faults a second below which nobody is moved.
const FAULTS_LEAST: f64 = 200.0;
/// What a move must be worth, in seconds of computing a second: it costs the fetching of what the thread works on.
const WORTH_LEAST: f64 = 0.05;
/// Moves named at the end.
const MOVES_SHOWN_MAX: usize = 16;

/// What was done.
#[derive(Debug, Default)]
pub struct AutoPlace {
    told: Mutex<Told>,
    is_gathered: AtomicBool,
}

#[derive(Debug, Default)]
struct Told {
    moves: u64,
    first: Vec<Move>,
    /// Times all threads were brought to the root.
    gatherings: u64,
    /// Remote faults a second when the first moves were decided.
    before: Option<f64>,
    /// The same in the last whole interval after the last move.
    after: Option<f64>,
}

struct Watcher {
    affinity: Affinity,
    gather: Gather,
    /// What the program had used and waited at the last look: processor time and time of threads.
    spent: (Duration, Duration),
    /// Counts at the last look, by page, host and kernel thread.
    counted: BTreeMap<(u64, usize, u32), u64>,
    /// When each thread was last told to move.
    moved: BTreeMap<i32, Instant>,
    looked: Instant,
}

/// Remote faults a second.
#[derive(Default)]
struct Rates {
    /// Page by page, of the threads that had some.
    pages: Vec<Vec<(i32, f64)>>,
    threads: BTreeMap<i32, f64>,
    all: f64,
}

impl AutoPlace {
    fn lock(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether all threads, new ones too, belong to the root.
    pub fn is_gathered(&self) -> bool {
        self.is_gathered.load(Ordering::Relaxed)
    }

    /// A thread has arrived on `host`.
    pub fn note(&self, tid: i32, host: usize) {
        let mut told = self.lock();
        told.moves += 1;
        if told.first.len() < MOVES_SHOWN_MAX {
            told.first.push(Move { tid, host });
        }
    }

    /// What is said when the program has ended.
    pub fn report(&self, root: &Root) -> String {
        let told = self.lock();
        let name = |host: usize| root.hosts.get(host).map_or("?", |host| host.name.as_str());
        let gathered = match told.gatherings {
            0 => String::new(),
            times => format!("; all were on {} at some time ({times}), because they waited more than they computed", name(0)),
        };
        let Some(before) = told.before.filter(|_| told.moves > 0) else {
            return format!("-- dvm-exec: placement: no thread moved{gathered}\n");
        };
        let moves: Vec<String> = told.first.iter().map(|going| format!("{} to {}", going.tid, name(going.host))).collect();
        let after = told.after.map_or("not measured".to_owned(), |after| format!("{after:.0}"));
        let (count, moves) = (told.moves, moves.join(", "));
        format!(
            "-- dvm-exec: placement: {count} moves of threads ({moves}), {before:.0} remote faults/s before, {after} after{gathered}\n"
        )
    }
}

/// Watches and moves until the program ends; for a thread of its own.
pub fn watch(root: &'static Root, agent: &Agent) {
    let processors = root.hosts.first().map_or(1, |host| host.processors);
    let mut watcher = Watcher {
        affinity: Affinity::default(),
        gather: Gather::new(processors),
        spent: Default::default(),
        counted: BTreeMap::new(),
        moved: BTreeMap::new(),
        looked: Instant::now(),
    };
    let mut interval = INTERVAL;
    loop {
        std::thread::sleep(interval);
        root.tasks.let_stay(LEAVING_LATEST);
        // An agent without an answer ends the job by itself.
        let Ok(statistics) = agent.statistics() else { return };
        let is_quiet = watcher.look(root, &statistics);
        interval = if is_quiet { (interval * 2).min(INTERVAL_MAX) } else { INTERVAL };
        for (tid, host) in root.tasks.asked_to_move() {
            match service::of_host(root, host) {
                Some(member) => member.ask_to_move(tid),
                None => moving::interrupt(tid),
            }
        }
    }
}

impl Watcher {
    /// Decides; whether there was nothing to decide.
    fn look(&mut self, root: &Root, statistics: &[HostStatistics]) -> bool {
        let places = root.tasks.places();
        let hosts: BTreeMap<i32, usize> = places.iter().copied().collect();
        let interval = self.looked.elapsed().max(Duration::from_millis(1));
        self.looked = Instant::now();
        let load = self.load(root, statistics, interval);
        let order = self.gather.observe(load);
        let Rates { pages, threads, all } = self.rates(&sharing::join(root, statistics), &hosts, interval);
        self.affinity.observe(pages.iter().map(Vec::as_slice), |tid| hosts.get(&tid).copied());
        root.autoplace.lock().after = Some(all);
        self.moved.retain(|_, moved| moved.elapsed() < STAY);
        let is_gathered = root.autoplace.is_gathered();
        if all < FAULTS_LEAST && order.is_none() && !is_gathered {
            return true;
        }
        let processors: Vec<u32> = root.hosts.iter().map(|host| host.processors).collect();
        // Where the program itself wants a thread, it stays.
        let has_wish = |tid| root.tasks.find(tid).is_some_and(|task| wished_host(task.wish().as_ref(), &processors).is_some());
        let is_free = |tid: i32| tid != root.pid() && !self.moved.contains_key(&tid) && !has_wish(tid);
        let fault_s = if all > 0.0 { load.stalled / all } else { 0.0 };
        let waits = |tid: i32| threads.get(&tid).map_or(0.0, |faults| (faults * fault_s).min(1.0));
        let places: Vec<Place> = places
            .iter()
            .map(|(tid, host)| Place { tid: *tid, host: *host, is_free: is_free(*tid), waits: waits(*tid) })
            .collect();
        let supply = Supply { processors: &processors, computing: load.computing, fault_s };
        let is_gathered = order.map_or(is_gathered, |order| order == Order::Gather);
        root.autoplace.is_gathered.store(is_gathered, Ordering::Relaxed);
        let moves = match order {
            Some(Order::Spread) => spread(&places, processors.len()),
            _ if is_gathered => gather(&places),
            _ => self.affinity.decide(&places, &supply, WORTH_LEAST),
        };
        if order == Some(Order::Gather) {
            root.autoplace.lock().gatherings += 1;
        }
        if !moves.is_empty() {
            let mut told = root.autoplace.lock();
            told.before.get_or_insert(all);
            told.after = None;
        }
        for going in moves {
            self.moved.insert(going.tid, Instant::now());
            root.note_leaving(going.host);
            root.tasks.ask_to_move(going.tid, going.host);
        }
        false
    }

    /// What the program did since the last look.
    fn load(&mut self, root: &Root, statistics: &[HostStatistics], interval: Duration) -> Load {
        let [user_us, _] = usage::of_all(root).resources.times_us();
        let stalled_ns: f64 = statistics.iter().map(stat::stalled_ns).sum();
        let spent = (Duration::from_micros(user_us), Duration::from_nanos(stalled_ns as u64));
        let before = std::mem::replace(&mut self.spent, spent);
        let part = |now: Duration, before: Duration| now.saturating_sub(before).as_secs_f64() / interval.as_secs_f64();
        Load { interval, computing: part(spent.0, before.0), stalled: part(spent.1, before.1) }
    }

    /// What each thread fetched since the last look, where it runs now.
    fn rates(&mut self, pages: &Pages, hosts: &BTreeMap<i32, usize>, interval: Duration) -> Rates {
        let seconds = interval.as_secs_f64();
        let (mut rates, mut counted) = (Rates::default(), BTreeMap::new());
        for (page, users) in pages {
            let mut users_now: Vec<(i32, f64)> = Vec::new();
            for user in users {
                let (key, count) = ((*page, user.host, user.used.thread), user.used.count());
                counted.insert(key, count);
                let former = self.counted.get(&key).copied().unwrap_or(0);
                // A count that was forgotten and began anew is smaller than it was.
                let rate = (if count >= former { count - former } else { count }) as f64 / seconds;
                rates.all += rate;
                if rate > 0.0 && hosts.get(&user.tid) == Some(&user.host) {
                    users_now.push((user.tid, rate));
                    *rates.threads.entry(user.tid).or_default() += rate;
                }
            }
            if users_now.len() > 1 {
                rates.pages.push(users_now);
            }
        }
        self.counted = counted;
        rates
    }
}

/// Everybody who may, to the root.
fn gather(places: &[Place]) -> Vec<Move> {
    places.iter().filter(|place| place.is_free && place.host != 0).map(|place| Move { tid: place.tid, host: 0 }).collect()
}

/// Everybody who may, one host after the other, beginning behind the root, which has the first thread.
fn spread(places: &[Place], hosts: usize) -> Vec<Move> {
    let mut free: Vec<&Place> = places.iter().filter(|place| place.is_free).collect();
    free.sort_by_key(|place| place.tid);
    let seats = (1..).map(|number| number % hosts);
    let moves = free.into_iter().zip(seats).map(|(place, host)| (place.host, Move { tid: place.tid, host }));
    moves.filter(|(former, going)| *former != going.host).map(|(_, going)| going).collect()
}
