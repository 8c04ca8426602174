//! Sound, unsound and hostile program files.
//!
//! Owns a small writer of ELF headers. Must not need files beyond this test's own program.

use super::*;
use proptest::prelude::*;

/// A program header: kind, flags, offset, address, bytes in the file, in memory, alignment.
type Header = (u32, u32, u64, u64, u64, u64, u64);

fn elf(kind: u16, headers: &[Header], file_bytes: usize) -> Vec<u8> {
    let mut file = vec![0; file_bytes.max(FILE_HEADER_BYTES + headers.len() * PROGRAM_HEADER_BYTES)];
    file[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    file[16..18].copy_from_slice(&kind.to_le_bytes());
    file[18..20].copy_from_slice(&EM_X86_64.to_le_bytes());
    file[24..32].copy_from_slice(&0x1040_u64.to_le_bytes());
    file[32..40].copy_from_slice(&64_u64.to_le_bytes());
    file[54..56].copy_from_slice(&56_u16.to_le_bytes());
    file[56..58].copy_from_slice(&(headers.len() as u16).to_le_bytes());
    for (index, header) in headers.iter().enumerate() {
        let at = FILE_HEADER_BYTES + index * PROGRAM_HEADER_BYTES;
        file[at..at + 4].copy_from_slice(&header.0.to_le_bytes());
        file[at + 4..at + 8].copy_from_slice(&header.1.to_le_bytes());
        for (word, value) in [(8, header.2), (16, header.3), (32, header.4), (40, header.5), (48, header.6)] {
            file[at + word..at + word + 8].copy_from_slice(&value.to_le_bytes());
        }
    }
    file
}

fn executable(file: &[u8]) -> Executable {
    match ProgramFile::read(file).expect("sound file") {
        ProgramFile::Elf(executable) => executable,
        ProgramFile::Script { .. } => panic!("not a script"),
    }
}

const TEXT: Header = (PT_LOAD, 5, 0, 0, 0x1800, 0x1800, 0x1000);
const DATA: Header = (PT_LOAD, 6, 0x1e00, 0x3e00, 0x200, 0x2400, 0x1000);

#[test]
fn a_relocatable_program_is_placed() {
    let file = elf(ET_DYN, &[TEXT, DATA], 0x2000);
    let executable = executable(&file);
    assert!(executable.is_relocatable());
    assert_eq!(executable.span_bytes(), 0x7000);
    let plan = executable.plan(0x1000_0000_0000).expect("free base");
    assert_eq!(plan.bias, 0x1000_0000_0000);
    assert_eq!(plan.entry, 0x1000_0000_1040);
    assert_eq!(plan.headers, 0x1000_0000_0040);
    assert_eq!(plan.span, 0x1000_0000_0000..0x1000_0000_7000);
    let pages: Vec<_> = plan.pages().into_iter().map(|p| (p.range.start & 0xffff, p.range.end & 0xffff, p.file_offset)).collect();
    assert_eq!(pages, [(0, 0x2000, Some(0)), (0x3000, 0x4000, Some(0x1000)), (0x4000, 0x7000, None)]);
}

#[test]
fn a_fixed_program_takes_base_zero_only() {
    let moved = |header: Header| (header.0, header.1, header.2, header.3 + 0x40_0000, header.4, header.5, header.6);
    let executable = executable(&elf(ET_EXEC, &[moved(TEXT), moved(DATA)], 0x2000));
    assert!(!executable.is_relocatable());
    assert_eq!(executable.plan(0).expect("as linked").span, 0x40_0000..0x40_7000);
    assert!(matches!(executable.plan(0x20_0000), Err(ElfError::BadBase { .. })));
}

#[test]
fn segments_that_share_a_page_get_both_rights() {
    let second = (PT_LOAD, 6, 0x1800, 0x1800, 0x100, 0x100, 0x1000);
    let plan = executable(&elf(ET_DYN, &[TEXT, second], 0x2000)).plan(0x20_0000).expect("free base");
    let pages = plan.pages();
    assert_eq!(pages.len(), 2);
    assert_eq!(pages[1].protection.bits(), 7);
    assert_eq!(pages[1].file_offset, Some(0x1000));
}

#[test]
fn an_interpreter_is_returned() {
    let mut file = elf(ET_DYN, &[TEXT, (PT_INTERP, 4, 0x300, 0x300, 8, 8, 1)], 0x2000);
    file[0x300..0x308].copy_from_slice(b"/lib/ld\0");
    assert_eq!(executable(&file).interpreter(), Some("/lib/ld"));
    file[0x307] = b'x';
    assert!(matches!(ProgramFile::read(&file[..]), Err(ElfError::BadHeader { index: 1, .. })));
}

#[test]
fn scripts_are_recognised() {
    let check = |text: &str, interpreter: &str, argument: Option<&str>| {
        let expected = ProgramFile::Script {
            interpreter: interpreter.into(),
            argument: argument.map(|argument| argument.as_bytes().to_vec()),
        };
        assert_eq!(ProgramFile::read(text.as_bytes()), Ok(expected), "{text:?}");
    };
    check("#!/bin/sh\necho", "/bin/sh", None);
    check("#! /usr/bin/env  python3 -u \nx", "/usr/bin/env", Some("python3 -u"));
    check("#!/bin/sh", "/bin/sh", None);
    assert_eq!(ProgramFile::read(&b"#!  \n"[..]), Err(ElfError::EmptyScript));
}

#[test]
fn what_cannot_run_is_named() {
    let sound = elf(ET_DYN, &[TEXT], 0x2000);
    let check = |change: &dyn Fn(&mut Vec<u8>), expected: ElfError| {
        let mut file = sound.clone();
        change(&mut file);
        assert_eq!(ProgramFile::read(&file[..]), Err(expected));
    };
    check(&|file| file.clear(), ElfError::NotElf);
    check(&|file| file[1] = b'X', ElfError::NotElf);
    check(&|file| file[4] = 1, ElfError::ThirtyTwoBit);
    check(&|file| file[5] = 2, ElfError::BigEndian);
    check(&|file| file[18] = 183, ElfError::OtherMachine(183));
    check(&|file| file[16] = 1, ElfError::OtherType(1));
    check(&|file| file[56] = 0, ElfError::NothingToLoad);
    check(&|file| file[57] = 1, ElfError::BadTable("it has more than 128 entries"));
    check(&|file| file.truncate(40), truncated("the file header", 0, 64, 40));
    check(&|file| file.truncate(70), truncated("the program header table", 64, 120, 70));
    check(&|file| file.truncate(0x1000), truncated("a segment", 0, 0x1800, 0x1000));
    check(&|file| file[64] = 9, ElfError::NothingToLoad);
}

#[test]
fn impossible_segments_are_named() {
    let check = |headers: &[Header]| ProgramFile::read(&elf(ET_DYN, headers, 0x4000)[..]).expect_err("bad header");
    assert_eq!(check(&[DATA, TEXT]), ElfError::Overlap(0));
    assert_eq!(check(&[TEXT, (PT_LOAD, 6, 0x1000, 0x1000, 1, 1, 0x1000)]), ElfError::Overlap(0x1000));
    assert!(matches!(check(&[(PT_LOAD, 5, 0, 0, 2, 1, 1)]), ElfError::BadHeader { index: 0, .. }));
    assert!(matches!(check(&[(PT_LOAD, 5, 1, 0, 2, 2, 1)]), ElfError::BadHeader { index: 0, .. }));
    assert!(matches!(check(&[(PT_LOAD, 5, 0, 0, 2, 2, 3)]), ElfError::BadHeader { index: 0, .. }));
    assert!(matches!(check(&[(PT_LOAD, 5, 0, 0, 1, u64::MAX, 1)]), ElfError::OutsideSpace { .. }));
    let low = executable(&elf(ET_EXEC, &[TEXT], 0x2000));
    assert!(matches!(low.plan(0), Err(ElfError::OutsideSpace { start: 0, .. })));
}

#[test]
fn this_test_program_is_sound() {
    let file = std::fs::read("/proc/self/exe").expect("own program");
    let executable = executable(&file);
    let plan = executable.plan(if executable.is_relocatable() { 0x1000_0000_0000 } else { 0 }).expect("place");
    assert!(plan.span.contains(&plan.entry));
    assert!(plan.span.contains(&plan.headers));
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        drop(ProgramFile::read(&bytes[..]));
    }

    #[test]
    fn no_headers_panic(
        headers in proptest::collection::vec(hostile_header(), 0..6),
        flips in proptest::collection::vec((0usize..400, any::<u8>()), 0..4),
        base in prop_oneof![Just(0), Just(0x1000_0000_0000), any::<u64>()],
    ) {
        let mut file = elf(ET_DYN, &headers, 0x3000);
        for (at, byte) in flips {
            file[at] = byte;
        }
        if let Ok(ProgramFile::Elf(executable)) = ProgramFile::read(&file[..])
            && let Ok(plan) = executable.plan(base)
        {
            let pages = plan.pages();
            prop_assert!(plan.span.start >= SPACE_START && plan.span.end <= SPACE_END);
            prop_assert!(pages.windows(2).all(|pair| pair[0].range.end <= pair[1].range.start));
            prop_assert!(pages.iter().all(|p| plan.span.start <= p.range.start && p.range.end <= plan.span.end));
        }
    }
}

fn hostile_header() -> impl Strategy<Value = Header> {
    let word =
        || prop_oneof![4 => 0u64..0x4000, 1 => Just(u64::MAX), 1 => any::<u64>(), 2 => (0u64..8).prop_map(|page| page << 12)];
    let kind = prop_oneof![4 => Just(PT_LOAD), 1 => Just(PT_INTERP), 1 => Just(PT_PHDR), 1 => any::<u32>()];
    (kind, 0u32..8, word(), word(), word(), word(), prop_oneof![Just(0), Just(0x1000), any::<u64>()])
}
