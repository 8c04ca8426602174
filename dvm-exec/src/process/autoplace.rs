//! `--place auto`: looks at what the agents counted, and has threads moved.
//!
//! Owns the thread that does this, its interval, and what it says at the end. Must not choose ([`super::affinity`]), nor move
//! anybody by itself: a thread moves when it comes out of a call, or out of its own code ([`super::moving`]).

use super::affinity::{Affinity, Move, Place};
use super::agent::Agent;
use super::husk::Root;
use super::moving;
use super::service;
use super::sharing::{self, Pages};
use super::view::affinity::wished_host;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_millis(250);
/// A thread that moved stays for so long.
const STAY: Duration = Duration::from_secs(1);
/// How long a thread may take to leave before it is left where it is.
const LEAVING_LATEST: Duration = Duration::from_secs(1);
/// Remote faults a second below which nobody is moved.
const FAULTS_LEAST: f64 = 200.0;
/// Faults a second that a move must save.
const SAVED_LEAST: f64 = 50.0;
/// Moves named at the end.
const MOVES_SHOWN_MAX: usize = 16;

/// What was done.
#[derive(Debug, Default)]
pub struct AutoPlace {
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Told {
    moves: u64,
    first: Vec<Move>,
    /// Remote faults a second when the first moves were decided.
    before: Option<f64>,
    /// The same in the last whole interval after the last move.
    after: Option<f64>,
}

struct Watcher {
    affinity: Affinity,
    /// Counts at the last look, by page, host and kernel thread.
    counted: BTreeMap<(u64, usize, u32), u64>,
    /// When each thread was last told to move.
    moved: BTreeMap<i32, Instant>,
    looked: Instant,
}

/// Threads and their faults a second, page by page, and all faults a second.
type Rates = (Vec<Vec<(i32, f64)>>, f64);

impl AutoPlace {
    fn lock(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
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
        let Some(before) = told.before.filter(|_| told.moves > 0) else {
            return "-- dvm-exec: placement: no thread moved\n".to_owned();
        };
        let name = |host: usize| root.hosts.get(host).map_or("?", |host| host.name.as_str());
        let moves: Vec<String> = told.first.iter().map(|going| format!("{} to {}", going.tid, name(going.host))).collect();
        let after = told.after.map_or("not measured".to_owned(), |after| format!("{after:.0}"));
        let (count, moves) = (told.moves, moves.join(", "));
        format!("-- dvm-exec: placement: {count} moves of threads ({moves}), {before:.0} remote faults/s before, {after} after\n")
    }
}

/// Watches and moves until the program ends; for a thread of its own.
pub fn watch(root: &'static Root, agent: &Agent) {
    let mut watcher =
        Watcher { affinity: Affinity::default(), counted: BTreeMap::new(), moved: BTreeMap::new(), looked: Instant::now() };
    loop {
        std::thread::sleep(INTERVAL);
        root.tasks.let_stay(LEAVING_LATEST);
        // An agent without an answer ends the job by itself.
        let Ok(statistics) = agent.statistics() else { return };
        watcher.look(root, &sharing::join(root, &statistics));
        for (tid, host) in root.tasks.asked_to_move() {
            match service::of_host(root, host) {
                Some(member) => member.ask_to_move(tid),
                None => moving::interrupt(tid),
            }
        }
    }
}

impl Watcher {
    fn look(&mut self, root: &Root, pages: &Pages) {
        let places = root.tasks.places();
        let hosts: BTreeMap<i32, usize> = places.iter().copied().collect();
        let (rates, all) = self.rates(pages, &hosts);
        self.affinity.observe(rates.iter().map(Vec::as_slice), |tid| hosts.get(&tid).copied());
        root.autoplace.lock().after = Some(all);
        self.moved.retain(|_, moved| moved.elapsed() < STAY);
        if all < FAULTS_LEAST {
            return;
        }
        let processors: Vec<u32> = root.hosts.iter().map(|host| host.processors).collect();
        // Where the program itself wants a thread, it stays.
        let has_wish = |tid| root.tasks.find(tid).is_some_and(|task| wished_host(task.wish().as_ref(), &processors).is_some());
        let is_free = |tid: i32| tid != root.pid() && !self.moved.contains_key(&tid) && !has_wish(tid);
        let places: Vec<Place> =
            places.iter().map(|(tid, host)| Place { tid: *tid, host: *host, is_free: is_free(*tid) }).collect();
        let moves = self.affinity.decide(&places, &processors, SAVED_LEAST);
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
    }

    /// What each thread fetched since the last look, where it runs now.
    fn rates(&mut self, pages: &Pages, hosts: &BTreeMap<i32, usize>) -> Rates {
        let seconds = self.looked.elapsed().as_secs_f64().max(0.001);
        self.looked = Instant::now();
        let (mut rates, mut all, mut counted) = (Vec::new(), 0.0, BTreeMap::new());
        for (page, users) in pages {
            let mut users_now: Vec<(i32, f64)> = Vec::new();
            for user in users {
                let (key, count) = ((*page, user.host, user.used.thread), user.used.count());
                counted.insert(key, count);
                let former = self.counted.get(&key).copied().unwrap_or(0);
                // A count that was forgotten and began anew is smaller than it was.
                let rate = (if count >= former { count - former } else { count }) as f64 / seconds;
                all += rate;
                if rate > 0.0 && hosts.get(&user.tid) == Some(&user.host) {
                    users_now.push((user.tid, rate));
                }
            }
            if users_now.len() > 1 {
                rates.push(users_now);
            }
        }
        self.counted = counted;
        (rates, all)
    }
}
