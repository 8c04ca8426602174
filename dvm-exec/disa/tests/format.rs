//! The house's layout of sources.
//!
//! Owns examples, and that nothing changes its meaning. Must not know columns beyond them.

use dvm_disa::asm::assemble;
use dvm_disa::format::format;

#[test]
fn statements_and_comments_have_columns() {
    for (source, expected) in [
        ("", ""),
        ("x:nop\n", "        x:nop\n"),
        ("  x:   nop # no\n", "x:      nop                     # no\n"),
        ("a: b: add:l (w0) ,w1,w2\n", "a: b:   add:l (w0), w1, w2\n"),
        (".equ  A ,  1  ;  one  \n", ".equ A, 1                       ;  one\n"),
        ("  .page\nl: .ascii \"a , # b\"#c\n", "        .page\nl:      .ascii \"a , # b\"        #c\n"),
        ("mov $',', w0\n# alone\n   # inside\n", "        mov $',', w0\n# alone\n        # inside\n"),
        ("averylonglabel:nop:\n", "        averylonglabel:nop:\n"),
        ("averylonglabel: nop\n", "averylonglabel: nop\n"),
    ] {
        assert_eq!(format(source), expected);
        assert_eq!(format(&format(source)), format(source), "{source}");
    }
}

#[test]
fn the_meaning_stays() {
    for source in [
        include_str!("../programs/treesum.disa"),
        include_str!("../programs/primes.disa"),
        include_str!("../programs/bank.disa"),
        include_str!("../programs/write-skew.disa"),
        include_str!("../programs/storm.disa"),
        include_str!("../programs/kmeans.disa"),
    ] {
        let squeezed: String =
            source.lines().map(|line| format!("{}\n", line.split_whitespace().collect::<Vec<_>>().join(" "))).collect();
        let object = |source: &str| assemble(source, "t.disa").expect("a program that comes with the crate");
        assert_eq!(object(&format(&squeezed)), object(source));
        assert_eq!(format(&format(source)), format(source));
    }
}
