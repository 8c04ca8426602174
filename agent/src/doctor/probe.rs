//! The probes: each tries the real thing rather than a version number, where it can.
//!
//! Owns how something is found out. Must not judge whether it is required.

use super::Seen;
use crate::sys;
use io_uring::{IoUring, Probe, opcode};
use nix::errno::Errno;
use nix::sys::socket::{getsockopt, setsockopt, sockopt};
use std::fs::{self, File};
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Oldest kernel with everything required.
const KERNEL_MIN: (u32, u32) = (6, 1);
/// Receive buffer tried, in bytes.
const RECEIVE_BUFFER: usize = 64 << 20;

/// Features of <linux/userfaultfd.h> by bit.
const USERFAULTFD_REQUIRED: [(u32, &str); 6] = [
    (0, "write-protect"),
    (5, "missing-shmem"),
    (8, "thread-id"),
    (10, "minor-shmem"),
    (12, "write-protect-shmem"),
    (13, "write-protect-unpopulated"),
];
const USERFAULTFD_POISON: u32 = 14;

pub(super) fn yes(found: impl Into<String>) -> Seen {
    Seen { ok: true, found: found.into() }
}

pub(super) fn no(found: impl Into<String>) -> Seen {
    Seen { ok: false, found: found.into() }
}

pub(super) fn kernel() -> Seen {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= KERNEL_MIN { yes(release) } else { no(format!("release `{release}`")) }
}

fn userfaultfd_features() -> Result<u64, String> {
    let device = File::options().read(true).write(true).open("/dev/userfaultfd");
    let device = device.map_err(|error| format!("/dev/userfaultfd: {error}"))?;
    sys::userfaultfd_features(&device).map_err(|error| format!("/dev/userfaultfd: UFFDIO_API: {error}"))
}

pub(super) fn userfaultfd() -> Seen {
    match userfaultfd_features() {
        Err(reason) => no(reason),
        Ok(features) => {
            let missing = USERFAULTFD_REQUIRED.iter().filter(|(bit, _)| features >> bit & 1 == 0);
            let missing: Vec<&str> = missing.map(|(_, name)| *name).collect();
            if missing.is_empty() { yes(format!("features {features:#x}")) } else { no(format!("lacks {}", missing.join(", "))) }
        }
    }
}

pub(super) fn userfaultfd_poison() -> Seen {
    match userfaultfd_features() {
        Ok(features) if features >> USERFAULTFD_POISON & 1 == 1 => yes("UFFDIO_POISON"),
        Ok(features) => no(format!("features {features:#x} lack UFFDIO_POISON")),
        Err(reason) => no(reason),
    }
}

pub(super) fn io_uring() -> Seen {
    let ring = match IoUring::new(4) {
        Ok(ring) => ring,
        Err(error) => return no(format!("io_uring_setup: {error}")),
    };
    let mut probe = Probe::new();
    if let Err(error) = ring.submitter().register_probe(&mut probe) {
        return no(format!("its operations cannot be listed: {error}"));
    }
    let needed = [
        (opcode::RecvMsg::CODE, "recvmsg"),
        (opcode::SendMsg::CODE, "sendmsg"),
        (opcode::PollAdd::CODE, "poll_add"),
        (opcode::SendZc::CODE, "send_zc (stands for multishot receive)"),
    ];
    if let Some((_, name)) = needed.iter().find(|(code, _)| !probe.is_supported(*code)) {
        return no(format!("lacks {name}"));
    }
    let deferred = IoUring::<io_uring::squeue::Entry>::builder().setup_single_issuer().setup_defer_taskrun().build(4);
    match deferred {
        Ok(_) => yes("multishot receive, deferred task run"),
        Err(error) => yes(format!("multishot receive; no deferred task run ({error}): a little slower")),
    }
}

pub(super) fn receive_buffer() -> Seen {
    let socket = match UdpSocket::bind("127.0.0.1:0") {
        Ok(socket) => socket,
        Err(error) => return no(format!("no UDP socket: {error}")),
    };
    let forced = setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER);
    if forced.is_err() && setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER).is_err() {
        return no("SO_RCVBUF is refused");
    }
    // The kernel doubles what is asked for.
    match (getsockopt(&socket, sockopt::RcvBuf), forced) {
        (Ok(bytes), _) if bytes >= RECEIVE_BUFFER => yes(format!("{bytes} bytes")),
        (Ok(bytes), Err(Errno::EPERM)) => {
            no(format!("SO_RCVBUFFORCE is refused (EPERM), net.core.rmem_max allows {bytes} bytes"))
        }
        (Ok(bytes), _) => no(format!("{bytes} bytes at most")),
        (Err(error), _) => no(format!("SO_RCVBUF cannot be read: {error}")),
    }
}

/// The capabilities this process has in effect, a bit each.
pub(super) fn effective_capabilities() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    line.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok()).unwrap_or(0)
}

/// Whether this process has capability number `bit` in its effective set.
pub(super) fn capability(bit: u32) -> Seen {
    let set = effective_capabilities();
    if set >> bit & 1 == 1 { yes(format!("effective set {set:x}")) } else { no(format!("not in the effective set {set:x}")) }
}

pub(super) fn fsgsbase() -> Seen {
    if sys::has_fsgsbase() { yes("AT_HWCAP2 has it") } else { no("AT_HWCAP2 lacks it") }
}

pub(super) fn dispatch() -> Seen {
    if sys::has_syscall_user_dispatch() { yes("prctl accepts it") } else { no("prctl refuses it") }
}

pub(super) fn memory() -> Seen {
    match nix::sys::memfd::memfd_create("dvm-doctor", nix::sys::memfd::MFdFlags::MFD_CLOEXEC) {
        Ok(_) => yes("memfd_create works"),
        Err(error) => no(format!("memfd_create: {error}")),
    }
}

pub(super) fn tools() -> Seen {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories: Vec<_> = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]).collect();
    let is_there = |tool: &&str| directories.iter().any(|directory| directory.join(tool).is_file());
    let missing: Vec<&str> = ["ip", "nsenter"].into_iter().filter(|tool| !is_there(tool)).collect();
    if missing.is_empty() { yes("ip, nsenter") } else { no(format!("no {}", missing.join(", "))) }
}

pub(super) fn executor(path: &Path) -> Seen {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() && metadata.permissions().mode() & 0o005 == 0o005 => yes(path.display().to_string()),
        Ok(_) => no(format!("{} is not executable for all users", path.display())),
        Err(error) => no(format!("{}: {error}", path.display())),
    }
}
