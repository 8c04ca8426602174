//! Every trap and every error of loading, as users see them.
//!
//! Owns the cases; what they must say is in `golden/`. Each trap hits one of two runners: the other one goes on and prints.

use dvm_disa::asm::assemble;
use dvm_disa::elf;
use dvm_disa::machine::{Machine, Settings};
use std::path::Path;

const HEAD: &str = ".data SR+0x1000
a: .quad 0
.rodata
none: .quad 0, 0
heap: .quad 1, a, 8
many: .quad 4097
outside: .quad 1, PR, 8
one: .quad first
two: .quad second
.text
newr $none, $heap, $none, $one
newr $none, $heap, $none, $two
exit:c
second: sys $1, $7
exit:c
.loc 1
first:
";

/// What a runner does that dies.
const TRAPS: &[(&str, &str)] = &[
    ("PC", "br:a $0x10"),
    ("ADDR", "mov 0x10, w0"),
    ("ADDR between SR and TX", "mov $1, 0x5000_f000_0000"),
    ("RANGE", "mov $1, SR+0x9000"),
    ("RANGE at the exit", "mov $1, a+8\nexit:c"),
    ("TEXT", "mov $1, TX"),
    ("WINDOW", "mov $PR+0x1000, PR+0x2000\nmov (PR+0x2000), w0"),
    ("STORE", "mov $1, $2"),
    ("DIV0", "div w0, $0, w1"),
    ("DIVOVF", "divs:b $-128, $-1, w1"),
    ("NRANGES, too many", "newr $none, $many, $none, $two"),
    ("NRANGES, none", "neww $none, $heap, $none, $two"),
    ("RANGELIST", "newr $none, $outside, $none, $two"),
    ("SYS", "sys $99, $0"),
    ("FUEL", "br:a $first"),
    ("FUEL of bulk instructions", "fill $0, $0x7000000, $PR+0x10000"),
    ("MEM, private", "fill $0, $0x100000, $PR+0x10000"),
    ("MEM, output", "mov $100000, PR+0x2000\nmov $PR+0x2000, PR+0x2008\nsys $2, $PR+0x2000"),
    ("MEM, runners", "newr $none, $heap, $none, $two\nbr:a $first"),
    ("USER", "trap $42"),
];

/// Sources that are refused.
const SOURCES: &[(&str, &str)] = &[
    ("unknown op", "nop\nfoo w0"),
    ("bad size", "and:d w0, w1, w2"),
    ("wrong operand count", "add w0, w1"),
    ("undefined symbol", "br:a $nowhere"),
    ("duplicate symbol", "x: nop\nx: nop"),
    ("literal too large", "mov:b $256, w0"),
    ("displacement too large", "mov 0x80000000(w0), w0"),
    ("branch into the middle", "x: mov $1, w0\nbr:a $x+1"),
    ("entry in the middle", "mov $1, w0\n.entry TX+1"),
    ("private memory used up", ".private big, 0x80000000"),
];

fn limited() -> Settings {
    let mut settings = Settings { slots: 1, ..Settings::default() };
    (settings.limits.fuel, settings.limits.pages.private, settings.limits.children) = (100_000, 64, 8);
    settings.limits.output_bytes = 4096;
    settings
}

fn trapped(body: &str) -> String {
    let object = assemble(&format!("{HEAD}{body}\nexit:c\n"), "t.disa").unwrap_or_else(|errors| panic!("{errors}\n{body}"));
    let mut machine = Machine::new(&object, limited()).expect("verified");
    let report = machine.run();
    let told: Vec<String> = report.failures.iter().map(ToString::to_string).collect();
    format!(
        "{}; others print {:?}; exit status {}",
        told.join(", "),
        String::from_utf8_lossy(&report.output),
        report.exit_status()
    )
}

/// A program whose bytes at an offset of the text are others.
fn damaged(source: &str, at: usize, bytes: &[u8]) -> String {
    let mut object = assemble(source, "t.disa").unwrap_or_else(|errors| panic!("{errors}"));
    object.text[at..at + bytes.len()].copy_from_slice(bytes);
    elf::read(&elf::write(&object)).map_or_else(|error| error.to_string(), |_| "accepted".into())
}

fn compare(name: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, found).expect("the golden file can be written");
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(found, golden, "run with UPDATE=1 if this is meant");
}

#[test]
fn each_trap_is_told_and_others_go_on() {
    // rule: T1, T2, T3, T4, T5, T6, T7, T8, T9, T10, T11, T12, T13, T16, T17
    let lines: String = TRAPS.iter().map(|(name, body)| format!("{name}: {}\n", trapped(body))).collect();
    compare("traps.txt", &lines);
}

#[test]
fn each_error_of_loading_is_told() {
    // rule: T15, C2, E2, E3
    let mut lines: String = SOURCES
        .iter()
        .map(|(name, source)| {
            let told = assemble(source, "t.disa").map_or_else(|errors| errors.to_string(), |_| "accepted".into());
            format!("{name}: {told}\n")
        })
        .collect();
    for (name, source, at, bytes) in [
        ("no such instruction", "nop\nnop", 2, &[0xff, 0x00][..]),
        ("bad attribute", "nop\nnop", 2, &[0x00, 0xff]),
        ("non-canonical literal", "mov $0x12345678, w0", 4, &[1, 0, 0, 0]),
        ("truncated instruction", "nop\nmov $1, w0", 2, &[0x0b, 0x03, 0x18]),
        ("branch into the middle of an instruction", "nop\nbr:a $0x500100000000", 5, &[1]),
    ] {
        lines.push_str(&format!("{name}: {}\n", damaged(source, at, bytes)));
    }
    for (name, file) in [("no ELF", &b"text"[..]), ("cut off", b"\x7fELF"), ("no unit", b"\x7fELF\x02\x01\x01")] {
        let told = elf::unit::read(file).map_or_else(|error| error.to_string(), |_| "accepted".into());
        lines.push_str(&format!("{name}: {told}\n"));
    }
    compare("loading.txt", &lines);
}
