//! Send slots: which are free, and what the others carry.
//!
//! Owns bookkeeping. Must not know the bytes of a slot.

use crate::Class;
use crate::limits::{BATCH_SLOTS, PAGE_SLOTS, SMALL_SLOT_BYTES, SMALL_SLOTS};
use dsm_wire::NodeId;

/// A send slot.
pub(crate) type SlotId = u32;

/// What a slot carries.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// For whom.
    pub(crate) to: NodeId,
    /// Over which socket.
    pub(crate) class: Class,
    /// Pages; 0 for control frames and handshake messages.
    pub(crate) pages: u16,
    /// Bytes of the train.
    pub(crate) bytes: u32,
    /// Whether others may leave in its datagram, and it in theirs.
    pub(crate) is_order: bool,
}

/// Free lists by size. Last freed, first used: its memory is in the cache.
pub(crate) struct Slots {
    free: [Vec<SlotId>; 3],
    loads: Vec<Load>,
    holds: Vec<u16>,
}

impl Slots {
    /// All slots free.
    pub(crate) fn new() -> Slots {
        let small = 0..SMALL_SLOTS as u32;
        let page = small.end..small.end + PAGE_SLOTS as u32;
        let batch = page.end..page.end + BATCH_SLOTS as u32;
        let count = batch.end as usize;
        let empty = Load { to: NodeId(0), class: Class::Urgent, pages: 0, bytes: 0, is_order: false };
        Slots {
            free: [small.rev().collect(), page.rev().collect(), batch.rev().collect()],
            loads: vec![empty; count],
            holds: vec![0; count],
        }
    }

    /// Sizes of all slots in order, given what one page and sixteen take.
    pub(crate) fn sizes(page_bytes: usize, batch_bytes: usize) -> Vec<usize> {
        let sizes = [(SMALL_SLOT_BYTES, SMALL_SLOTS), (page_bytes, PAGE_SLOTS), (batch_bytes, BATCH_SLOTS)];
        sizes.into_iter().flat_map(|(bytes, count)| std::iter::repeat_n(bytes, count)).collect()
    }

    /// Takes a slot fit for `load`, if one is free.
    pub(crate) fn take(&mut self, load: Load) -> Option<SlotId> {
        let slot = self.free[size_index(load.pages)].pop()?;
        self.loads[slot as usize] = load;
        self.holds[slot as usize] = 0;
        Some(slot)
    }

    /// What `slot` carries.
    pub(crate) fn load(&self, slot: SlotId) -> Load {
        self.loads[slot as usize]
    }

    /// One more submission of `slot` is under way or planned.
    pub(crate) fn hold(&mut self, slot: SlotId) {
        self.holds[slot as usize] += 1;
    }

    /// One submission of `slot` is over; after the last one it is free.
    pub(crate) fn release(&mut self, slot: SlotId) {
        let holds = &mut self.holds[slot as usize];
        assert_ne!(*holds, 0, "released as often as held");
        *holds -= 1;
        if *holds == 0 {
            self.give_back(slot);
        }
    }

    /// Frees a slot that was never held.
    pub(crate) fn give_back(&mut self, slot: SlotId) {
        assert_eq!(self.holds[slot as usize], 0, "nothing of the slot is under way");
        self.free[size_index(self.loads[slot as usize].pages)].push(slot);
    }

    /// Free slots of each size.
    #[cfg(test)]
    pub(crate) fn free(&self) -> [usize; 3] {
        self.free.each_ref().map(Vec::len)
    }
}

fn size_index(pages: u16) -> usize {
    match pages {
        0 => 0,
        1 => 1,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_come_back() {
        let mut slots = Slots::new();
        let all = slots.free();
        let load = |pages| Load { to: NodeId(1), class: Class::Bulk, pages, bytes: 1, is_order: false };
        let taken: Vec<SlotId> = [0, 1, 16, 2].into_iter().map(|pages| slots.take(load(pages)).unwrap()).collect();
        assert_eq!(slots.free(), [all[0] - 1, all[1] - 1, all[2] - 2]);
        slots.give_back(taken[0]);
        slots.hold(taken[1]);
        slots.hold(taken[1]);
        slots.release(taken[1]);
        assert_eq!(slots.free()[1], all[1] - 1, "held once more");
        slots.release(taken[1]);
        slots.give_back(taken[2]);
        slots.give_back(taken[3]);
        assert_eq!(slots.free(), all);
        assert_eq!(Slots::sizes(5, 9).len(), all.iter().sum());
        while slots.take(load(3)).is_some() {}
        assert_eq!(slots.free()[2], 0);
    }
}
