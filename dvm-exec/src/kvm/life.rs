//! The life of a guest.
//!
//! Owns the stage, who waits for it, and how many processors are held. Must not know processors.
//!
//! ```text
//! Created -> Running <-> Paused
//!    |          |           |
//!    +----------+-----------+--> Stopped, Failed    (the first reason stays)
//! ```

use super::failure::Failure;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Where in its life a guest is.
#[derive(Debug)]
pub enum Stage {
    /// Made, but no processor has run.
    Created,
    /// Its processors run.
    Running,
    /// Its processors are held.
    Paused,
    /// It ended itself, with this status.
    Stopped(u8),
    /// It was ended.
    Failed(Failure),
}

/// The stage, for all threads of the machine.
#[derive(Debug)]
pub struct Life {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    stage: Stage,
    /// Processors that wait to run.
    held: usize,
}

impl Default for Life {
    fn default() -> Self {
        Self { state: Mutex::new(State { stage: Stage::Created, held: 0 }), changed: Condvar::new() }
    }
}

impl Life {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, next: impl FnOnce(&Stage) -> Option<Stage>) -> bool {
        let mut state = self.lock();
        let next = next(&state.stage);
        let is_changed = next.is_some();
        if let Some(next) = next {
            state.stage = next;
            self.changed.notify_all();
        }
        is_changed
    }

    /// The processors run for the first time.
    pub fn run(&self) -> bool {
        self.change(|stage| matches!(stage, Stage::Created).then_some(Stage::Running))
    }

    /// The processors are held from now on; true if they ran before.
    pub fn pause(&self) -> bool {
        self.change(|stage| matches!(stage, Stage::Running).then_some(Stage::Paused))
    }

    /// The processors run again; true if they were held before.
    pub fn resume(&self) -> bool {
        self.change(|stage| matches!(stage, Stage::Paused).then_some(Stage::Running))
    }

    /// The guest ended itself.
    pub fn stop(&self, status: u8) -> bool {
        self.change(|stage| (!stage.is_over()).then_some(Stage::Stopped(status)))
    }

    /// The guest is ended.
    pub fn fail(&self, failure: Failure) -> bool {
        self.change(|stage| (!stage.is_over()).then_some(Stage::Failed(failure)))
    }

    /// Waits until a processor may run, after `before_wait` if it has to; false if it never will again.
    pub fn wait_to_run(&self, before_wait: impl FnOnce()) -> bool {
        let mut state = self.lock();
        if state.stage.is_holding() {
            before_wait();
            state.held += 1;
            self.changed.notify_all();
            let waits = |state: &mut State| state.stage.is_holding();
            state = self.changed.wait_while(state, waits).unwrap_or_else(PoisonError::into_inner);
            state.held -= 1;
        }
        matches!(state.stage, Stage::Running)
    }

    /// Waits until `count` processors are held, at most `latest`; false if they are not.
    pub fn wait_for_held(&self, count: usize, latest: Duration) -> bool {
        let waits = |state: &mut State| state.held < count && state.stage.is_holding();
        let (state, _) = self.changed.wait_timeout_while(self.lock(), latest, waits).unwrap_or_else(PoisonError::into_inner);
        state.held >= count && state.stage.is_holding()
    }

    /// Whether its processors run.
    pub fn is_running(&self) -> bool {
        matches!(self.lock().stage, Stage::Running)
    }

    /// Whether its processors are held after they ran.
    pub fn is_paused(&self) -> bool {
        matches!(self.lock().stage, Stage::Paused)
    }

    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        self.lock().stage.is_over()
    }

    /// What `judge` makes of the stage as it is now.
    pub fn judge<T>(&self, judge: impl FnOnce(&Stage) -> T) -> T {
        judge(&self.lock().stage)
    }

    /// Waits for the end; gives the status, or why it was ended.
    pub fn wait_for_end(&self) -> Result<u8, Failure> {
        let waits = |state: &mut State| !state.stage.is_over();
        let mut state = self.changed.wait_while(self.lock(), waits).unwrap_or_else(PoisonError::into_inner);
        match &mut state.stage {
            stage @ Stage::Failed(_) => match std::mem::replace(stage, Stage::Stopped(0)) {
                Stage::Failed(failure) => Err(failure),
                _ => Ok(0),
            },
            Stage::Stopped(status) => Ok(*status),
            Stage::Created | Stage::Running | Stage::Paused => Ok(0),
        }
    }
}

impl Stage {
    /// As operators are told.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped(_) => "stopped",
            Self::Failed(_) => "failed",
        }
    }

    fn is_over(&self) -> bool {
        matches!(self, Self::Stopped(_) | Self::Failed(_))
    }

    fn is_holding(&self) -> bool {
        matches!(self, Self::Created | Self::Paused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn stages_follow_each_other() {
        let life = Life::default();
        assert!(!life.pause() && !life.resume(), "nothing runs yet");
        assert!(life.run() && !life.run() && life.is_running());
        assert!(life.pause() && !life.pause() && life.is_paused() && !life.is_running());
        assert!(!life.run(), "what is held goes on by resume alone");
        assert!(life.resume() && !life.resume() && life.pause());
        assert!(life.stop(7) && !life.stop(8) && !life.resume() && life.is_over());
        assert_eq!((life.judge(Stage::word), life.wait_for_end().unwrap()), ("stopped", 7));
    }

    #[test]
    fn who_is_held_is_counted() {
        const LATEST: Duration = Duration::from_secs(20);
        let (life, goes_on) = (Life::default(), AtomicBool::new(true));
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while goes_on.load(Ordering::Relaxed) && life.wait_to_run(|| {}) {
                        std::thread::yield_now();
                    }
                });
            }
            assert!(life.wait_for_held(3, LATEST), "all wait for the start");
            for _ in 0..50 {
                assert!(if life.judge(|stage| matches!(stage, Stage::Created)) { life.run() } else { life.resume() });
                assert!(life.pause() && life.wait_for_held(3, LATEST));
            }
            assert!(!life.wait_for_held(4, Duration::ZERO), "there is no fourth");
            goes_on.store(false, Ordering::Relaxed);
            assert!(life.stop(0) && !life.wait_for_held(0, LATEST), "at the end nobody is held");
        });
    }
}
