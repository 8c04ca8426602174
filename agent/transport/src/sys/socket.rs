//! UDP sockets with the options the transport wants, and the kernel's randomness.
//!
//! Owns setsockopt. Must not know what the sockets carry.
#![expect(unsafe_code, reason = "setsockopt and getrandom")]

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};

const IP_PMTUDISC_PROBE: libc::c_int = 3;

/// Options of a socket to be bound.
pub(crate) struct SocketOptions {
    /// Wanted size of receive and send buffer.
    pub(crate) buffer_bytes: usize,
    /// Queueing priority on the way out, 0 to 6.
    pub(crate) priority: libc::c_int,
}

/// Binds a UDP socket to `address`. Returns it with the receive buffer's real size, in bytes.
pub(crate) fn bind(address: SocketAddr, options: &SocketOptions) -> io::Result<(UdpSocket, usize)> {
    let socket = UdpSocket::bind(address)?;
    let fd = socket.as_raw_fd();
    let wanted = libc::c_int::try_from(options.buffer_bytes).unwrap_or(libc::c_int::MAX);
    for (forced, plain) in [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)] {
        if set(fd, libc::SOL_SOCKET, forced, wanted).is_err() {
            set(fd, libc::SOL_SOCKET, plain, wanted)?;
        }
    }
    set(fd, libc::SOL_SOCKET, libc::SO_PRIORITY, options.priority)?;
    // Never let the kernel fragment, and never believe a stranger's word about the path: our frames fit the configured MTU.
    match address {
        SocketAddr::V4(_) => set(fd, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, IP_PMTUDISC_PROBE)?,
        SocketAddr::V6(_) => set(fd, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, IP_PMTUDISC_PROBE)?,
    }
    // The kernel reports twice the usable size.
    let received = get(fd, libc::SOL_SOCKET, libc::SO_RCVBUF)? / 2;
    Ok((socket, usize::try_from(received).unwrap_or(0)))
}

/// Lets the kernel hand over datagrams of one sender joined, those it cut for that sender and those it joined itself; each is
/// as long as its header says.
pub(crate) fn set_joined(socket: &UdpSocket) -> io::Result<()> {
    set(socket.as_raw_fd(), libc::SOL_UDP, libc::UDP_GRO, 1)
}

/// Has the kernel cut longer sends into datagrams of `bytes` bytes (0: not at all).
pub(crate) fn set_segment(socket: &UdpSocket, bytes: usize) -> io::Result<()> {
    let bytes = libc::c_int::try_from(bytes).map_err(|_| io::ErrorKind::InvalidInput)?;
    set(socket.as_raw_fd(), libc::SOL_UDP, libc::UDP_SEGMENT, bytes)
}

/// `N` random bytes.
pub(crate) fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0u8; N];
    // SAFETY: the pointer and length are those of a live array.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), N, 0) };
    match usize::try_from(got) {
        Ok(got) if got == N => Ok(bytes),
        Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

fn set(fd: RawFd, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: value lives across the call and length is its size.
    match unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), length) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn get(fd: RawFd, level: libc::c_int, name: libc::c_int) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: value and length live across the call, and length is value's size.
    match unsafe { libc::getsockopt(fd, level, name, (&raw mut value).cast(), &raw mut length) } {
        0 => Ok(value),
        _ => Err(io::Error::last_os_error()),
    }
}
