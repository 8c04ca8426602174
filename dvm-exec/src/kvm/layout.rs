//! Where things lie in the guest's physical address space.
//!
//! Owns the addresses; docs/kvm.md has them for authors of guests. Must not know who uses them.

/// Bytes of a page.
pub const PAGE: u64 = 4096;
/// Memory below this is in one piece from 0; what is more begins at [`HIGH`].
pub const LOW_END: u64 = 0xc000_0000;
/// Memory above the hole for devices.
pub const HIGH: u64 = 1 << 32;
/// Smallest and largest memory of a guest.
pub const MEMORY_MIN: u64 = 16 << 20;
/// Largest.
pub const MEMORY_MAX: u64 = 256 << 30;

/// Memory that each host has of its own, with other contents on each: nothing of it travels.
pub const PRIVATE: u64 = 0xd000_0000;
/// Its size; what nobody touches costs nothing.
pub const PRIVATE_BYTES: u64 = 32 << 20;
/// What the guest is told at its start, at the beginning of private memory.
pub const BOOT: u64 = PRIVATE;
/// The first descriptor table, until the guest has its own.
pub const DESCRIPTORS: u64 = PRIVATE + 0x1000;
/// The command line, as text that ends with a zero.
pub const COMMAND_LINE: u64 = PRIVATE + 0x2000;
/// Longest command line, its zero included.
pub const COMMAND_LINE_BYTES: u64 = 0x1000;
/// Page tables: every address of the guest, as it is.
pub const TABLES: u64 = PRIVATE + (1 << 20);
/// A block for each processor.
pub const PROCESSORS: u64 = PRIVATE + (8 << 20);
/// Size of such a block.
pub const PROCESSOR_BYTES: u64 = 64 << 10;

/// Registers of the first virtio device.
pub const VIRTIO: u64 = 0xfeb0_0000;
/// Those of the next are so much further on.
pub const VIRTIO_BYTES: u64 = 0x1000;
/// Places for devices.
pub const VIRTIO_SLOTS: usize = 8;
/// Pin of the I/O APIC of the first; those of the others follow.
pub const VIRTIO_PIN: usize = 16;

/// Where images without addresses of their own are put.
pub const IMAGE: u64 = 1 << 20;
/// Structures of the boot protocols of Linux, in memory below 1 MiB.
pub const ZERO_PAGE: u64 = 0x7000;
/// The same for PVH.
pub const START_INFO: u64 = 0x6000;
/// Its map of memory, away from page 8, to which guests may copy what their other processors start with.
pub const MEMORY_MAP: u64 = 0x6400;
/// The command line for Linux.
pub const LINUX_COMMAND_LINE: u64 = 0x2_0000;
/// End of the memory below the old holes of a PC.
pub const BASE_END: u64 = 0x9_fc00;

/// Three pages that KVM takes for its own purposes.
pub const TSS: u64 = 0xfffb_d000;

const _: () = assert!(PROCESSORS + PROCESSOR_BYTES * dvm_apic::limits::PROCESSORS_MAX as u64 <= PRIVATE + PRIVATE_BYTES);
const _: () = assert!(TABLES + (2 + HIGH / (1 << 30) + MEMORY_MAX / (1 << 30)) * PAGE <= PROCESSORS);
const _: () =
    assert!(VIRTIO >= PRIVATE + PRIVATE_BYTES && VIRTIO + VIRTIO_BYTES * VIRTIO_SLOTS as u64 <= dvm_apic::io::BASE_ADDRESS);
const _: () = assert!(VIRTIO_PIN + VIRTIO_SLOTS <= dvm_apic::limits::PINS);
const _: () = assert!(PRIVATE >= LOW_END && PRIVATE + PRIVATE_BYTES <= dvm_apic::io::BASE_ADDRESS);

/// The pieces of a memory of `bytes`: first address and size.
pub fn pieces(bytes: u64) -> Vec<(u64, u64)> {
    let low = bytes.min(LOW_END);
    let mut pieces = vec![(0, low)];
    if bytes > low {
        pieces.push((HIGH, bytes - low));
    }
    pieces
}

/// Whether `bytes` from `first` on are memory of a guest with `memory` bytes.
pub fn is_memory(first: u64, bytes: u64, memory: u64) -> bool {
    let inside = |(start, size): (u64, u64)| first >= start && bytes <= size && first - start <= size - bytes;
    pieces(memory).into_iter().any(inside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_leaves_out_the_hole() {
        assert_eq!(pieces(64 << 20), [(0, 64 << 20)]);
        assert_eq!(pieces(4 << 30), [(0, LOW_END), (HIGH, 1 << 30)]);
        assert!(is_memory(LOW_END - 8, 8, 4 << 30) && !is_memory(LOW_END - 8, 9, 4 << 30));
        assert!(is_memory(HIGH, 1 << 30, 4 << 30) && !is_memory(HIGH + 1, 1 << 30, 4 << 30));
        assert!(!is_memory(PRIVATE, 1, 4 << 30) && !is_memory(u64::MAX, 2, 4 << 30) && !is_memory(0, u64::MAX, 4 << 30));
    }
}
