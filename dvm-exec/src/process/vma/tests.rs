//! The map against a naive model of single pages, with a fake machine that carries the effects out.
//!
//! Owns the model and the fake. Must not know how the map stores areas.

use super::*;
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

fn anonymous(address: u64, bytes: u64, flags: i32) -> MapRequest {
    let flags = (flags | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
    MapRequest { address, bytes, protection: 3, flags, file: None }
}

#[test]
fn blocks_of_an_extent_do_not_share_one() {
    let mut map = AddressSpace::new();
    let mut start = |bytes, flags| map.map(&anonymous(0, bytes, flags)).result.expect("room");
    assert_eq!(start(4096, 0), ARENA_START);
    assert_eq!(start((8 << 20) + 4096, 0), ARENA_LARGE_START);
    assert_eq!(start(8 << 20, 0), ARENA_LARGE_START + (10 << 20));
    assert_eq!(start(256 << 10, libc::MAP_STACK), ARENA_LARGE_START + (18 << 20));
    assert_eq!(start(1 << 20, 0), ARENA_START + 4096);
    assert_eq!(start(4096, libc::MAP_32BIT), 0x4000_0000);
}

fn file(bytes: u64, mapped: u64, address: u64, flags: i32) -> MapRequest {
    let file = FileIdentity { name: "/x".into(), device: (0, 0), inode: 1 };
    let source = FileSource { fd: 3, offset: 0x1000, file, bytes: Some(bytes), is_writable: false };
    MapRequest { address, bytes: mapped, protection: 3, flags: (flags | libc::MAP_PRIVATE) as u64, file: Some(source) }
}

#[test]
fn large_files_are_read_by_page() {
    let mut map = AddressSpace::new();
    let change = map.map(&file(4 << 30, 3 << 30, 0, 0));
    let start = change.result.expect("room");
    let range = start..start + (3 << 30);
    let expected = [
        Effect::Source { range: range.clone(), fd: 3, offset: 0x1000 },
        Effect::Protect { range: range.clone(), protection: Protection::READ_WRITE },
    ];
    assert_eq!(change.effects, expected);
    assert!(start >= ARENA_SOURCED_START);
    let forgotten = start + 0x1000..start + 0x3000;
    let advised = |map: &mut AddressSpace| map.advise(start + 0x1000, 0x2000, libc::MADV_DONTNEED as u64).effects;
    assert_eq!(advised(&mut map), [Effect::Reload { range: forgotten }]);
    map.note_copied(&range);
    assert!(matches!(advised(&mut map)[1], Effect::ReadAgain { offset: 0x2000, .. }), "a copy is read again");
    let elsewhere = map.map(&file(4 << 30, 2 << 20, BASE, libc::MAP_FIXED));
    assert!(matches!(elsewhere.effects[1], Effect::ReadFile { .. }), "{elsewhere:?}");
    let hinted = map.map(&file(4 << 30, 2 << 20, BASE + (4 << 20), 0)).result.expect("room");
    assert!(hinted >= ARENA_SOURCED_START);
    let small = map.map(&file(0x3000, 0x2000, 0, 0));
    assert!(matches!(small.effects[1], Effect::ReadFile { .. }), "{small:?}");
}

#[test]
fn nothing_is_beyond_the_end_of_a_file() {
    let mut map = AddressSpace::new();
    let change = map.map(&file(0x2001, 0x4000, 0, 0));
    let start = change.result.expect("room");
    let reach = start..start + 0x2000;
    let rights = |protection| Effect::Protect { range: reach.clone(), protection };
    let read = Effect::ReadFile { range: reach.clone(), fd: 3, offset: 0x1000 };
    assert_eq!(change.effects, [rights(Protection::READ_WRITE), read, rights(Protection::READ_WRITE)]);
    let look = |map: &AddressSpace, address| map.look(address).map(|found| (found.range, found.protection, found.found));
    assert_eq!(look(&map, start), Some((reach.clone(), Protection::READ_WRITE, Found::Area)));
    let beyond = start + 0x2000..start + 0x4000;
    assert_eq!(look(&map, start + 0x3fff), Some((beyond, Protection::NONE, Found::BeyondFile)));
    assert_eq!(map.protect(start, 0x4000, 1).effects, [rights(Protection::READ)]);
    assert_eq!(map.protect(start + 0x3000, 0x1000, 3).effects, []);
    let grow = |old_bytes, new_bytes| RemapRequest { old_address: start, old_bytes, new_bytes, flags: 0, new_address: 0 };
    assert_eq!(map.remap(grow(0x4000, 0x5000)).effects, [], "grown beyond the end");
    let read_again = |change: Change| match &change.effects[..] {
        [_, Effect::ReadAgain { range, offset, .. }, _] => (range.clone(), *offset),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        read_again(map.advise(start + 0x1000, 0x2000, libc::MADV_DONTNEED as u64)),
        (start + 0x1000..start + 0x2000, 0x2000)
    );
    assert!(map.remap(grow(0x5000, 0x1000)).result.is_ok());
    assert_eq!(read_again(map.remap(grow(0x1000, 0x3000))), (start + 0x1000..start + 0x2000, 0x2000));
    let nothing = map.map(&file(0x1000, 0x1000, 0, 0));
    assert_eq!((nothing.effects.len(), nothing.result.is_ok()), (0, true), "all of it is beyond the end");
}

#[test]
fn what_grew_has_room_to_grow() {
    let mut map = AddressSpace::new();
    let first = map.map(&anonymous(0, 4 << 20, 0)).result.expect("room");
    assert!(map.map(&anonymous(0, 4 << 20, 0)).result.is_ok());
    let grown = |map: &mut AddressSpace, at, old, new| {
        let request = RemapRequest { old_address: at, old_bytes: old, new_bytes: new, flags: MAYMOVE, new_address: 0 };
        map.remap(request).result.expect("room")
    };
    const MAYMOVE: u64 = libc::MREMAP_MAYMOVE as u64;
    let moved = grown(&mut map, first, 4 << 20, 8 << 20);
    assert_ne!(moved, first);
    assert!(map.map(&anonymous(0, 16 << 20, 0)).result.is_ok());
    assert_eq!(grown(&mut map, moved, 8 << 20, 32 << 20), moved);
}

#[test]
fn no_more_is_promised_than_there_is() {
    let mut map = AddressSpace::new();
    map.set_promise(1 << 30);
    let mut check = |request: &MapRequest, is_mapped: bool| assert_eq!(map.map(request).result.is_ok(), is_mapped, "{request:?}");
    check(&anonymous(0, (1 << 30) + 1, 0), false);
    check(&anonymous(0, 1 << 30, 0), true);
    check(&anonymous(0, 1 << 40, libc::MAP_NORESERVE), true);
    check(&MapRequest { protection: 0, ..anonymous(0, 1 << 40, 0) }, true);
    map.set_limits((3 << 40, u64::MAX));
    let again = MapRequest { protection: 0, ..anonymous(0, 1 << 40, 0) };
    assert_eq!(map.map(&again).return_value(), -i64::from(libc::ENOMEM), "two TiB and a GiB are mapped");
    assert!(map.map(&anonymous(0, 1 << 20, 0)).result.is_ok());
}

#[test]
fn advice_is_refused_as_by_linux() {
    let mut map = AddressSpace::new();
    let private = map.map(&anonymous(0, 0x1000, 0)).result.expect("room");
    let request = MapRequest { flags: (libc::MAP_SHARED | libc::MAP_ANONYMOUS) as u64, protection: 1, ..anonymous(0, 0x1000, 0) };
    let shared = map.map(&request).result.expect("room");
    let mut check = |at, advice: i32, errno: i32| {
        assert_eq!(map.advise(at, 0x1000, advice as u64).return_value(), -i64::from(errno), "{advice} at {at:#x}");
    };
    check(private, libc::MADV_FREE, 0);
    check(shared, libc::MADV_FREE, libc::EINVAL);
    check(private, libc::MADV_REMOVE, libc::EINVAL);
    check(shared, libc::MADV_REMOVE, 0);
    check(private, libc::MADV_POPULATE_WRITE, 0);
    check(shared, libc::MADV_POPULATE_READ, 0);
    check(shared, libc::MADV_POPULATE_WRITE, libc::EINVAL);
    check(private, 102, libc::EINVAL);
}

#[test]
fn freed_memory_is_used_again() {
    let mut map = AddressSpace::new();
    let first = map.map(&anonymous(0, 0x3000, 0)).result.expect("room");
    let second = map.map(&anonymous(0, 0x1000, 0)).result.expect("room");
    assert_eq!(map.unmap(first, 0x1000).result, Ok(0));
    assert_eq!(map.unmap(first + 0x1000, 0x2000).result, Ok(0));
    assert_eq!(map.map(&anonymous(0, 0x3000, 0)).result, Ok(first));
    assert_eq!(map.areas().count(), 1, "joined with {second:#x}");
}

#[test]
fn only_what_members_know_is_broadcast() {
    let mut map = AddressSpace::new();
    let at = map.map(&anonymous(0, 0x4000, 0)).result.expect("room");
    let is_broadcast = |change: &Change| change.effects.iter().any(|effect| matches!(effect, Effect::ProtectDown { .. }));
    assert!(!is_broadcast(&map.protect(at, 0x1000, 1)));
    assert!(map.lookup(at + 0x1000).is_some_and(|found| found.range == (at + 0x1000..at + 0x4000)));
    assert!(!is_broadcast(&map.protect(at + 0x1000, 0x1000, 7)), "more rights are asked for, not sent");
    assert!(is_broadcast(&map.protect(at + 0x1000, 0x1000, 0)));
    let change = map.unmap(at, 0x4000);
    let range = at + 0x2000..at + 0x4000;
    let expected = [
        Effect::Protect { range: at..at + 0x1000, protection: Protection::NONE },
        Effect::ProtectDown { range, protection: Protection::NONE },
        Effect::Discard { range: at..at + 0x4000 },
    ];
    assert_eq!(change.effects, expected);
}

#[test]
fn memory_never_touched_costs_nothing() {
    let mut map = AddressSpace::new();
    let request = MapRequest { protection: 0, ..anonymous(0, 128 << 20, libc::MAP_NORESERVE) };
    let change = map.map(&request);
    assert_eq!(change.effects, []);
    assert_eq!(map.unmap(change.result.expect("room"), 64 << 20).effects, []);
}

#[test]
fn joined_areas_remember_what_was_touched() {
    let check = |touched: u64, fresh: u64| {
        let mut map = AddressSpace::new();
        assert!(map.map(&anonymous(touched, 0x1000, libc::MAP_FIXED)).result.is_ok());
        assert!(map.protect(touched, 0x1000, 0).result.is_ok());
        let none = MapRequest { protection: 0, ..anonymous(fresh, 0x1000, libc::MAP_FIXED) };
        assert!(map.map(&none).result.is_ok());
        assert_eq!(map.areas().count(), 1);
        let range = BASE..BASE + 0x2000;
        assert_eq!(map.unmap(BASE, 0x2000).effects, [Effect::Discard { range }]);
    };
    check(BASE, BASE + 0x1000);
    check(BASE + 0x1000, BASE);
}

#[test]
fn a_window_can_be_filled() {
    let mut map = AddressSpace::new();
    assert_eq!(map.map(&anonymous(0, 1 << 30, libc::MAP_32BIT)).result, Ok(0x4000_0000));
    assert_eq!(map.map(&anonymous(0, 1, libc::MAP_32BIT)).return_value(), -i64::from(libc::ENOMEM));
}

#[test]
fn errors_are_those_of_linux() {
    let mut map = AddressSpace::new();
    let at = map.map(&anonymous(0, 0x2000, 0)).result.expect("room");
    let file = FileIdentity { name: "/x".into(), device: (0, 0), inode: 1 };
    let with_file = |flags: i32, protection, offset| MapRequest {
        address: 0,
        bytes: 4096,
        protection,
        flags: flags as u64,
        file: Some(FileSource { fd: 3, offset, file: file.clone(), bytes: None, is_writable: offset == 0 }),
    };
    let check = |change: Change, errno: i32| assert_eq!(change.return_value(), -i64::from(errno), "{change:?}");
    check(map.map(&anonymous(0, 0, 0)), libc::EINVAL);
    check(map.map(&anonymous(0, u64::MAX, 0)), libc::ENOMEM);
    check(map.map(&MapRequest { flags: libc::MAP_ANONYMOUS as u64, ..anonymous(0, 1, 0) }), libc::EINVAL);
    check(map.map(&anonymous(at + 1, 4096, libc::MAP_FIXED)), libc::EINVAL);
    check(map.map(&anonymous(0, 4096, libc::MAP_FIXED)), libc::EPERM);
    check(map.map(&anonymous(SPACE_END, 4096, libc::MAP_FIXED)), libc::ENOMEM);
    check(map.map(&anonymous(at, 4096, libc::MAP_FIXED_NOREPLACE)), libc::EEXIST);
    check(map.map(&anonymous(0, 4096, libc::MAP_HUGETLB)), libc::ENOMEM);
    check(map.map(&with_file(libc::MAP_SHARED, 3, 0)), libc::ENODEV);
    check(map.map(&with_file(libc::MAP_SHARED, 3, 4096)), libc::EACCES);
    check(map.map(&with_file(libc::MAP_PRIVATE, 3, 1)), libc::EINVAL);
    check(map.unmap(at + 1, 4096), libc::EINVAL);
    check(map.unmap(at, 0), libc::EINVAL);
    check(map.protect(at + 1, 4096, 1), libc::EINVAL);
    check(map.protect(at, 4096, 0x100), libc::EINVAL);
    check(map.protect(at, 0x3000, 1), libc::ENOMEM);
    check(map.advise(at, 0x3000, libc::MADV_DONTNEED as u64), libc::ENOMEM);
    check(map.advise(at, 0x1000, 9999), libc::EINVAL);
    check(map.advise(at, 0x1000, libc::MADV_HWPOISON as u64), libc::EPERM);
    let remap = |old_address, old_bytes, new_bytes, flags: i32, new_address| RemapRequest {
        old_address,
        old_bytes,
        new_bytes,
        flags: flags as u64,
        new_address,
    };
    check(map.remap(remap(at, 4096, 0, 0, 0)), libc::EINVAL);
    check(map.remap(remap(at + 1, 4096, 4096, 0, 0)), libc::EINVAL);
    check(map.remap(remap(at, 4096, 8192, 0, 0)), libc::ENOMEM);
    check(map.remap(remap(at, 0x3000, 0x4000, 1, 0)), libc::EFAULT);
    check(map.remap(remap(at + 0x10_0000, 4096, 8192, 1, 0)), libc::EFAULT);
    check(map.remap(remap(at, 4096, 4096, libc::MREMAP_FIXED, 0)), libc::EINVAL);
    check(map.remap(remap(at, 4096, 4096, 1 | libc::MREMAP_DONTUNMAP, 0)), libc::EINVAL);
    check(map.remap(remap(at, 8192, 8192, 3, at + 4096)), libc::EINVAL);
    let snapshot = map.map(&with_file(libc::MAP_SHARED, 1, 0)).result.expect("read-only");
    check(map.protect(snapshot, 4096, 3), libc::EACCES);
    assert_eq!(map.covered(at, 0x1000, 0, libc::SYS_mincore), Ok(0));
    assert_eq!(map.covered(at + 5, 0xff0, 0, libc::SYS_mlock), Ok(0));
    assert_eq!(map.covered(at, 0x1000, 8, libc::SYS_msync).map_err(MapError::errno), Err(libc::EINVAL));
    assert_eq!(map.covered(at + 0x1000, 0x3000, 0, libc::SYS_mlock).map_err(MapError::errno), Err(libc::ENOMEM));
    assert_eq!(map.lookup(SPACE_END), None);
    assert_eq!(map.lookup(0), None);
}

#[test]
fn a_break_stays_within_its_bounds() {
    let mut map = AddressSpace::new();
    map.set_heap(HEAP, HEAP + 0x10_000);
    let mut check = |to, expected| assert_eq!(map.set_break(to).result, Ok(expected));
    check(0, HEAP);
    check(HEAP + 100, HEAP + 100);
    check(HEAP + 0x5001, HEAP + 0x5001);
    check(HEAP + 0x20_000, HEAP + 0x5001);
    check(HEAP, HEAP);
}

#[test]
fn maps_reads_as_the_kernels() {
    let mut map = AddressSpace::new();
    let file = FileIdentity { name: "/usr/bin/prog".into(), device: (0xfe, 1), inode: 1234 };
    let kind = AreaKind::File { file, offset: 0x1000, shared: false, end: u64::MAX };
    let rights = Protection::READ.union(Protection::EXECUTE);
    assert!(map.place(Area { range: 0x40_1000..0x40_2000, protection: rights, kind }).result.is_ok());
    map.set_heap(0x50_0000, 0x60_0000);
    assert!(map.set_break(0x50_1000).result.is_ok());
    let shared = MapRequest { flags: (libc::MAP_SHARED | libc::MAP_ANONYMOUS) as u64, ..anonymous(0, 0x1000, 0) };
    assert!(map.map(&shared).result.is_ok());
    let expected = "\
00401000-00402000 r-xp 00001000 fe:01 1234                               /usr/bin/prog
00500000-00501000 rw-p 00000000 00:00 0                                  [heap]
100000000000-100000001000 rw-s 00000000 00:00 0 
500010000000-500010002000 r-xp 00000000 00:00 0                          [vdso]
";
    assert_eq!(map.maps_text(), expected);
}
