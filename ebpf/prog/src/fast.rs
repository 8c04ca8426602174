//! Frames for agents: judged by `dsm-fast`, and its verdict carried out.
//!
//! Owns what each verdict does to a packet. Must not judge.

use crate::maps::{LATENCIES, PAGES, SCRATCH, VERDICTS};
use crate::sys;
use crate::tables::Maps;
use aya_ebpf::bindings::{TC_ACT_SHOT, xdp_action};
use aya_ebpf::programs::{TcContext, XdpContext};
use dsm_fast::layout::{ENDPOINT_ADDRESS, Map, PEER_ADDRESS, PEERS_PER_ENDPOINT};
use dsm_fast::{ENVELOPE_BYTES, Envelope, LATENCY_BUCKETS, Means, SERVE_FAILED, Service, Tables, Verdict, cell, classify};
use dsm_wire::{HEADER_BYTES, Header, PAGE_BYTES};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A frame without pages.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Frame {
    envelope: Envelope,
    header: Header,
}

/// What is too long for the stack.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Scratch {
    frame: Frame,
    original: Frame,
}

const XDP_SCRATCH: u32 = 0;
const TC_SCRATCH: u32 = 1;
/// Elements of the map.
pub const SCRATCHES: usize = 2;
const FRAME_BYTES: usize = ENVELOPE_BYTES + HEADER_BYTES;

/// What a program does with a frame that is for an agent; none if it is not.
#[inline(always)]
pub fn on_xdp(context: &XdpContext) -> Option<u32> {
    let Scratch { frame, .. } = sys::scratch(&SCRATCH, XDP_SCRATCH)?;
    *frame = sys::xdp_read(context)?;
    if !frame.envelope.is_udp() {
        return None;
    }
    let begun = sys::now();
    let bytes = frame.envelope.payload_bytes();
    let verdict = classify(&mut frame.header, bytes, frame.envelope.port(), Means::SameSize, &Maps);
    let action = match verdict {
        Verdict::Pass(_) | Verdict::Serve(_) | Verdict::Forward { .. } => xdp_action::XDP_PASS,
        Verdict::Drop(_) | Verdict::Counted => xdp_action::XDP_DROP,
        Verdict::Pong { to } => {
            readdress(&mut frame.envelope, to, 0)?;
            frame.envelope.turn_round();
            sys::xdp_write(context, frame)?;
            xdp_action::XDP_TX
        }
    };
    note(verdict.number(), begun);
    Some(action)
}

/// The same, by a program that can lengthen packets.
#[inline(always)]
pub fn on_tc(context: &TcContext) -> Option<i32> {
    let Scratch { frame, original } = sys::scratch(&SCRATCH, TC_SCRATCH)?;
    sys::tc_read(context, frame.as_mut_bytes())?;
    if !frame.envelope.is_udp_of(context.len() as usize) || sys::is_joined(context) {
        return None;
    }
    let begun = sys::now();
    *original = *frame;
    let length = frame.envelope.payload_bytes();
    let verdict = classify(&mut frame.header, length, frame.envelope.port(), Means::Grow, &Maps);
    let mut number = verdict.number();
    let action = match verdict {
        Verdict::Pass(_) => None,
        Verdict::Drop(_) | Verdict::Counted => Some(TC_ACT_SHOT),
        Verdict::Pong { to } | Verdict::Forward { to } => {
            readdress(&mut frame.envelope, to, 0)?;
            sys::tc_write(context, 0, frame.as_bytes())?;
            Some(sys::tc_route(context))
        }
        Verdict::Serve(service) => {
            let action = serve(context, frame, &service);
            if action.is_none() {
                number = SERVE_FAILED;
                sys::tc_resize(context, FRAME_BYTES as u32)?;
                sys::tc_write(context, 0, original.as_bytes())?;
            }
            action
        }
    };
    note(number, begun);
    action
}

/// Sends the pages of a service, the last one as this packet itself; none if the agent is to go on.
#[inline(always)]
fn serve(context: &TcContext, frame: &mut Frame, service: &Service) -> Option<i32> {
    let last = service.count - 1;
    if service.is_answer() {
        frame.envelope.turn_round();
    }
    for offset in 0..16 {
        let copy = service.grant(&mut frame.header, offset, &Maps)?;
        let bytes = if copy.is_zero { 0 } else { PAGE_BYTES };
        readdress(&mut frame.envelope, service.to, bytes)?;
        sys::tc_resize(context, (FRAME_BYTES + bytes) as u32)?;
        sys::tc_write(context, 0, frame.as_bytes())?;
        if bytes > 0 {
            sys::tc_write_page(context, FRAME_BYTES as u32, &PAGES, copy.index)?;
        }
        if !copy.is_still_there(&Maps) {
            return None;
        }
        if offset >= last {
            return Some(if service.is_answer() { sys::tc_send_back(context) } else { sys::tc_route(context) });
        }
        sys::tc_send_copy(context)?;
    }
    None
}

/// Addresses the envelope to the peer, from the endpoint it is a peer of.
#[inline(always)]
fn readdress(envelope: &mut Envelope, peer: u32, page_bytes: usize) -> Option<()> {
    let from = Maps.load(cell(Map::Endpoint, peer / PEERS_PER_ENDPOINT, ENDPOINT_ADDRESS))?;
    let to = Maps.load(cell(Map::Peer, peer, PEER_ADDRESS))?;
    envelope.readdress(from, to, HEADER_BYTES + page_bytes);
    Some(())
}

#[inline(always)]
fn note(number: u32, begun: u64) {
    sys::count(&VERDICTS, number);
    let took = sys::now() - begun;
    let bucket = (63 - (took | 1).leading_zeros()).min(LATENCY_BUCKETS as u32 - 1);
    sys::count(&LATENCIES, number * LATENCY_BUCKETS as u32 + bucket);
}
