//! The document of the language: its examples print what it says.
//!
//! Owns the comparison. Must not know what the examples are about.

mod common;

use common::printed;
use dvm_disa::machine::Settings;

const DOCUMENT: &str = include_str!("../../../../docs/dcc.md");

#[test]
fn each_example_prints_what_the_document_says() {
    let examples: Vec<&str> = DOCUMENT.split("```c\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(examples.len() >= 6, "{}", examples.len());
    for example in examples {
        let expected = example.lines().last().and_then(|line| line.strip_prefix("// prints ")).expect("it says what it prints");
        let found = printed(example, &[], Settings::default());
        assert_eq!(found.split_whitespace().collect::<Vec<_>>().join(" "), expected, "{example}");
    }
}
