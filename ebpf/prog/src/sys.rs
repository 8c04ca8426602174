//! Packet memory and the kernel's helpers.
//!
//! Owns all `unsafe` of the programs: every access is bounds-checked here, which the verifier proves again at loading. Must
//! not know what frames mean.
#![expect(unsafe_code, reason = "packet memory and helpers are raw pointers")]

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::bpf_hdr_start_off::BPF_HDR_START_MAC;
use aya_ebpf::helpers::{
    bpf_redirect, bpf_skb_change_head, bpf_skb_change_tail, bpf_skb_load_bytes, bpf_skb_load_bytes_relative, bpf_skb_store_bytes,
};
use aya_ebpf::maps::PerCpuArray;
use aya_ebpf::programs::{TcContext, XdpContext};
use zerocopy::{FromBytes, Immutable, IntoBytes, Unaligned};

const ETHERNET_BYTES: u32 = 14;

/// A copy of the front of the frame; none if the frame, or its first fragment, is shorter.
#[inline(always)]
pub fn xdp_read<T: FromBytes + Unaligned + Copy>(context: &XdpContext) -> Option<T> {
    let start = context.data();
    if start + size_of::<T>() > context.data_end() {
        return None;
    }
    // SAFETY: the packet's memory from `start` to `data_end` is readable and holds a T, as was just compared; T has no
    // alignment and any bytes are one.
    Some(unsafe { *(start as *const T) })
}

/// Overwrites the front of the frame; none if it is shorter.
#[inline(always)]
pub fn xdp_write<T: IntoBytes + Immutable + Unaligned + Copy>(context: &XdpContext, value: &T) -> Option<()> {
    let start = context.data();
    if start + size_of::<T>() > context.data_end() {
        return None;
    }
    // SAFETY: as in `xdp_read`; a packet is writable to the one program that runs on it.
    unsafe { *(start as *mut T) = *value };
    Some(())
}

/// Copies the front of the frame, from the Ethernet header; none if it is shorter.
#[inline(always)]
pub fn tc_read(context: &TcContext, to: &mut [u8]) -> Option<()> {
    let (buffer, length) = (to.as_mut_ptr().cast(), to.len() as u32);
    // Finds the Ethernet header wherever the frame is said to begin, but looks no further than the first piece.
    // SAFETY: the context is this program's own and `to` is writable for its length.
    let result = unsafe { bpf_skb_load_bytes_relative(context.as_ptr(), 0, buffer, length, BPF_HDR_START_MAC) };
    if result == 0 {
        return Some(());
    }
    // SAFETY: as above.
    let result = unsafe { bpf_skb_load_bytes(context.as_ptr(), 0, buffer, length) };
    (result == 0).then_some(())
}

/// Makes a frame that was read as `bytes` bytes long begin with its Ethernet header, for [`tc_write`] and
/// [`tc_send_back`]; none if the kernel cannot.
///
/// After generic XDP a frame may begin with its IP header: the copy that is made for XDP forgets how long the Ethernet header
/// was. A new one is put before it then, of zeroes, which the caller overwrites.
#[inline(always)]
pub fn tc_with_ethernet(context: &TcContext, bytes: u32) -> Option<()> {
    if context.len() >= bytes {
        return Some(());
    }
    // SAFETY: the context is this program's own; no pointer into the packet is kept over the call.
    let result = unsafe { bpf_skb_change_head(context.as_ptr().cast(), ETHERNET_BYTES, 0) };
    (result == 0).then_some(())
}

/// Overwrites the frame from `offset`; none if it is shorter.
#[inline(always)]
pub fn tc_write(context: &TcContext, offset: u32, from: &[u8]) -> Option<()> {
    // SAFETY: the context is this program's own and `from` is readable for its length.
    let result = unsafe { bpf_skb_store_bytes(context.as_ptr().cast(), offset, from.as_ptr().cast(), from.len() as u32, 0) };
    (result == 0).then_some(())
}

/// Makes the frame this long; none if the kernel cannot.
#[inline(always)]
pub fn tc_resize(context: &TcContext, bytes: u32) -> Option<()> {
    // SAFETY: the context is this program's own; no pointer into the packet is kept over the call.
    let result = unsafe { bpf_skb_change_tail(context.as_ptr().cast(), bytes, 0) };
    (result == 0).then_some(())
}

/// Sends the frame out of the interface it came in by; gives the verdict to return.
#[inline(always)]
pub fn tc_send_back(context: &TcContext) -> i32 {
    // SAFETY: the context is this program's own.
    let interface = unsafe { (*context.as_ptr().cast::<aya_ebpf::bindings::__sk_buff>()).ifindex };
    // SAFETY: takes no pointers; a bad interface makes the kernel drop the frame.
    unsafe { bpf_redirect(interface, 0) as i32 }
}

/// Adds one to this processor's counter.
#[inline(always)]
pub fn count(counters: &PerCpuArray<u64>, index: u32) {
    if let Some(count) = counters.get_ptr_mut(index) {
        // SAFETY: the map gave a valid pointer to this processor's own element.
        unsafe { *count += 1 };
    }
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Some helpers are for GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
