//! The map against a naive model of single pages, with a fake machine that carries the effects out.
//!
//! Owns the model and the fake. Must not know how the map stores areas.

use super::super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

const BASE: u64 = 0x20_0000;
const HEAP: u64 = 0x80_0000;
const PAGES: u64 = 24;

/// What the model knows of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Page {
    protection: Protection,
    content: u8,
    /// 0 private, 1 shared, 2 file, 3 heap.
    kind: u8,
    /// Of a file, where the page is in it.
    place: u64,
}

/// Rights and contents as the effects leave them.
#[derive(Default)]
struct Machine {
    root: BTreeMap<u64, Protection>,
    member: BTreeMap<u64, Protection>,
    contents: BTreeMap<u64, u8>,
}

impl Machine {
    fn right(rights: &BTreeMap<u64, Protection>, page: u64) -> Protection {
        rights.get(&page).copied().unwrap_or_default()
    }

    fn content(&self, page: u64) -> u8 {
        self.contents.get(&page).copied().unwrap_or(0)
    }

    fn carry_out(&mut self, effects: &[Effect]) {
        for effect in effects {
            match effect {
                Effect::Protect { range, protection } => {
                    self.root.extend(pages(range).map(|page| (page, *protection)));
                }
                Effect::ProtectDown { range, protection } => {
                    for page in pages(range) {
                        self.root.insert(page, *protection);
                        let left = Self::right(&self.member, page).bits() & protection.bits();
                        self.member.insert(page, Protection::from_bits(left as u64));
                    }
                }
                Effect::Discard { range } => self.contents.retain(|page, _| !pages(range).contains(page)),
                Effect::Reload { range } => panic!("{range:x?} has no source here"),
                Effect::Source { range, offset, .. } => {
                    for (index, page) in pages(range).enumerate() {
                        assert_eq!(self.content(page), 0, "a source of fresh pages");
                        self.contents.insert(page, file_content(*offset, index as u64));
                    }
                }
                Effect::ReadFile { range, offset, .. } => {
                    for (index, page) in pages(range).enumerate() {
                        assert!(Self::right(&self.root, page).contains(Protection::WRITE), "read into writable pages");
                        assert_eq!(self.content(page), 0, "read into fresh pages");
                        self.contents.insert(page, file_content(*offset, index as u64));
                    }
                }
                Effect::ReadAgain { range, offset, .. } => {
                    for (index, page) in pages(range).enumerate() {
                        assert!(Self::right(&self.root, page).contains(Protection::WRITE), "read into writable pages");
                        self.contents.insert(page, file_content(*offset, index as u64));
                    }
                }
                Effect::Copy { from, to, bytes } => {
                    for index in 0..bytes / PAGE_BYTES {
                        let (from, to) = (from / PAGE_BYTES + index, to / PAGE_BYTES + index);
                        assert!(Self::right(&self.root, from).contains(Protection::READ), "copied from readable pages");
                        assert!(!Self::right(&self.member, from).contains(Protection::WRITE), "nobody writes meanwhile");
                        assert!(Self::right(&self.root, to).contains(Protection::WRITE), "copied to writable pages");
                        self.contents.insert(to, self.content(from));
                    }
                }
            }
        }
    }
}

fn pages(range: &Range<u64>) -> Range<u64> {
    assert!(
        range.start < range.end && range.start.is_multiple_of(PAGE_BYTES) && range.end.is_multiple_of(PAGE_BYTES),
        "{range:x?}"
    );
    range.start / PAGE_BYTES..range.end / PAGE_BYTES
}

fn file_content(offset: u64, index: u64) -> u8 {
    100 + (offset / PAGE_BYTES + index) as u8 % 100
}

#[derive(Clone, Debug)]
enum Call {
    Map { at: u64, count: u64, protection: u64, kind: u8, flags: u64 },
    Unmap { at: u64, count: u64 },
    Protect { at: u64, count: u64, protection: u64 },
    Remap { at: u64, old: u64, new: u64, to: Option<u64>, may_move: bool },
    Break { to: u64 },
    Forget { at: u64, count: u64 },
    MemberFault { at: u64 },
    Write { at: u64, value: u8 },
}

/// The three side by side.
#[derive(Default)]
struct Trial {
    map: AddressSpace,
    machine: Machine,
    model: BTreeMap<u64, Page>,
    heap_end: u64,
}

impl Trial {
    fn new() -> Self {
        let mut trial = Self { heap_end: HEAP, ..Self::default() };
        trial.map.set_heap(HEAP, HEAP + 16 * PAGE_BYTES);
        trial
    }

    /// The address of page `at` of the arena in which the calls play: half of it is around the heap.
    fn address(at: u64) -> u64 {
        if at < PAGES { BASE + at * PAGE_BYTES } else { HEAP + (at - PAGES) * PAGE_BYTES }
    }

    fn call(&mut self, call: &Call) {
        match *call {
            Call::Map { at, count, protection, kind, flags } => self.map_pages(at, count, protection, kind, flags),
            Call::Unmap { at, count } => {
                let change = self.map.unmap(Self::address(at), count * PAGE_BYTES);
                assert_eq!(change.result.is_ok(), count > 0);
                self.machine.carry_out(&change.effects);
                self.forget(Self::address(at) / PAGE_BYTES, count);
            }
            Call::Protect { at, count, protection } => self.protect_pages(at, count, protection),
            Call::Remap { at, old, new, to, may_move } => self.remap_pages(at, old, new, to, may_move),
            Call::Break { to } => self.move_break(HEAP + to * 512),
            Call::Forget { at, count } => self.forget_contents(at, count),
            Call::MemberFault { at } => {
                let Some(found) = self.map.lookup(Self::address(at)) else { panic!("inside the space") };
                let page = self.model.get(&(Self::address(at) / PAGE_BYTES));
                assert_eq!(found.found == Found::Area, page.is_some());
                if page.is_some() {
                    self.machine.member.extend(pages(&found.range).map(|page| (page, found.protection)));
                }
            }
            Call::Write { at, value } => {
                let number = Self::address(at) / PAGE_BYTES;
                if let Some(page) = self.model.get_mut(&number)
                    && page.protection.contains(Protection::WRITE)
                {
                    page.content = value;
                    self.machine.contents.insert(number, value);
                }
            }
        }
        self.compare();
    }

    fn forget(&mut self, first: u64, count: u64) {
        self.model.retain(|page, _| !(first..first + count).contains(page));
    }

    fn is_mapped(&self, first: u64, count: u64) -> bool {
        (first..first + count).all(|page| self.model.contains_key(&page))
    }

    fn is_free(&self, first: u64, count: u64) -> bool {
        (first..first + count).all(|page| !self.model.contains_key(&page))
    }

    fn map_pages(&mut self, at: u64, count: u64, protection: u64, kind: u8, flags: u64) {
        let identity = FileIdentity { name: "/lib/x".into(), device: (8, 1), inode: 77 };
        let offset = at * PAGE_BYTES;
        let file = (kind == 2).then_some(FileSource { fd: 5, offset, file: identity, bytes: None, is_writable: true });
        let sharing = if kind == 1 { libc::MAP_SHARED } else { libc::MAP_PRIVATE } as u64;
        let address = Self::address(at);
        let bytes = count * PAGE_BYTES - count.min(1) * 7;
        let request = MapRequest { address, bytes, protection, flags: flags | sharing, file };
        let change = self.map.map(&request);
        let fixed = flags & (libc::MAP_FIXED | libc::MAP_FIXED_NOREPLACE) as u64 != 0;
        let taken = !self.is_free(address / PAGE_BYTES, count);
        if count == 0 {
            assert_eq!(change.return_value(), -i64::from(libc::EINVAL));
            return;
        }
        if taken && flags & libc::MAP_FIXED_NOREPLACE as u64 != 0 {
            assert_eq!(change.return_value(), -i64::from(libc::EEXIST));
            return;
        }
        let start = change.result.expect("there is room");
        if fixed {
            assert_eq!(start, address);
        } else {
            assert!(start.is_multiple_of(PAGE_BYTES) && self.is_free(start / PAGE_BYTES, count), "free and aligned");
            assert!(flags & libc::MAP_32BIT as u64 == 0 || start + bytes <= 1 << 31);
            let own = flags & libc::MAP_STACK as u64 != 0 && start != address;
            assert!(!own || start.is_multiple_of(EXTENT_BYTES), "a thread's stack has its own extents");
        }
        self.machine.carry_out(&change.effects);
        for index in 0..count {
            let content = if kind == 2 { file_content(offset, index) } else { 0 };
            let page = Page { protection: Protection::from_bits(protection), content, kind, place: at + index };
            self.model.insert(start / PAGE_BYTES + index, page);
        }
    }

    fn protect_pages(&mut self, at: u64, count: u64, protection: u64) {
        let first = Self::address(at) / PAGE_BYTES;
        let change = self.map.protect(Self::address(at), count * PAGE_BYTES, protection);
        self.machine.carry_out(&change.effects);
        let mut expected = 0;
        for number in first..first + count {
            match self.model.get_mut(&number) {
                Some(page) => page.protection = Protection::from_bits(protection),
                None => {
                    expected = -i64::from(libc::ENOMEM);
                    break;
                }
            }
        }
        assert_eq!(change.return_value(), expected);
    }

    fn remap_pages(&mut self, at: u64, old: u64, new: u64, to: Option<u64>, may_move: bool) {
        let flags = if to.is_some() { libc::MREMAP_FIXED } else { 0 } | if may_move { libc::MREMAP_MAYMOVE } else { 0 };
        let request = RemapRequest {
            old_address: Self::address(at),
            old_bytes: old * PAGE_BYTES,
            new_bytes: new * PAGE_BYTES,
            flags: flags as u64,
            new_address: to.map_or(0, Self::address),
        };
        let first = request.old_address / PAGE_BYTES;
        let change = self.map.remap(request);
        let Ok(start) = change.result else {
            assert!(change.effects.is_empty(), "a refused mremap changes nothing");
            return;
        };
        let start = start / PAGE_BYTES;
        assert!(self.model.contains_key(&first) && (new > 0 && old > 0));
        assert!(new <= old || self.is_mapped(first, old));
        self.machine.carry_out(&change.effects);
        if to.is_some() {
            self.forget(start, new);
        }
        let moved: Vec<_> = (0..old.min(new)).map(|index| self.model.get(&(first + index)).copied()).collect();
        let sample = self.model[&first];
        self.forget(first, old);
        for index in 0..new {
            match moved.get(index as usize) {
                Some(Some(page)) => {
                    self.model.insert(start + index, *page);
                }
                Some(None) => {}
                None => {
                    assert!(!self.model.contains_key(&(start + index)), "grown into a hole");
                    let place = sample.place + index;
                    let content = if sample.kind == 2 { file_content(place * PAGE_BYTES, 0) } else { 0 };
                    self.model.insert(start + index, Page { content, place, ..sample });
                }
            }
        }
    }

    fn move_break(&mut self, to: u64) {
        let change = self.map.set_break(to);
        self.machine.carry_out(&change.effects);
        let up = |address: u64| address.div_ceil(PAGE_BYTES);
        let (old, new) = (up(self.heap_end), up(to));
        if new > old && !self.is_free(old, new - old) || to > HEAP + 16 * PAGE_BYTES {
            assert_eq!(change.result, Ok(self.heap_end));
            return;
        }
        assert_eq!(change.result, Ok(to));
        let fresh = Page { protection: Protection::READ_WRITE, content: 0, kind: 3, place: 0 };
        self.model.extend((old..new).map(|page| (page, fresh)));
        self.forget(new, old.saturating_sub(new));
        self.heap_end = to;
    }

    fn forget_contents(&mut self, at: u64, count: u64) {
        let first = Self::address(at) / PAGE_BYTES;
        let change = self.map.advise(Self::address(at), count * PAGE_BYTES, libc::MADV_DONTNEED as u64);
        self.machine.carry_out(&change.effects);
        let whole = self.is_mapped(first, count);
        assert_eq!(change.return_value(), if whole { 0 } else { -i64::from(libc::ENOMEM) });
        for number in first..first + count {
            match self.model.get_mut(&number) {
                Some(page) if page.kind == 2 => page.content = file_content(page.place * PAGE_BYTES, 0),
                Some(page) if page.kind != 1 => page.content = 0,
                _ => {}
            }
        }
    }

    fn compare(&self) {
        let mapped: Vec<u64> = self.map.areas().flat_map(|area| pages(&area.range)).collect();
        let expected: Vec<u64> = self.model.keys().copied().collect();
        assert_eq!(mapped, expected, "areas ascend, are disjoint and cover what the model has");
        let numbers = self.machine.root.keys().chain(self.machine.member.keys()).chain(self.machine.contents.keys());
        for &number in numbers.chain(&expected) {
            let page = self.model.get(&number);
            let protection = page.map_or(Protection::NONE, |page| page.protection);
            let found = self.map.look(number * PAGE_BYTES).expect("inside the space");
            assert_eq!((found.found == Found::Area, found.protection), (page.is_some(), protection));
            assert_eq!(Machine::right(&self.machine.root, number), protection, "root's rights at {number:#x}");
            let member = Machine::right(&self.machine.member, number);
            assert!(protection.contains(member), "a member has more than the map gives at {number:#x}");
            assert_eq!(self.machine.content(number), page.map_or(0, |page| page.content), "content at {number:#x}");
        }
    }
}

fn calls() -> impl Strategy<Value = Call> {
    let at = || 0..PAGES * 2;
    let count = || 0..8u64;
    let protection = || prop_oneof![Just(0), Just(1), Just(3), Just(5), Just(7)];
    let flags = prop_oneof![
        3 => Just(libc::MAP_FIXED),
        1 => Just(libc::MAP_FIXED_NOREPLACE),
        2 => Just(0),
        1 => Just(libc::MAP_32BIT),
        1 => Just(libc::MAP_STACK),
    ];
    prop_oneof![
        4 => (at(), count(), protection(), 0..3u8, flags).prop_map(|(at, count, protection, kind, flags)| {
            let anonymous = if kind == 2 { 0 } else { libc::MAP_ANONYMOUS };
            Call::Map { at, count, protection, kind, flags: (flags | anonymous) as u64 }
        }),
        2 => (at(), count()).prop_map(|(at, count)| Call::Unmap { at, count }),
        3 => (at(), count(), protection()).prop_map(|(at, count, protection)| Call::Protect { at, count, protection }),
        3 => (at(), count(), count(), proptest::option::of(at()), any::<bool>())
            .prop_map(|(at, old, new, to, may_move)| Call::Remap { at, old, new, to, may_move }),
        1 => (0..140u64).prop_map(|to| Call::Break { to }),
        2 => (at(), count()).prop_map(|(at, count)| Call::Forget { at, count }),
        4 => at().prop_map(|at| Call::MemberFault { at }),
        4 => (at(), 1..100u8).prop_map(|(at, value)| Call::Write { at, value }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn agrees_with_the_page_model(list in proptest::collection::vec(calls(), 1..40)) {
        let mut trial = Trial::new();
        list.iter().for_each(|call| trial.call(call));
    }

    #[test]
    fn no_arguments_panic(
        words in proptest::collection::vec(prop_oneof![any::<u64>(), (0..64u64).prop_map(|n| 1 << n), (0..9u64).prop_map(|n| n << 12), Just(u64::MAX)], 5..40),
    ) {
        let mut map = AddressSpace::new();
        map.set_heap(HEAP, HEAP + 0x10_000);
        for word in words.windows(5) {
            let [address, bytes, protection, flags, to] = *word else { continue };
            let _map = map.map(&MapRequest { address, bytes, protection, flags, file: None });
            let _remap = map.remap(RemapRequest { old_address: to, old_bytes: bytes, new_bytes: protection, flags: flags & 7, new_address: address });
            let _protect = map.protect(address, bytes, protection & 15);
            let _advise = map.advise(to, bytes, flags & 31);
            let _unmap = map.unmap(to, protection);
            let _break = map.set_break(address);
            let _covered = map.covered(address, bytes, flags, libc::SYS_msync);
            let _lookup = map.lookup(address);
        }
    }
}
