//! Asks the kernel about one interface, and takes an XDP program off it.
//!
//! Owns the bytes of RTM_GETLINK, RTM_SETLINK and NETDEV_CMD_DEV_GET. Must not decide anything. Not /sys: it may be another namespace's.

use nix::errno::Errno;
use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket};
use nix::sys::time::TimeVal;
use std::io;
use std::os::fd::AsRawFd;

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLA_F_NESTED: u16 = 1 << 15;
const NLA_TYPE_MASK: u16 = 0x3fff;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_XDP: u16 = 43;
const IFLA_XDP_FD: u16 = 1;
const IFLA_XDP_ATTACHED: u16 = 2;
const IFLA_XDP_FLAGS: u16 = 3;
const IFLA_XDP_PROG_ID: u16 = 4;
const IFLA_XDP_DRV_PROG_ID: u16 = 5;
const IFLA_XDP_SKB_PROG_ID: u16 = 6;
const IFF_RUNNING: u32 = 0x40;
/// Generic netlink: the family that knows the others' numbers.
const GENL_ID_CTRL: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;
const GENERIC_BYTES: usize = 4;
/// NETDEV_XDP_ACT_BASIC: pass, drop, send back.
pub(crate) const XDP_BASIC: u64 = 1;
const HEADER_BYTES: usize = 16;
const LINK_BYTES: usize = 16;
const ANSWER_BYTES_MAX: usize = 32 << 10;
const PATIENCE_SECONDS: i64 = 1;

/// How an XDP program is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum XdpFlag {
    /// XDP_FLAGS_SKB_MODE.
    Generic = 1 << 1,
    /// XDP_FLAGS_DRV_MODE.
    Native = 1 << 2,
}

/// What the kernel says of an interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) name: String,
    pub(crate) mtu: u32,
    /// `veth`, `bridge`, ...; empty for hardware.
    pub(crate) kind: String,
    /// Up, with a carrier.
    pub(crate) is_running: bool,
    /// The XDP programs on it and how each is attached.
    pub(crate) xdp: Vec<(XdpFlag, u32)>,
}

/// Asks about interface `index` of this thread's namespace.
pub(crate) fn link(index: u32) -> io::Result<Link> {
    let answer = exchange(SockProtocol::NetlinkRoute, &message(RTM_GETLINK, NLM_F_REQUEST, &link_body(index, &[])))?;
    let body = answer.get(HEADER_BYTES..).ok_or(io::ErrorKind::InvalidData)?;
    parse(body).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Sets the XDP program of interface `index`, without a link; none takes off the one that is there.
pub(crate) fn set_xdp(index: u32, program: Option<i32>, flag: XdpFlag) -> io::Result<()> {
    let mut inner = attribute(IFLA_XDP_FD, &program.unwrap_or(-1).to_ne_bytes());
    inner.extend(attribute(IFLA_XDP_FLAGS, &(flag as u32).to_ne_bytes()));
    let body = link_body(index, &attribute(IFLA_XDP | NLA_F_NESTED, &inner));
    exchange(SockProtocol::NetlinkRoute, &message(RTM_SETLINK, NLM_F_REQUEST | NLM_F_ACK, &body))?;
    Ok(())
}

/// What the driver of interface `index` can do with XDP, as NETDEV_XDP_ACT_* bits; none where the kernel does not tell.
pub(crate) fn xdp_features(index: u32) -> io::Result<Option<u64>> {
    let name = attribute(CTRL_ATTR_FAMILY_NAME, b"netdev\0");
    let family = match ask_generic(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, &name) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
        answer => find(&answer?, CTRL_ATTR_FAMILY_ID).and_then(|contents| half(contents, 0)),
    };
    let family = family.ok_or(io::ErrorKind::InvalidData)?;
    let answer = ask_generic(family, NETDEV_CMD_DEV_GET, &attribute(NETDEV_A_DEV_IFINDEX, &index.to_ne_bytes()))?;
    let features = find(&answer, NETDEV_A_DEV_XDP_FEATURES).and_then(|contents| contents.try_into().ok());
    features.map(u64::from_ne_bytes).map(Some).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Asks a family of generic netlink; gives the attributes of its answer.
fn ask_generic(family: u16, command: u8, attributes: &[u8]) -> io::Result<Vec<u8>> {
    let body = [&[command, 1, 0, 0], attributes].concat();
    let mut answer = exchange(SockProtocol::NetlinkGeneric, &message(family, NLM_F_REQUEST, &body))?;
    Ok(answer.split_off(answer.len().min(HEADER_BYTES + GENERIC_BYTES)))
}

fn find(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, contents)| contents)
}

/// Sends one request; gives the whole answer, or the error it is.
fn exchange(protocol: SockProtocol, request: &[u8]) -> io::Result<Vec<u8>> {
    let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
    setsockopt(&socket, ReceiveTimeout, &TimeVal::new(PATIENCE_SECONDS, 0))?;
    send(socket.as_raw_fd(), request, MsgFlags::empty())?;
    let mut answer = vec![0; ANSWER_BYTES_MAX];
    let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    answer.truncate(length);
    match half(&answer, 4) {
        Some(NLMSG_ERROR) => match word(&answer, HEADER_BYTES).ok_or(io::ErrorKind::InvalidData)?.cast_signed() {
            0 => Ok(answer),
            number => Err(Errno::from_raw(number.wrapping_neg()).into()),
        },
        Some(RTM_NEWLINK) => Ok(answer),
        // Families of generic netlink answer under their own number.
        Some(kind) if Some(kind) == half(request, 4) => Ok(answer),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let length = HEADER_BYTES + body.len();
    let mut bytes = Vec::with_capacity(length);
    bytes.extend((length as u32).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend(body);
    bytes
}

fn link_body(index: u32, attributes: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(LINK_BYTES + attributes.len());
    // Family, type; then the index; then flags to set and which of them, none.
    bytes.extend([0; 4]);
    bytes.extend(index.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend(attributes);
    bytes
}

fn attribute(kind: u16, contents: &[u8]) -> Vec<u8> {
    let length = 4 + contents.len();
    let mut bytes = Vec::with_capacity(length.next_multiple_of(4));
    bytes.extend((length as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(contents);
    bytes.resize(length.next_multiple_of(4), 0);
    bytes
}

fn parse(body: &[u8]) -> Option<Link> {
    let mut link = Link { is_running: word(body, 8)? & IFF_RUNNING != 0, ..Link::default() };
    for (kind, contents) in attributes(body.get(LINK_BYTES..)?) {
        match kind {
            IFLA_IFNAME => link.name = text(contents),
            IFLA_MTU => link.mtu = word(contents, 0)?,
            IFLA_LINKINFO => {
                link.kind = find(contents, IFLA_INFO_KIND).map(text).unwrap_or_default();
            }
            IFLA_XDP => link.xdp = parse_xdp(contents),
            _ => {}
        }
    }
    Some(link)
}

/// One program is told by its place and again by its mode; several by their modes only.
fn parse_xdp(contents: &[u8]) -> Vec<(XdpFlag, u32)> {
    let number = |wanted| find(contents, wanted).and_then(|contents| word(contents, 0));
    let attached = find(contents, IFLA_XDP_ATTACHED).and_then(|contents| contents.first());
    let native = number(IFLA_XDP_DRV_PROG_ID).or_else(|| number(IFLA_XDP_PROG_ID).filter(|_| attached == Some(&1)));
    let generic = number(IFLA_XDP_SKB_PROG_ID).or_else(|| number(IFLA_XDP_PROG_ID).filter(|_| attached == Some(&2)));
    let native = native.map(|id| (XdpFlag::Native, id));
    native.into_iter().chain(generic.map(|id| (XdpFlag::Generic, id))).collect()
}

fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (length, kind) = (usize::from(half(rest, 0)?), half(rest, 2)?);
        let contents = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind & NLA_TYPE_MASK, contents))
    })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read() {
        let mut body = vec![0; LINK_BYTES];
        body[8] = 0x41;
        body.extend(attribute(IFLA_IFNAME, b"eth0\0"));
        body.extend(attribute(IFLA_MTU, &9000_u32.to_ne_bytes()));
        body.extend(attribute(IFLA_LINKINFO | NLA_F_NESTED, &attribute(IFLA_INFO_KIND, b"veth\0")));
        let xdp = [attribute(IFLA_XDP_ATTACHED, &[2]), attribute(IFLA_XDP_PROG_ID, &12_u32.to_ne_bytes())].concat();
        body.extend(attribute(IFLA_XDP | NLA_F_NESTED, &xdp));
        let expected =
            Link { name: "eth0".into(), mtu: 9000, kind: "veth".into(), is_running: true, xdp: vec![(XdpFlag::Generic, 12)] };
        assert_eq!(parse(&body), Some(expected));
        for length in 0..body.len() {
            // Cut anywhere, it says less; it never panics.
            parse(&body[..length]);
        }
    }

    #[test]
    fn the_kernel_answers() {
        assert_eq!(link(1).map(|link| link.name).ok().as_deref(), Some("lo"));
        assert_eq!(link(0x7fff_ffff).unwrap_err().raw_os_error(), Some(libc::ENODEV));
    }
}
