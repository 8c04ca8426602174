//! Jobs that outlive their root, under the lone agent: all husks are told of losses in the order in which it sees them.
//!
//! Owns who is lost. Must not know what a husk does then.

use super::HOSTS;
use dvm_api::local::{Purpose, ToAgent, ToHusk};
use dvm_api::socket::{self, SocketError};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The husks of the one job of this kind, for those who want to see it: the root's, then members'.
static HUSKS: Mutex<Vec<OwnedFd>> = Mutex::new(Vec::new());
static LOST: Mutex<Vec<usize>> = Mutex::new(Vec::new());

/// Serves a job until one of its husks says that it is over, or none is left.
pub fn attend(husks: &[OwnedFd]) -> anyhow::Result<()> {
    *lock(&HUSKS) = husks.iter().map(OwnedFd::try_clone).collect::<Result<_, _>>()?;
    lock(&LOST).clear();
    while let Some(from) = next(husks)? {
        match socket::receive::<ToAgent>(husks[from].as_fd()) {
            Ok((ToAgent::Connect { tag, node, purpose }, _)) => connect(husks, from, tag, usize::from(node), purpose)?,
            Ok((ToAgent::Unreachable { node, .. }, _)) => lose(husks, usize::from(node)),
            Ok((ToAgent::EndJob { .. }, _)) => {
                for member in (1..husks.len()).filter(|husk| !is_lost(*husk)) {
                    socket::send(husks[member].as_fd(), &ToHusk::JobEnded, &[])?;
                }
                return Ok(());
            }
            Ok((other, _)) => anyhow::bail!("{other:?} is out of place"),
            Err(SocketError::Closed) => lose(husks, from),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Leads one who wants to see the job to the first husk that is left.
pub fn attach(client: &OwnedFd) -> anyhow::Result<()> {
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)?;
    let husks = lock(&HUSKS);
    // A husk that cannot be told anything has just been killed: its loss is not noticed yet.
    let takes = |husk: &usize| {
        let packet = ToHusk::Connection { tag: 0, node: *husk as u16, purpose: Purpose::Attach };
        !is_lost(*husk) && socket::send(husks[*husk].as_fd(), &packet, &[theirs.as_fd()]).is_ok()
    };
    (0..husks.len()).find(takes).ok_or_else(|| anyhow::anyhow!("all are lost"))?;
    Ok(socket::send(client.as_fd(), &ToHusk::Attached, &[ours.as_fd()])?)
}

fn is_lost(husk: usize) -> bool {
    lock(&LOST).contains(&husk)
}

/// The next husk that has something to say or is gone; none if all are.
fn next(husks: &[OwnedFd]) -> anyhow::Result<Option<usize>> {
    let left: Vec<usize> = (0..husks.len()).filter(|husk| !is_lost(*husk)).collect();
    let mut waited: Vec<PollFd<'_>> = left.iter().map(|husk| PollFd::new(husks[*husk].as_fd(), PollFlags::POLLIN)).collect();
    if left.is_empty() {
        return Ok(None);
    }
    poll(&mut waited, PollTimeout::NONE)?;
    let ready = waited.iter().position(|waited| waited.any().unwrap_or(true));
    Ok(ready.map(|place| left[place]))
}

fn lose(husks: &[OwnedFd], lost: usize) {
    if is_lost(lost) {
        return;
    }
    lock(&LOST).push(lost);
    let packet = ToHusk::HostLost { host: HOSTS[lost].to_owned(), reason: "its husk is gone".to_owned() };
    for husk in (0..husks.len()).filter(|husk| !is_lost(*husk)) {
        // One that is gone, too, is seen soon.
        socket::send(husks[husk].as_fd(), &packet, &[]).unwrap_or(());
    }
}

fn connect(husks: &[OwnedFd], from: usize, tag: u32, to: usize, purpose: Purpose) -> anyhow::Result<()> {
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)?;
    let handed = socket::send(husks[to].as_fd(), &ToHusk::Connection { tag: 0, node: from as u16, purpose }, &[theirs.as_fd()]);
    let answer = match handed {
        Ok(()) => socket::send(husks[from].as_fd(), &ToHusk::Connection { tag, node: to as u16, purpose }, &[ours.as_fd()]),
        Err(error) => socket::send(husks[from].as_fd(), &ToHusk::Failed { tag, reason: error.to_string() }, &[]),
    };
    // Who has asked may be gone.
    answer.unwrap_or(());
    Ok(())
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
