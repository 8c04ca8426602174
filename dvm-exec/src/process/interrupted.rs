//! Calls that a signal broke off: whether the program gets EINTR or the call is made again.
//!
//! Owns the three ways a call is broken off and the masks that some calls wait with. Must not know where signals come from.

use super::sigframe::Action;
use crate::sys::asm::{INTERRUPTED, NOT_BEGUN};
use crate::sys::signal::{Frame, Register};
use crate::sys::user;

/// Bytes of the call's instruction.
const INSTRUCTION_BYTES: u64 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Before it began: as if the signal had come before the call.
    NotBegun,
    /// The kernel would repeat it under SA_RESTART.
    Restartable,
    /// EINTR, whatever the action says (or no signal came at all).
    Final,
}

/// A call of the program that came back unfinished.
#[derive(Clone, Copy, Debug)]
pub struct BrokenCall {
    number: i64,
    arguments: [u64; 6],
    kind: Kind,
}

impl BrokenCall {
    /// The call whose result stands in `frame`, if it was broken off.
    pub fn of(frame: Frame, call: Option<(i64, [u64; 6])>) -> Option<Self> {
        let (number, arguments) = call?;
        let kind = match frame.get(Register::Rax) as i64 {
            NOT_BEGUN => Kind::NotBegun,
            // A child is never half made: the kernel would repeat this without asking.
            INTERRUPTED if matches!(number, libc::SYS_clone | libc::SYS_clone3 | libc::SYS_fork | libc::SYS_vfork) => {
                Kind::NotBegun
            }
            INTERRUPTED => Kind::Restartable,
            result if result == -i64::from(libc::EINTR) => Kind::Final,
            _ => return None,
        };
        Some(Self { number, arguments, kind })
    }

    /// The mask the call waited with, if it brought its own and a signal ended the wait.
    pub fn temporary_mask(&self) -> Option<u64> {
        if self.kind != Kind::Final {
            return None;
        }
        let address = match self.number {
            libc::SYS_rt_sigsuspend => self.arguments[0],
            libc::SYS_ppoll => self.arguments[3],
            libc::SYS_epoll_pwait | libc::SYS_epoll_pwait2 => self.arguments[4],
            libc::SYS_pselect6 if self.arguments[5] != 0 => user::read_u64(self.arguments[5]).ok()?,
            _ => return None,
        };
        if address == 0 { None } else { user::read_u64(address).ok() }
    }

    /// A handler runs for `action` first; what the program finds when it returns.
    pub fn end_by(self, frame: Frame, action: &Action) {
        match self.kind {
            Kind::NotBegun => self.repeat(frame),
            Kind::Restartable if action.flags & libc::SA_RESTART as u64 != 0 => self.repeat(frame),
            Kind::Restartable => frame.set(Register::Rax, -i64::from(libc::EINTR) as u64),
            Kind::Final => {}
        }
    }

    /// No handler runs. `was_signalled`: what broke the call off was not for the program after all.
    pub fn end_unhandled(self, frame: Frame, was_signalled: bool) {
        if self.kind != Kind::Final || was_signalled {
            self.repeat(frame);
        }
    }

    fn repeat(self, frame: Frame) {
        frame.set(Register::Rax, self.number as u64);
        frame.set(Register::Rip, frame.rip() - INSTRUCTION_BYTES);
    }
}
