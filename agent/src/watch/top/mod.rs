//! `top`: a screen of what all hosts do, again and again.
//!
//! Owns the terminal, the keys and the rhythm. Must not know how figures are asked for or laid out.

mod draw;
mod figures;

use super::collect::{Collected, Collector};
use crate::client::Target;
use crate::exit::{Exit, Failure};
use anyhow::anyhow;
use draw::{Order, View};
use figures::Figures;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Longest time between two looks, in seconds.
const SECONDS_MAX: u64 = 60;

/// Shows the hosts' figures until `q`; with `once`, gives one screen of them: as JSON if it is true.
///
/// # Errors
/// When no agent answers, or there is no terminal.
pub fn run(target: &Target, seconds: u64, once: Option<bool>) -> Result<String, Failure> {
    let collector = Collector::new(target, &[])?;
    let first = collector.collect()?;
    if let Some(is_json) = once {
        std::thread::sleep(Duration::from_secs(seconds));
        let figures = Figures::between(&first, &collector.collect()?);
        return Ok(if is_json { figures.json() } else { draw::text(&View::new(figures, seconds)) });
    }
    if !std::io::stdout().is_terminal() {
        return Err(Failure::new(Exit::Usage, anyhow!("stdout is not a terminal; use --once, or --once --json for scripts")));
    }
    let terminal = ratatui::try_init().map_err(|error| failure(&error))?;
    let done = watch(terminal, &collector, first, seconds);
    let restored = ratatui::try_restore().map_err(|error| failure(&error));
    done.and(restored).map(|()| String::new())
}

fn watch(mut terminal: ratatui::DefaultTerminal, collector: &Collector, first: Collected, seconds: u64) -> Result<(), Failure> {
    let mut view = View::new(Figures::between(&first, &first), seconds);
    let mut last = first;
    let mut next = Instant::now() + Duration::from_secs(1);
    loop {
        terminal.draw(|frame| draw::draw(frame, &view)).map_err(|error| failure(&error))?;
        let left = next.saturating_duration_since(Instant::now());
        if event::poll(left).map_err(|error| failure(&error))? {
            let event = event::read().map_err(|error| failure(&error))?;
            if !press(&mut view, &event) {
                return Ok(());
            }
            continue;
        }
        next = Instant::now() + Duration::from_secs(view.seconds);
        if view.is_paused {
            continue;
        }
        match collector.collect() {
            Ok(now) => {
                view.figures = Figures::between(&last, &now);
                view.trouble = None;
                last = now;
            }
            Err(error) => view.trouble = Some(error.to_string()),
        }
    }
}

/// Does what a key says; whether to go on.
fn press(view: &mut View, event: &Event) -> bool {
    let Event::Key(key) = event else { return true };
    if key.kind == KeyEventKind::Release {
        return true;
    }
    match key.code {
        KeyCode::Char('q') | KeyCode::Esc => return false,
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return false,
        KeyCode::Char('p') => view.is_paused = !view.is_paused,
        KeyCode::Char('s') => view.order = if view.order == Order::Name { Order::Faults } else { Order::Name },
        KeyCode::Char('+') => view.seconds = (view.seconds + 1).min(SECONDS_MAX),
        KeyCode::Char('-') => view.seconds = view.seconds.saturating_sub(1).max(1),
        KeyCode::Down => view.first = (view.first + 1).min(view.figures.hosts.len().saturating_sub(1)),
        KeyCode::Up => view.first = view.first.saturating_sub(1),
        _ => {}
    }
    true
}

fn failure(error: &std::io::Error) -> Failure {
    Failure::new(Exit::Internal, anyhow!("the terminal fails: {error}; use --once"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::crossterm::event::KeyEvent;

    #[test]
    fn keys_do_what_the_screen_says() {
        let mut view = View::new(Figures::default(), 1);
        let mut key = |code| press(&mut view, &Event::Key(KeyEvent::new(code, KeyModifiers::NONE)));
        assert!(["p", "s", "+", "+", "-", "x"].into_iter().all(|key_text| key(KeyCode::Char(key_text.chars().next().unwrap()))));
        assert!(key(KeyCode::Down) && key(KeyCode::Up) && !key(KeyCode::Char('q')) && !key(KeyCode::Esc));
        assert!(!press(&mut view, &Event::Key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL))));
        assert_eq!((view.is_paused, view.order, view.seconds, view.first), (true, Order::Faults, 2, 0));
    }
}
