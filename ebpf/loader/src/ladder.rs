//! From the fastest way of attaching down to none, each kept only after a probe came back.
//!
//! Owns the order, the reasons for each step down, and the links. Must not know what the programs answer but probes.
//!
//! ```text
//!   TC attached, answers probes?  --no-->  none
//!     | yes
//!   native XDP attached, XDP and TC answer?   --yes-->  native XDP + TC
//!     | no
//!   generic XDP attached, XDP and TC answer?  --yes-->  generic XDP + TC
//!     | no
//!   TC only
//! ```
//!
//! A program that is attached is not yet one that works: on a veth whose peer end has no XDP program, for one, everything
//! native XDP sends back is dropped.
//!
//! The links are held by descriptors and never pinned. When an agent dies, SIGKILL included, the kernel closes its
//! descriptors and takes the programs off: frames go up to the agent's successor, not to maps that nobody looks after. A pin
//! would keep programs answering from the directory of an agent that is gone.

use crate::error::Error;
use crate::interface::{Interface, Occupant};
use crate::load::{FastPath, PASS_PROGRAM, TC_PROGRAM, XDP_PROGRAM};
use crate::netlink::{self, XdpFlag};
use crate::sys::{Hook, ProgramLink};
use aya::programs::{ProgramError, ProgramFd, SchedClassifier, TcAttachType};
use dsm_fast::ProbeProgram;
use nix::errno::Errno;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

/// What the operator allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Wanted {
    /// The first rung that works.
    #[default]
    Auto,
    /// Native XDP and TC, or nothing.
    Native,
    /// Generic XDP and TC, or nothing.
    Generic,
    /// TC only, or nothing.
    Tc,
    /// Nothing.
    Off,
}

impl FromStr for Wanted {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "native" => Ok(Self::Native),
            "generic" => Ok(Self::Generic),
            "tc" => Ok(Self::Tc),
            "off" => Ok(Self::Off),
            _ => Err("write auto, native, generic, tc or off"),
        }
    }
}

/// How the programs are attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rung {
    /// XDP in the driver, and TC.
    Native,
    /// XDP in the network stack, and TC.
    Generic,
    /// TC only.
    Tc,
    /// Not at all.
    None,
}

/// What is attached to an interface; dropping it takes it off.
#[derive(Debug)]
#[must_use = "dropping it takes the programs off"]
pub struct Attached {
    rung: Rung,
    reasons: Vec<String>,
    round_trip: Option<Duration>,
    links: Vec<ProgramLink>,
}

/// An XDP program that passes every frame, on an interface until dropped.
///
/// The peer end of a veth needs one for native XDP to send anything back.
#[derive(Debug)]
#[must_use = "dropping it takes the program off"]
pub struct Passing {
    _link: ProgramLink,
}

impl FastPath {
    /// Attaches to `interface` as high on the ladder as `wanted` allows and probes through `peers` prove.
    ///
    /// Blocks: 1.5 s at most for probes, and up to 5 s for each time a network card starts anew. `peers` are addresses of
    /// [`crate::Responder`]s; without any nothing is attached, since nothing can be proven. Never fails: what does not work is a
    /// reason in the answer.
    pub fn attach(&mut self, interface: &Interface, wanted: Wanted, peers: &[SocketAddr]) -> Attached {
        let mut attached = Attached { rung: Rung::None, reasons: Vec::new(), round_trip: None, links: Vec::new() };
        let modes: &[Rung] = match wanted {
            Wanted::Auto => &[Rung::Native, Rung::Generic],
            Wanted::Native => &[Rung::Native],
            Wanted::Generic => &[Rung::Generic],
            Wanted::Tc => &[],
            Wanted::Off => {
                attached.reasons.push("switched off".into());
                return attached;
            }
        };
        let tc = match self.climb_tc(interface, peers, &mut attached) {
            Ok(link) => link,
            Err(reason) => {
                attached.step(Rung::Tc, reason);
                return attached;
            }
        };
        for rung in modes {
            match self.climb_xdp(interface, *rung, peers, &mut attached) {
                Ok(xdp) => {
                    attached.rung = *rung;
                    attached.links = vec![xdp, tc];
                    return attached;
                }
                Err(reason) => attached.step(*rung, reason),
            }
        }
        if matches!(wanted, Wanted::Auto | Wanted::Tc) {
            attached.rung = Rung::Tc;
            attached.links = vec![tc];
        } else {
            attached.round_trip = None;
        }
        attached
    }

    /// Attaches a program that passes everything to interface `index`.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn attach_pass(&mut self, index: u32, is_native: bool) -> Result<Passing, Error> {
        let hook = if is_native { Hook::NativeXdp } else { Hook::GenericXdp };
        let program = descriptor(PASS_PROGRAM, self.pass()?.fd())?;
        let link = ProgramLink::create(program, index, hook).map_err(|source| Error::Attach { program: PASS_PROGRAM, source })?;
        Ok(Passing { _link: link })
    }

    /// Attaches the XDP program in generic mode as nobody should: without a link, so that it stays. For tests of what
    /// [`FastPath::attach`] does about such.
    #[doc(hidden)]
    pub fn leave_behind(&mut self, index: u32) -> Result<(), Error> {
        use std::os::fd::{AsFd, AsRawFd};
        let failed = |source| Error::Attach { program: XDP_PROGRAM, source };
        let program = descriptor(XDP_PROGRAM, self.xdp()?.fd())?;
        netlink::set_xdp(index, Some(program.as_fd().as_raw_fd()), XdpFlag::Generic).map_err(failed)
    }

    fn climb_tc(&mut self, interface: &Interface, peers: &[SocketAddr], attached: &mut Attached) -> Result<ProgramLink, String> {
        // They run first: a filter that somebody put there shall see frames before they are answered.
        let others = others_on_tc(interface);
        let program = self.tc().and_then(|program| descriptor(TC_PROGRAM, program.fd())).map_err(|error| error.told())?;
        let link = ProgramLink::create(program, interface.index, Hook::TcIngress).map_err(|error| system_reason(&error))?;
        let proven = self.probe(interface.address, peers, ProbeProgram::Tc);
        attached.round_trip = Some(proven.map_err(|reason| match others.as_slice() {
            [] => reason,
            others => format!("{reason}; before it run {}", others.join(", ")),
        })?);
        Ok(link)
    }

    fn climb_xdp(
        &mut self,
        interface: &Interface,
        rung: Rung,
        peers: &[SocketAddr],
        attached: &mut Attached,
    ) -> Result<ProgramLink, String> {
        if let Some(name) = remove_leftover(interface).map_err(|error| error.told())? {
            attached.reasons.push(format!("{rung}: took off `{name}`, left behind without a link"));
        }
        let hook = if rung == Rung::Native { Hook::NativeXdp } else { Hook::GenericXdp };
        let program = self.xdp().and_then(|program| descriptor(XDP_PROGRAM, program.fd())).map_err(|error| error.told())?;
        let link = ProgramLink::create(program, interface.index, hook).map_err(|error| refusal(interface, &error))?;
        interface.await_carrier();
        let hint = if rung == Rung::Native && interface.is_veth() { "; on veth the peer end needs an XDP program" } else { "" };
        let proven = self.probe(interface.address, peers, ProbeProgram::Xdp).map_err(|reason| format!("{reason}{hint}"))?;
        let with_it = self.probe(interface.address, peers, ProbeProgram::Tc);
        with_it.map_err(|reason| format!("with it, the TC program no longer answers: {reason}"))?;
        attached.round_trip = Some(proven);
        Ok(link)
    }
}

impl Attached {
    /// Where the ladder ended.
    #[must_use]
    pub fn rung(&self) -> Rung {
        self.rung
    }

    /// Why it is not higher: one line for each step down, such as
    /// "native XDP: EBUSY: another XDP program (name `foo`, id 12) is attached".
    #[must_use]
    pub fn reasons(&self) -> &[String] {
        &self.reasons
    }

    /// What the last probe took, of the highest program that is attached.
    #[must_use]
    pub fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    fn step(&mut self, rung: Rung, reason: impl fmt::Display) {
        self.reasons.push(format!("{rung}: {reason}"));
    }
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native XDP",
            Self::Generic => "generic XDP",
            Self::Tc => "TC",
            Self::None => "none",
        })
    }
}

/// The descriptor of a loaded program.
fn descriptor<'a>(program: &'static str, fd: Result<&'a ProgramFd, ProgramError>) -> Result<&'a ProgramFd, Error> {
    fd.map_err(|source| Error::Program { program, source: source.into() })
}

/// Takes off our own program if no descriptor holds it; gives its name.
fn remove_leftover(interface: &Interface) -> Result<Option<String>, Error> {
    let is_left = |occupant: &Occupant| occupant.name == XDP_PROGRAM && !occupant.has_link();
    let Some(left) = interface.occupants()?.into_iter().find(is_left) else { return Ok(None) };
    let failed = |source| Error::Detach { program: left.name.clone(), interface: interface.name.clone(), source };
    netlink::set_xdp(interface.index, None, left.flag).map_err(failed)?;
    Ok(Some(left.name))
}

/// Why an XDP program cannot be attached, and who is there if that is why.
fn refusal(interface: &Interface, error: &io::Error) -> String {
    let reason = system_reason(error);
    let is_taken = error.raw_os_error().is_some_and(|number| number == libc::EBUSY || number == libc::EEXIST);
    match interface.occupants() {
        Ok(occupants) if is_taken && !occupants.is_empty() => {
            let all: Vec<String> = occupants.iter().map(ToString::to_string).collect();
            format!("{reason}: another XDP program ({}) is attached", all.join("; "))
        }
        Ok(_) | Err(_) => reason,
    }
}

/// Programs that see frames before ours.
fn others_on_tc(interface: &Interface) -> Vec<String> {
    let found = SchedClassifier::query_tcx(&interface.name, TcAttachType::Ingress);
    let found = found.map(|(_, programs)| programs).unwrap_or_default();
    let name = |info: &aya::programs::ProgramInfo| match info.name_as_str() {
        Some(TC_PROGRAM) => format!("another agent's `{TC_PROGRAM}` (id {})", info.id()),
        name => format!("`{}` (id {})", name.unwrap_or_default(), info.id()),
    };
    found.iter().map(name).collect()
}

fn system_reason(error: &io::Error) -> String {
    error.raw_os_error().map_or_else(|| error.to_string(), |number| format!("{:?}", Errno::from_raw(number)))
}

impl fmt::Display for Occupant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "name `{}`, id {}", self.name, self.id)
    }
}
