//! One request of a driver: what it gives to read, and where it wants to be written to.
//!
//! Owns the judgement of its descriptors. Must not know devices.

use super::Malformed;
use crate::sys::vm::Memory;
use virtio_queue::{DescriptorChain, Reader, Writer};

/// A request.
pub struct Request<'a> {
    /// What the device may read.
    pub from: Reader<'a>,
    /// What it may write.
    pub to: Writer<'a>,
}

impl<'a> Request<'a> {
    /// The request of these descriptors.
    ///
    /// # Errors
    /// They are cut off, in a circle, more than the queue has, in the wrong order, without a byte, or not in the guest's memory.
    pub fn new(chain: &DescriptorChain<&'a Memory>, memory: &'a Memory, descriptors_max: u16) -> Result<Self, Malformed> {
        let (mut count, mut bytes, mut is_open, mut has_written) = (0_u32, 0_u64, true, false);
        for descriptor in chain.clone() {
            count += 1;
            bytes += u64::from(descriptor.len());
            if count > u32::from(descriptors_max) || has_written && !descriptor.is_write_only() {
                return Err(Malformed);
            }
            (is_open, has_written) = (descriptor.has_next(), descriptor.is_write_only());
        }
        // The iterator ends at what it cannot follow.
        if is_open || bytes == 0 {
            return Err(Malformed);
        }
        let from = chain.clone().reader(memory).map_err(|_| Malformed)?;
        let to = chain.clone().writer(memory).map_err(|_| Malformed)?;
        Ok(Self { from, to })
    }
}
