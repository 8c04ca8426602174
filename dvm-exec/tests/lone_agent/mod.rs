//! An agent for one machine: every "host" of a job is a husk on this machine, and all map the same memfd.
//!
//! Owns the control socket's protocol as a husk sees it. Must not know the page protocol: coherence is the machine's own.
//! It lets the executor be tested with real programs on several husks without any network.

mod agreed;
mod sys;

use dvm_api::features::CpuFeatures;
use dvm_api::local::{JobOpened, Member, Purpose, ToAgent, ToHusk};
use dvm_api::socket;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, accept4, bind, listen, socketpair};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use uffd_dsm::{Backing, Drained, Pager};

const HOSTS: [&str; 4] = ["one", "two", "three", "four"];

/// Serves jobs on `socket` for ever; each gets `hosts` husks, started from `exec`.
pub fn serve(path: &Path, exec: &Path, hosts: usize) -> anyhow::Result<()> {
    let listener = nix::sys::socket::socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
    if path.exists() {
        std::fs::remove_file(path)?;
    }
    bind(std::os::fd::AsRawFd::as_raw_fd(&listener), &UnixAddr::new(path)?)?;
    listen(&listener, Backlog::new(16)?)?;
    loop {
        let raw = accept4(std::os::fd::AsRawFd::as_raw_fd(&listener), SockFlag::SOCK_CLOEXEC)?;
        let client = sys::adopt(raw);
        let exec = exec.to_owned();
        std::thread::spawn(move || {
            let mut husks = Vec::new();
            if let Err(error) = job(&client, &exec, hosts, &mut husks) {
                eprintln!("lone agent: {error:#}");
            }
            for husk in &mut husks {
                if husk.kill().and_then(|()| husk.wait()).is_err() {
                    eprintln!("lone agent: a husk could not be ended");
                }
            }
        });
    }
}

fn start_husk(exec: &Path) -> anyhow::Result<(Child, OwnedFd)> {
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    // The shell moves the socket from descriptor 0 to 3, where a husk expects it.
    let husk = Command::new("/bin/sh")
        .args(["-c", "exec \"$0\" --husk 3<&0 </dev/null"])
        .arg(exec)
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .spawn()?;
    Ok((husk, ours))
}

struct Job {
    opened: JobOpened,
    backing: Backing,
    device: File,
}

impl Job {
    fn tell(&self, husk: BorrowedFd<'_>, me: u16) -> anyhow::Result<()> {
        let packet = ToHusk::JobOpened(JobOpened { me, ..self.opened.clone() });
        Ok(socket::send(husk, &packet, &[self.backing.as_fd(), self.device.as_fd()])?)
    }

    fn take_view(&self, husk: BorrowedFd<'_>) -> anyhow::Result<()> {
        let (packet, mut descriptors) = socket::receive::<ToAgent>(husk)?;
        anyhow::ensure!(packet == ToAgent::ViewReady, "expected a view, got {packet:?}");
        let mut pager = Pager::new(self.duplicate()?);
        pager.attach_view(descriptors.pop().ok_or_else(|| anyhow::anyhow!("no userfaultfd came"))?)?;
        std::thread::spawn(move || {
            // Ends with its husk.
            if let Err(error) = page(&mut pager) {
                eprintln!("lone agent: pager: {error:#}");
            }
        });
        Ok(socket::send(husk, &ToHusk::ViewAccepted, &[])?)
    }

    fn duplicate(&self) -> anyhow::Result<Backing> {
        Ok(Backing::from_fd(self.backing.as_fd().try_clone_to_owned()?)?)
    }
}

fn page(pager: &mut Pager) -> anyhow::Result<()> {
    let mut faults = Vec::new();
    loop {
        {
            let Some(descriptor) = pager.fault_fd() else { return Ok(()) };
            let mut waited = [PollFd::new(descriptor, PollFlags::POLLIN)];
            poll(&mut waited, PollTimeout::NONE)?;
            if waited[0].revents().is_some_and(|events| events.intersects(PollFlags::POLLHUP | PollFlags::POLLERR)) {
                return Ok(());
            }
        }
        faults.clear();
        while pager.drain_faults(&mut faults)? == Drained::More {}
        for fault in &faults {
            pager.refresh(fault.page, true)?;
        }
    }
}

fn job(root: &OwnedFd, exec: &Path, hosts: usize, husks: &mut Vec<Child>) -> anyhow::Result<()> {
    let request = match socket::receive::<ToAgent>(root.as_fd())?.0 {
        ToAgent::OpenJob { job, .. } => job,
        ToAgent::Attach { .. } => return agreed::attach(root),
        other => anyhow::bail!("expected a job, got {other:?}"),
    };
    let cpu = CpuFeatures::of_this_host();
    let member = |node: usize| Member { node: node as u16, name: HOSTS[node].to_owned(), cpus: 2, monotonic_offset_ns: 0, cpu };
    let outlives_root = request.outlives_root;
    let members = (0..hosts).map(member).collect();
    let opened = JobOpened { space: 7, me: 0, root: 0, members, outlives_root, job_key: [9; 16] };
    let job = Job { opened, backing: Backing::create("lone-space")?, device: uffd_dsm::open_userfaultfd_device()? };
    let mut sockets = Vec::new();
    for node in 1..hosts {
        let (husk, socket) = start_husk(exec)?;
        husks.push(husk);
        let (packet, _) = socket::receive::<ToAgent>(socket.as_fd())?;
        anyhow::ensure!(matches!(packet, ToAgent::JoinJob { .. }), "expected a member, got {packet:?}");
        job.tell(socket.as_fd(), node as u16)?;
        job.take_view(socket.as_fd())?;
        sockets.push(socket);
    }
    job.tell(root.as_fd(), 0)?;
    job.take_view(root.as_fd())?;
    if outlives_root {
        sockets.insert(0, root.try_clone()?);
        return agreed::attend(&sockets);
    }
    attend(root, &job, &sockets)
}

fn attend(root: &OwnedFd, job: &Job, members: &[OwnedFd]) -> anyhow::Result<()> {
    let mut pager = Pager::new(job.duplicate()?);
    loop {
        let packet = match socket::receive::<ToAgent>(root.as_fd()) {
            Ok((packet, _)) => packet,
            Err(socket::SocketError::Closed) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        match packet {
            ToAgent::Source { tag, .. } => {
                let reason = "this agent reads no files".to_owned();
                socket::send(root.as_fd(), &ToHusk::Failed { tag, reason }, &[])?;
            }
            ToAgent::Discard { tag, range, .. } => {
                let first = dsm_wire::PageNumber(range.first);
                pager.drop_pages(dsm_wire::PageRange::new(first, range.count))?;
                socket::send(root.as_fd(), &ToHusk::Completed { tag }, &[])?;
            }
            ToAgent::AskHome { tag } => {
                let reason = "this agent's pages are everywhere".to_owned();
                socket::send(root.as_fd(), &ToHusk::Failed { tag, reason }, &[])?;
            }
            // It keeps nothing: its tests' children need no consistent picture.
            ToAgent::Pin { tag, .. } | ToAgent::StopWriters { tag } => {
                socket::send(root.as_fd(), &ToHusk::Completed { tag }, &[])?;
            }
            ToAgent::Unpin | ToAgent::LetWrite => {}
            ToAgent::Connect { tag, node, purpose } => connect(root, members, tag, node, purpose)?,
            ToAgent::Statistics { tag } => {
                socket::send(root.as_fd(), &ToHusk::JobStatistics { tag, hosts: Vec::new() }, &[])?;
            }
            ToAgent::EndJob { .. } => {
                for member in members {
                    socket::send(member.as_fd(), &ToHusk::JobEnded, &[])?;
                }
                return Ok(());
            }
            other => anyhow::bail!("{other:?} is out of place"),
        }
    }
}

fn connect(root: &OwnedFd, members: &[OwnedFd], tag: u32, node: u16, purpose: Purpose) -> anyhow::Result<()> {
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)?;
    let member = members.get(usize::from(node) - 1).ok_or_else(|| anyhow::anyhow!("no host {node}"))?;
    socket::send(member.as_fd(), &ToHusk::Connection { tag: 0, node: 0, purpose }, &[theirs.as_fd()])?;
    Ok(socket::send(root.as_fd(), &ToHusk::Connection { tag, node, purpose }, &[ours.as_fd()])?)
}

/// Where a test may put its socket.
pub fn socket_path(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("dvm-lone-{}-{name}.sock", std::process::id()))
}
