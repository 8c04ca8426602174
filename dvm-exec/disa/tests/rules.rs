//! The document and the tests agree: each rule has a test, each test names rules that exist, the instructions are those listed.
//!
//! Owns the comparison. Must not know what rules say.

use dvm_disa::isa::Op;
use std::collections::BTreeSet;
use std::path::Path;

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/disa.md");
const TESTS: [&str; 3] = [
    concat!(env!("CARGO_MANIFEST_DIR"), "/tests"),
    concat!(env!("CARGO_MANIFEST_DIR"), "/../tests"),
    concat!(env!("CARGO_MANIFEST_DIR"), "/../runners/tests"),
];

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The numbers that begin the document's rules, in its order.
fn rules(document: &str) -> Vec<String> {
    let heads = document.lines().filter_map(|line| line.strip_prefix("- **"));
    heads.filter_map(|line| line.split_once("**")).map(|(number, _)| number.to_owned()).collect()
}

/// The numbers that tests name.
fn named(source: &str) -> BTreeSet<String> {
    let lists = source.lines().filter_map(|line| line.trim_start().strip_prefix("// rule: "));
    lists.flat_map(|list| list.split(", ").map(str::to_owned)).collect()
}

/// What is wrong between a document and the tests.
fn differences(document: &str, tests: &str) -> Vec<String> {
    let (all, named) = (rules(document), named(tests));
    let rules: BTreeSet<String> = all.iter().cloned().collect();
    let mut wrong: Vec<String> = rules.difference(&named).map(|rule| format!("rule {rule}: no test names it")).collect();
    wrong.extend(named.difference(&rules).map(|rule| format!("a test names rule {rule}: there is none")));
    if rules.len() != all.len() {
        wrong.push("a rule's number is there twice".into());
    }
    wrong
}

#[test]
fn each_rule_has_a_test_and_each_test_a_rule() {
    let mut tests = String::new();
    for directory in TESTS {
        for entry in std::fs::read_dir(directory).expect("the tests are there") {
            let path = entry.expect("the directory can be read").path();
            if path.extension().is_some_and(|extension| extension == "rs") {
                tests.push_str(&read(&path));
            }
        }
    }
    let document = read(Path::new(DOCUMENT));
    assert!(rules(&document).len() > 80, "{:?}", rules(&document));
    assert_eq!(differences(&document, &tests), [""; 0]);
}

#[test]
fn the_comparison_finds_differences() {
    let document = "- **A1** one\n- **A2** two\n- **A2** again\ntext **A3**\n";
    let tests = "    // rule: A1, B1\n";
    let expected = ["rule A2: no test names it", "a test names rule B1: there is none", "a rule's number is there twice"];
    assert_eq!(differences(document, tests), expected);
    assert_eq!(differences("- **A1** one\n", "// rule: A1\n"), [""; 0]);
}

#[test]
fn the_instructions_are_those_listed() {
    let document = read(Path::new(DOCUMENT));
    let list = document.split("compares it with this list.").nth(1).expect("the list follows");
    let listed: BTreeSet<&str> = list.split('`').nth(1).expect("it is in quotes").split_whitespace().collect();
    assert_eq!(listed, Op::ALL.iter().map(|op| op.name()).collect());
}
