//! Every error of a source, with its line and column.
//!
//! Owns the texts users see. Must not know how they come about.

use dvm_disa::asm::assemble;

fn error(source: &str) -> String {
    match assemble(source, "t.disa") {
        Ok(_) => "accepted".into(),
        Err(errors) => errors.to_string(),
    }
}

#[test]
fn every_error_has_its_line_and_column() {
    // rule: O5, O7, O8, T15
    let mut wrong = Vec::new();
    for (source, expected) in [
        ("nop\n  foo w0", "t.disa:2:3: unknown instruction `foo`"),
        (".section x", "t.disa:1:1: unknown directive `.section`"),
        ("add w0, w1", "t.disa:1:1: `add` takes 3 operands, 2 are here"),
        ("br:z w0, w1, $0", "t.disa:1:1: `br` takes 2 operands, 3 are here"),
        ("br:a $zz", "t.disa:1:7: undefined symbol `zz`"),
        (".entry zz\nnop", "t.disa:1:8: undefined symbol `zz`"),
        ("x: nop\nx: nop", "t.disa:2:1: duplicate symbol `x`"),
        (".equ x, 1\nx: nop", "t.disa:2:1: duplicate symbol `x`"),
        ("add:z w0, w1, w2", "t.disa:1:5: `add` has no attribute or size `:z`"),
        ("and:d w0, w1, w2", "t.disa:1:5: `and` has no attribute or size `:d`"),
        ("add:b w0:q, w1, w2", "t.disa:1:10: size given twice: once on an instruction or on its first operand"),
        ("add w0:x, w1, w2", "t.disa:1:8: `add` has no attribute or size `:x`"),
        ("br w0, w1, $0", "t.disa:1:1: `br` needs a condition, as in br:lt"),
        ("br:lts:d w0, w1, $0", "t.disa:1:1: `br` does not exist with this size and these attributes"),
        ("set:z w0, w1", "t.disa:1:1: `set` does not exist with this size and these attributes"),
        ("cvt:q w0, w1", "t.disa:1:1: `cvt` needs two types, as in cvt:sq:d"),
        ("cvt:sq:w w0, w1", "t.disa:1:8: `cvt` does not exist with this size and these attributes"),
        ("sqrt w0, w1", "t.disa:1:1: `sqrt` needs a size"),
        ("exit:x", "t.disa:1:6: `exit` has no attribute or size `:x`"),
        ("mov w256, w0", "t.disa:1:5: window slot `w256`: w0 to w255 exist"),
        ("mov (w256), w0", "t.disa:1:6: window slot `w256`: w0 to w255 exist"),
        ("mov:b $256, w0", "t.disa:1:7: literal too large: 256 does not fit a byte"),
        ("mov $0x10000000000000000, w0", "t.disa:1:5: literal too large: 18446744073709551616 does not fit 8 bytes"),
        ("mov 0x80000000(w0), w0", "t.disa:1:5: literal too large: 2147483648 does not fit a displacement of 32 bits"),
        ("mov -1, w0", "t.disa:1:5: literal too large: -1 does not fit an address"),
        (".data\n.byte 1, 300", "t.disa:2:10: literal too large: 300 does not fit a byte"),
        ("mov $1.5, w0", "t.disa:1:5: a fraction where an integer is needed"),
        ("mov:f $1e39, w0", "t.disa:1:7: literal too large: 1e39 does not fit a finite number"),
        ("mov:f $16777217, w0", "t.disa:1:7: literal too large: 16777217 does not fit a floating-point number without rounding"),
        ("mov $0x1g, w0", "t.disa:1:6: bad number `0x1g`"),
        ("mov w0; w1", "t.disa:1:1: `mov` takes 2 operands, 1 are here"),
        ("mov w0 w1", "t.disa:1:8: expected the end of the line, found `w1`"),
        ("mov w0,", "t.disa:1:8: expected a number or a symbol, found the end of the line"),
        ("mov 8(w0, w1", "t.disa:1:9: expected `)`, found `,`"),
        ("mov %1, w0", "t.disa:1:5: unexpected `%`"),
        (".ascii \"abc", "t.disa:1:8: bad string or character: no closing quote"),
        (".data\n.ascii \"\\q\"", "t.disa:2:8: bad string or character: the escapes are \\n \\t \\r \\0 \\\\ \\\" \\' \\xHH"),
        ("w3: nop", "t.disa:1:1: `w3` is a reserved name"),
        ("add: nop\nadd: nop", "t.disa:2:1: duplicate symbol `add`"),
        (".equ SR, 1", "t.disa:1:6: `SR` is a reserved name"),
        (".quad 1", "t.disa:1:7: `data` does not belong into this section"),
        (".data\nnop", "t.disa:2:1: `nop` does not belong into this section"),
        (".bss\n.quad 1", "t.disa:2:7: `data` does not belong into this section"),
        (".data 0x1000\n.quad 1", "t.disa:1:1: address 0x1000 of 0 bytes is not in the shared memory below the stacks"),
        (
            ".data SR+0x300000000000-8\n.quad 1, 2",
            "t.disa:2:10: address 0x400000000000 of 8 bytes is not in the shared memory below the stacks",
        ),
        (".data SR\n.quad 1\n.data SR+4\n.quad 2", "t.disa:4:7: data at 0x100000000004 overlaps other data"),
        ("nop\n.entry TX+1\n", "t.disa:2:1: entry 0x500100000001 is no instruction of the text"),
        (
            "x: mov $1, w0\nbr:a $x+1\n",
            "t.disa:2:1: offset 0x6: branch into the middle of an instruction or out of the text, to 0x500100000001",
        ),
    ] {
        let found = error(source);
        if found != expected {
            wrong.push(format!("{source:?}\n  found    {found}\n  expected {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn all_errors_are_told_at_once() {
    assert_eq!(error("foo\nbar\nmov w0, w1\n"), "t.disa:1:1: unknown instruction `foo`\nt.disa:2:1: unknown instruction `bar`");
    assert_eq!(error("mov $a, w0\nmov $b, w0\n").lines().count(), 2);
    assert_eq!(error(&"foo\n".repeat(100)).lines().count(), 20);
}
