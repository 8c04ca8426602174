//! Limits that are the program's alone: the husk could not live under them, or the kernel knows them of the husk only.
//!
//! Owns RLIMIT_AS, RLIMIT_STACK and RLIMIT_NOFILE as the program sees them. Must not know what a limit keeps the program from.
//!
//! The kernel keeps the program's soft limit of open files and finds the number of a new descriptor under it; while the husk
//! opens one for itself, the limit is raised. So a descriptor that the program opens in that moment may get a number above its limit.

use super::descriptors::{COUNT_MAX, FLOOR};
use super::husk::Root;
use super::vma::AddressSpace;
use crate::sys::user::{self, BadAddress};
use crate::sys::{call, cpu};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Soft and hard.
pub type Both = (u64, u64);

static FILES: Mutex<Files> = Mutex::new(Files { wanted: None, rooms: 0 });

struct Files {
    /// As the program has set it.
    wanted: Option<Both>,
    /// So many are opening descriptors for the husk.
    rooms: u32,
}

/// prlimit64, getrlimit and setrlimit of the program.
pub fn call(root: &Root, number: i64, arguments: &[u64; 6]) -> i64 {
    let (resource, new, old) = match number {
        libc::SYS_getrlimit => (arguments[0], 0, arguments[1]),
        libc::SYS_setrlimit => (arguments[0], arguments[1], 0),
        _ => (arguments[1], arguments[2], arguments[3]),
    };
    let is_own = number != libc::SYS_prlimit64 || arguments[0] == 0 || arguments[0] == root.pid() as u64;
    let former = match u32::try_from(resource) {
        Ok(libc::RLIMIT_AS) if is_own => {
            let set = |map: &mut AddressSpace, new| {
                map.set_limits(new);
                Ok(())
            };
            exchange(&mut *root.space.map(), AddressSpace::limits, set, new)
        }
        Ok(libc::RLIMIT_STACK) if is_own => {
            let set = |stack: &mut Both, new| {
                *stack = new;
                Ok(())
            };
            exchange(&mut *stack(root), |stack| *stack, set, new)
        }
        Ok(libc::RLIMIT_NOFILE) if is_own => exchange(&mut *files(), Files::seen, Files::set, new),
        _ => return call::raw(number, arguments),
    };
    match former.and_then(|former| if old == 0 { Ok(()) } else { write(old, former) }) {
        Ok(()) => 0,
        Err(error) => -i64::from(error),
    }
}

/// Judges what the program wants a limit to be, if anything, and sets it; says what it was.
fn exchange<T>(
    of: &mut T,
    seen: impl FnOnce(&T) -> Both,
    set: impl FnOnce(&mut T, Both) -> Result<(), i32>,
    new: u64,
) -> Result<Both, i32> {
    let former = seen(of);
    if new != 0 {
        let bad = |BadAddress| libc::EFAULT;
        let wanted = (user::read_u64(new).map_err(bad)?, user::read_u64(new + 8).map_err(bad)?);
        judge(former, wanted, cpu::may_raise_limits)?;
        set(of, wanted)?;
    }
    Ok(former)
}

/// Whether a limit may become `wanted`, as the kernel judges it.
fn judge(former: Both, wanted: Both, may_raise: impl FnOnce() -> bool) -> Result<(), i32> {
    match wanted {
        (soft, hard) if soft > hard => Err(libc::EINVAL),
        (_, hard) if hard > former.1 && !may_raise() => Err(libc::EPERM),
        _ => Ok(()),
    }
}

fn write(to: u64, (soft, hard): Both) -> Result<(), i32> {
    let bytes = [soft, hard].map(u64::to_le_bytes).concat();
    user::write(to, &bytes).map_err(|BadAddress| libc::EFAULT)
}

impl Files {
    fn seen(&self) -> Both {
        self.wanted.unwrap_or_else(|| cpu::limit(libc::RLIMIT_NOFILE).unwrap_or((0, 0)))
    }

    /// The kernel's hard limit stays where the husk can raise the soft one.
    fn set(&mut self, wanted: Both) -> Result<(), i32> {
        let errno = |error: std::io::Error| error.raw_os_error().unwrap_or(libc::EPERM);
        let hard = cpu::limit(libc::RLIMIT_NOFILE).map_err(errno)?.1.max(wanted.1);
        let soft = if self.rooms == 0 { wanted.0 } else { raised(hard).max(wanted.0) };
        cpu::set_limit(libc::RLIMIT_NOFILE, soft, hard).map_err(errno)?;
        self.wanted = Some(wanted);
        Ok(())
    }

    /// Makes the kernel's soft limit what it has to be now.
    fn apply(&self) {
        let Some((soft, _)) = self.wanted else { return };
        if let Ok((_, hard)) = cpu::limit(libc::RLIMIT_NOFILE) {
            let soft = if self.rooms == 0 { soft } else { raised(hard).max(soft) };
            // A soft limit up to the hard one is always allowed.
            cpu::set_limit(libc::RLIMIT_NOFILE, soft, hard).unwrap_or(());
        }
    }
}

fn stack(root: &Root) -> MutexGuard<'_, Both> {
    root.stack_limit.lock().unwrap_or_else(PoisonError::into_inner)
}

fn files() -> MutexGuard<'static, Files> {
    FILES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// While this lives, the husk can open descriptors, whatever the program's limit.
#[must_use]
pub struct Room;

/// Makes room for descriptors of the husk. What is opened for the program meanwhile may exceed its limit.
pub fn room() -> Room {
    let mut files = files();
    files.rooms += 1;
    if files.rooms == 1 {
        files.apply();
    }
    Room
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut files = files();
        files.rooms -= 1;
        if files.rooms == 0 {
            files.apply();
        }
    }
}

/// Keeps limits as they are until the guards are dropped, so that a forked child finds them whole.
pub fn freeze(root: &Root) -> (impl Drop, impl Drop) {
    (stack(root), files())
}

/// In a child, which is a process of its own: the kernel's limits become the program's, and calls on them are the kernel's.
pub fn hand_to_child(root: &Root) {
    let (soft, hard) = *stack(root);
    cpu::set_limit(libc::RLIMIT_STACK, soft, hard).unwrap_or(());
    if let Some((soft, hard)) = files().wanted {
        cpu::set_limit(libc::RLIMIT_NOFILE, soft, hard).unwrap_or(());
    }
}

/// Whether a call on limits is about one that [`hand_to_child`] has handed over.
pub fn is_child_s_own(number: i64, arguments: &[u64; 6]) -> bool {
    let resource = arguments[usize::from(number == libc::SYS_prlimit64)];
    [libc::RLIMIT_STACK, libc::RLIMIT_NOFILE].map(u64::from).contains(&resource)
}

/// The limit of open files that the program has set.
pub fn files_set() -> Option<Both> {
    files().wanted
}

/// Descriptor numbers the program may still use do not reach the husk's own. Returns the limit that the user had.
///
/// # Errors
/// The kernel's error.
pub fn raise_files() -> Result<Both, std::io::Error> {
    let (soft, hard) = cpu::limit(libc::RLIMIT_NOFILE)?;
    let raised = raised(hard);
    if soft < raised {
        cpu::set_limit(libc::RLIMIT_NOFILE, raised, hard)?;
    }
    Ok((soft, hard))
}

/// What a lower soft limit of open files is raised to.
pub fn raised(hard: u64) -> u64 {
    (FLOOR + COUNT_MAX).min(hard)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_judged_as_by_the_kernel() {
        let check = |wanted, may_raise, expected| assert_eq!(judge((10, 20), wanted, || may_raise), expected, "{wanted:?}");
        check((5, 20), false, Ok(()));
        check((20, 20), false, Ok(()));
        check((0, 0), false, Ok(()));
        check((21, 20), true, Err(libc::EINVAL));
        check((22, 21), false, Err(libc::EINVAL));
        check((5, 21), false, Err(libc::EPERM));
        check((5, 21), true, Ok(()));
    }

    #[test]
    fn a_refused_limit_changes_nothing() {
        let mut limit: Both = (10, 20);
        let wanted: [u64; 2] = [30, 20];
        let set = |limit: &mut Both, new| {
            *limit = new;
            Ok(())
        };
        assert_eq!(exchange(&mut limit, |limit| *limit, set, wanted.as_ptr() as u64), Err(libc::EINVAL));
        assert_eq!(exchange(&mut limit, |limit| *limit, set, 0), Ok((10, 20)));
        let wanted: [u64; 2] = [7, 15];
        assert_eq!(exchange(&mut limit, |limit| *limit, set, wanted.as_ptr() as u64), Ok((10, 20)));
        assert_eq!(limit, (7, 15));
    }
}
