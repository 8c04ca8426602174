//! Packet memory.
//!
//! Owns reading, changing and sending frames: every access is bounds-checked here, which the verifier proves again at loading.
//! Must not know what frames mean.

use crate::maps::Records;
use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::{
    bpf_clone_redirect, bpf_redirect, bpf_redirect_neigh, bpf_skb_change_tail, bpf_skb_load_bytes, bpf_skb_store_bytes,
};
use aya_ebpf::programs::{TcContext, XdpContext};
use dsm_fast::layout::PAGE_WORDS;
use zerocopy::{FromBytes, Immutable, IntoBytes, Unaligned};

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

/// Copies the front of the frame; none if it is shorter.
#[inline(always)]
pub fn tc_read(context: &TcContext, to: &mut [u8]) -> Option<()> {
    // SAFETY: the context is this program's own and `to` is writable for its length.
    let result = unsafe { bpf_skb_load_bytes(context.as_ptr(), 0, to.as_mut_ptr().cast(), to.len() as u32) };
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

/// Where the frame came from, as in `PEER_LINK` of `dsm-fast`, if its Ethernet header says `sender`.
#[inline(always)]
pub fn tc_link(context: &TcContext, sender: u64) -> u64 {
    // SAFETY: the context is this program's own.
    let interface = unsafe { (*context.as_ptr().cast::<aya_ebpf::bindings::__sk_buff>()).ifindex };
    if interface > u32::from(u16::MAX) { 0 } else { sender | u64::from(interface) << 48 }
}

/// Whether the frame is several that were joined, or are to be cut.
#[inline(always)]
pub fn is_joined(context: &TcContext) -> bool {
    // SAFETY: the context is this program's own.
    unsafe { (*context.as_ptr().cast::<aya_ebpf::bindings::__sk_buff>()).gso_size != 0 }
}

/// Overwrites a page of the frame from `offset` with the page at `index`; none if there is no such page, or the frame is shorter.
#[inline(always)]
pub fn tc_write_page<const COUNT: usize>(
    context: &TcContext,
    offset: u32,
    pages: &Records<PAGE_WORDS, COUNT>,
    index: u32,
) -> Option<()> {
    let page = pages.get_ptr(index)?;
    // SAFETY: the context is this program's own, and the map gave a valid pointer to a whole page. The agent may change it
    // meanwhile: the caller asks afterwards.
    let result = unsafe { bpf_skb_store_bytes(context.as_ptr().cast(), offset, page.cast(), (PAGE_WORDS * 8) as u32, 0) };
    (result == 0).then_some(())
}

/// Sends the frame to the neighbour that its IPv4 destination is reached by; gives the verdict to return.
#[inline(always)]
pub fn tc_route(context: &TcContext) -> i32 {
    // SAFETY: the context is this program's own.
    let interface = unsafe { (*context.as_ptr().cast::<aya_ebpf::bindings::__sk_buff>()).ifindex };
    // SAFETY: without parameters the kernel looks the neighbour up itself.
    unsafe { bpf_redirect_neigh(interface, core::ptr::null_mut(), 0, 0) as i32 }
}

/// Sends a copy of the frame out of the interface it came in by, to where its Ethernet header says; none if the kernel cannot.
#[inline(always)]
pub fn tc_send_copy(context: &TcContext) -> Option<()> {
    // SAFETY: the context is this program's own; no pointer into the packet is kept over the call.
    let result = unsafe {
        let interface = (*context.as_ptr().cast::<aya_ebpf::bindings::__sk_buff>()).ifindex;
        bpf_clone_redirect(context.as_ptr().cast(), interface, 0)
    };
    (result == 0).then_some(())
}
