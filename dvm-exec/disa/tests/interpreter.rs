//! What single runners compute and how they die, on a memory of plain bytes.
//!
//! Owns expected values of instructions and traps. Must not know snapshots, commits or watchers.

use dvm_disa::asm::assemble;
use dvm_disa::code::Code;
use dvm_disa::engine::{Engine, Interpreted};
use dvm_disa::interpreter::{Interpreter, Outcome};
use dvm_disa::map::{self, Range};
use dvm_disa::memory::{Access, Born, Effects, Memory, Spawn};
use dvm_disa::trap::TrapKind;
use std::collections::BTreeMap;

/// Private memory and shared memory, granted whole.
#[derive(Default)]
struct Bytes {
    bytes: BTreeMap<u64, u8>,
    text: Vec<u8>,
}

impl Memory for Bytes {
    fn check(&mut self, range: Range, access: Access) -> Result<(), TrapKind> {
        let text = Range::new(map::TX.base, self.text.len() as u64);
        if map::PR.encloses(range) || map::SR.encloses(range) || access == Access::Load && text.encloses(range) {
            return Ok(());
        }
        let is_text_store = access == Access::Store && map::TX.contains(range.base);
        Err(if is_text_store { TrapKind::Text(range.base) } else { TrapKind::Addr(range.base) })
    }

    fn read(&mut self, address: u64, bytes: &mut [u8]) -> Result<(), TrapKind> {
        self.check(Range::new(address, bytes.len() as u64), Access::Load)?;
        for (byte, at) in bytes.iter_mut().zip(address..) {
            let text = at.checked_sub(map::TX.base).and_then(|offset| self.text.get(offset as usize));
            *byte = text.or_else(|| self.bytes.get(&at)).copied().unwrap_or(0);
        }
        Ok(())
    }

    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), TrapKind> {
        self.check(Range::new(address, bytes.len() as u64), Access::Store)?;
        self.bytes.extend((address..).zip(bytes.iter().copied()));
        Ok(())
    }

    fn grant(&mut self, _: Range) {}
}

/// Keeps what was asked.
#[derive(Default)]
struct Asked {
    printed: String,
    spawned: Vec<Spawn>,
}

impl Effects for Asked {
    fn spawn(&mut self, spawn: Spawn) -> Result<Born, TrapKind> {
        let stack = spawn.stack.unwrap_or(Range::new(map::STACKS.base + 4096, 4096));
        self.spawned.push(spawn);
        Ok(Born { id: self.spawned.len() as u64, stack })
    }
    fn print(&mut self, bytes: &[u8]) -> Result<(), TrapKind> {
        self.printed.push_str(&String::from_utf8_lossy(bytes));
        Ok(())
    }
    fn log(&mut self, _: &[u8]) -> Result<(), TrapKind> {
        Ok(())
    }
    fn input(&mut self, _: u64, _: &mut [u8]) -> usize {
        0
    }
    fn open(&mut self, _: &[u8]) -> Option<Range> {
        None
    }
    fn allocate(&mut self, _: u64) -> Option<Range> {
        None
    }
    fn free(&mut self, _: u64) -> bool {
        false
    }
    fn time(&mut self) -> u64 {
        0
    }
    fn random(&mut self) -> u64 {
        0
    }
    fn argument(&mut self, _: u64) -> Option<&[u8]> {
        None
    }
    fn touch(&mut self, _: Range) {}
    fn breakpoint(&mut self, _: u64) {}
}

struct Ran {
    outcome: Outcome,
    line: u32,
    printed: String,
    spawned: Vec<Spawn>,
}

fn run(body: &str) -> Ran {
    let source = format!(".entry m\n.data SR+0x1000\nv: .quad 7\n.text\nm: {body}");
    let object = assemble(&source, "t.disa").unwrap_or_else(|errors| panic!("{errors}\n{source}"));
    let code = Code::verified(&object.text).expect("the assembler verified it");
    let mut memory = Bytes { text: object.text.clone(), ..Bytes::default() };
    for segment in &object.data {
        memory.write(segment.address, &segment.bytes).expect("data lies in shared memory");
    }
    let mut interpreter = Interpreter::new(&code, object.entry, 1000, memory, Asked::default());
    let outcome = Interpreted.run(&mut interpreter);
    let line = object.line_of(interpreter.pc()).1;
    Ran { outcome, line, printed: interpreter.effects.printed, spawned: interpreter.effects.spawned }
}

#[test]
fn traps() {
    // rule: M1, M2, M6, T1, T2, T5, T7, T9, T11, T17
    for (body, kind, line) in [
        ("div $1, $0, w0", TrapKind::Div0, 5),
        ("rems $1, $0, w0", TrapKind::Div0, 5),
        ("divs $0x8000000000000000, $-1, w0", TrapKind::DivOvf, 5),
        ("rems:b $-128, $-1, w0", TrapKind::DivOvf, 5),
        ("mov $1, 16", TrapKind::Addr(16), 5),
        ("mov 0x500000000000, w0", TrapKind::Addr(0x5000_0000_0000), 5),
        ("mov $1, TX", TrapKind::Text(map::TX.base), 5),
        ("mov $PR+0x1008, w0\nmov (w0), w2", TrapKind::Window(map::WINDOW.base + 8), 6),
        ("mov $PR+0xffc, w0\nmov (w0), w2", TrapKind::Window(map::WINDOW.base - 4), 6),
        ("copy $PR+0x1000, $8, $SR", TrapKind::Window(map::WINDOW.base), 5),
        ("mov $1, $2", TrapKind::Store, 5),
        ("nop", TrapKind::Pc(map::TX.base + 2), 0),
        ("br:a $12345", TrapKind::Pc(12345), 0),
        ("sys $99, w0", TrapKind::Sys(99), 5),
        ("nop\ntrap $42", TrapKind::User(42), 6),
        ("br:a $m", TrapKind::Fuel, 5),
        ("fill $1, $1000000, $SR", TrapKind::Fuel, 5),
        ("mov $4097, PR+0x2000\nnewr $PR+0x3000, $PR+0x3000, $PR+0x2000, $PR+0x3000", TrapKind::NRanges(4097), 6),
        ("neww $PR+0x3000, $PR+0x3000, $PR+0x3000, $PR+0x3000", TrapKind::NRanges(0), 5),
        (
            "mov $1, PR+0x2000\nmov $8, PR+0x2010\nnewr $PR+0x3000, $PR+0x2000, $PR+0x3000, $PR+0x3000",
            TrapKind::RangeList { base: 0, bytes: 8 },
            7,
        ),
    ] {
        let ran = run(&format!("{body}\n"));
        match ran.outcome {
            Outcome::Trap(trap) => assert_eq!((trap.kind, ran.line), (kind, line), "{body}"),
            Outcome::Exit(..) => panic!("{body}: no trap"),
        }
    }
}

#[test]
fn bytes_that_are_no_instruction_trap() {
    // rule: E4, T16
    let code = Code::unverified(&[0x00, 0x03, 0xff]);
    let mut interpreter = Interpreter::new(&code, map::TX.base, 10, Bytes::default(), Asked::default());
    let Outcome::Trap(trap) = Interpreted.run(&mut interpreter) else { panic!("no trap") };
    assert_eq!((trap.kind, trap.pc), (TrapKind::Illegal, map::TX.base + 2));
}

#[test]
fn results() {
    // rule: O1, O2, O3, O4, O6, I1, I2, I3, I4, I5, I6, I7, I9
    for (body, expected) in [
        ("mov:q $0x1ff, w0\nmov:b w0, w1\nadd:b w1, $2, w1\nsys $1, w1", "1\n"),
        ("touch $SR, $8\nbrk\nsys $1, $3", "3\n"),
        ("mov $4, PR+0x1018\nsys $1, w3", "4\n"),
        ("mov $-1, w1\nmov:b $0, w1\nsys $1, w1", "-256\n"),
        ("mov $0xff, w0\nmovs:b w0, w1\nsys $1, w1", "-1\n"),
        ("mov $v, PR+0x1000\nmov $5, v+8\nadd (0x100001000):q, 8(0x100001000), 0x100000000020\nsys $1, 0x100000000020", "12\n"),
        ("divs $-7, $2, w0\nrems $-7, $2, w1\nsys $1, w0\nsys $1, w1", "-3\n-1\n"),
        ("shl $1, $65, w0\nsys $1, w0", "2\n"),
        ("mov:b $0x80, w1\nsar:b w1, $1, w0\nsys $1, w0", "192\n"),
        ("mulh $-1, $-1, w0\nsys $1, w0\nmulhs $-1, $-1, w1\nsys $1, w1", "-2\n0\n"),
        ("clz:w $1, w0\nctz:w $0, w1\npopcnt:b $-1, w2\nsys $1, w0\nsys $1, w1\nsys $1, w2", "15\n16\n8\n"),
        ("set:lts $-1, $0, w0\nset:lt $-1, $0, w1\nsys $1, w0\nsys $1, w1", "1\n0\n"),
        ("div:d $0.0, $0.0, w0\nset:ne:d w0, w0, w1\nset:le:d w0, w0, w2\nsys $1, w1\nsys $1, w2", "1\n0\n"),
        ("div:d $0.0, $0.0, w0\nsys $1, w0", "9221120237041090560\n"),
        ("sqrt:d $2.25, w0\nmov:d $1.0, w1\nfma:d w0, $4.0, w1\ncvt:d:sq w1, w2\nsys $1, w2", "7\n"),
        ("cvt:d:b $300.0, w0\ncvt:d:sb $-1.5, w1\nsys $1, w0\nsys $1, w1", "255\n255\n"),
        ("mov $0x0807060504030201, PR+0x2000\ncopy $PR+0x2000, $8, $PR+0x2001\nsys $1, PR+0x2001", "578437695752307201\n"),
        ("fill $'a', $5, $SR\nfind $0, $SR, $9, w0\ncmpb $SR, $SR+1, $9, w1\nsys $1, w0\nsys $1, w1", "5\n4\n"),
        (
            "mov:b $'a', SR\nhash $SR, $1, w0\nhash $SR, $0, w1\nsys $1, w0\nsys $1, w1",
            "-5808556873153909620\n-3750763034362895579\n",
        ),
        ("bl $f, w9\nsys $1, $2\nbr:a $e\nf: sys $1, $1\nbr:a w9\ne: nop", "1\n2\n"),
    ] {
        let ran = run(&format!("{body}\nexit:c\n"));
        assert!(matches!(ran.outcome, Outcome::Exit(..)), "{body}: {:?}", ran.outcome);
        assert_eq!(ran.printed, expected, "{body}");
    }
}

#[test]
fn descriptors_become_runners() {
    // rule: I8
    let ran = run("mov $1, PR+0x2010\nmov $v, PR+0x2018\nmov $8, PR+0x2020\nmov $m, PR+0x2030
newr $PR+0x2000, $PR+0x2010, $PR+0x2028, $PR+0x2030\nsys $1, sys.newid\nsys $1, sys.newarg\nexit:c\n");
    let arguments = map::STACKS.base + 8192 - 64;
    assert_eq!(ran.printed, format!("1\n{arguments}\n"));
    let heap = vec![Range::new(map::SR.base + 0x1000, 8)];
    let expected = Spawn { stack: None, heap, watched: vec![], first: map::TX.base, is_persistent: false };
    assert_eq!(ran.spawned, [expected]);
}
