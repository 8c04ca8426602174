//! The interface an agent's address is on.
//!
//! Owns finding it and naming the programs on it. Must not attach anything.

use crate::error::{Error, errno};
use crate::load::{TC_PROGRAM, XDP_PROGRAM};
use crate::netlink::{self, XdpFlag};
use aya::programs::links::{LinkInfo, LinkType};
use aya::programs::{ProgramError, ProgramInfo, SchedClassifier, TcAttachType, loaded_links, loaded_programs};
use nix::ifaddrs::getifaddrs;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::SockaddrStorage;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Longest wait for a carrier: network cards start anew when a program comes.
const CARRIER_PATIENCE: Duration = Duration::from_secs(5);
const CARRIER_STEP: Duration = Duration::from_millis(20);

/// A network interface of this thread's network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its number.
    pub index: u32,
    /// The agent's address on it.
    pub address: IpAddr,
}

/// An XDP program that is attached to an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Occupant {
    /// None if this process may not ask, which takes CAP_SYS_ADMIN.
    pub(crate) name: Option<String>,
    pub(crate) id: u32,
    pub(crate) flag: XdpFlag,
}

impl Occupant {
    /// Whether somebody's descriptor holds it; otherwise it stays when its maker is gone.
    pub(crate) fn has_link(&self) -> bool {
        let is_its = |link: &LinkInfo| link.program_id() == self.id && link.link_type().is_ok_and(|kind| kind == LinkType::Xdp);
        loaded_links().filter_map(Result::ok).any(|link| is_its(&link))
    }
}

impl fmt::Display for Occupant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "name `{name}`, id {}", self.id),
            None => write!(f, "id {}", self.id),
        }
    }
}

/// Several of them, for a message.
pub(crate) fn listed(occupants: &[Occupant]) -> String {
    occupants.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl Interface {
    /// The interface that has `address`.
    ///
    /// # Errors
    /// None has it, or the kernel does not say.
    pub fn of(address: IpAddr) -> Result<Self, Error> {
        let failed = |source: nix::Error| Error::Query { what: "the interfaces' addresses".into(), source: source.into() };
        let is_it = |storage: &SockaddrStorage| match address {
            IpAddr::V4(address) => storage.as_sockaddr_in().is_some_and(|found| found.ip() == address),
            IpAddr::V6(address) => storage.as_sockaddr_in6().is_some_and(|found| found.ip() == address),
        };
        let mut interfaces = getifaddrs().map_err(failed)?;
        let found = interfaces.find(|interface| interface.address.as_ref().is_some_and(is_it));
        let name = found.ok_or(Error::NoInterface { address })?.interface_name;
        let index = if_nametoindex(name.as_str()).map_err(failed)?;
        Ok(Self { name, index, address })
    }

    /// The XDP programs on it that are not a running agent's, by name and number; none if there is none.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn strangers(&self) -> Result<Option<String>, Error> {
        let mut strangers = self.occupants()?;
        strangers.retain(|occupant| occupant.name.as_deref() != Some(XDP_PROGRAM) || !occupant.has_link());
        Ok(if strangers.is_empty() { None } else { Some(listed(&strangers)) })
    }

    /// The TC programs on what comes to it that are not an agent's, by name and number; none if there is none. Since Linux 6.6.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn tc_strangers(&self) -> Result<Option<String>, Error> {
        let mut strangers = self.tc_programs()?;
        strangers.retain(|program| program.name_as_str() != Some(TC_PROGRAM));
        let told = |program: &ProgramInfo| format!("name `{}`, id {}", program.name_as_str().unwrap_or_default(), program.id());
        Ok(if strangers.is_empty() { None } else { Some(strangers.iter().map(told).collect::<Vec<_>>().join("; ")) })
    }

    /// The TC programs on what comes to it, in their order.
    pub(crate) fn tc_programs(&self) -> Result<Vec<ProgramInfo>, Error> {
        let failed = |source| Error::Query { what: format!("the TC programs on {}", self.name), source: system(&source) };
        SchedClassifier::query_tcx(&self.name, TcAttachType::Ingress).map(|(_, programs)| programs).map_err(failed)
    }

    /// Whether its driver has native XDP. Since Linux 6.3; none before.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn has_native_xdp(&self) -> Result<Option<bool>, Error> {
        let failed = |source| Error::Query { what: format!("the XDP features of {}", self.name), source };
        let features = netlink::xdp_features(self.index).map_err(failed)?;
        Ok(features.map(|features| features & netlink::XDP_BASIC != 0))
    }

    pub(crate) fn is_veth(&self) -> bool {
        netlink::link(self.index).is_ok_and(|link| link.kind == "veth")
    }

    /// Waits until the interface has a carrier, for a while.
    pub(crate) fn await_carrier(&self) {
        let deadline = Instant::now() + CARRIER_PATIENCE;
        while netlink::link(self.index).is_ok_and(|link| !link.is_running) && Instant::now() < deadline {
            sleep(CARRIER_STEP);
        }
    }

    /// The XDP programs on it.
    pub(crate) fn occupants(&self) -> Result<Vec<Occupant>, Error> {
        let failed = |source| Error::Query { what: format!("the programs on {}", self.name), source };
        let link = netlink::link(self.index).map_err(failed)?;
        let occupant = |(flag, id): &(XdpFlag, u32)| Occupant { name: program_name(*id), id: *id, flag: *flag };
        Ok(link.xdp.iter().map(occupant).collect())
    }
}

/// Whether this kernel lets programs on TC be held by links. Since Linux 6.6.
///
/// # Errors
/// It does not, or this process may not ask.
pub fn has_tcx() -> Result<(), Error> {
    let failed = |source| Error::Query { what: "the TC programs of lo, as links".into(), source: system(&source) };
    SchedClassifier::query_tcx("lo", TcAttachType::Ingress).map(drop).map_err(failed)
}

fn system(error: &ProgramError) -> io::Error {
    io::Error::from_raw_os_error(errno(error).unwrap_or(libc::EINVAL))
}

fn program_name(id: u32) -> Option<String> {
    let info = loaded_programs().filter_map(Result::ok).find(|info| info.id() == id)?;
    info.name_as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_is_found_by_its_address() {
        let loopback = Interface::of([127, 0, 0, 1].into()).unwrap();
        assert_eq!((loopback.name.as_str(), loopback.index), ("lo", 1));
        assert!(!loopback.is_veth());
        assert_ne!(loopback.has_native_xdp().unwrap(), Some(true));
        // TEST-NET-3 is nobody's.
        assert!(matches!(Interface::of([203, 0, 113, 1].into()), Err(Error::NoInterface { .. })));
    }
}
