//! The stages of a fault that only the kernel sees: matched from its records and the shard's notes.
//!
//! Owns what is known of each thread between records. Must not know rings, clocks or the protocol. What does not fit is counted,
//! never guessed.
//!
//! ```text
//!   Fault          Read            Installed          In
//!     |--delivered-->|                 |----resumed---->|       the thread left its processor, and has not come back
//!     |--delivered-->|      In         |                        it has come back before the shard looked at the clock: 0
//!     |--delivered-->|                 |                        it never left: no resumed
//! ```

use dsm_proto::Nanos;
use dsm_wire::PageNumber;
use std::collections::{BTreeMap, BTreeSet};

/// Threads of which something is kept.
const THREADS_MAX: usize = 4096;

/// Something that happened, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    pub(super) at: Nanos,
    pub(super) what: Happening,
}

/// What the kernel recorded (the first three) or the shard noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Happening {
    /// A thread faulted.
    Fault { thread: u32, page: PageNumber },
    /// It left its processor.
    Out { thread: u32 },
    /// It runs.
    In { thread: u32 },
    /// The shard has read the event of its fault.
    Read { thread: u32, page: PageNumber },
    /// The page is installed, and all threads that waited for it are woken.
    Installed { page: PageNumber, is_remote: bool },
}

/// A stage of a fault of a page from another host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Fault to event read.
    Delivered,
    /// Installed to thread running.
    Resumed,
}

/// What could not be matched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Unmatched {
    /// Faults without a record of their own.
    pub(super) faults: u64,
    /// Threads that left their processor and of which no return was seen.
    pub(super) resumes: u64,
}

/// What is known of every thread.
#[derive(Debug, Default)]
pub(super) struct Matcher {
    threads: BTreeMap<u32, Thread>,
    /// The threads with a `waits`, by page.
    waiting: BTreeSet<(PageNumber, u32)>,
    unmatched: Unmatched,
}

#[derive(Debug, Default)]
struct Thread {
    /// Its last fault, unless the shard has read it.
    fault: Option<(PageNumber, Nanos)>,
    /// The page the shard knows it to wait for.
    waits: Option<Wait>,
    is_out: bool,
    /// Whether it has left its processor since its last fault.
    was_out: bool,
    /// It was out when its page was installed.
    installed_at: Option<Nanos>,
}

#[derive(Clone, Copy, Debug)]
struct Wait {
    page: PageNumber,
    /// `None` without a record of the fault.
    delivered_ns: Option<u64>,
}

impl Matcher {
    pub(super) fn unmatched(&self) -> Unmatched {
        self.unmatched
    }

    /// Goes through `moments`, which are in the order of time and after those of earlier calls; tells `record` each stage found.
    pub(super) fn advance(&mut self, moments: &[Moment], mut record: impl FnMut(Stage, u64)) {
        for Moment { at, what } in moments.iter().copied() {
            match what {
                Happening::Fault { thread, page } => self.on_fault(at, thread, page),
                Happening::Out { thread } => self.on_out(thread),
                Happening::In { thread } => self.on_in(at, thread, &mut record),
                Happening::Read { thread, page } => self.on_read(at, thread, page),
                Happening::Installed { page, is_remote } => self.on_installed(at, page, is_remote, &mut record),
            }
        }
    }

    /// Forgets every thread, since records between the last moments and the next are lost; `moments` are what the shard noted
    /// meanwhile.
    pub(super) fn forget(&mut self, moments: &[Moment]) {
        let noted = moments.iter().filter(|moment| matches!(moment.what, Happening::Read { .. })).count();
        self.unmatched.faults += (noted + self.waiting.len()) as u64;
        self.unmatched.resumes += self.threads.values().filter(|thread| thread.installed_at.is_some()).count() as u64;
        self.threads.clear();
        self.waiting.clear();
    }

    fn on_fault(&mut self, at: Nanos, number: u32, page: PageNumber) {
        self.end_wait(number);
        let Some(thread) = self.thread(number) else { return };
        let missed = thread.installed_at.take().is_some();
        *thread = Thread { fault: Some((page, at)), ..Thread::default() };
        self.unmatched.resumes += u64::from(missed);
    }

    fn on_out(&mut self, number: u32) {
        let Some(thread) = self.thread(number) else { return };
        (thread.is_out, thread.was_out) = (true, true);
        let missed = thread.installed_at.take().is_some();
        self.unmatched.resumes += u64::from(missed);
    }

    fn on_in(&mut self, at: Nanos, number: u32, record: &mut impl FnMut(Stage, u64)) {
        let Some(thread) = self.thread(number) else { return };
        thread.is_out = false;
        if let Some(installed_at) = thread.installed_at.take() {
            record(Stage::Resumed, at.since(installed_at).0);
        }
    }

    fn on_read(&mut self, at: Nanos, number: u32, page: PageNumber) {
        let Some(thread) = self.thread(number) else {
            self.unmatched.faults += 1;
            return;
        };
        // The kernel asks again for one fault if it was woken and the page was not fit for it: there is one record for both.
        if thread.waits.is_some_and(|wait| wait.page == page) {
            return;
        }
        let fault = thread.fault.take_if(|(faulted, _)| *faulted == page);
        self.end_wait(number);
        let wait = Wait { page, delivered_ns: fault.map(|(_, begun)| at.since(begun).0) };
        if let Some(thread) = self.threads.get_mut(&number) {
            thread.waits = Some(wait);
            self.waiting.insert((page, number));
        }
    }

    fn on_installed(&mut self, at: Nanos, page: PageNumber, is_remote: bool, record: &mut impl FnMut(Stage, u64)) {
        while let Some(key) = self.waiting.range((page, 0)..=(page, u32::MAX)).next().copied() {
            self.waiting.remove(&key);
            let Some(thread) = self.threads.get_mut(&key.1) else { continue };
            let Some(wait) = thread.waits.take().filter(|_| is_remote) else { continue };
            match wait.delivered_ns {
                Some(delivered_ns) => record(Stage::Delivered, delivered_ns),
                None => self.unmatched.faults += 1,
            }
            if thread.is_out {
                thread.installed_at = Some(at);
            } else if thread.was_out && wait.delivered_ns.is_some() {
                record(Stage::Resumed, 0);
            }
        }
    }

    /// A thread that goes on was woken by something the shard did not note.
    fn end_wait(&mut self, number: u32) {
        let Some(wait) = self.threads.get_mut(&number).and_then(|thread| thread.waits.take()) else { return };
        self.waiting.remove(&(wait.page, number));
        self.unmatched.faults += 1;
    }

    /// What is known of a thread; `None` if there are too many that wait.
    fn thread(&mut self, number: u32) -> Option<&mut Thread> {
        if self.threads.len() >= THREADS_MAX && !self.threads.contains_key(&number) {
            self.threads.retain(|_, thread| thread.waits.is_some() || thread.installed_at.is_some());
            if self.threads.len() >= THREADS_MAX {
                return None;
            }
        }
        Some(self.threads.entry(number).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Happening::{Fault, In, Installed, Out, Read};

    const A: PageNumber = PageNumber(5);
    const B: PageNumber = PageNumber(6);
    const REMOTE: Happening = Installed { page: A, is_remote: true };

    fn fault(thread: u32, page: PageNumber) -> Happening {
        Fault { thread, page }
    }

    fn read(thread: u32, page: PageNumber) -> Happening {
        Read { thread, page }
    }

    #[derive(Default)]
    struct Expected {
        delivered: &'static [u64],
        resumed: &'static [u64],
        unmatched: [u64; 2],
    }

    #[track_caller]
    fn check(happenings: &[(u64, Happening)], expected: Expected) {
        let moments: Vec<Moment> = happenings.iter().map(|(at, what)| Moment { at: Nanos(*at), what: *what }).collect();
        // However the moments are cut into rounds, the result is the same.
        for cut in 0..=moments.len() {
            let (mut matcher, mut delivered, mut resumed) = (Matcher::default(), Vec::new(), Vec::new());
            for part in [&moments[..cut], &moments[cut..]] {
                matcher.advance(part, |stage, ns| match stage {
                    Stage::Delivered => delivered.push(ns),
                    Stage::Resumed => resumed.push(ns),
                });
            }
            assert_eq!((delivered.as_slice(), resumed.as_slice()), (expected.delivered, expected.resumed), "cut at {cut}");
            let unmatched = matcher.unmatched();
            assert_eq!([unmatched.faults, unmatched.resumes], expected.unmatched, "cut at {cut}");
            assert_eq!(matcher.waiting.len(), matcher.threads.values().filter(|thread| thread.waits.is_some()).count());
        }
    }

    #[test]
    fn one_thread() {
        let (out, back) = (Out { thread: 1 }, In { thread: 1 });
        let whole = [(10, fault(1, A)), (12, out), (15, read(1, A)), (40, REMOTE), (47, back)];
        check(&whole, Expected { delivered: &[5], resumed: &[7], ..Expected::default() });
        // Later switches belong to nothing.
        let more = [&whole[..], &[(50, out), (60, back)]].concat();
        check(&more, Expected { delivered: &[5], resumed: &[7], ..Expected::default() });
        // Preempted and back before it slept, and before it was installed.
        let twice = [(10, fault(1, A)), (11, out), (12, back), (13, out), (15, read(1, A)), (40, REMOTE), (41, back)];
        check(&twice, Expected { delivered: &[5], resumed: &[1], ..Expected::default() });
        let early = [(10, fault(1, A)), (12, out), (15, read(1, A)), (39, back), (40, REMOTE), (80, out), (90, back)];
        check(&early, Expected { delivered: &[5], resumed: &[0], ..Expected::default() });
        let never_out = [(10, fault(1, A)), (15, read(1, A)), (40, REMOTE), (80, out), (90, back)];
        check(&never_out, Expected { delivered: &[5], ..Expected::default() });
        let local = [(10, fault(1, A)), (12, out), (15, read(1, A)), (20, Installed { page: A, is_remote: false }), (25, back)];
        check(&local, Expected::default());
    }

    #[test]
    fn several_threads_on_one_page() {
        let moments = [
            (10, fault(1, A)),
            (11, fault(2, A)),
            (12, fault(3, B)),
            (13, Out { thread: 1 }),
            (14, Out { thread: 2 }),
            (15, read(1, A)),
            (30, read(2, A)),
            (31, read(3, B)),
            (40, REMOTE),
            (42, In { thread: 2 }),
            (50, In { thread: 1 }),
        ];
        check(&moments, Expected { delivered: &[5, 19], resumed: &[2, 10], ..Expected::default() });
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        let (out, back) = (Out { thread: 1 }, In { thread: 1 });
        // No record of the fault at all, or only of another page's.
        check(&[(15, read(1, A)), (40, REMOTE)], Expected { unmatched: [1, 0], ..Expected::default() });
        let other = [(10, fault(1, B)), (15, read(1, A)), (40, REMOTE)];
        check(&other, Expected { unmatched: [1, 0], ..Expected::default() });
        // It was out, and is never seen to return: it faults again, or leaves again.
        let gone = [(10, fault(1, A)), (12, out), (15, read(1, A)), (40, REMOTE), (60, fault(1, B))];
        check(&gone, Expected { delivered: &[5], unmatched: [0, 1], ..Expected::default() });
        let gone = [(10, fault(1, A)), (12, out), (15, read(1, A)), (40, REMOTE), (60, out), (70, back)];
        check(&gone, Expected { delivered: &[5], unmatched: [0, 1], ..Expected::default() });
        // It waits no longer, though nobody installed anything.
        let moved_on = [(10, fault(1, A)), (15, read(1, A)), (30, fault(1, B)), (40, REMOTE)];
        check(&moved_on, Expected { unmatched: [1, 0], ..Expected::default() });
        // One record serves one wait: asked again while it waits, and after it was served.
        let again = [(10, fault(1, A)), (12, out), (15, read(1, A)), (18, read(1, A)), (40, REMOTE), (41, back)];
        check(&again, Expected { delivered: &[5], resumed: &[1], ..Expected::default() });
        let after = [&again[..], &[(42, out), (45, read(1, A)), (60, REMOTE), (63, back)]].concat();
        check(&after, Expected { delivered: &[5], resumed: &[1, 3], unmatched: [1, 0] });
    }

    #[test]
    fn a_loss_forgets_everything() {
        let moment = |(at, what): (u64, Happening)| Moment { at: Nanos(at), what };
        let before = [(1, fault(1, A)), (2, read(1, A)), (3, fault(2, B)), (4, Out { thread: 2 }), (5, read(2, B))].map(moment);
        let during = [(6, Installed { page: B, is_remote: true }), (7, read(3, B))].map(moment);
        let after = [(8, REMOTE), (9, In { thread: 1 }), (10, In { thread: 2 })].map(moment);
        let mut matcher = Matcher::default();
        matcher.advance(&before, |_, _| panic!("nothing is complete yet"));
        matcher.forget(&during);
        matcher.advance(&after, |_, _| panic!("what began before a loss is not known"));
        assert_eq!(matcher.unmatched(), Unmatched { faults: 3, resumes: 0 });
    }

    #[test]
    fn threads_are_bounded() {
        let mut matcher = Matcher::default();
        let moments = |what: fn(u32) -> Happening| {
            (0..).take(THREADS_MAX + 9).map(move |thread| Moment { at: Nanos(1), what: what(thread) })
        };
        matcher.advance(&moments(|thread| Out { thread }).collect::<Vec<_>>(), |_, _| {});
        assert!(matcher.threads.len() <= THREADS_MAX);
        matcher.advance(&moments(|thread| read(thread, A)).collect::<Vec<_>>(), |_, _| {});
        assert_eq!((matcher.threads.len(), matcher.unmatched().faults), (THREADS_MAX, 9));
    }
}
