//! Snapshots, commits, watchers, limits and system calls of the machine of one host.
//!
//! Owns one case a rule. Must not know the machine's inside.

#[path = "common/program.rs"]
mod program;

use dvm_disa::machine::{File, Machine, Report, Settings};
use dvm_disa::map;
use program::{output, run};

/// Descriptors: `heap` and `watch` are the words a, b, c, d; `watch_a` is a alone.
const HEAD: &str = ".data SR+0x1000
a: .quad 0
b: .quad 0
c: .quad 0
d: .quad 0
.rodata
stack: .quad 0, 0
none: .quad 0
heap: .quad 1, a, 32
watch_a: .quad 1, a, 8
one: .quad first
two: .quad second
three: .quad third
.text
";

fn seeds(slots: usize) -> impl Iterator<Item = Settings> {
    (0..24).map(move |seed| Settings { seed, slots, ..Settings::default() })
}

fn with_children(rules: &str, main: &str, children: [&str; 3]) -> String {
    let [first, second, third] = children;
    format!("{rules}\n{HEAD}{main}\nexit:c\nfirst: {first}\nexit:c\nsecond: {second}\nexit:c\nthird: {third}\nexit:c\n")
}

const BOTH: &str = "newr $stack, $heap, $none, $one\nnewr $stack, $heap, $none, $two";

/// Conflicts over all seeds of two runners that overlap; all must end well.
fn conflicts(rules: &str, first: &str, second: &str, expected: [u64; 2]) -> u64 {
    let source = with_children(rules, BOTH, [first, second, ""]);
    let runs = seeds(2).map(|settings| {
        let (report, values) = run(&source, settings, &["a", "b"]);
        assert_eq!((report.exit_status(), &values[..]), (0, &expected[..]), "{first}, {second}");
        report.statistics.conflicts
    });
    runs.sum()
}

#[test]
fn the_first_committer_wins_a_word() {
    // rule: S1, S2, S3, S4, L4
    let (add_a, add_b) = ("add a, $1, a", "add b, $1, b");
    assert!(conflicts("", add_a, add_a, [2, 0]) > 0);
    assert_eq!(conflicts("", add_a, add_b, [1, 1]), 0);
    assert_eq!(conflicts("", "mov a, w0\nmov $5, a\nmov w0, a", add_a, [1, 0]), 0, "a store of the same value is no write");
    assert!(conflicts("", "mov:b $1, a", "mov:b $1, a+7", [1 << 56 | 1, 0]) > 0, "bytes of one word conflict");
}

#[test]
fn grain_page_makes_neighbours_conflict() {
    // rule: S5
    assert!(conflicts(".grain page", "add a, $1, a", "add b, $1, b", [1, 1]) > 0);
    let apart = ".standalone far, 8\n";
    let source = with_children(".grain page", BOTH, ["add a, $1, a", "add far, $1, far", ""]);
    let source = source
        .replace("d: .quad 0\n", &format!("d: .quad 0\n{apart}"))
        .replace("heap: .quad 1, a, 32", "heap: .quad 2, a, 32, far, 8");
    for settings in seeds(2) {
        let (report, values) = run(&source, settings, &["a", "far"]);
        assert_eq!((report.statistics.conflicts, &values[..]), (0, &[1, 1][..]));
    }
}

#[test]
fn serializable_validates_what_was_read() {
    // rule: S6
    let (copy_ab, copy_ba) = ("add b, $1, a", "add a, $1, b");
    let outcomes = |rules: &str| -> Vec<Vec<u64>> {
        let source = with_children(rules, BOTH, [copy_ab, copy_ba, ""]);
        seeds(2).map(|settings| run(&source, settings, &["a", "b"]).1).collect()
    };
    assert!(outcomes("").contains(&vec![1, 1]), "write skew is allowed");
    assert!(outcomes(".serializable").iter().all(|values| values.contains(&2)), "one of them saw the other");
}

#[test]
fn a_commit_is_seen_whole_or_not_at_all() {
    // rule: S9, S10
    let source = with_children("", BOTH, ["mov $1, a\nmov $1, d", "mov a, b\nmov d, c", ""]);
    for settings in seeds(2) {
        let (_, values) = run(&source, settings, &["b", "c"]);
        assert_eq!(values[0], values[1]);
    }
}

#[test]
fn modes_of_exit() {
    // rule: L3, L6
    let once = with_children("", BOTH, ["add a, $1, a\nexit:c1", "add a, $1, a\nexit:c1", ""]);
    let failed: u64 = seeds(2).map(|settings| run(&once, settings, &[]).0.statistics.failed).sum();
    assert!(failed > 0, "a commit that is tried once fails");
    let never_again = Settings { conflicts_max: 0, slots: 2, ..Settings::default() };
    let source = with_children("", BOTH, ["add a, $1, a", "add a, $1, a", ""]);
    let reports: Vec<Report> = (0..24).map(|seed| run(&source, Settings { seed, ..never_again.clone() }, &[]).0).collect();
    let failed = reports.iter().find(|report| report.statistics.failed > 0).expect("some overlap");
    assert_eq!(failed.exit_status(), 1);
    assert!(failed.failures[0].to_string().contains(": conflict at 0x100000001000: "), "{}", failed.failures[0]);
}

#[test]
fn how_a_runner_ended_can_be_read_and_watched() {
    // rule: L7, L8, M5
    let page = |id: u64| map::EXIT_CODES.base + id * map::PAGE_BYTES;
    let main =
        "newr $stack, $heap, $none, $one\nnewr $stack, $heap, $none, $two\nnewr $stack, $heap, $none, $three\nmov $77, EC+8";
    let source = with_children("", main, ["trap $3", "exit:a", "nop"]);
    let object = dvm_disa::asm::assemble(&source, "t.disa").expect("a right source");
    let mut machine = Machine::new(&object, Settings::default()).expect("verified");
    machine.run();
    let words = |id: u64| [0, 8, 16, 24, 32].map(|at| machine.quad(page(id) + at));
    let place = |name: &str| {
        (object.symbol(name).expect("it is there"), u64::from(object.line_of(object.symbol(name).expect("there")).1))
    };
    let ((trapped, trap_line), (aborted, abort_line)) = (place("first"), place("second"));
    assert_eq!(words(1), [3, 256 + 3, trapped, trap_line, 1]);
    assert_eq!(words(2), [2, 0, aborted, abort_line, 1]);
    assert_eq!((words(0)[..2].to_vec(), words(3)[0]), (vec![1, 77], 1));
    let watch = with_children(
        "",
        "mov $1, PR+0x2000\nmov $EC+4096, PR+0x2008\nmov $8, PR+0x2010\nnewr $stack, $heap, $none, $one\nnewr $stack, $heap, $PR+0x2000, $two",
        ["trap $3", "sys $1, EC+4096", ""],
    );
    for settings in seeds(2) {
        assert_eq!(output(&run(&watch, settings, &[]).0), "3\n");
    }
}

const WATCH: &str = "newr $stack, $heap, $watch_a, $one\nnewr $stack, $heap, $none, $two";

#[test]
fn a_watcher_fires_once_or_always() {
    // rule: S11, L1, L9, L10
    let one_shot = with_children("", WATCH, ["sys $1, a", "mov $1, a\nnewr $stack, $heap, $none, $three", "mov $2, a"]);
    for settings in seeds(1) {
        let (report, _) = run(&one_shot, settings, &[]);
        assert!(matches!(output(&report).as_str(), "1\n" | "2\n"), "{}", output(&report));
        assert_eq!((report.statistics.fired, report.exit_status()), (1, 0));
    }
    let persistent = one_shot.replace("newr $stack, $heap, $watch_a", "neww $stack, $heap, $watch_a");
    let mut printed = Vec::new();
    for settings in seeds(2) {
        let (report, _) = run(&persistent, settings, &[]);
        assert_eq!((report.exit_status(), report.armed.as_slice()), (3, &[1][..]));
        printed.push(output(&report));
    }
    // The last change is never missed; changes during an instance are folded into one more.
    assert!(printed.iter().all(|text| text.ends_with("2\n")) && printed.contains(&"1\n2\n".into()), "{printed:?}");
    assert!(printed.contains(&"2\n".into()), "{printed:?}");
    for exit in ["exit:cd", "exit:ad"] {
        let (report, _) = run(&persistent.replace("sys $1, a", exit), Settings::default(), &[]);
        assert_eq!((report.exit_status(), report.statistics.fired), (0, 1), "{exit}");
    }
}

#[test]
fn an_abort_keeps_watching() {
    // rule: L9, S13
    let patient = "br:eq a, $2, $see\nexit:a\nsee: sys $1, a";
    let source = with_children("", WATCH, [patient, "mov $1, a\nnewr $stack, $heap, $none, $three", "mov $2, a"]);
    for settings in seeds(3) {
        let (report, _) = run(&source, settings, &[]);
        assert_eq!((output(&report).as_str(), report.exit_status()), ("2\n", 0));
    }
}

#[test]
fn no_wake_up_is_lost_between_snapshot_and_arming() {
    // rule: S12
    // The second runner makes a watcher from a snapshot that may be older than the change of the first.
    let main = "newr $stack, $heap, $none, $one\nnewr $stack, $heap, $none, $two";
    let source = with_children(
        "",
        main,
        ["mov $1, a", "br:nz a, $has\nnewr $stack, $heap, $watch_a, $three\nexit:c\nhas: sys $1, a", "sys $1, a"],
    );
    for settings in seeds(2) {
        let (report, _) = run(&source, settings.clone(), &[]);
        assert_eq!((output(&report).as_str(), report.exit_status()), ("1\n", 0), "seed {}", settings.seed);
    }
}

#[test]
fn what_does_not_fire() {
    // rule: S12, S14
    for (name, child) in [
        ("the same value", "mov $0, a"),
        ("an abort", "mov $1, a\nexit:a"),
        ("a trap", "mov $1, a\ntrap $1"),
        ("elsewhere", "mov $1, b"),
    ] {
        let (report, _) = run(&with_children("", WATCH, ["sys $1, a", child, ""]), Settings::default(), &[]);
        assert_eq!((output(&report).as_str(), report.statistics.fired, report.exit_status()), ("", 0, 3), "{name}");
    }
    let (report, _) =
        run(&with_children("", "newr $stack, $heap, $watch_a, $one\nmov $1, a", ["", "", ""]), Settings::default(), &[]);
    assert_eq!((report.statistics.fired, report.exit_status()), (0, 3), "its creator's own commit");
    let own = with_children("", WATCH, ["add a, $1, a", "mov $1, a", ""])
        .replace("newr $stack, $heap, $watch_a", "neww $stack, $heap, $watch_a");
    let (report, values) = run(&own, Settings::default(), &["a"]);
    assert_eq!((report.statistics.fired, values[0]), (1, 2), "its own commit");
}

#[test]
fn each_limit_is_a_trap() {
    // rule: T11, T12, T14
    let ended =
        |source: &str, settings: Settings| run(source, settings, &[]).0.failures.first().map(|failure| failure.cause.to_string());
    let limited = |change: fn(&mut Settings)| {
        let mut settings = Settings::default();
        change(&mut settings);
        settings
    };
    let trap = |name: &str| Some(name.to_owned());
    assert_eq!(ended("m: br:a $m\n", limited(|settings| settings.limits.fuel = 100)), trap("FUEL"));
    let pages = "copy $PR+0x10000, $20480, $PR+0x20000\nexit:c\n";
    assert_eq!(ended(pages, limited(|settings| settings.limits.pages.private = 5)), trap("MEM"));
    assert_eq!(ended(pages, limited(|settings| settings.limits.pages.private = 11)), None);
    let pages = "fill $1, $20480, $SR\nexit:c\n";
    assert_eq!(ended(pages, limited(|settings| settings.limits.pages.shared = 4)), trap("MEM"));
    assert_eq!(ended("sys $1, $1\nsys $1, $2\nexit:c\n", limited(|settings| settings.limits.output_bytes = 3)), trap("MEM"));
    let children = with_children("", BOTH, ["", "", ""]);
    assert_eq!(ended(&children, limited(|settings| settings.limits.children = 1)), trap("MEM"));
    let cut = run(&children, limited(|settings| settings.starts_max = 2), &[]).0;
    assert_eq!((cut.is_cut, cut.exit_status()), (true, 1));
}

#[test]
fn descriptors_are_checked() {
    // rule: T9, T17
    for (list, expected) in [
        ("4097", "NRANGES 4097"),
        ("1, PR, 8", "RANGELIST 0x100000000+0x8"),
        ("1, SR, -1", "RANGELIST 0x100000000000+0xffffffffffffffff"),
    ] {
        let source = format!(
            ".rodata\nstack: .quad 0, 0\nnone: .quad 0\nheap: .quad {list}\none: .quad m\n.text\nm: newr $stack, $heap, $none, $one\nexit:c\n"
        );
        let (report, _) = run(&source, Settings::default(), &[]);
        assert_eq!(report.failures[0].cause.to_string(), expected);
    }
    let (report, _) = run(&with_children("", "neww $stack, $heap, $none, $one", ["", "", ""]), Settings::default(), &[]);
    assert_eq!(report.failures[0].cause.to_string(), "NRANGES 0");
}

#[test]
fn a_runner_knows_itself() {
    // rule: M3, M4
    let main = "mov $9, PR+0x3000\nmov $9, w9\nnewr $stack, $heap, $none, $one\nmov sys.newid, (sys.newarg)\nmov sys.newstk, 8(sys.newarg)\nmov sys.newstksz, 16(sys.newarg)";
    let child = "sub sys.stk, $SR+0x300000000000, w0\nsys $1, w0\nsys $1, sys.stksz\nsys $1, sys.self\nsys $1, sys.parent\nsys $1, sys.instance
set:eq (sys.argp), sys.self, w1\nset:eq 8(sys.argp), sys.stk, w2\nset:eq 16(sys.argp), sys.stksz, w3\nsys $1, w1\nsys $1, w2\nsys $1, w3\nsys $1, PR+0x3000\nsys $1, w9";
    let (report, _) = run(&with_children("", main, [child, "", ""]), Settings::default(), &[]);
    assert_eq!(output(&report), "4096\n4096\n1\n0\n0\n1\n1\n1\n0\n0\n");
    let (report, _) = run(&with_children("", WATCH, ["sys $1, sys.instance", "mov $1, a", ""]), Settings::default(), &[]);
    assert_eq!(output(&report), "1\n");
}

#[test]
fn a_lost_host_is_not_seen() {
    // rule: L11
    let source = with_children("", BOTH, ["add a, $1, a\nsys $1, $5", "add a, $1, a\nsys $1, $5", ""]);
    let mut lost = 0;
    for settings in seeds(2) {
        let (report, values) = run(&source, Settings { losses_percent: 50, ..settings }, &["a"]);
        assert_eq!((output(&report).as_str(), values[0]), ("5\n5\n", 2));
        lost += report.statistics.lost;
    }
    assert!(lost > 10, "{lost}");
}

#[test]
fn old_versions_are_forgotten() {
    // rule: S15
    let source = ".rodata\nstack: .quad 0, 0\nnone: .quad 0\nheap: .quad 1, SR, 8\none: .quad kid\n.text
again: newr $stack, $heap, $none, $one\nadd w0, $1, w0\nbr:lt w0, $50, $again\nexit:c\nkid: add SR, $1, SR\nexit:c\n";
    let object = dvm_disa::asm::assemble(source, "t.disa").expect("a right source");
    let mut machine = Machine::new(&object, Settings::default()).expect("verified");
    machine.run();
    assert_eq!(machine.quad(map::SR.base), 50);
    // 51 exit codes of one version each, and few of the counter.
    assert!(machine.versions() < 51 + 10, "{}", machine.versions());
}

#[test]
fn system_calls() {
    // rule: Y1, Y2, Y3, Y4, Y5, Y6, Y7, Y8, Y9
    let settings = Settings {
        arguments: vec![b"one".to_vec(), b"second".to_vec()],
        input: b"hello".to_vec(),
        files: vec![File { name: b"f".to_vec(), bytes: b"contents".to_vec() }],
        time_ns: 1000,
        ..Settings::default()
    };
    for (body, expected) in [
        ("sys $1, $-5", "-5\n"),
        ("mov $'A', PR+0x3000\nmov $1, PR+0x2000\nmov $PR+0x3000, PR+0x2008\nsys $2, $PR+0x2000", "A"),
        (
            "mov $9, PR+0x2000\nmov $PR+0x3000, PR+0x2008\nmov $1, PR+0x2010\nsys $3, $PR+0x2000\nsys $1, PR+0x2000\nsys $2, $PR+0x2000",
            "4\nello",
        ),
        (
            "mov $'f', PR+0x3000\nmov $1, PR+0x2000\nmov $PR+0x3000, PR+0x2008\nsys $4, $PR+0x2000
mov PR+0x2000, w0\nmov PR+0x2008, PR+0x2000\nmov w0, PR+0x2008\nsys $1, PR+0x2000\nsys $2, $PR+0x2000",
            "8\ncontents",
        ),
        ("mov $'g', PR+0x3000\nmov $1, PR+0x2000\nmov $PR+0x3000, PR+0x2008\nsys $4, $PR+0x2000\nsys $1, PR+0x2000", "0\n"),
        (
            "mov $5000, PR+0x2000\nsys $5, $PR+0x2000\nmov PR+0x2008, w0\nmov $7, 4992(w0)\nsys $1, 4992(w0)
mov $0, PR+0x2000\nsys $5, $PR+0x2000\nmov $8192, PR+0x2000\nsys $5, $PR+0x2000\nset:eq w0, PR+0x2008, w1\nsys $1, w1",
            "7\n1\n",
        ),
        ("sys $6, w0\nsys $1, w0", "1000\n"),
        ("sys $7, w0\nsys $7, w1\nset:ne w0, w1, w2\nsys $1, w2", "1\n"),
        (
            "mov $1, PR+0x2000\nmov $PR+0x3000, PR+0x2008\nmov $3, PR+0x2010\nsys $8, $PR+0x2000\nsys $1, PR+0x2000
mov $3, PR+0x2000\nsys $2, $PR+0x2000\nmov $2, PR+0x2000\nsys $8, $PR+0x2000\nsys $1, PR+0x2000",
            "6\nsec-1\n",
        ),
        ("mov $'L', PR+0x3000\nmov $1, PR+0x2000\nmov $PR+0x3000, PR+0x2008\nsys $9, $PR+0x2000", ""),
    ] {
        let (report, _) = run(&format!("{body}\nexit:c\n"), settings.clone(), &[]);
        assert_eq!((output(&report).as_str(), &report.failures[..]), (expected, &[][..]), "{body}");
        assert_eq!(report.log, if body.contains("'L'") { &b"L"[..] } else { b"" });
    }
    let (report, _) = run("mov $SR, PR+0x2008\nsys $5, $PR+0x2000\nexit:c\n", settings, &[]);
    assert_eq!(report.failures[0].cause.to_string(), "SYS 5");
}

#[test]
fn allocated_memory_is_everybodys_when_its_runner_commits() {
    // rule: Y5
    let source = ".rodata\nstack: .quad 0, 0\nnone: .quad 0\none: .quad kid\n.text
mov $8, PR+0x2000\nsys $5, $PR+0x2000\nmov $5, (PR+0x2008)
mov $1, PR+0x3000\nmov PR+0x2008, PR+0x3008\nmov $8, PR+0x3010
newr $stack, $PR+0x3000, $none, $one\nmov PR+0x2008, (sys.newarg)\nexit:c
kid: mov (sys.argp), w0\nsys $1, (w0)\nmov w0, PR+0x2008\nsys $5, $PR+0x2000\nsys $5, $PR+0x2000\nexit:c\n";
    let (report, _) = run(source, Settings::default(), &[]);
    assert_eq!(report.failures[0].cause.to_string(), "SYS 5", "given back twice");
    let (report, _) = run(
        &source.replacen("PR+0x2008\nsys $5, $PR+0x2000\nsys", "PR+0x2008\nsys $5, $PR+0x2000\nnop\n#", 1),
        Settings::default(),
        &[],
    );
    assert_eq!((output(&report).as_str(), report.exit_status()), ("5\n", 0));
}

#[test]
fn what_an_aborted_runner_allocated_is_free_again() {
    // rule: Y5
    let allocate = "mov $8, PR+0x2000\nsys $5, $PR+0x2000";
    let print = format!("{allocate}\nsub PR+0x2008, $SR, w0\nsys $1, w0");
    let source = with_children("", BOTH, [&format!("{allocate}\nexit:a"), &print, ""]);
    for settings in seeds(1) {
        let (report, _) = run(&source, settings, &[]);
        assert_eq!(output(&report), format!("{}\n", map::ARENA.base - map::SR.base));
    }
}

#[test]
fn memory_is_given_back_once() {
    // rule: Y5, T10
    let free = "mov (sys.argp), PR+0x2008\nsys $5, $PR+0x2000";
    let main = "mov $8, PR+0x2000\nsys $5, $PR+0x2000\nnewr $stack, $heap, $none, $one\nmov PR+0x2008, (sys.newarg)
newr $stack, $heap, $none, $two\nmov PR+0x2008, (sys.newarg)";
    let source = with_children("", main, [free, free, ""]);
    for settings in seeds(2) {
        let (report, _) = run(&source, settings, &[]);
        assert_eq!((report.statistics.committed, report.failures[0].cause.to_string().as_str()), (2, "SYS 5"));
    }
}

#[test]
fn constants_are_read_by_whole_pages() {
    // rule: M6, T4
    let (report, _) = run(
        ".rodata\nc: .quad 5\n.text\nsys $1, c\nsys $1, c+4088\nset:ne TX, $0, w0\nsys $1, w0\nexit:c\n",
        Settings::default(),
        &[],
    );
    assert_eq!(output(&report), "5\n0\n1\n");
    for (body, expected) in [
        ("mov c+4096, w0", "ADDR 0x500140001000"),
        ("mov c+4089, w0", "ADDR 0x500140000ff9"),
        ("mov $1, c", "TEXT 0x500140000000"),
    ] {
        let (report, _) = run(&format!(".rodata\nc: .quad 5\n.text\n{body}\nexit:c\n"), Settings::default(), &[]);
        assert_eq!(report.failures[0].cause.to_string(), expected, "{body}");
    }
}

#[test]
fn serializable_commits_have_the_order_of_their_output() {
    // rule: S6, S9, S10, L5
    let children = 16;
    let [x, y, z] = [|k: u64| k * 5 % 4, |k: u64| k * 3 % 4, |k: u64| (k / 2 + 1) % 4];
    let mut source = String::from(".serializable\n.bss\n");
    (0..4).for_each(|cell| source += &format!(".standalone c{cell}, 8\n"));
    source += ".rodata\nstack: .quad 0, 0\nnone: .quad 0\nheap: .quad 1, c0, 16384\n";
    (0..children).for_each(|k| source += &format!("first{k}: .quad kid{k}\n"));
    source += ".text\n";
    (0..children).for_each(|k| source += &format!("newr $stack, $heap, $none, $first{k}\n"));
    source += "exit:c\n";
    for k in 0..children {
        source +=
            &format!("kid{k}: mul c{}, $3, w0\nadd w0, c{}, w0\nadd w0, ${k}, c{}\nsys $1, ${k}\nexit:c\n", x(k), y(k), z(k));
    }
    let mut conflicts = 0;
    for settings in seeds(6) {
        let (report, values) = run(&source, Settings { losses_percent: 10, ..settings }, &["c0", "c1", "c2", "c3"]);
        let mut cells = [0u64; 4];
        for k in output(&report).lines().map(|line| line.parse::<u64>().expect("numbers are printed")) {
            cells[z(k) as usize] = cells[x(k) as usize].wrapping_mul(3).wrapping_add(cells[y(k) as usize]).wrapping_add(k);
        }
        assert_eq!((output(&report).lines().count(), &values[..]), (16, &cells[..]));
        conflicts += report.statistics.conflicts;
    }
    assert!(conflicts > 100, "{conflicts}");
}

#[test]
fn a_watcher_of_all_memory_fires_too() {
    // rule: S11
    let source = with_children("", WATCH, ["sys $1, a", "mov $1, a", ""])
        .replace("watch_a: .quad 1, a, 8", "watch_a: .quad 1, SR, 0x200000000000");
    let (report, _) = run(&source, Settings::default(), &[]);
    assert_eq!((output(&report).as_str(), report.statistics.fired), ("1\n", 1));
}
