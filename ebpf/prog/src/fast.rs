//! Frames for agents: judged by `dsm-fast`, and its verdict carried out.
//!
//! Owns what each verdict does to a packet. Must not judge.

use crate::maps::{LATENCIES, SCRATCH, VERDICTS};
use crate::send::{fan_out, readdress, serve};
use crate::sys;
use crate::tables::Maps;
use aya_ebpf::bindings::{TC_ACT_SHOT, xdp_action};
use aya_ebpf::programs::{TcContext, XdpContext};
use dsm_fast::{ENVELOPE_BYTES, Envelope, LATENCY_BUCKETS, Means, SERVE_FAILED, Verdict, classify};
use dsm_wire::{HEADER_BYTES, Header};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A frame without pages.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Frame {
    pub envelope: Envelope,
    pub header: Header,
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
/// Bytes of one.
pub const FRAME_BYTES: usize = ENVELOPE_BYTES + HEADER_BYTES;

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
    let maps = Maps { link: 0 };
    let verdict = classify(&mut frame.header, bytes, frame.envelope.port(), Means::SameSize, &maps);
    let action = match verdict {
        Verdict::Pass(_) | Verdict::Serve(_) | Verdict::Forward { .. } | Verdict::FanOut(_) => xdp_action::XDP_PASS,
        Verdict::Drop(_) | Verdict::Counted => xdp_action::XDP_DROP,
        Verdict::Pong { to } => {
            readdress(&mut frame.envelope, to, 0, &maps)?;
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
    let maps = Maps { link: sys::tc_link(context, frame.envelope.ethernet_sender()) };
    let verdict = classify(&mut frame.header, length, frame.envelope.port(), Means::Grow, &maps);
    let mut number = verdict.number();
    let action = match verdict {
        Verdict::Pass(_) => None,
        Verdict::Drop(_) | Verdict::Counted => Some(TC_ACT_SHOT),
        Verdict::Pong { to } | Verdict::Forward { to } => {
            readdress(&mut frame.envelope, to, 0, &maps)?;
            sys::tc_write(context, 0, frame.as_bytes())?;
            Some(sys::tc_route(context))
        }
        Verdict::Serve(service) => {
            let action = serve(context, frame, &service, &maps);
            if action.is_none() {
                number = SERVE_FAILED;
                sys::tc_resize(context, FRAME_BYTES as u32)?;
                sys::tc_write(context, 0, original.as_bytes())?;
            }
            action
        }
        Verdict::FanOut(mut orders) => {
            fan_out(context, frame, &mut orders, &maps);
            // One that is not what it was any more comes again.
            if sys::tc_write(context, 0, original.as_bytes()).is_some() { None } else { Some(TC_ACT_SHOT) }
        }
    };
    note(number, begun);
    action
}

#[inline(always)]
fn note(number: u32, begun: u64) {
    sys::count(&VERDICTS, number);
    let took = sys::now() - begun;
    let bucket = (63 - (took | 1).leading_zeros()).min(LATENCY_BUCKETS as u32 - 1);
    sys::count(&LATENCIES, number * LATENCY_BUCKETS as u32 + bucket);
}
