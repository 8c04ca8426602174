//! The line that says how far a program has come.
//!
//! Owns the clock and the terminal. Must not know how figures come about.

use dvm_disa::machine::{Machine, Progress};
use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

/// How often the line is written.
const PERIOD: Duration = Duration::from_millis(200);
/// Events between two looks at the clock.
const EVENTS: u32 = 64;

/// Runs the program until nothing can happen, with a line on stderr if that is a terminal.
pub fn run(machine: &mut Machine<'_>) {
    if !stderr().is_terminal() {
        return;
    }
    let (mut before, mut last) = (machine.progress(), Instant::now());
    while (0..EVENTS).all(|_| machine.step()) {
        let elapsed = last.elapsed();
        if elapsed >= PERIOD {
            let now = machine.progress();
            eprint!("\r{}\x1b[K", line(&before, &now, elapsed));
            (before, last) = (now, Instant::now());
        }
    }
    eprint!("\r\x1b[K");
}

/// The figures, with what they became a second.
fn line(before: &Progress, now: &Progress, elapsed: Duration) -> String {
    let rate = |before: u64, now: u64| ((now - before) as f64 / elapsed.as_secs_f64().max(1e-9)) as u64;
    format!(
        "born {} ({}/s)  ready {}  running {}  committed {} ({}/s)  retried {} ({}/s)",
        now.born,
        rate(before.born, now.born),
        now.ready,
        now.running,
        now.committed,
        rate(before.committed, now.committed),
        now.retried,
        rate(before.retried, now.retried)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_their_rates() {
        let before = Progress { born: 10, committed: 4, ..Progress::default() };
        let now = Progress { born: 110, ready: 3, running: 2, committed: 54, retried: 1 };
        let text = line(&before, &now, Duration::from_millis(500));
        assert_eq!(text, "born 110 (200/s)  ready 3  running 2  committed 54 (100/s)  retried 1 (2/s)");
    }
}
