//! Answers probes, the proof that a program on this interface sees frames and can send them back.
//!
//! Owns the two ways of turning a frame round. Must not know what a probe is for.

use crate::maps::{PROBE, PROBE_ANSWERS};
use crate::sys;
use aya_ebpf::bindings::xdp_action;
use aya_ebpf::programs::{TcContext, XdpContext};
use dsm_fast::{
    PROBE_BYTES, PROBE_FILL, PROBE_FRAME_BYTES, PROBE_GROWN_BYTES, PROBE_NONCE, PROBE_TO_PORT, ProbeFrame, ProbeProgram,
};
use zerocopy::{FromBytes, IntoBytes};

const FILL_BYTES: usize = 32;
const FILLS: usize = (PROBE_GROWN_BYTES - PROBE_BYTES) / FILL_BYTES;
const GROWN_FRAME_BYTES: usize = PROBE_FRAME_BYTES - PROBE_BYTES + PROBE_GROWN_BYTES;

const _: () = assert!(PROBE_FRAME_BYTES + FILLS * FILL_BYTES == GROWN_FRAME_BYTES);

/// The verdict on a probe for the XDP program; none on any other frame.
#[inline(always)]
pub fn on_xdp(context: &XdpContext) -> Option<u32> {
    let (nonce, port) = wanted()?;
    let mut frame: ProbeFrame = sys::xdp_read(context)?;
    if !frame.is_for(ProbeProgram::Xdp, nonce, port) {
        return None;
    }
    frame.turn_round(PROBE_BYTES);
    sys::xdp_write(context, &frame)?;
    sys::count(&PROBE_ANSWERS, ProbeProgram::Xdp as u32);
    Some(xdp_action::XDP_TX)
}

/// The verdict on a probe for the TC program; none on any other frame.
///
/// The answer is longer than the question, since that is what the TC program is for: a small request, a page in answer.
#[inline(always)]
pub fn on_tc(context: &TcContext) -> Option<i32> {
    let (nonce, port) = wanted()?;
    let mut bytes = [0; PROBE_FRAME_BYTES];
    sys::tc_read(context, &mut bytes)?;
    let frame = ProbeFrame::mut_from_bytes(&mut bytes).ok()?;
    if context.len() as usize != PROBE_FRAME_BYTES || !frame.is_for(ProbeProgram::Tc, nonce, port) {
        return None;
    }
    frame.turn_round(PROBE_GROWN_BYTES);
    sys::tc_resize(context, GROWN_FRAME_BYTES as u32)?;
    sys::tc_write(context, 0, frame.as_bytes())?;
    for fill in 0..FILLS {
        sys::tc_write(context, (PROBE_FRAME_BYTES + fill * FILL_BYTES) as u32, &[PROBE_FILL; FILL_BYTES])?;
    }
    sys::count(&PROBE_ANSWERS, ProbeProgram::Tc as u32);
    Some(sys::tc_send_back(context))
}

/// Nonce and port of the probe under way.
#[inline(always)]
fn wanted() -> Option<(u64, u16)> {
    let nonce = *PROBE.get(PROBE_NONCE)?;
    if nonce == 0 {
        return None;
    }
    Some((nonce, *PROBE.get(PROBE_TO_PORT)? as u16))
}
