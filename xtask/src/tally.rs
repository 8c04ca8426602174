//! What passed, failed and was skipped, and the last line that says so.
//!
//! Owns the counting and the exit code. Must not know what was tested.

use std::process::ExitCode;

/// Results so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    passed: u64,
    failed: Vec<String>,
    skipped: Vec<String>,
}

impl Tally {
    /// One check that found these faults, each printed at once.
    pub fn add(&mut self, name: &str, faults: &[String]) {
        if faults.is_empty() {
            println!("ok {name}");
            self.passed += 1;
            return;
        }
        for fault in faults {
            println!("{name}: {fault}");
        }
        self.fail(name, &format!("{} faults, the first: {}", faults.len(), faults.first().map_or("", String::as_str)));
    }

    /// Checks that passed.
    pub fn pass(&mut self, count: u64) {
        self.passed += count;
    }

    /// A check that failed.
    pub fn fail(&mut self, name: &str, reason: &str) {
        println!("FAILED {name}: {reason}");
        self.failed.push(format!("{name}: {reason}"));
    }

    /// A check that could not be made.
    pub fn skip(&mut self, name: &str, reason: &str) {
        println!("skipped {name}: {reason}");
        self.skipped.push(format!("{name}: {reason}"));
    }

    /// Whether nothing failed.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.failed.is_empty()
    }

    /// Names everything that did not pass, then counts all in the last line.
    #[must_use]
    pub fn finish(&self) -> ExitCode {
        for line in &self.skipped {
            println!("skipped {line}");
        }
        for line in &self.failed {
            println!("FAILED {}", line.lines().next().unwrap_or_default());
        }
        println!("{}", self.last_line());
        if self.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    fn last_line(&self) -> String {
        format!("{} passed, {} failed, {} skipped", self.passed, self.failed.len(), self.skipped.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_counts() {
        let mut tally = Tally::default();
        tally.pass(3);
        tally.add("tidy", &[]);
        tally.skip("live", "needs root");
        assert_eq!(tally.last_line(), "4 passed, 0 failed, 1 skipped");
        assert!(tally.is_clean());
        tally.add("walls", &["a".into(), "b".into()]);
        assert_eq!(tally.last_line(), "4 passed, 1 failed, 1 skipped");
        assert!(!tally.is_clean());
    }
}
