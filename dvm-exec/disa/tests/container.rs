//! The file of a program: what is written is read, and every reason to refuse one.
//!
//! Owns the texts users see. Must not know how a machine uses a program.

use dvm_disa::asm::assemble;
use dvm_disa::elf::{read, write};
use dvm_disa::listing::listing;
use dvm_disa::object::Object;
use proptest::prelude::*;

const SOURCE: &str = ".entry m
.grain page
.serializable
.equ N, 7
.global m
.data SR+0x1000
v: .quad 7
.data SR+0x3000
.ascii \"seven\"
.rodata
c: .double 1.5
.bss
z: .space 100
.standalone own, 8
.text
f: add $N, v, w0
m: br:z z, $f
 mov:d c, w1
 exit:c
";

fn object() -> Object {
    assemble(SOURCE, "t.disa").unwrap_or_else(|errors| panic!("{errors}"))
}

#[test]
fn what_is_written_is_read() {
    // rule: C1, O8
    let object = object();
    assert!(object.rules.is_page_grain && object.rules.is_serializable);
    assert_eq!((object.data.len(), object.bss.len(), object.symbols.iter().filter(|symbol| symbol.is_global).count()), (2, 2, 1));
    let file = write(&object);
    assert_eq!(read(&file), Ok(object.clone()));
    assert_eq!(write(&read(&file).expect("it was just read")), file);
    assert_eq!((&file[..4], &file[18..20]), (&b"\x7fELF"[..], &0xd15au16.to_le_bytes()[..]));
}

#[test]
fn a_listing_has_addresses_bytes_lines_and_labels() {
    let listing = listing(&object()).expect("the assembler verified it");
    let expected = "entry 0x50010000000f
grain page
serializable
f:
500100000000  01030007380010000000..       16  add $7, 0x100000001000, w0
m:
";
    let found: Vec<&str> = listing.lines().collect();
    assert_eq!(&found[..4], &expected.lines().take(4).collect::<Vec<_>>()[..], "{listing}");
    assert!(found[4].starts_with("500100000000  ") && found[4].ends_with("     16  add $7, 0x100000001000, w0"), "{listing}");
    assert!(found[6].contains("br:z 0x") && found[6].ends_with("# f"), "{listing}");
    assert!(listing.ends_with(".rodata 0x500140000000 8 bytes\n"), "{listing}");
}

/// The header of a section begins here.
fn section(file: &[u8], index: usize) -> usize {
    u64::from_le_bytes(file[40..48].try_into().expect("8 bytes")) as usize + 64 * index
}

fn field(file: &[u8], at: usize) -> usize {
    u64::from_le_bytes(file[at..at + 8].try_into().expect("8 bytes")) as usize
}

fn set(file: &mut [u8], at: usize, value: u64, width: usize) {
    file[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
}

/// Sections of the file: none, text, rodata, data, data, bss, bss, lines, symbols, strings, names.
#[test]
fn every_reason_to_refuse_a_file() {
    // rule: C2
    type Harm = fn(&mut Vec<u8>);
    let cases: &[(&str, Harm)] = &[
        ("no ELF file: it does not begin with 7f 45 4c 46", |file| file[0] = 0),
        ("no ELF file: it does not begin with 7f 45 4c 46", Vec::clear),
        ("ELF header of 0x40 bytes at offset 0x0: the file has 0x14 bytes", |file| file.truncate(20)),
        ("ELF header: EI_CLASS is 0x1, a DISA program has 0x2", |file| file[4] = 1),
        ("ELF header: EI_DATA is 0x2, a DISA program has 0x1", |file| file[5] = 2),
        ("ELF header: EI_VERSION is 0x0, a DISA program has 0x1", |file| file[6] = 0),
        ("ELF header: e_type is 0x1, a DISA program has 0x2", |file| file[16] = 1),
        ("ELF header: e_machine is 0x3e, a DISA program has 0xd15a", |file| set(file, 18, 62, 2)),
        ("ELF header: e_version is 0x2, a DISA program has 0x1", |file| file[20] = 2),
        ("ELF header: e_shentsize is 0x28, a DISA program has 0x40", |file| file[58] = 40),
        ("ELF header: e_flags 0x4 has bits that mean nothing", |file| file[48] = 4),
        ("table of sections of 0x2c0 bytes at offset 0xffffffffffffffff: the file has 0x4c8 bytes", |file| {
            set(file, 40, u64::MAX, 8);
        }),
        ("no section .shstrtab", |file| file[62] = 99),
        ("section 1: no name at 0xffff of the string table", |file| {
            let at = section(file, 1);
            set(file, at, 0xffff, 4);
        }),
        ("no section .text", |file| {
            let at = section(file, 1);
            let name = file[section(file, 0)..][..4].to_vec();
            file[at..at + 4].copy_from_slice(&name);
            set(file, at + 8, 0, 8);
        }),
        ("section .text is there twice", |file| {
            let (from, to) = (section(file, 1), section(file, 7));
            file.copy_within(from..from + 64, to);
        }),
        ("section .symtab: no section of a DISA program is called so", |file| {
            let at = section(file, 8);
            set(file, at + 8, 2, 8);
        }),
        ("section .text at 0x1000 of 0x2b bytes: it must be in the first GiB of TX", |file| {
            let at = section(file, 1);
            set(file, at + 16, 0x1000, 8);
        }),
        ("section .rodata at 0x1000 of 0x8 bytes: it must be in the second GiB of TX", |file| {
            let at = section(file, 2);
            set(file, at + 16, 0x1000, 8);
        }),
        ("section .data at 0x400000000000 of 0x8 bytes: it must be in the shared memory below the stacks", |file| {
            let at = section(file, 3);
            set(file, at + 16, 0x4000_0000_0000, 8);
        }),
        ("section .data of 0xffffffff bytes at offset 0x78: the file has 0x4c8 bytes", |file| {
            let at = section(file, 3);
            set(file, at + 32, 0xffff_ffff, 8);
        }),
        ("data at 0x100000001000 overlaps other data", |file| {
            let at = section(file, 4);
            set(file, at + 16, 0x1000_0000_1000, 8);
        }),
        ("symbol 1: st_info 0x2 means nothing", |file| {
            let at = field(file, section(file, 8) + 24);
            file[at + 24 + 4] = 2;
        }),
        ("symbol 1: no name at 0xffff of the string table", |file| {
            let at = field(file, section(file, 8) + 24);
            set(file, at + 24, 0xffff, 4);
        }),
        (".disa.line: it is cut off", |file| {
            let at = section(file, 7);
            set(file, at + 32, 6, 8);
        }),
        (".disa.line: the name of a file is no text", |file| {
            let at = field(file, section(file, 7) + 24);
            file[at + 8] = 0xff;
        }),
        (".disa.line: a line of no file", |file| {
            let at = field(file, section(file, 7) + 24);
            file[at + 4 + 4 + 6 + 4 + 8] = 1;
        }),
        (".disa.line: offsets do not rise, or lie behind the text", |file| {
            let at = field(file, section(file, 7) + 24);
            file[at + 4 + 4 + 6 + 4] = 0xff;
        }),
        (".disa.line: something follows the last line", |file| {
            let at = field(file, section(file, 7) + 24);
            file[at + 4 + 4 + 6] = 3;
        }),
        (".text: entry 0x500100000001 is no instruction of the text", |file| set(file, 24, 0x5001_0000_0001, 8)),
        (".text: offset 0x0: unknown operation 0xff", |file| {
            let at = field(file, section(file, 1) + 24);
            file[at] = 0xff;
        }),
    ];
    let mut wrong = Vec::new();
    for (expected, harm) in cases {
        let mut file = write(&object());
        harm(&mut file);
        let found = read(&file).map_or_else(|error| error.to_string(), |_| "accepted".into());
        if found != *expected {
            wrong.push(format!("found    {found}\nexpected {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_file_brings_the_reader_down(harms in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8), cut in any::<prop::sample::Index>()) {
        let mut file = write(&object());
        for (at, byte) in harms {
            let at = at.index(file.len());
            file[at] = byte;
        }
        let whole = read(&file);
        if let Ok(object) = &whole {
            prop_assert_eq!(&read(&write(object)), &Ok(object.clone()));
        }
        file.truncate(cut.index(file.len()));
        prop_assert!(read(&file).is_err());
    }
}
