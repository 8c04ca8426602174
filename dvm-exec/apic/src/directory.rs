//! Which processors a destination means.
//!
//! Owns the table of the identities of all APICs of the guest, which is the same on every host, and the matching. Must not know on
//! which host a processor is.
//!
//! A guest changes an identity by a register of that APIC alone; whoever writes it goes on only when every host has the new
//! one, so a sender is never behind what it may know.

use crate::command::{Command, Mode, Target, Width};

/// What is sent to who is named by its number or by a logical one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Number of the APIC.
    pub id: u32,
    /// Logical destination register.
    pub logical: u32,
    /// How the logical register is read.
    pub model: Model,
}

/// How an APIC reads a logical destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Model {
    /// Eight processors, a bit for each.
    Flat,
    /// 15 clusters of four.
    Cluster,
    /// x2APIC: clusters of sixteen, made from the number.
    Wide,
    /// Switched off: reached by INIT, NMI and start only through its number.
    Off,
}

/// The identities of all processors, by number of the processor.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    identities: Vec<Identity>,
    /// Where the search for one of several begins next.
    turn: usize,
}

impl Identity {
    /// The logical destination that x2APIC makes from a number.
    #[must_use]
    pub const fn wide_logical(id: u32) -> u32 {
        (id >> 4) << 16 | 1 << (id & 15)
    }

    fn is_physical(&self, destination: u32, width: Width) -> bool {
        let is_broadcast = match width {
            Width::Narrow => destination == 0xff,
            Width::Wide => destination == u32::MAX,
        };
        is_broadcast || destination == self.id
    }

    fn is_logical(&self, destination: u32, width: Width) -> bool {
        let own = self.logical;
        let is_broadcast = match width {
            Width::Narrow => destination == 0xff,
            Width::Wide => destination == u32::MAX,
        };
        match self.model {
            Model::Off => false,
            _ if is_broadcast => true,
            Model::Flat => destination & (own >> 24) != 0,
            Model::Cluster => destination >> 4 == own >> 28 && destination & (own >> 24) & 15 != 0,
            Model::Wide => destination >> 16 == own >> 16 && destination & own & 0xffff != 0,
        }
    }
}

impl Directory {
    /// Processors with these identities.
    #[must_use]
    pub fn new(identities: Vec<Identity>) -> Self {
        Self { identities, turn: 0 }
    }

    /// How many processors there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.identities.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.identities.is_empty()
    }

    /// Processor `cpu` is now known by `identity`; one that there is not is left out.
    pub fn set(&mut self, cpu: usize, identity: Identity) {
        if let Some(known) = self.identities.get_mut(cpu) {
            *known = identity;
        }
    }

    /// The processors that `command`, sent by processor `sender` or by a device, means.
    pub fn resolve(&mut self, command: &Command, sender: Option<usize>) -> Vec<usize> {
        let is_meant = |(cpu, identity): (usize, &Identity)| {
            let is_meant = match command.target {
                Target::Oneself => Some(cpu) == sender,
                Target::All => true,
                Target::Others => Some(cpu) != sender,
                Target::Physical(destination, width) => identity.is_physical(destination, width),
                Target::Logical(destination, width) => identity.is_logical(destination, width),
            };
            is_meant.then_some(cpu)
        };
        let mut meant: Vec<usize> = self.identities.iter().enumerate().filter_map(is_meant).collect();
        if command.mode == Mode::LowestPriority {
            // Priorities of other hosts are old when they arrive: each in its turn.
            let turn = self.turn;
            let chosen = meant.iter().copied().find(|cpu| *cpu >= turn).or(meant.first().copied());
            meant = chosen.into_iter().collect();
            self.turn = chosen.map_or(turn, |cpu| cpu + 1);
        }
        meant
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(model: Model, logical: impl Fn(u32) -> u32, count: u32) -> Directory {
        Directory::new((0..count).map(|id| Identity { id, logical: logical(id), model }).collect())
    }

    fn to(target: Target, mode: Mode) -> Command {
        Command { mode, vector: 0x40, is_level: false, target }
    }

    #[test]
    fn destinations() {
        #[track_caller]
        fn check(directory: &mut Directory, target: Target, meant: &[usize]) {
            assert_eq!(directory.resolve(&to(target, Mode::Fixed), Some(1)), meant, "{target:?}");
        }
        let narrow = |destination| Target::Logical(destination, Width::Narrow);
        let wide = |destination| Target::Logical(destination, Width::Wide);
        let mut flat = directory(Model::Flat, |id| 1 << (24 + id), 4);
        check(&mut flat, narrow(0b0101), &[0, 2]);
        check(&mut flat, narrow(0xff), &[0, 1, 2, 3]);
        check(&mut flat, narrow(0xf0), &[]);
        check(&mut flat, Target::Oneself, &[1]);
        check(&mut flat, Target::All, &[0, 1, 2, 3]);
        check(&mut flat, Target::Others, &[0, 2, 3]);
        check(&mut flat, Target::Physical(3, Width::Narrow), &[3]);
        check(&mut flat, Target::Physical(0xff, Width::Narrow), &[0, 1, 2, 3]);
        check(&mut flat, Target::Physical(0xff, Width::Wide), &[]);
        check(&mut flat, Target::Physical(u32::MAX, Width::Wide), &[0, 1, 2, 3]);
        let mut cluster = directory(Model::Cluster, |id| (id / 4) << 28 | 1 << (24 + id % 4), 8);
        check(&mut cluster, narrow(0x13), &[4, 5]);
        check(&mut cluster, narrow(0x0f), &[0, 1, 2, 3]);
        check(&mut cluster, narrow(0x2f), &[]);
        let mut x2 = directory(Model::Wide, Identity::wide_logical, 20);
        check(&mut x2, wide(0x0001_0005), &[16, 18]);
        check(&mut x2, wide(0x8001), &[0, 15]);
        check(&mut x2, wide(0x0002_0001), &[]);
        let mut off = directory(Model::Off, |_| u32::MAX, 2);
        check(&mut off, narrow(0xff), &[]);
        check(&mut off, Target::Physical(1, Width::Narrow), &[1]);
    }

    #[test]
    fn one_of_several_takes_its_turn() {
        let mut flat = directory(Model::Flat, |id| 1 << (24 + id), 4);
        let lowest = to(Target::Logical(0b1011, Width::Narrow), Mode::LowestPriority);
        let chosen: Vec<_> = (0..6).flat_map(|_| flat.resolve(&lowest, None)).collect();
        assert_eq!(chosen, [0, 1, 3, 0, 1, 3]);
    }
}
