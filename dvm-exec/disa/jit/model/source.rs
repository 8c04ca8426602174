//! Programs of one runner by chance, as text, within what the reference model knows: integers, branches, calls, traps, `newr`.
//!
//! Owns the mixture. Addresses of instructions stay out of arithmetic, since the model's differ. Must not judge.

use dvm_disa::machine::chance::Chance;

const LINES_MAX: usize = 26;
const TYPES: [(char, u32); 4] = [('b', 8), ('w', 16), ('l', 32), ('q', 64)];
const BINARY: [&str; 13] = ["add", "sub", "mul", "and", "or", "xor", "shl", "shr", "sar", "div", "rem", "divs", "rems"];
const CONDITIONS: [&str; 12] = ["z", "nz", "eq", "ne", "lt", "le", "gt", "ge", "lts", "les", "gts", "ges"];
/// Where pointers lead to begin with: amid memory, at its borders, and where there is none.
const PLACES: [&str; 12] = [
    "SR+0x1000",
    "SR+0x1010",
    "SR+0x1ff9",
    "PR+0x2000",
    "PR+0x2008",
    "PR+0x2ffc",
    "PR+0xff0",
    "PR+0x1008",
    "PR+0x1800",
    "PR+0xfffffffb",
    "SR+0x300000000ffd",
    "16",
];
/// Descriptors lie far from where pointers get to.
const DESCRIPTORS: &str = "PR+0x40000000";

/// A program and how it is run.
pub struct Source {
    /// Its lines; those of the text that do something begin with a label.
    pub lines: Vec<String>,
    /// Bytes of the unit in which conflicts are found.
    pub grain: u64,
}

impl Source {
    /// As the model reads it.
    pub fn text(&self) -> String {
        self.lines.iter().map(|line| format!("{line}\n")).collect()
    }

    /// As this project reads it: the model is told the grain beside the source.
    pub fn own_text(&self) -> String {
        if self.grain > 8 { self.text() + ".grain page\n" } else { self.text() }
    }
}

/// One of these.
pub fn pick<'a>(chance: &mut Chance, of: &[&'a str]) -> &'a str {
    of[chance.below(of.len())]
}

/// The program of one runner.
pub fn alone(chance: &mut Chance) -> Source {
    let mut body = Vec::new();
    for slot in 0..3 {
        body.push(format!("mov ${}, w{slot}", pick(chance, &PLACES)));
    }
    body.push("mov $TXT, w8".into());
    // Whoever jumps into the middle of a descriptor finds a usable one.
    body.push(format!("mov $5, {DESCRIPTORS}+0x800"));
    body.push(format!("mov $SR+0x1000, {DESCRIPTORS}+0x808"));
    body.push(format!("mov $128, {DESCRIPTORS}+0x8"));
    let count = body.len() + 3 + chance.below(LINES_MAX - 10);
    while body.len() < count {
        add(chance, &mut body, count);
    }
    let labels = body.len();
    let quads: Vec<String> = (0..8).map(|_| number(chance, 64)).collect();
    let head = [".entry L0", ".equ TXT, 0x500100000000", ".data SR+0x1000"];
    let mut lines: Vec<String> = head.map(str::to_owned).into();
    lines.extend([format!("v: .quad {}", quads.join(", ")), ".text".into()]);
    lines.extend(body.into_iter().enumerate().map(|(index, line)| format!("L{index}: {line}")));
    lines.push(format!("L{labels}:"));
    Source { lines, grain: 8 }
}

/// An instruction, or some that belong together.
fn add(chance: &mut Chance, body: &mut Vec<String>, count: usize) {
    let label = format!("$L{}", chance.below(count + 1));
    match chance.below(32) {
        0..=11 => binary(chance, body),
        12..=14 => body.push(copy(chance)),
        15..=22 => body.push(branch(chance, &label)),
        23 => body.push(format!("mov {label}, w30")),
        24 => body.push(format!("bl {}, w31", if chance.below(4) == 0 { "w30" } else { &label })),
        25 => body.push(format!("sys ${}, {}", [1, 1, 1, 99][chance.below(4)], input(chance, TYPES[3]))),
        26 => write(chance, body),
        27..=28 => descriptor(chance, body, &label),
        29 => body.push(format!("mov {}, {}(w8)", input(chance, TYPES[3]), chance.below(12))),
        30 if chance.below(3) == 0 => body.push(format!("trap {}", input(chance, TYPES[3]))),
        31 if chance.below(3) == 0 => body.push(format!("exit:{}", pick(chance, &["c", "c", "c", "a", "cd", "ad"]))),
        _ => body.push("nop".into()),
    }
}

fn binary(chance: &mut Chance, body: &mut Vec<String>) {
    let ty = if chance.below(2) == 0 { TYPES[3] } else { TYPES[chance.below(4)] };
    let op = if chance.below(3) == 0 { pick(chance, &BINARY) } else { pick(chance, &BINARY[..9]) };
    let (left, right, out) = (input(chance, ty), input(chance, ty), output(chance));
    body.push(if chance.below(8) == 0 && left.starts_with('(') {
        format!("{op} {left}:{}, {right}, {out}", ty.0)
    } else {
        format!("{op}:{} {left}, {right}, {out}", ty.0)
    });
}

fn copy(chance: &mut Chance) -> String {
    let ty = TYPES[chance.below(4)];
    let op = pick(chance, &["mov", "mov", "movs"]);
    format!("{op}:{} {}, {}", ty.0, input(chance, ty), output(chance))
}

fn branch(chance: &mut Chance, label: &str) -> String {
    let target = match chance.below(24) {
        0 => "w30",
        1 => "w31",
        2 => "$12345",
        3 => "w5",
        _ => label,
    };
    let ty = if chance.below(2) == 0 { TYPES[3] } else { TYPES[chance.below(4)] };
    let condition = pick(chance, &CONDITIONS);
    match condition {
        _ if chance.below(10) == 0 => format!("br:a {target}"),
        "z" | "nz" => format!("br:{condition}:{} {}, {target}", ty.0, input(chance, ty)),
        _ => format!("br:{condition}:{} {}, {}, {target}", ty.0, input(chance, ty), input(chance, ty)),
    }
}

/// `sys 2` of some data.
fn write(chance: &mut Chance, body: &mut Vec<String>) {
    let address = pick(chance, &["SR+0x1000", "SR+0x1020", "SR+0x300000000ffc", "PR+0x2000"]);
    body.push(format!("mov ${}, {DESCRIPTORS}+0x800", 1 + chance.below(40)));
    body.push(format!("mov ${address}, {DESCRIPTORS}+0x808"));
    body.push(format!("sys $2, ${DESCRIPTORS}+0x800"));
}

/// A runner is made.
fn descriptor(chance: &mut Chance, body: &mut Vec<String>, label: &str) {
    let mut at = 0;
    let mut quad = |value: String| {
        body.push(format!("mov ${value}, {DESCRIPTORS}+{at}"));
        at += 8;
        at - 8
    };
    let stack = quad(if chance.below(3) == 0 { "SR+0x3000" } else { "0" }.into());
    quad("128".into());
    let mut list = |chance: &mut Chance| {
        let count = chance.below(3);
        let at = quad(if chance.below(12) == 0 { "4097".into() } else { count.to_string() });
        for _ in 0..count {
            quad(pick(chance, &["SR+0x1000", "SR+0x1003", "SR", "SR+0x3fffffffffff", "PR"]).to_owned());
            quad(pick(chance, &["8", "1", "4096", "0", "0x4000"]).to_owned());
        }
        at
    };
    let (heap, watched) = (list(chance), list(chance));
    let first = quad(label.trim_start_matches('$').into());
    let op = pick(chance, &["newr", "newr", "neww"]);
    let [stack, heap, watched, first] = [stack, heap, watched, first].map(|at| format!("${DESCRIPTORS}+{at}"));
    body.push(format!("{op} {stack}, {heap}, {watched}, {first}"));
    if chance.below(2) == 0 {
        body.push(format!("mov {}, {}(sys.newarg)", input(chance, TYPES[3]), 8 * chance.below(9)));
    }
}

/// A constant that fits.
fn number(chance: &mut Chance, bits: u32) -> String {
    match chance.below(8) {
        0 => format!("-{}", chance.below(100)),
        1 => format!("{:#x}", 1u64 << (bits - 1)),
        2 => format!("{:#x}", u64::MAX >> (64 - bits)),
        3 => format!("{:#x}", chance.next() >> (64 - bits)),
        _ => chance.below(20).to_string(),
    }
}

fn input(chance: &mut Chance, ty: (char, u32)) -> String {
    match chance.below(16) {
        0..=5 => format!("${}", number(chance, ty.1)),
        _ => cell(chance),
    }
}

fn output(chance: &mut Chance) -> String {
    match chance.below(64) {
        0 => "$3".into(),
        1 => format!("0x500100000000+{}", chance.below(4)),
        _ => cell(chance),
    }
}

/// A place that may be read and stored to, most of the time.
fn cell(chance: &mut Chance) -> String {
    let displacement = match chance.below(8) {
        0 => chance.below(8192) as i64 - 4096,
        _ => chance.below(9) as i64 * 8 - 24,
    };
    match chance.below(12) {
        0..=5 => format!("w{}", chance.below(8)),
        6 => format!("PR+{:#x}", 0x2000 + chance.below(40)),
        7 => format!("SR+{:#x}", 0x1000 + chance.below(72)),
        8 => match chance.below(6) {
            0 | 1 => format!("PR+{:#x}", 0x1000 - 8 + chance.below(64)),
            2 => format!("PR+{:#x}", 0x17f8 + chance.below(16)),
            3 => format!("SR+{:#x}", 0x1ff8 + chance.below(16)),
            4 => format!("SR+{:#x}", 0x3000_0000_0ff0_u64 + chance.below(18) as u64),
            _ => format!("PR+{:#x}", 0xffff_fff0_u64 + chance.below(18) as u64),
        },
        9 => format!("{displacement}(PR+{:#x})", 0x2000 + 8 * chance.below(5)),
        10 => format!("(w{})", chance.below(3)),
        _ => format!("{displacement}(w{})", chance.below(3)),
    }
}
