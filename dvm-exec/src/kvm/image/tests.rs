//! Images that are as they should be, and those that are not.

use super::*;
use proptest::prelude::*;

const MEMORY: u64 = 16 << 20;

fn memory() -> Memory {
    Memory::from_ranges(&[(GuestAddress(0), MEMORY as usize)]).expect("as it should be")
}

fn put(file: &mut [u8], at: usize, value: u64, bytes: usize) {
    file[at..at + bytes].copy_from_slice(&value.to_le_bytes()[..bytes]);
}

/// The same with a note behind it that names a 32-bit entry.
fn pvh(entry: u32) -> Vec<u8> {
    let file = elf();
    let (first, rest) = file.split_at(64);
    let (segment, contents) = rest.split_at(56);
    let mut note = segment.to_vec();
    for (at, value, bytes) in [(0, 4, 4), (8, 192, 8), (32, 20, 8), (40, 20, 8)] {
        put(&mut note, at, value, bytes);
    }
    let words = [4, 4, 18, u32::from_le_bytes(*b"Xen\0"), entry].map(u32::to_le_bytes);
    let mut file = [first, segment, &note, contents, words.as_flattened()].concat();
    put(&mut file, 56, 2, 2);
    put(&mut file, 64 + 8, 176, 8);
    file
}

/// An executable of one segment of 16 bytes at 2 MiB.
fn elf() -> Vec<u8> {
    let mut file = vec![0; 64 + 56 + 16];
    file[..8].copy_from_slice(b"\x7fELF\x02\x01\x01\0");
    for (at, value, bytes) in
        [(16, 2, 2), (18, 62, 2), (20, 1, 4), (24, 0x20_0000, 8), (32, 64, 8), (52, 64, 2), (54, 56, 2), (56, 1, 2)]
    {
        put(&mut file, at, value, bytes);
    }
    for (at, value) in [(8, 120), (16, 0x20_0000), (24, 0x20_0000), (32, 16), (40, 0x3000)] {
        put(&mut file, 64 + at, value, 8);
    }
    put(&mut file, 64, 1, 4);
    file[120..].copy_from_slice(b"0123456789abcdef");
    file
}

#[test]
fn kinds() {
    let memory = memory();
    let flat = load(b"\xf4\xeb\xfd", &memory, MEMORY).expect("as it should be");
    assert!(matches!(flat.entry, Entry::Native(IMAGE)) && flat.end == IMAGE + 3);
    let loaded = load(&elf(), &memory, MEMORY).expect("as it should be");
    assert!(matches!(loaded.entry, Entry::Native(0x20_0000)) && loaded.end == 0x20_3000);
    let loaded = load(&pvh(0x20_0004), &memory, MEMORY).expect("as it should be");
    assert!(matches!(loaded.entry, Entry::Pvh(0x20_0004)), "{loaded:?}");
    assert_eq!(memory.read_obj::<[u8; 16]>(GuestAddress(0x20_0000)).expect("as it should be"), *b"0123456789abcdef");
}

#[test]
fn refusals() {
    #[track_caller]
    fn check(file: &[u8], wanted: &ImageError) {
        assert_eq!(load(file, &memory(), MEMORY).unwrap_err(), *wanted);
    }
    let with = |at, value, bytes| {
        let mut file = elf();
        put(&mut file, at, value, bytes);
        file
    };
    check(&[], &ImageError::Empty);
    check(&elf()[..40], &ImageError::CutOff { what: "the header", end: 64, bytes: 40 });
    check(&elf()[..100], &ImageError::CutOff { what: "the table of segments", end: 120, bytes: 100 });
    check(&elf()[..130], &ImageError::CutOff { what: "a segment", end: 136, bytes: 130 });
    check(&with(4, 1, 1), &ImageError::Class);
    check(&with(18, 183, 2), &ImageError::Machine(183));
    check(&with(16, 1, 2), &ImageError::Type(1));
    check(&with(24, 0x30_0000, 8), &ImageError::Entry(0x30_0000));
    check(&with(64 + 40, MEMORY, 8), &ImageError::NoRoom { first: 0x20_0000, end: MEMORY + 0x20_0000, memory: 16 });
    check(&with(64 + 24, u64::MAX - 3, 8), &ImageError::NoRoom { first: u64::MAX - 3, end: u64::MAX, memory: 16 });
    check(&pvh(0x30_0000), &ImageError::Entry(0x30_0000));
    check(&pvh(0x20_0000)[..200], &ImageError::CutOff { what: "a note", end: 212, bytes: 200 });
    check(&vec![0; MEMORY as usize], &ImageError::NoRoom { first: IMAGE, end: IMAGE + MEMORY, memory: 16 });
    for (name, at, mark) in FOREIGN {
        let mut kernel = vec![0; 0x1_1000];
        kernel[at..at + mark.len()].copy_from_slice(mark);
        check(&kernel, &ImageError::Foreign(name));
    }
    let mut linux = vec![0; 0x1000];
    linux[0x202..0x206].copy_from_slice(b"HdrS");
    check(&linux, &ImageError::NoLongEntry);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn no_file_is_too_bad(changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..20), cut in 0..300_usize, has_note in any::<bool>()) {
        let memory = memory();
        let mut file = if has_note { pvh(0x20_0004) } else { elf() };
        for (at, value) in changes {
            let at = at.index(file.len());
            file[at] = value;
        }
        file.truncate(cut);
        drop(load(&file, &memory, MEMORY));
        let mut linux = vec![0; 0x400];
        linux[0x1f1..0x1f1 + file.len().min(0x100)].copy_from_slice(&file[..file.len().min(0x100)]);
        linux[0x202..0x206].copy_from_slice(b"HdrS");
        drop(load(&linux, &memory, MEMORY));
    }
}
