//! From the fastest way of attaching down to none, each kept only after a probe came back.
//!
//! Owns the order, the reasons for each step down, and the links. Must not know what the programs answer but probes.
//!
//! ```text
//!   TC attached, answers probes?              --no-->   generic XDP attached, answers probes?   --yes-->  generic XDP
//!     | yes                                               | no
//!     |                                                 none
//!   native XDP attached, XDP and TC answer?   --yes-->  native XDP and TC
//!     | no
//!   TC
//! ```
//!
//! Generic XDP and TC are never attached together. The kernel copies most frames for generic XDP, which costs more than it saves
//! beside TC; and the copy forgets how long the Ethernet header was, so that what TC then sends to a neighbour or clones is lost.
//!
//! A program that is attached is not yet one that works: on a veth whose peer end has no XDP program, for one, everything
//! native XDP sends back is dropped.
//!
//! The links are held by descriptors and never pinned. When an agent dies, SIGKILL included, the kernel closes its
//! descriptors and takes the programs off: frames go up to the agent's successor, not to maps that nobody looks after. A pin
//! would keep programs answering from the directory of an agent that is gone.

use crate::error::Error;
use crate::interface::{Interface, Occupant, listed};
use crate::load::{FastPath, PASS_PROGRAM, TC_PROGRAM, XDP_PROGRAM};
use crate::netlink::{self, XdpFlag};
use crate::sys::{Hook, ProgramLink};
use aya::programs::{ProgramError, ProgramFd, ProgramInfo};
use dsm_fast::ProbeProgram;
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
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
    /// Generic XDP without TC, or nothing.
    Generic,
    /// TC without XDP, or nothing.
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
    /// TC without XDP.
    Tc,
    /// XDP in the network stack, without TC.
    Generic,
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

/// A program that is attached, and what its probe took.
struct Proven {
    link: ProgramLink,
    round_trip: Duration,
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
    /// Blocks: 900 ms at most for probes, and up to 5 s for each time a network card starts anew. `peers` are addresses of
    /// [`crate::Responder`]s; without any nothing is attached, since nothing can be proven. Never fails: what does not work is a
    /// reason in the answer.
    pub fn attach(&mut self, interface: &Interface, wanted: Wanted, peers: &[SocketAddr]) -> Attached {
        let mut attached = Attached { rung: Rung::None, reasons: Vec::new(), round_trip: None, links: Vec::new() };
        if wanted == Wanted::Off || peers.is_empty() {
            let reason = if wanted == Wanted::Off { "switched off" } else { "no peer to probe with" };
            attached.reasons.push(reason.into());
            return attached;
        }
        match remove_leftover(interface) {
            Ok(None) => {}
            Ok(Some(name)) => attached.reasons.push(format!("took off `{name}`, left behind without a link")),
            Err(error) => attached.reasons.push(error.told()),
        }
        if wanted != Wanted::Generic {
            match self.climb_tc(interface, peers) {
                Ok(tc) => self.climb_above_tc(interface, wanted, peers, tc, &mut attached),
                Err(reason) => attached.step(Hook::TcIngress, reason),
            }
        }
        if attached.links.is_empty() && matches!(wanted, Wanted::Auto | Wanted::Generic) {
            match self.climb_generic(interface, peers) {
                Ok(xdp) => attached.hold(Rung::Generic, [xdp]),
                Err(reason) => attached.step(Hook::GenericXdp, reason),
            }
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

    /// Puts the program that passes everything on interface `name`, natively and without a link: it stays until it is taken off or the
    /// interface goes, whatever becomes of this process.
    ///
    /// # Errors
    /// No such interface, or the kernel refuses.
    pub fn leave_pass(&mut self, name: &str) -> Result<(), Error> {
        let failed = |source| Error::Attach { program: PASS_PROGRAM, source };
        let index = if_nametoindex(name).map_err(|errno| failed(errno.into()))?;
        let program = descriptor(PASS_PROGRAM, self.pass()?.fd())?;
        netlink::set_xdp(index, Some(program.as_fd().as_raw_fd()), XdpFlag::Native).map_err(failed)
    }

    /// Attaches the XDP program in generic mode as nobody should: without a link, so that it stays. For tests of what
    /// [`FastPath::attach`] does about such.
    #[doc(hidden)]
    pub fn leave_behind(&mut self, index: u32) -> Result<(), Error> {
        let failed = |source| Error::Attach { program: XDP_PROGRAM, source };
        let program = descriptor(XDP_PROGRAM, self.xdp()?.fd())?;
        netlink::set_xdp(index, Some(program.as_fd().as_raw_fd()), XdpFlag::Generic).map_err(failed)
    }

    fn climb_tc(&mut self, interface: &Interface, peers: &[SocketAddr]) -> Result<Proven, String> {
        // They run first: a filter that somebody put there shall see frames before they are answered.
        let others = others_before_tc(interface);
        let program = self.tc().and_then(|program| descriptor(TC_PROGRAM, program.fd())).map_err(|error| error.told())?;
        let link = ProgramLink::create(program, interface.index, Hook::TcIngress).map_err(|error| system_reason(&error))?;
        let proven = self.probe(interface.address, peers, ProbeProgram::Tc);
        let round_trip = proven.map_err(|reason| match others.as_slice() {
            [] => reason,
            others => format!("{reason}; before it run {}", others.join(", ")),
        })?;
        Ok(Proven { link, round_trip })
    }

    /// Native XDP beside `tc`, or `tc` by itself if that is allowed.
    fn climb_above_tc(
        &mut self,
        interface: &Interface,
        wanted: Wanted,
        peers: &[SocketAddr],
        tc: Proven,
        attached: &mut Attached,
    ) {
        if wanted != Wanted::Tc {
            match self.climb_native(interface, peers) {
                Ok(xdp) => return attached.hold(Rung::Native, [xdp, tc]),
                Err(reason) => attached.step(Hook::NativeXdp, reason),
            }
        }
        if wanted != Wanted::Native {
            attached.hold(Rung::Tc, [tc]);
        }
    }

    fn climb_native(&mut self, interface: &Interface, peers: &[SocketAddr]) -> Result<Proven, String> {
        let hint = if interface.is_veth() { "; on veth the peer end needs an XDP program" } else { "" };
        let silent = |reason| format!("{reason}{hint}");
        let link = self.attach_xdp(interface, Hook::NativeXdp)?;
        let round_trip = self.probe(interface.address, peers, ProbeProgram::Xdp).map_err(silent)?;
        let with_it = self.probe(interface.address, peers, ProbeProgram::Tc);
        with_it.map_err(|reason| format!("with it, the TC program no longer answers: {reason}"))?;
        Ok(Proven { link, round_trip })
    }

    fn climb_generic(&mut self, interface: &Interface, peers: &[SocketAddr]) -> Result<Proven, String> {
        let link = self.attach_xdp(interface, Hook::GenericXdp)?;
        let round_trip = self.probe(interface.address, peers, ProbeProgram::Xdp)?;
        Ok(Proven { link, round_trip })
    }

    fn attach_xdp(&mut self, interface: &Interface, hook: Hook) -> Result<ProgramLink, String> {
        let program = self.xdp().and_then(|program| descriptor(XDP_PROGRAM, program.fd())).map_err(|error| error.told())?;
        let link = ProgramLink::create(program, interface.index, hook).map_err(|error| refusal(interface, &error))?;
        interface.await_carrier();
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

    /// Ends the ladder here; the highest program comes first.
    fn hold<const COUNT: usize>(&mut self, rung: Rung, programs: [Proven; COUNT]) {
        self.rung = rung;
        self.round_trip = programs.first().map(|program| program.round_trip);
        self.links = programs.into_iter().map(|program| program.link).collect();
    }

    fn step(&mut self, hook: Hook, reason: impl fmt::Display) {
        self.reasons.push(format!("{hook}: {reason}"));
    }
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native XDP and TC",
            Self::Tc => "TC",
            Self::Generic => "generic XDP",
            Self::None => "none",
        })
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NativeXdp => "native XDP",
            Self::GenericXdp => "generic XDP",
            Self::TcIngress => "TC",
        })
    }
}

/// The descriptor of a loaded program.
fn descriptor<'a>(program: &'static str, fd: Result<&'a ProgramFd, ProgramError>) -> Result<&'a ProgramFd, Error> {
    fd.map_err(|source| Error::Program { program, source: source.into() })
}

/// Takes off our own program if no descriptor holds it; gives its name.
fn remove_leftover(interface: &Interface) -> Result<Option<&'static str>, Error> {
    let is_left = |occupant: &Occupant| occupant.name.as_deref() == Some(XDP_PROGRAM) && !occupant.has_link();
    let Some(left) = interface.occupants()?.into_iter().find(is_left) else { return Ok(None) };
    let failed = |source| Error::Detach { program: XDP_PROGRAM, interface: interface.name.clone(), source };
    netlink::set_xdp(interface.index, None, left.flag).map_err(failed)?;
    Ok(Some(XDP_PROGRAM))
}

/// Why an XDP program cannot be attached, and who is there if that is why.
fn refusal(interface: &Interface, error: &io::Error) -> String {
    let reason = system_reason(error);
    let is_taken = error.raw_os_error().is_some_and(|number| number == libc::EBUSY || number == libc::EEXIST);
    match interface.occupants() {
        Ok(occupants) if is_taken && !occupants.is_empty() => {
            format!("{reason}: another XDP program ({}) is attached", listed(&occupants))
        }
        Ok(_) | Err(_) => reason,
    }
}

/// Programs that see frames before our TC program.
fn others_before_tc(interface: &Interface) -> Vec<String> {
    let found = interface.tc_programs().unwrap_or_default();
    let name = |info: &ProgramInfo| match info.name_as_str() {
        Some(TC_PROGRAM) => format!("another agent's `{TC_PROGRAM}` (id {})", info.id()),
        name => format!("`{}` (id {})", name.unwrap_or_default(), info.id()),
    };
    let occupants = interface.occupants().unwrap_or_default();
    let is_generic = |occupant: &&Occupant| occupant.flag == XdpFlag::Generic;
    // Its copies of frames may come without their Ethernet header; the TC program passes such frames.
    let generic = occupants.iter().filter(is_generic).map(|occupant| format!("generic XDP ({occupant})"));
    generic.chain(found.iter().map(name)).collect()
}

fn system_reason(error: &io::Error) -> String {
    error.raw_os_error().map_or_else(|| error.to_string(), |number| format!("{:?}", Errno::from_raw(number)))
}
