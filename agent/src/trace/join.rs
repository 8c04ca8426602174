//! Faults, joined from records: same page, same thread, same shard.
//!
//! Owns what is known of each thread and page between records. Must not know where records come from. What does not fit is
//! counted, never guessed.
//!
//! ```text
//!   Fault          Read         Asked          Answered        Installed          In
//!     |--delivered-->|--request-->|--reply------->|--installed---->|---resumed----->|     from another host
//!     |--delivered-->|--installed-------------------------------->|---resumed----->|     from this one
//! ```
//!
//! If the page is gone again before the thread gets to it, the kernel asks for it again without a new fault: the next Read is of the
//! same fault, which then goes through its stages once more.

use dsm_bpf::{TraceKind, TraceRecord};
use std::collections::BTreeMap;

/// Stages of a fault, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Delivered,
    RequestOut,
    ReplyIn,
    Installed,
    Resumed,
}

impl Stage {
    pub(super) const ALL: [Self; 5] = [Self::Delivered, Self::RequestOut, Self::ReplyIn, Self::Installed, Self::Resumed];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::RequestOut => "request_out",
            Self::ReplyIn => "reply_in",
            Self::Installed => "installed",
            Self::Resumed => "resumed",
        }
    }
}

/// One fault, from the thread's stop to its going on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) process: u32,
    pub(super) thread: u32,
    pub(super) page: u64,
    pub(super) is_remote: bool,
    pub(super) begun_ns: u64,
    /// Its stages and when each ended; those of a page that was asked for again follow one another.
    ends_ns: Vec<(Stage, u64)>,
}

impl Fault {
    pub(super) fn total_ns(&self) -> u64 {
        self.ended_ns() - self.begun_ns
    }

    /// Its stages: which, when it began, how long it took. Each begins where the one before ended.
    pub(super) fn stages(&self) -> impl Iterator<Item = (Stage, u64, u64)> {
        let mut begun = self.begun_ns;
        self.ends_ns.iter().map(move |&(stage, end)| {
            let from = std::mem::replace(&mut begun, end);
            (stage, from, end - from)
        })
    }

    fn ended_ns(&self) -> u64 {
        self.ends_ns.last().map_or(self.begun_ns, |(_, end)| *end)
    }
}

/// What could not be joined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Unmatched {
    /// Faults that the agent read and whose beginning was not seen: a thread's first one as a rule.
    pub(super) reads: u64,
    /// Reads of a page that was asked for again, and whose fault itself could not be joined.
    pub(super) repeats: u64,
    /// Faults of traced threads that the agent did not read: pages that are not the space's, or were there by then.
    pub(super) faults: u64,
    /// Faults served from another host of which no request was seen.
    pub(super) requests: u64,
    /// The same with a request, but no answer.
    pub(super) replies: u64,
    /// Faults read and not served before their thread faulted there again, or before the end of the trace.
    pub(super) installs: u64,
    /// Faults served whose thread was not seen to run again.
    pub(super) resumes: u64,
    /// Records of no known kind.
    pub(super) unknown: u64,
}

/// The result.
#[derive(Debug, Default)]
pub(super) struct Joined {
    /// In the order in which they ended.
    pub(super) faults: Vec<Fault>,
    pub(super) unmatched: Unmatched,
}

/// Joins records, whatever their order. Without `sees_resumes` a fault ends when it is installed.
pub(super) fn join(mut records: Vec<TraceRecord>, sees_resumes: bool) -> Joined {
    records.sort_by_key(|record| record.at_ns);
    let mut joiner = Joiner { sees_resumes, ..Joiner::default() };
    for record in &records {
        joiner.on_record(record);
    }
    joiner.finish()
}

/// A page of one shard: the shard's thread and the number.
type Place = (u32, u64);

#[derive(Debug, Default)]
struct Joiner {
    sees_resumes: bool,
    threads: BTreeMap<u32, Thread>,
    waits: BTreeMap<(Place, u32), Wait>,
    requests: BTreeMap<Place, Request>,
    joined: Joined,
}

#[derive(Debug, Default)]
struct Thread {
    process: u32,
    /// Its last fault: page and time, unless the agent has read it.
    fault: Option<(u64, u64)>,
    /// The page of its last fault that the agent has read.
    read: Option<u64>,
    /// Pages it waits for.
    waits: Vec<Place>,
    is_out: bool,
    ran_at: u64,
    /// It was out when this was served.
    served: Option<Fault>,
    /// Its last fault that is over, unless the kernel asks again.
    over: Option<Fault>,
}

#[derive(Debug)]
struct Wait {
    /// The fault up to here, if the page is asked for again.
    before: Option<Fault>,
    begun_ns: u64,
    read_ns: u64,
    /// It faulted elsewhere before the install was marked, having run since then.
    resumed_ns: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Request {
    asked_ns: u64,
    answered_ns: Option<u64>,
}

impl Joiner {
    fn on_record(&mut self, record: &TraceRecord) {
        let (at, place) = (record.at_ns, (record.by, record.page));
        match TraceKind::of(record.kind) {
            Some(TraceKind::Fault) => self.on_fault(record),
            Some(TraceKind::Out) => self.thread(record.thread).is_out = true,
            Some(TraceKind::In) => self.on_in(at, record.thread),
            Some(TraceKind::Read) => self.on_read(at, place, record.thread),
            Some(TraceKind::Asked) => self.on_asked(at, place, record.count),
            Some(TraceKind::Answered) => {
                for request in self.requests.range_mut(pages(place, record.count)) {
                    request.1.answered_ns = Some(at);
                }
            }
            Some(TraceKind::Installed) => self.on_installed(at, place, record.count != 0),
            None => self.joined.unmatched.unknown += 1,
        }
    }

    fn on_fault(&mut self, record: &TraceRecord) {
        let thread = self.threads.entry(record.thread).or_default();
        thread.process = record.by;
        thread.is_out = false;
        let lost = thread.served.take().is_some();
        let unread = thread.fault.replace((record.page, record.at_ns)).is_some();
        self.joined.faults.extend(thread.over.take());
        let ran_at = thread.ran_at;
        for place in &thread.waits {
            let Some(wait) = self.waits.get_mut(&(*place, record.thread)) else { continue };
            // A thread that never left its processor ran on at the latest when it faulted again.
            let ran_at = if ran_at > wait.begun_ns { ran_at } else { record.at_ns };
            wait.resumed_ns.get_or_insert(ran_at);
        }
        self.joined.unmatched.resumes += u64::from(lost);
        self.joined.unmatched.faults += u64::from(unread);
    }

    fn on_in(&mut self, at: u64, number: u32) {
        let thread = self.thread(number);
        (thread.is_out, thread.ran_at) = (false, at);
        if let Some(mut fault) = thread.served.take() {
            fault.ends_ns.push((Stage::Resumed, at));
            self.on_over(fault);
        }
    }

    fn on_over(&mut self, fault: Fault) {
        let earlier = self.thread(fault.thread).over.replace(fault);
        self.joined.faults.extend(earlier);
    }

    fn on_read(&mut self, at: u64, place: Place, number: u32) {
        let key = (place, number);
        // The kernel asks again for one fault if it was woken and the page was not fit for it.
        if self.waits.get(&key).is_some_and(|wait| wait.resumed_ns.is_none()) {
            return;
        }
        let thread = self.thread(number);
        let fault = thread.fault.take_if(|(page, _)| *page == place.1);
        let is_repeat = thread.read.replace(place.1) == Some(place.1);
        let is_same = |fault: &mut Fault| fault.page == place.1;
        // The thread may have run, and stopped once more, before the mark of the install.
        let before = if fault.is_none() { thread.served.take_if(is_same).or_else(|| thread.over.take_if(is_same)) } else { None };
        let Some(begun_ns) = fault.map(|(_, at)| at).or_else(|| before.as_ref().map(Fault::ended_ns)) else {
            let unmatched = &mut self.joined.unmatched;
            *(if is_repeat { &mut unmatched.repeats } else { &mut unmatched.reads }) += 1;
            return;
        };
        // What was asked for and answered before was for others; what is not answered is on its way for this one, too.
        if self.requests.get(&place).is_some_and(|request| request.answered_ns.is_some()) && !self.is_waited_for(place) {
            self.requests.remove(&place);
        }
        let wait = Wait { before, begun_ns, read_ns: at, resumed_ns: None };
        if self.waits.insert(key, wait).is_some() {
            self.joined.unmatched.installs += 1;
        } else {
            self.thread(number).waits.push(place);
        }
    }

    fn on_asked(&mut self, at: u64, place: Place, count: u32) {
        // On whose behalf the page's home asks holders is told by who waits.
        if count == 0 && !self.is_waited_for(place) {
            return;
        }
        for (place, _) in
            std::iter::successors(Some((place, count)), |(place, left)| (*left > 1).then_some(((place.0, place.1 + 1), left - 1)))
        {
            let new = Request { asked_ns: at, answered_ns: None };
            let request = self.requests.entry(place).or_insert(new);
            if request.answered_ns.is_some() && !self.waits.range(waiters(place)).any(|_| true) {
                *request = new;
            }
        }
    }

    fn on_installed(&mut self, at: u64, place: Place, is_remote: bool) {
        let request = self.requests.remove(&place);
        let waiters: Vec<u32> = self.waits.range(waiters(place)).map(|((_, number), _)| *number).collect();
        for number in waiters {
            let Some(wait) = self.waits.remove(&(place, number)) else { continue };
            let sees_resumes = self.sees_resumes;
            let thread = self.thread(number);
            thread.waits.retain(|other| *other != place);
            let is_out = thread.is_out && wait.resumed_ns.is_none();
            // It may run before the mark is reached, which comes after the page and the waking.
            let ran_at = wait.resumed_ns.unwrap_or(if thread.ran_at > wait.begun_ns { thread.ran_at } else { at });
            let installed = if is_out || !sees_resumes { at } else { at.min(ran_at).max(wait.read_ns) };
            let process = thread.process;
            let new = Fault { process, thread: number, page: place.1, is_remote, begun_ns: wait.begun_ns, ends_ns: Vec::new() };
            let mut fault = wait.before.unwrap_or(new);
            fault.is_remote |= is_remote;
            fault.ends_ns.push((Stage::Delivered, wait.read_ns));
            if is_remote && !self.add_request(&mut fault, request, wait.read_ns, installed) {
                continue;
            }
            fault.ends_ns.push((Stage::Installed, installed));
            if !sees_resumes {
                self.on_over(fault);
            } else if is_out {
                let missed = self.thread(number).served.replace(fault).is_some();
                self.joined.unmatched.resumes += u64::from(missed);
            } else {
                fault.ends_ns.push((Stage::Resumed, installed));
                self.on_over(fault);
            }
        }
    }

    /// Puts the request's stages in; false if they are not known.
    fn add_request(&mut self, fault: &mut Fault, request: Option<Request>, read_ns: u64, installed: u64) -> bool {
        let Some(request) = request else {
            self.joined.unmatched.requests += 1;
            return false;
        };
        let Some(answered) = request.answered_ns else {
            self.joined.unmatched.replies += 1;
            return false;
        };
        // A request may have been on its way for another thread.
        let asked = request.asked_ns.clamp(read_ns, installed);
        fault.ends_ns.extend([(Stage::RequestOut, asked), (Stage::ReplyIn, answered.clamp(asked, installed))]);
        true
    }

    fn is_waited_for(&self, place: Place) -> bool {
        self.waits.range(waiters(place)).next().is_some()
    }

    fn thread(&mut self, number: u32) -> &mut Thread {
        self.threads.entry(number).or_default()
    }

    fn finish(mut self) -> Joined {
        self.joined.unmatched.installs += self.waits.len() as u64;
        self.joined.unmatched.resumes += self.threads.values().filter(|thread| thread.served.is_some()).count() as u64;
        self.joined.unmatched.faults += self.threads.values().filter(|thread| thread.fault.is_some()).count() as u64;
        self.joined.faults.extend(self.threads.into_values().filter_map(|thread| thread.over));
        self.joined.faults.sort_by_key(Fault::ended_ns);
        self.joined
    }
}

fn waiters(place: Place) -> std::ops::RangeInclusive<(Place, u32)> {
    (place, 0)..=(place, u32::MAX)
}

fn pages((shard, page): Place, count: u32) -> std::ops::Range<Place> {
    (shard, page)..(shard, page.saturating_add(u64::from(count)))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use TraceKind::{Answered, Asked, Fault as Faulted, In, Installed, Out, Read};

    /// The shard, the husk.
    const SHARD: u32 = 90;
    const HUSK: u32 = 70;

    pub(in crate::trace) fn record(at_ns: u64, kind: TraceKind, page: u64, thread: u32, count: u32) -> TraceRecord {
        let by = if matches!(kind, Faulted | Out | In) { HUSK } else { SHARD };
        TraceRecord { at_ns, page, by, thread, kind: kind as u32, count }
    }

    /// A fault on page 5 from another host, of thread 7, that takes 10, 20, 30, 40 and 50 ns.
    pub(in crate::trace) fn remote() -> Vec<TraceRecord> {
        vec![
            record(100, Faulted, 5, 7, 1),
            record(105, Out, 0, 7, 1),
            record(110, Read, 5, 7, 1),
            record(130, Asked, 5, 0, 1),
            record(160, Answered, 5, 0, 1),
            record(200, Installed, 5, 0, 1),
            record(250, In, 0, 7, 1),
        ]
    }

    #[track_caller]
    fn check(records: &[TraceRecord], expected: &[(bool, &[u64])], unmatched: Unmatched) {
        let joined = join(records.to_vec(), true);
        let found: Vec<(bool, Vec<u64>)> =
            joined.faults.iter().map(|fault| (fault.is_remote, fault.stages().map(|stage| stage.2).collect())).collect();
        let expected: Vec<(bool, Vec<u64>)> = expected.iter().map(|(remote, ns)| (*remote, ns.to_vec())).collect();
        assert_eq!((found, joined.unmatched), (expected, unmatched));
    }

    fn without(kind: TraceKind) -> Vec<TraceRecord> {
        remote().into_iter().filter(|record| record.kind != kind as u32).collect()
    }

    #[test]
    fn stages_follow_each_other() {
        check(&remote(), &[(true, &[10, 20, 30, 40, 50])], Unmatched::default());
        let mut reversed = remote();
        reversed.reverse();
        check(&reversed, &[(true, &[10, 20, 30, 40, 50])], Unmatched::default());
        assert_eq!(join(remote(), true).faults[0].total_ns(), 150);
        let local: Vec<_> =
            without(Asked).into_iter().map(|record| TraceRecord { count: 0, ..record }).filter(|r| r.at_ns != 160).collect();
        check(&local, &[(false, &[10, 90, 50])], Unmatched::default());
        // Nobody sees threads run: the fault ends with the install.
        assert_eq!(join(without(In), false).faults[0].total_ns(), 100);
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        let none = Unmatched::default();
        check(&without(Faulted), &[], Unmatched { reads: 1, ..none });
        let repeat = [&without(Faulted)[..], &[record(260, Read, 5, 7, 1)]].concat();
        check(&repeat, &[], Unmatched { reads: 1, repeats: 1, ..none });
        check(&without(Read), &[], Unmatched { faults: 1, ..none });
        check(&without(Asked), &[], Unmatched { requests: 1, ..none });
        check(&without(Answered), &[], Unmatched { replies: 1, ..none });
        check(&without(Installed), &[], Unmatched { installs: 1, ..none });
        check(&without(In), &[], Unmatched { resumes: 1, ..none });
        check(&[TraceRecord::default()], &[], Unmatched { unknown: 1, ..none });
    }

    #[test]
    fn a_page_asked_for_again_is_of_the_same_fault() {
        let none = Unmatched::default();
        let again = [
            record(255, Out, 0, 7, 1),
            record(262, Read, 5, 7, 1),
            record(265, Asked, 5, 0, 1),
            record(270, Answered, 5, 0, 1),
            record(280, Installed, 5, 0, 1),
            record(300, In, 0, 7, 1),
        ];
        let twice: &[u64] = &[10, 20, 30, 40, 50, 12, 3, 5, 10, 20];
        let all = [&remote()[..], &again].concat();
        check(&all, &[(true, twice)], none);
        // The second time it was there by then.
        let local = all.iter().filter(|record| ![265, 270].contains(&record.at_ns)).copied();
        let local: Vec<_> = local.map(|record| TraceRecord { count: u32::from(record.at_ns < 255), ..record }).collect();
        check(&local, &[(true, &[10, 20, 30, 40, 50, 12, 18, 20])], none);
        // It had run, and stopped again, when the mark of the first install came.
        let early = [&without(In)[..], &[record(180, In, 0, 7, 1), record(190, Out, 0, 7, 1)], &again[1..]].concat();
        check(&early, &[(true, &[10, 20, 30, 40, 62, 3, 5, 10, 20])], none);
        // It never ends.
        check(&all[..9], &[], Unmatched { installs: 1, ..none });
        // A fault there later is another one.
        let later = remote().into_iter().map(|record| TraceRecord { at_ns: record.at_ns + 1000, ..record });
        let once: &[u64] = &[10, 20, 30, 40, 50];
        check(&[&all[..], &later.collect::<Vec<_>>()].concat(), &[(true, twice), (true, once)], none);
    }

    #[test]
    fn a_thread_may_run_before_the_mark() {
        let early = [&without(In)[..], &[record(190, In, 0, 7, 1)]].concat();
        check(&early, &[(true, &[10, 20, 30, 30, 0])], Unmatched::default());
        let again = [&early[..], &[record(195, Faulted, 6, 7, 1)]].concat();
        check(&again, &[(true, &[10, 20, 30, 30, 0])], Unmatched { faults: 1, ..Unmatched::default() });
    }

    #[test]
    fn requests_may_be_for_others() {
        // Another thread joins while the request is on its way.
        let second =
            [record(140, Faulted, 5, 8, 1), record(142, Out, 0, 8, 1), record(145, Read, 5, 8, 1), record(260, In, 0, 8, 1)];
        let both = [&remote()[..], &second].concat();
        check(&both, &[(true, &[10, 20, 30, 40, 50]), (true, &[5, 0, 15, 40, 60])], Unmatched::default());
        // A home asked on another host's behalf; pages before were answered long ago; the request was for several.
        for earlier in [
            vec![record(50, Asked, 5, 0, 0)],
            vec![record(50, Asked, 5, 0, 1), record(60, Answered, 5, 0, 1)],
            vec![record(50, Asked, 3, 0, 16), record(60, Answered, 2, 0, 16)],
        ] {
            check(&[&earlier[..], &remote()].concat(), &[(true, &[10, 20, 30, 40, 50])], Unmatched::default());
        }
        // The same page of another space.
        let other = TraceRecord { by: SHARD + 1, ..record(150, Installed, 5, 0, 1) };
        check(&[&remote()[..], &[other]].concat(), &[(true, &[10, 20, 30, 40, 50])], Unmatched::default());
        // Asked again, since the first request was lost.
        check(&[&remote()[..], &[record(140, Asked, 5, 0, 1)]].concat(), &[(true, &[10, 20, 30, 40, 50])], Unmatched::default());
    }
}
