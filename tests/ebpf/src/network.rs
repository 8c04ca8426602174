//! A network namespace of this process's own, with interfaces that lead nowhere, and what is sent out of them.
//!
//! Owns addresses and the socket that listens. Must not know frames.

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, setsockopt, socket, sockopt};
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::process::Command;

const IPV6: &str = "/proc/sys/net/ipv6/conf/default/disable_ipv6";
const LONGEST_FRAME: usize = 16 << 10;
/// Room for a page.
const MTU: &str = "9000";
const RECEIVE_BYTES: usize = 8 << 20;
const PACKET_OUTGOING: u8 = 4;

/// An interface that frames come in by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its number.
    pub index: u32,
    /// Its Ethernet address.
    pub address: [u8; 6],
}

/// The namespace.
#[derive(Debug)]
pub struct Network {
    /// All of them.
    pub interfaces: [Interface; 3],
    ear: OwnedFd,
}

impl Network {
    /// Moves this process to a namespace of its own.
    ///
    /// # Errors
    /// It may not, or there is no `ip`, or no veth.
    pub fn enter() -> Result<Self> {
        unshare(CloneFlags::CLONE_NEWNET).context("cannot make a network namespace")?;
        // Its own frames would be taken for what programs send.
        if Path::new(IPV6).exists() {
            fs::write(IPV6, "1").context("cannot turn IPv6 off")?;
        }
        ip(&["link", "set", "lo", "up"])?;
        let mut interfaces = Vec::new();
        for number in 0..3 {
            let (name, peer) = (format!("d{number}"), format!("p{number}"));
            ip(&["link", "add", &name, "mtu", MTU, "type", "veth", "peer", "name", &peer, "mtu", MTU])?;
            ip(&["link", "set", &name, "up"])?;
            ip(&["link", "set", &peer, "up"])?;
            interfaces.push(Interface { index: if_nametoindex(name.as_str())?, address: address_of(&name)? });
        }
        let ear = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_NONBLOCK, SockProtocol::EthAll)?;
        setsockopt(&ear, sockopt::RcvBufForce, &RECEIVE_BYTES)?;
        let interfaces = interfaces.try_into().map_err(|_| anyhow::anyhow!("three interfaces were made"))?;
        Ok(Self { interfaces, ear })
    }

    /// The frames that were sent out of the interfaces since the last call.
    ///
    /// # Errors
    /// The socket fails.
    pub fn sent(&self) -> Result<Vec<(u32, Vec<u8>)>> {
        let mut frames = Vec::new();
        let mut buffer = [0; LONGEST_FRAME];
        loop {
            match recvfrom::<LinkAddr>(self.ear.as_raw_fd(), &mut buffer) {
                Ok((length, Some(from))) => {
                    let is_ours = self.interfaces.iter().any(|interface| interface.index == from.ifindex() as u32);
                    if is_ours && from.pkttype() == PACKET_OUTGOING {
                        frames.push((from.ifindex() as u32, buffer[..length].to_vec()));
                    }
                }
                Ok((_, None)) => {}
                Err(Errno::EAGAIN) => return Ok(frames),
                Err(error) => return Err(error).context("cannot read what was sent"),
            }
        }
    }
}

fn address_of(name: &str) -> Result<[u8; 6]> {
    // sysfs still shows the namespace this process was in.
    let output = Command::new("ip").args(["-o", "link", "show", "dev", name]).output().context("cannot start `ip`")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let told = text.split("link/ether ").nth(1).and_then(|rest| rest.split(' ').next()).context("`ip link` shows no address")?;
    let bytes: Vec<u8> = told.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect::<Result<_, _>>()?;
    bytes.try_into().map_err(|_| anyhow::anyhow!("{told} is no Ethernet address"))
}

fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(arguments).output().context("cannot start `ip` (package iproute2)")?;
    ensure!(output.status.success(), "ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
