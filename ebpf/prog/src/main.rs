//! The programs of the fast path: what runs in the kernel on frames that come in.
//!
//! Owns the entry points and the order of questions. Must not know layouts (`dsm-fast` and `dsm-wire` do) nor raw packet
//! memory ([`sys`] does). Whatever a program does not answer passes up unchanged.
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![expect(internal_features, reason = "exchanges that give the old value: the target has no other")]

mod fast;
mod maps;
mod probe;
mod send;
mod sys;
mod tables;

use aya_ebpf::bindings::{TC_ACT_UNSPEC, xdp_action};
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};

/// On frames as the network card hands them over.
#[xdp(frags)]
pub fn dvm_xdp(context: XdpContext) -> u32 {
    probe::on_xdp(&context).or_else(|| fast::on_xdp(&context)).unwrap_or(xdp_action::XDP_PASS)
}

/// Passes everything: for the peer end of a veth, where native XDP needs one.
#[xdp(frags)]
pub fn dvm_pass(_context: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// On frames as the network stack takes them in. What it does not answer goes to the next program, which an OK would not.
#[classifier]
pub fn dvm_tc(context: TcContext) -> i32 {
    probe::on_tc(&context).or_else(|| fast::on_tc(&context)).unwrap_or(TC_ACT_UNSPEC)
}
