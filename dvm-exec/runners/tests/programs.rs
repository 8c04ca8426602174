//! The shipped programs on several nodes print what the machine of one host prints.
//!
//! Owns a network without faults and hosts that interpret. Must not look into nodes.

use dvm_disa::code::Code;
use dvm_disa::engine::Interpreted;
use dvm_disa::machine::effects::Ids;
use dvm_disa::machine::memory::Snapshot;
use dvm_disa::machine::page::Page;
use dvm_disa::machine::report::Report;
use dvm_disa::machine::runner::{self, Ground};
use dvm_disa::machine::{File, Machine, Settings};
use dvm_disa::object::Object;
use dvm_runners::{Config, Event, Host, Message, Nanos, Node, Program, Run};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Pages a run has got; others are noted and shown as zero, and the run is made again.
struct Pages<'a> {
    got: &'a BTreeMap<u64, Page>,
    missing: &'a mut Vec<u64>,
}

impl Snapshot for Pages<'_> {
    fn page(&mut self, page: u64) -> Page {
        self.got.get(&page).cloned().unwrap_or_else(|| {
            self.missing.push(page);
            Page::default()
        })
    }
}

/// A run under way: what it has got, and what it waits for.
type Under = (Run, BTreeMap<u64, Page>, Vec<u64>);

struct Cluster {
    program: Arc<Program>,
    code: Code,
    nodes: Vec<Node>,
    runs: Vec<VecDeque<Under>>,
    messages: VecDeque<(Host, Host, Message)>,
    ids: Vec<Ids>,
    /// A host that is lost after so many runs.
    loss: Option<(Host, u64)>,
    lost: Option<Host>,
    now: u64,
    output: Vec<u8>,
    /// Runners that ended, by host.
    ends: BTreeMap<Host, u64>,
    /// Most runners started by one message.
    started_most: usize,
}

impl Cluster {
    fn new(object: Object, settings: Settings, hosts: usize, slots: usize, copies: usize) -> Self {
        let code = Code::verified(&object.text).expect("the assembler verified it");
        let program = Arc::new(Program::new(object, settings));
        let config = |me: usize| Config {
            me: Host(me as u16),
            slots: vec![slots; hosts],
            program: Arc::clone(&program),
            told_words_max: 8,
            copies,
        };
        Self {
            nodes: (0..hosts).map(|me| Node::new(config(me))).collect(),
            runs: vec![VecDeque::new(); hosts],
            ids: (0..hosts).map(|me| Ids { next: 1 + me as u64, step: hosts as u64 }).collect(),
            program,
            code,
            messages: VecDeque::new(),
            loss: None,
            lost: None,
            now: 0,
            output: Vec::new(),
            ends: BTreeMap::new(),
            started_most: 0,
        }
    }

    fn run(&mut self) -> Report {
        self.nodes[0].handle_start(Nanos(0));
        for _ in 0..10_000_000 {
            self.now += 1000;
            let mut over = None;
            for me in 0..self.nodes.len() {
                if self.lost == Some(Host(me as u16)) {
                    continue;
                }
                while let Some(run) = self.nodes[me].poll_run() {
                    self.runs[me].push_back((run, BTreeMap::new(), Vec::new()));
                }
                while let Some(event) = self.nodes[me].poll_event() {
                    match event {
                        Event::Over(report) => over = Some(*report),
                        Event::Happened(end) => *self.ends.entry(end.host).or_default() += 1,
                        Event::PageReady(_) => {}
                        Event::Stranded => panic!("nobody has the log"),
                    }
                }
                while let Some((to, message)) = self.nodes[me].poll_transmit() {
                    if let Message::Start(runners) = &message {
                        self.started_most = self.started_most.max(runners.len());
                    }
                    self.messages.push_back((Host(me as u16), to, message));
                }
                self.nodes[me].handle_timeout(Nanos(self.now));
            }
            (0..self.nodes.len()).for_each(|me| self.show(me));
            if let Some(mut report) = over {
                report.output = std::mem::take(&mut self.output);
                return report;
            }
            if let Some((from, to, message)) = self.messages.pop_front() {
                if self.lost.is_none_or(|lost| lost != from && lost != to) {
                    self.nodes[usize::from(to.0)].handle_message(Nanos(self.now), from, message);
                }
            } else {
                (0..self.nodes.len()).for_each(|me| self.compute(me));
            }
        }
        panic!("the program does not end");
    }

    /// Output goes on where another root has left it.
    fn show(&mut self, me: usize) {
        let (begin, bytes) = self.nodes[me].take_output();
        if self.lost != Some(Host(me as u16)) && !bytes.is_empty() {
            let known = self.output.len() - begin as usize;
            assert_eq!(&self.output[begin as usize..], &bytes[..known], "another root has released the same");
            self.output.extend(&bytes[known..]);
        }
    }

    fn compute(&mut self, me: usize) {
        if self.lost == Some(Host(me as u16)) {
            return;
        }
        let Some((run, mut got, wanted)) = self.runs[me].pop_front() else { return };
        let mut missing = Vec::new();
        for page in wanted {
            match self.nodes[me].page(run.key, page) {
                Some(contents) => drop(got.insert(page, contents)),
                None => missing.push(page),
            }
        }
        if missing.is_empty() {
            let Program { object, settings, .. } = &*self.program;
            let before = self.ids[me];
            let ground = Ground {
                object,
                code: &self.code,
                settings,
                engine: &Interpreted,
                epoch: run.epoch,
                shared: Pages { got: &got, missing: &mut missing },
                arena: self.nodes[me].arena(),
                ids: &mut self.ids[me],
            };
            let ran = runner::run(run.runner.clone(), ground);
            if missing.is_empty() {
                if let Some((host, left)) = &mut self.loss {
                    *left -= 1;
                    if *left == 0 {
                        let host = *host;
                        (self.loss, self.lost) = (None, Some(host));
                        let others = (0..self.nodes.len()).filter(|me| Host(*me as u16) != host);
                        others.for_each(|me| self.nodes[me].handle_lost(Nanos(self.now), host));
                    }
                }
                return self.nodes[me].handle_ran(Nanos(self.now), run.key, ran);
            }
            ran.kept.taken.into_iter().for_each(|range| self.nodes[me].arena().give_back(range));
            self.ids[me] = before;
        }
        self.runs[me].push_back((run, got, missing));
    }
}

fn assembled(name: &str, changes: &[(&str, &str)]) -> Object {
    let path = format!("{}/../disa/programs/{name}.disa", env!("CARGO_MANIFEST_DIR"));
    let mut source = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    for (from, to) in changes {
        assert!(source.contains(from), "{from} is not in {name}");
        source = source.replace(from, to);
    }
    dvm_disa::asm::assemble(&source, name).unwrap_or_else(|errors| panic!("{errors}"))
}

fn check(name: &str, changes: &[(&str, &str)], loss: Option<(Host, u64)>, copies: usize) -> Vec<Report> {
    let expected = Machine::new(&assembled(name, changes), Settings::default()).expect("verified").run().clone();
    let reports = [(1, 4), (2, 2), (3, 3), (5, 1)].map(|(hosts, slots)| {
        let mut cluster = Cluster::new(assembled(name, changes), Settings::default(), hosts, slots, copies);
        cluster.loss = loss.filter(|(host, _)| hosts > 1 && usize::from(host.0) < hosts);
        let report = cluster.run();
        let (is, should) = (String::from_utf8_lossy(&report.output), String::from_utf8_lossy(&expected.output));
        assert_eq!((is, report.exit_status()), (should, expected.exit_status()), "{name} on {hosts} hosts");
        report
    });
    reports.into()
}

const SMALL_TREE: &[(&str, &str)] = &[(".equ PAIRS, 10240", ".equ PAIRS, 256")];
const SMALL_STORM: &[(&str, &str)] = &[(".equ WATCHERS, 10240", ".equ WATCHERS, 300")];
const FEW_PRIMES: &[(&str, &str)] = &[];

#[test]
fn treesum_has_no_conflicts_at_word_grain() {
    // rule: H1, H2, H5
    for report in check("treesum", SMALL_TREE, None, 1) {
        assert_eq!(report.statistics.conflicts, 0);
    }
}

#[test]
fn programs_print_what_one_host_prints() {
    // rule: H2, H6
    check("kmeans", FEW_PRIMES, None, 1);
    check("bank", &[], None, 2);
    check("storm", SMALL_STORM, None, 1);
}

#[test]
fn a_lost_host_changes_nothing() {
    // rule: H3, H7
    for after in [3, 20, 60, 150] {
        let reports = check("bank", &[], Some((Host(1), after)), 1);
        assert!(reports.iter().any(|report| report.statistics.lost > 0) || after > 100, "a run was lost with its host");
        check("treesum", SMALL_TREE, Some((Host(1), after)), 2);
    }
}

#[test]
fn a_lost_root_changes_nothing() {
    // rule: H8, H9
    for after in [1, 3, 20, 60, 150] {
        check("bank", &[], Some((Host(0), after)), 2);
        check("treesum", SMALL_TREE, Some((Host(0), after)), 2);
        check("storm", SMALL_STORM, Some((Host(0), after)), 3);
    }
}

#[test]
fn children_go_out_together_and_to_all_hosts() {
    // rule: H6
    let mut cluster = Cluster::new(assembled("treesum", SMALL_TREE), Settings::default(), 3, 2, 1);
    let report = cluster.run();
    assert_eq!(report.exit_status(), 0);
    assert!(cluster.started_most >= 32, "one message starts {} runners at most", cluster.started_most);
    assert!(cluster.ends.len() == 3 && cluster.ends.values().all(|count| *count > 20), "{:?}", cluster.ends);
}

#[test]
fn a_file_hides_data_on_its_pages_everywhere() {
    // rule: Y4
    // 24 bytes of the file's first page, and 8 behind its end on its last.
    let source = ".data 0x380000000010\n.quad -1\n.data 0x380000001008\n.quad -1\n.text
mov $'f', PR+0x3000\nmov $1, PR+0x2000\nmov $PR+0x3000, PR+0x2008\nsys $4, $PR+0x2000\nmov PR+0x2000, w0
sys $1, 8(w0)\nsys $1, 16(w0)\nsys $1, 24(w0)\nsys $1, 4096(w0)\nsys $1, 4104(w0)\nexit:c\n";
    let object = || dvm_disa::asm::assemble(source, "files").unwrap_or_else(|errors| panic!("{errors}"));
    let bytes: Vec<u8> = (0..513_u64).flat_map(u64::to_le_bytes).collect();
    let settings = Settings { files: vec![File { name: b"f".to_vec(), bytes }], ..Settings::default() };
    let expected = "1\n2\n3\n512\n0\n";
    let alone = Machine::new(&object(), settings.clone()).expect("verified").run().clone();
    assert_eq!(String::from_utf8_lossy(&alone.output), expected);
    for hosts in 1..=3 {
        let mut cluster = Cluster::new(object(), settings.clone(), hosts, 1, 1);
        let report = cluster.run();
        assert_eq!(String::from_utf8_lossy(&report.output), expected, "{hosts} hosts");
    }
}
