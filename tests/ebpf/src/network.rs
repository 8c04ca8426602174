//! A network namespace of this process's own, with interfaces that lead nowhere, and what is sent out of them.
//!
//! Owns addresses, neighbours and the socket that listens. Must not know frames.

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
    /// Whether frames that come in by it may be sent on.
    pub forwards: bool,
    /// Its Ethernet address.
    pub address: [u8; 6],
}

/// The namespace.
#[derive(Debug)]
pub struct Network {
    /// One that forwards, one that does not, and one that frames are sent on by.
    pub interfaces: [Interface; 3],
    ear: OwnedFd,
}

/// What the kernel knows of the way to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Ethernet address of this end.
    pub from: [u8; 6],
    /// Ethernet address of the other end.
    pub to: [u8; 6],
    /// Whether it leads out of the interface that was asked about.
    pub is_back: bool,
}

/// Second byte of the addresses behind the first interface, and behind the third.
const NETS: [u8; 2] = [78, 79];
/// Neighbours in each net have last bytes from 2 up to here, if even.
const NEIGHBOURS_MAX: u8 = 40;

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
            let forwards = number == 0;
            let path = format!("/proc/sys/net/ipv4/conf/{name}/forwarding");
            fs::write(&path, if forwards { "1" } else { "0" }).with_context(|| format!("cannot write {path}"))?;
            interfaces.push(Interface { index: if_nametoindex(name.as_str())?, forwards, address: address_of(&name)? });
        }
        for (net, name) in NETS.into_iter().zip(["d0", "d2"]) {
            ip(&["addr", "add", &format!("10.{net}.0.1/24"), "dev", name])?;
            for last in (2..=NEIGHBOURS_MAX).step_by(2) {
                let there = ethernet(&neighbour(net, last));
                ip(&["neigh", "add", &format!("10.{net}.0.{last}"), "lladdr", &there, "dev", name, "nud", "permanent"])?;
            }
        }
        let ear = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_NONBLOCK, SockProtocol::EthAll)?;
        setsockopt(&ear, sockopt::RcvBufForce, &RECEIVE_BYTES)?;
        let interfaces = interfaces.try_into().map_err(|_| anyhow::anyhow!("three interfaces were made"))?;
        Ok(Self { interfaces, ear })
    }

    /// How frames that come in by `interface` get to `address`; none if the kernel does not know.
    #[must_use]
    pub fn route(&self, interface: usize, address: [u8; 4]) -> Option<Hop> {
        let [10, net, 0, last] = address else { return None };
        let out = [0, 2][NETS.iter().position(|known| *known == net)?];
        let is_known = (2..=NEIGHBOURS_MAX).contains(&last) && last.is_multiple_of(2) && self.interfaces[interface].forwards;
        is_known.then(|| Hop { from: self.interfaces[out].address, to: neighbour(net, last), is_back: out == interface })
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

fn neighbour(net: u8, last: u8) -> [u8; 6] {
    [2, 0, 0, net, 0, last]
}

fn ethernet(address: &[u8; 6]) -> String {
    address.map(|byte| format!("{byte:02x}")).join(":")
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
