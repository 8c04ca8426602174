//! A program on an interface, held by a descriptor.
//!
//! Owns two calls of bpf(2). Must not know which program it is. aya makes links, too, but gives no way to detach one at once,
//! and where it cannot make one it attaches without.
#![expect(unsafe_code, reason = "bpf(2) has no safe wrapper for links")]

use nix::errno::Errno;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

const BPF_XDP: u32 = 37;
const BPF_TCX_INGRESS: u32 = 46;
const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

/// Where a program is put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hook {
    /// XDP in the driver. Since Linux 5.9.
    NativeXdp,
    /// XDP in the network stack. Since Linux 5.9.
    GenericXdp,
    /// TC on frames that come in, after all programs that are there. Since Linux 6.6.
    TcIngress,
}

/// Commands of bpf(2) that take [`LinkAttributes`].
#[derive(Debug, Clone, Copy)]
#[repr(i64)]
enum Command {
    Create = 28,
    Detach = 34,
}

/// The part of `union bpf_attr` for links; the kernel takes the rest as zeroes.
#[repr(C)]
#[derive(Debug, Default)]
struct LinkAttributes {
    /// The program; of `Detach`, the link.
    descriptor: u32,
    interface: u32,
    attach_type: u32,
    flags: u32,
    /// Of TC: relative to whom, none; and an expected revision, none.
    more: [u64; 2],
}

/// A program on an interface, until dropped or until this process is gone.
#[derive(Debug)]
pub(crate) struct ProgramLink {
    descriptor: OwnedFd,
}

impl ProgramLink {
    /// Puts `program` on interface number `interface` of this thread's network namespace.
    pub(crate) fn create(program: impl AsFd, interface: u32, hook: Hook) -> io::Result<Self> {
        let (attach_type, flags) = match hook {
            Hook::NativeXdp => (BPF_XDP, XDP_FLAGS_DRV_MODE),
            Hook::GenericXdp => (BPF_XDP, XDP_FLAGS_SKB_MODE),
            Hook::TcIngress => (BPF_TCX_INGRESS, 0),
        };
        let descriptor = program.as_fd().as_raw_fd().cast_unsigned();
        let created = bpf(Command::Create, &LinkAttributes { descriptor, interface, attach_type, flags, more: [0; 2] })?;
        // SAFETY: the call gave a new descriptor, which nobody else owns; it is closed on exec.
        Ok(Self { descriptor: unsafe { OwnedFd::from_raw_fd(created) } })
    }
}

impl Drop for ProgramLink {
    fn drop(&mut self) {
        // At once, not when the last descriptor is closed: a child between fork and exec has one, and so has whoever lists
        // the links of this machine.
        let link = LinkAttributes { descriptor: self.descriptor.as_raw_fd().cast_unsigned(), ..LinkAttributes::default() };
        // What cannot be detached, such as one whose interface is gone, ends when the descriptor is closed.
        drop(bpf(Command::Detach, &link));
    }
}

fn bpf(command: Command, attributes: &LinkAttributes) -> io::Result<i32> {
    // SAFETY: both commands only read the attributes, which live until the call returns; no field is a pointer.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command as libc::c_long, attributes, size_of::<LinkAttributes>()) };
    Ok(Errno::result(i32::try_from(result).unwrap_or(-1))?)
}
