//! The life of a guest.
//!
//! Owns the stage and who waits for it. Must not know processors.
//!
//! ```text
//! Created -> Running -> Stopped, Failed    (the first reason stays)
//! ```

use super::failure::Failure;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Where in its life a guest is.
#[derive(Debug)]
pub enum Stage {
    /// Made, but no processor has run.
    Created,
    /// Its processors run.
    Running,
    /// It ended itself, with this status.
    Stopped(u8),
    /// It was ended.
    Failed(Failure),
}

/// The stage, for all threads of the machine.
#[derive(Debug)]
pub struct Life {
    stage: Mutex<Stage>,
    changed: Condvar,
}

impl Default for Life {
    fn default() -> Self {
        Self { stage: Mutex::new(Stage::Created), changed: Condvar::new() }
    }
}

impl Life {
    fn lock(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, next: impl FnOnce(&Stage) -> Option<Stage>) -> bool {
        let mut stage = self.lock();
        let next = next(&stage);
        let is_changed = next.is_some();
        if let Some(next) = next {
            *stage = next;
            self.changed.notify_all();
        }
        is_changed
    }

    /// The processors run.
    pub fn run(&self) -> bool {
        self.change(|stage| matches!(stage, Stage::Created).then_some(Stage::Running))
    }

    /// The guest ended itself.
    pub fn stop(&self, status: u8) -> bool {
        self.change(|stage| (!stage.is_over()).then_some(Stage::Stopped(status)))
    }

    /// The guest is ended.
    pub fn fail(&self, failure: Failure) -> bool {
        self.change(|stage| (!stage.is_over()).then_some(Stage::Failed(failure)))
    }

    /// Waits until processors may run; false if they never will again.
    pub fn wait_to_run(&self) -> bool {
        let waits = |stage: &mut Stage| matches!(stage, Stage::Created);
        let stage = self.changed.wait_while(self.lock(), waits).unwrap_or_else(PoisonError::into_inner);
        matches!(*stage, Stage::Running)
    }

    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        self.lock().is_over()
    }

    /// Waits for the end; gives the status, or why it was ended.
    pub fn wait_for_end(&self) -> Result<u8, Failure> {
        let waits = |stage: &mut Stage| !stage.is_over();
        let mut stage = self.changed.wait_while(self.lock(), waits).unwrap_or_else(PoisonError::into_inner);
        match &mut *stage {
            Stage::Failed(_) => match std::mem::replace(&mut *stage, Stage::Stopped(0)) {
                Stage::Failed(failure) => Err(failure),
                _ => Ok(0),
            },
            Stage::Stopped(status) => Ok(*status),
            Stage::Created | Stage::Running => Ok(0),
        }
    }
}

impl Stage {
    fn is_over(&self) -> bool {
        matches!(self, Self::Stopped(_) | Self::Failed(_))
    }
}
