//! The conformance cases: traps, refusals of the assembler, and what others see of a runner.
//!
//! Owns their programs and expected results. Must not know the machine's inside.

#[path = "common/program.rs"]
mod program;

use dvm_disa::asm::assemble;
use dvm_disa::machine::{Report, Settings};
use program::{output, run};

/// A program with the quad `v` = 7, and a child `kid` that may use `v`.
fn report(body: &str) -> Report {
    let head = ".entry m\n.data SR+0x1000\nv: .quad 7, 8\n.rodata\nstack: .quad 0, 0\nheap: .quad 1, v, 8\nnone: .quad 0\nfirst: .quad kid\n";
    let kid = if body.contains("kid:") { "" } else { "kid: trap $99\n" };
    run(&format!("{head}.text\nm: {body}\n{kid}"), Settings::default(), &[]).0
}

fn failures(report: &Report) -> String {
    report.failures.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn each_trap_is_told_with_its_line_and_nothing_is_committed() {
    // rule: T1, T2, T3, T4, T5, T7, T8, T9, T10, T13, T16
    for (name, body, line, expected) in [
        ("division by zero", "div $1, $0, w0\nexit:c", 1, "DIV0"),
        ("an address that is never mapped", "mov $1, 16\nexit:c", 1, "ADDR 0x10"),
        ("a step behind the text", "nop", 1, "PC 0x500100000002"),
        ("a jump to nowhere", "nop\nbr:a $12345", 2, "PC 0x3039"),
        ("a store between SR and TX", "mov $1, 0x500000000000\nexit:c", 1, "ADDR 0x500000000000"),
        ("a store to text", "mov $1, TX\nexit:c", 1, "TEXT 0x500100000000"),
        ("a pointer into the window", "mov $PR+0x1008, w0\nmov (w0), w2\nexit:c", 2, "WINDOW 0x100001008"),
        ("overflow of a division", "divs $0x8000000000000000, $-1, w0\nexit:c", 1, "DIVOVF"),
        ("a trap of the program", "trap $42\nexit:c", 1, "USER 42"),
        ("a call that there is not", "sys $99, w0\nexit:c", 1, "SYS 99"),
        ("a store to a constant", "mov $1, $2\nexit:c", 1, "STORE to a constant"),
        ("after a store", ".data\nv: .quad 7\n.text\nmov $9, v\ntrap $1\nexit:c", 5, "USER 1"),
    ] {
        let (report, _) = run(body, Settings::default(), &[]);
        let found = failures(&report);
        assert!(found.starts_with(&format!("TRAP runner 0 t.disa:{line} ")), "{name}: {found}");
        assert!(found.ends_with(&format!(": {expected}")), "{name}: {found}");
        assert_eq!((report.statistics.committed, report.exit_status()), (0, 1), "{name}");
    }
}

#[test]
fn what_a_runner_prints_and_makes_is_seen_when_it_commits() {
    // rule: L2, L5, S10
    let aborted = report("sys $1, v\nexit:a");
    assert_eq!((output(&aborted), aborted.statistics.aborted), (String::new(), 1));
    let committed = report("sys $1, v\nexit");
    assert_eq!((output(&committed).as_str(), committed.statistics.committed), ("7\n", 1));
    let childless = report("newr $stack, $heap, $none, $first\nexit:a\nkid: trap $1");
    assert_eq!((childless.statistics.aborted, childless.statistics.starts), (1, 1));
    let conserved = run(".data\nv: .quad 7\n.text\nmov $9, v\ntrap $1\n", Settings::default(), &["v"]);
    assert_eq!(conserved.1, [7]);
}

#[test]
fn ranges_are_granted_by_pages_and_kept_to_the_byte() {
    // rule: S7, S8, T6
    let beside = report("newr $stack, $heap, $none, $first\nexit:c\nkid: add v+8, $1, v\nmov $9, v+8\nexit:c");
    assert!(failures(&beside).ends_with("RANGE 0x100000001008 (store outside the declared ranges, found at exit)"));
    assert_eq!((beside.statistics.committed, beside.statistics.trapped), (1, 1));
    let loaded = report("newr $stack, $heap, $none, $first\nexit:c\nkid: sys $1, v+8\nmov $8, v+8\nexit:c");
    assert_eq!((output(&loaded).as_str(), loaded.exit_status()), ("8\n", 0));
    let elsewhere = report("newr $stack, $heap, $none, $first\nexit:c\nkid: mov v+8192, w0\nexit:c");
    assert!(failures(&elsewhere).ends_with("RANGE 0x100000003000"));
    assert_eq!((elsewhere.statistics.committed, elsewhere.statistics.trapped), (1, 1));
}

#[test]
fn sizes() {
    // rule: O3, O4
    assert_eq!(output(&report("mov:q $0x1ff, w0\nmov:b w0, w1\nadd:b w1, $2, w1\nsys $1, w1\nexit:c")), "1\n");
    assert_eq!(output(&report("mov $0xff, w0\nmovs:b w0, w1\nsys $1, w1\nexit:c")), "-1\n");
    let slide =
        "mov $v, PR+0x1000\nmov $5, v+8\nadd (0x100001000):q, 8(0x100001000), 0x100000000020\nsys $1, 0x100000000020\nexit:c";
    assert_eq!(output(&report(slide)), "12\n");
}

#[test]
fn what_the_assembler_refuses() {
    // rule: T15
    for (source, expected) in [
        ("foo w0", "t.disa:1:1: unknown instruction `foo`"),
        ("add w0, w1", "t.disa:1:1: `add` takes 3 operands, 2 are here"),
        ("br:a $zz", "t.disa:1:7: undefined symbol `zz`"),
        ("add:z w0, w1, w2", "t.disa:1:5: `add` has no attribute or size `:z`"),
        ("mov w256, w0", "t.disa:1:5: window slot `w256`: w0 to w255 exist"),
    ] {
        assert_eq!(assemble(source, "t.disa").map(|_| ()).map_err(|errors| errors.to_string()), Err(expected.into()));
    }
}
