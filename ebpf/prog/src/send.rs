//! What verdicts send: pages to readers, orders to whom reads.
//!
//! Owns the order of packets, the last one being the one that came. Must not judge.

use crate::fast::{FRAME_BYTES, Frame};
use crate::maps::PAGES;
use crate::sys;
use crate::tables::Maps;
use aya_ebpf::programs::TcContext;
use dsm_fast::layout::{ENDPOINT_ADDRESS, FAN_OUT_MAX, Map, PEER_ADDRESS, PEERS_PER_ENDPOINT};
use dsm_fast::{Envelope, FanOut, Service, Tables, cell};
use dsm_wire::{HEADER_BYTES, PAGE_BYTES};
use zerocopy::IntoBytes;

/// Sends the pages of a service, the last one as this packet itself; none if the agent is to go on.
#[inline(always)]
pub fn serve(context: &TcContext, frame: &mut Frame, service: &Service, maps: &Maps) -> Option<i32> {
    let last = service.count - 1;
    if service.is_answer() {
        frame.envelope.turn_round();
    }
    for offset in 0..16 {
        let copy = service.grant(&mut frame.header, offset, maps)?;
        let bytes = if copy.is_zero { 0 } else { PAGE_BYTES };
        readdress(&mut frame.envelope, service.to, bytes, maps)?;
        sys::tc_resize(context, (FRAME_BYTES + bytes) as u32)?;
        sys::tc_write(context, 0, frame.as_bytes())?;
        if bytes > 0 {
            sys::tc_write_page(context, FRAME_BYTES as u32, &PAGES, copy.index)?;
        }
        if !copy.is_still_there(maps) {
            return None;
        }
        if offset >= last {
            return Some(if service.is_answer() { sys::tc_send_back(context) } else { sys::tc_route(context) });
        }
        sys::tc_send_copy(context)?;
    }
    None
}

/// Sends the orders, each as a copy of this packet, to where frames of their receivers come from; it stays the last one of them.
#[inline(always)]
pub fn fan_out(context: &TcContext, frame: &mut Frame, orders: &mut FanOut, maps: &Maps) -> Option<()> {
    let here = frame.envelope.ethernet_destination;
    for _ in 0..FAN_OUT_MAX {
        let told = orders.take(&mut frame.header, maps)?;
        readdress(&mut frame.envelope, told.to, 0, maps)?;
        frame.envelope.send_on(here, told.ethernet);
        sys::tc_write(context, 0, frame.as_bytes())?;
        sys::tc_send_copy(context)?;
    }
    Some(())
}

/// Addresses the envelope to the peer, from the endpoint it is a peer of.
#[inline(always)]
pub fn readdress(envelope: &mut Envelope, peer: u32, page_bytes: usize, maps: &Maps) -> Option<()> {
    let from = maps.load(cell(Map::Endpoint, peer / PEERS_PER_ENDPOINT, ENDPOINT_ADDRESS))?;
    let to = maps.load(cell(Map::Peer, peer, PEER_ADDRESS))?;
    envelope.readdress(from, to, HEADER_BYTES + page_bytes);
    Some(())
}
