//! Single calls of the map.
//!
//! Owns examples, each with what Linux does. Must not know how the map stores areas.

mod model;

use super::*;

const BASE: u64 = 0x20_0000;
const HEAP: u64 = 0x80_0000;

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
