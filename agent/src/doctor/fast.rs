//! The probes of the fast path: what its programs need of the kernel, of this process and of the interface.
//!
//! Owns how that is found out without attaching anything. Must not judge whether it is required: an agent works without.

use super::probe::{effective_capabilities, no, yes};
use super::{Check, Seen, check};
use dsm_bpf::{Error, FastPath, Interface, SMALL_MAPS, has_tcx, object};
use std::net::IpAddr;

const CAP_SYS_ADMIN: u32 = 21;
/// What loading and attaching the programs takes; the last two are in [`CAP_SYS_ADMIN`].
const NEEDED: [(u32, bool, &str); 3] = [(12, false, "CAP_NET_ADMIN"), (38, true, "CAP_PERFMON"), (39, true, "CAP_BPF")];

/// What can be said of any host.
pub(super) fn checks() -> Vec<Check> {
    let object = match object() {
        Some(object) => yes(format!("{} bytes", object.len())),
        None => no("not built in"),
    };
    vec![
        check("fast-path-object", false, object, "run `cargo xtask ebpf`, then build the agent again"),
        check("cap-bpf", false, capabilities(), "run the agent as root or give it CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN"),
        check("fast-path-load", false, load(), "see cap-bpf; without the programs every page is served by the agent"),
        check("tcx", false, tcx(), "boot Linux 6.6 or later with CONFIG_NET_XGRESS: without it only generic XDP is left"),
    ]
}

/// What can be said of the interface that has the agent's address.
pub(super) fn checks_of(address: IpAddr) -> Vec<Check> {
    let interface = Interface::of(address).map_err(|error| error.told());
    let seen = |probe: fn(&Interface) -> Seen| interface.as_ref().map_or_else(no, probe);
    vec![
        check(
            "xdp-native",
            false,
            seen(native),
            "none needed: programs are attached at TC; native XDP takes a network card whose driver has it",
        ),
        check(
            "xdp-foreign",
            false,
            seen(foreign_xdp),
            "take it off if nobody needs it (ip link set dev INTERFACE xdp off): beside it there is no XDP of ours, and behind \
             a generic one no TC either",
        ),
        check(
            "tc-foreign",
            false,
            seen(foreign_tc),
            "none needed if it hands on what it does not end (TCX_NEXT): it sees frames before the TC program of ours, which gets no \
             others",
        ),
    ]
}

fn capabilities() -> Seen {
    let set = effective_capabilities();
    let has = |bit: u32| set >> bit & 1 == 1;
    let is_met = |bit: u32, is_in_admin: bool| has(bit) || is_in_admin && has(CAP_SYS_ADMIN);
    let missing = NEEDED.iter().filter(|(bit, is_in_admin, _)| !is_met(*bit, *is_in_admin));
    let missing: Vec<&str> = missing.map(|(_, _, name)| *name).collect();
    if missing.is_empty() {
        yes(format!("effective set {set:x}"))
    } else {
        no(format!("not in the effective set {set:x}: {}", missing.join(", ")))
    }
}

fn load() -> Seen {
    match FastPath::load(&SMALL_MAPS) {
        Ok(_) => yes("the kernel takes all programs"),
        Err(error) => no(error.told()),
    }
}

fn tcx() -> Seen {
    match has_tcx() {
        Ok(()) => yes("programs on TC can be held by links"),
        Err(error) => no(error.told()),
    }
}

fn native(interface: &Interface) -> Seen {
    let name = &interface.name;
    match interface.has_native_xdp() {
        Ok(Some(true)) => yes(format!("{name}: its driver has it")),
        Ok(Some(false)) => no(format!("{name}: its driver has none (EOPNOTSUPP)")),
        Ok(None) => no(format!("{name}: this kernel does not tell; Linux 6.3 does")),
        Err(error) => no(error.told()),
    }
}

fn foreign_xdp(interface: &Interface) -> Seen {
    foreign(interface, "XDP", interface.strangers())
}

fn foreign_tc(interface: &Interface) -> Seen {
    foreign(interface, "TC", interface.tc_strangers())
}

fn foreign(Interface { name, .. }: &Interface, kind: &str, strangers: Result<Option<String>, Error>) -> Seen {
    match strangers {
        Ok(None) => yes(format!("{name}: no other {kind} program")),
        Ok(Some(strangers)) => no(format!("{name}: another {kind} program ({strangers}) is attached")),
        Err(error) => no(error.told()),
    }
}
