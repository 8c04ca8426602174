//! Programs made by Rust code.
//!
//! Owns one program of each kind. Must not look at the assembly.

use dvm_disa::build::{Arg, Asm};
use dvm_disa::isa::Op;
use dvm_disa::machine::{Machine, Settings};
use dvm_disa::types::{Condition, ExitMode, Type};

#[test]
fn runners_and_a_watcher() {
    // rule: X12
    let mut asm = Asm::new();
    let (work, sum, wait, again) = (asm.label(), asm.label(), asm.label(), asm.label());
    let halves = asm.cells(&[0, 0]);
    let (index, one) = (asm.slot(), asm.slot());
    asm.op(Op::Mov, Type::Q, &[Arg::Number(0), Arg::Slot(index)]);
    for half in 0..2 {
        asm.runner(work, &[halves.range(half, half + 1)], &[], false);
        asm.op(Op::Mov, Type::Q, &[Arg::Number(8 * half as i64), Arg::NewArgument(0)]);
    }
    asm.runner(sum, &[], &[halves], true).exit(ExitMode::Commit);
    asm.bind(work).op(Op::Mov, Type::Q, &[Arg::Argument(0), Arg::Slot(index)]);
    asm.op(Op::Add, Type::Q, &[Arg::Slot(index), Arg::Address(halves), Arg::Slot(one)]);
    asm.op(Op::Add, Type::Q, &[Arg::Slot(index), Arg::Number(5), Arg::At(one, 0)]).exit(ExitMode::Commit);
    asm.bind(sum).branch(Condition::Zero, Type::Q, &[Arg::Cell(halves, 0)], wait);
    asm.branch(Condition::NotZero, Type::Q, &[Arg::Cell(halves, 1)], again).bind(wait).exit(ExitMode::Abort);
    asm.bind(again).op(Op::Add, Type::Q, &[Arg::Cell(halves, 0), Arg::Cell(halves, 1), Arg::Slot(one)]);
    asm.print(Arg::Slot(one)).exit(ExitMode::CommitDelete);
    let object = asm.assemble().expect("all labels are bound");
    for seed in 0..10 {
        let mut machine = Machine::new(&object, Settings { seed, ..Settings::default() }).expect("verified");
        let report = machine.run();
        assert_eq!((report.exit_status(), &report.output[..]), (0, &b"18\n"[..]));
    }
}

#[test]
fn a_label_that_is_not_bound_is_told() {
    let mut asm = Asm::new();
    let nowhere = asm.label();
    asm.branch(Condition::Always, Type::Q, &[], nowhere);
    assert_eq!(
        asm.assemble().map_err(|errors| errors.to_string()).map(|_| ()),
        Err("built:2:7: undefined symbol `label.1`".into())
    );
}
