//! Whole jobs with a fake husk: opened, used, and ended in every way.
//!
//! Owns the ways a job can end. Needs /dev/userfaultfd; skipped loudly without.

use crate::bed::{Bed, Root, can_change_user, can_run_jobs, is_alive, kill};
use std::time::{Duration, Instant};

/// A lost host must have ended the job everywhere by then.
const LOST_LATEST: Duration = Duration::from_secs(5);

/// The pid that `who` answers.
fn pid_of(who: &str) -> u32 {
    who.strip_prefix("pid=")
        .and_then(|rest| rest.split(' ').next())
        .and_then(|pid| pid.parse().ok())
        .unwrap_or_else(|| panic!("{who}"))
}

struct Job {
    bed: Bed,
    root: Root,
    husks: Vec<u32>,
    descriptors: Vec<usize>,
}

const ALL: [&str; 3] = ["a", "b", "c"];

fn opened(test: &str) -> Option<Job> {
    if !can_run_jobs(test) {
        return None;
    }
    let mut bed = Bed::new(test);
    bed.start_all();
    let descriptors = ALL.iter().map(|name| bed.descriptors(name)).collect();
    let mut root = bed.open("a", &[], None);
    let line = root.line();
    assert!(line.starts_with("opened ") && line.ends_with("0=a 1=b 2=c"), "{line:?}\n{}\n{}", bed.log("a"), bed.log("b"));
    let husks = ["1", "2"].map(|node| pid_of(&root.order(&format!("at {node} who"))));
    Some(Job { bed, root, husks: husks.to_vec(), descriptors })
}

impl Job {
    /// Nothing of the job is left on these hosts, whose agents live.
    fn is_gone_from(&self, names: &[&str]) {
        self.bed.until_idle(names);
        for husk in &self.husks {
            self.bed.until(&format!("husk {husk} is gone"), || !is_alive(*husk));
        }
        for (name, before) in ALL.iter().zip(&self.descriptors).filter(|(name, _)| names.contains(name)) {
            // Peers may be away or just reconnecting: two links each way.
            self.bed.until(&format!("{name} has no more descriptors than {before}"), || self.bed.descriptors(name) <= *before);
        }
    }

    /// The root husk is told in time that `host` is lost; gives why.
    fn is_told_of(&mut self, host: &str, since: Instant) -> String {
        let line = self.root.line();
        let took = since.elapsed();
        assert!(line.starts_with(&format!("lost {host} ")), "{line:?}");
        assert_eq!(self.root.exit(), Some(87));
        assert!(took < LOST_LATEST, "it took {took:?}");
        line
    }
}

#[test]
fn a_job_shares_memory_and_leaves_nothing() {
    let Some(mut job) = opened("whole") else { return };
    let root = &mut job.root;
    assert_eq!(root.order("store 3 41"), "stored");
    assert_eq!(root.order("at 1 load 3"), "41");
    assert_eq!(root.order("at 1 store 3 42"), "stored");
    assert_eq!(root.order("at 2 load 3"), "42");
    assert_eq!(root.order("load 3"), "42");
    assert_eq!(root.order("discard 3"), "Completed { tag: 7 }");
    assert_eq!(root.order("load 3"), "0");
    assert_eq!(root.order("at 2 load 3"), "0");
    assert!(root.order("discard-outside").contains("outside the view"));
    let statistics = root.order("statistics");
    let hosts: Vec<(&str, &str)> = statistics.split(' ').filter_map(|host| host.split_once(':')).collect();
    assert_eq!(hosts.iter().map(|host| host.0).collect::<Vec<_>>(), ["a", "b", "c"]);
    assert!(hosts.iter().all(|host| host.1.parse::<u32>().unwrap() > 1), "{statistics}");
    assert!(root.order("at 0 who").contains("failed no connection to the husk on a"));
    assert!(root.order("at 9 who").contains("failed"));
    let status = job.bed.status("b");
    assert_eq!(status["jobs"][0]["program"], "fake");
    assert_eq!(status["jobs"][0]["role"], "member");
    assert_eq!(status["jobs"][0]["root"], "a");
    assert_eq!(job.root.order("end 5"), "ended");
    assert_eq!(job.root.exit(), Some(5));
    job.is_gone_from(&ALL);
    for name in ALL {
        assert_eq!(job.bed.counter(name, "jobs_lost"), 0, "{name}: {}", job.bed.log(name));
    }
}

#[test]
fn husks_run_as_the_caller_with_nothing_of_the_agent() {
    if !can_run_jobs("caller") || !can_change_user("caller") {
        return;
    }
    let mut bed = Bed::new("caller");
    bed.start_all();
    let mut root = bed.open("a", &["b"], Some(12_345));
    let line = root.line();
    assert!(line.starts_with("opened "), "{line:?}");
    let who = root.order("at 1 who");
    let ids = "12345,12345,12345,12345";
    assert!(who.contains(&format!("uid={ids} gid={ids} groups= env=PATH fds=/dev/null,/dev/null,pipe,socket")), "{who}");
    assert_eq!(bed.status("b")["jobs"][0]["uid"], 12_345);
    let mut other = bed.open("b", &["a"], None);
    assert!(other.line().starts_with("opened "));
    assert_eq!(other.order("store 1 7"), "stored");
    assert_eq!(root.order("load 1"), "0");
    assert_eq!(root.order("end 0"), "ended");
    assert_eq!(other.order("at 0 load 1"), "7");
    assert_eq!(other.order("end 0"), "ended");
    bed.until_idle(&ALL);
}

#[test]
fn a_killed_agent_ends_the_job_everywhere() {
    let Some(mut job) = opened("kill-agent") else { return };
    let since = Instant::now();
    job.bed.signal("b", "KILL");
    job.is_told_of("b", since);
    job.is_gone_from(&["a", "c"]);
    assert_eq!(job.bed.ended("b"), None);
}

#[test]
fn a_killed_husk_ends_the_job_everywhere() {
    let Some(mut job) = opened("kill-husk") else { return };
    let since = Instant::now();
    kill(job.husks[1], "KILL");
    let reason = job.is_told_of("c", since);
    assert!(reason.contains("signal 9"), "{reason}");
    job.is_gone_from(&ALL);
}

#[test]
fn a_killed_root_ends_the_job_everywhere() {
    let Some(job) = opened("kill-root") else { return };
    kill(job.root.pid(), "KILL");
    job.is_gone_from(&ALL);
}

#[test]
fn a_silent_agent_loses_its_lease() {
    let Some(mut job) = opened("lease") else { return };
    let since = Instant::now();
    job.bed.signal("c", "STOP");
    job.is_told_of("c", since);
    job.bed.until_idle(&["a", "b"]);
    job.bed.signal("c", "CONT");
    job.is_gone_from(&ALL);
    job.bed.until("c is back", || job.bed.peers_up("a") == 2);
}

#[test]
fn a_root_agent_told_to_end_ends_its_jobs_first() {
    let Some(mut job) = opened("term") else { return };
    job.bed.signal("a", "TERM");
    let line = job.root.line();
    assert!(line.starts_with("lost a ") && line.contains("ending"), "{line:?}");
    assert_eq!(job.bed.ended("a"), Some(0));
    assert!(!job.bed.socket("a").exists());
    job.is_gone_from(&["b", "c"]);
}

#[test]
fn a_member_agent_told_to_end_is_named() {
    let Some(mut job) = opened("term-member") else { return };
    let since = Instant::now();
    job.bed.signal("b", "INT");
    job.is_told_of("b", since);
    assert_eq!(job.bed.ended("b"), Some(0));
    job.is_gone_from(&["a", "c"]);
}

#[test]
fn jobs_that_cannot_be_opened_are_refused_by_name() {
    if !can_run_jobs("refused") {
        return;
    }
    let mut bed = Bed::new("refused");
    bed.start("a", "cluster.toml");
    let mut unknown = bed.open("a", &["b", "zebra"], None);
    assert_eq!(unknown.line(), "refused 80 host `zebra` is not in the cluster; known hosts: a, b, c");
    assert_eq!(unknown.exit(), Some(80));
    let mut away = bed.open("a", &["b"], None);
    let line = away.line();
    assert!(line.starts_with("refused 81 host b cannot be reached: "), "{line}");
    bed.until_idle(&["a"]);

    let text = std::fs::read_to_string(bed.directory.join("b.toml")).unwrap();
    let husk = bed.directory.join("fake_husk");
    bed.write("b.toml", &text.replace(&husk.display().to_string(), "/bin/ls"));
    bed.start("b", "cluster.toml");
    bed.until("b is up", || bed.peers_up("a") == 1);
    let mut broken = bed.open("a", &["b"], None);
    let line = broken.line();
    assert!(line.starts_with("refused 83 host b: the husk ended with exit code 2: "), "{line}");
    assert!(line.contains("--help"), "the husk's last words: {line}");
    bed.until_idle(&["a", "b"]);

    let mut alone = bed.open("a", &["a"], None);
    assert!(alone.line().ends_with(" 0=a"));
    assert_eq!(alone.order("store 0 1"), "stored");
    assert_eq!(alone.order("load 0"), "1");
    assert_eq!(alone.order("end 0"), "ended");
    assert_eq!(alone.exit(), Some(0));
    bed.until_idle(&["a"]);
}
