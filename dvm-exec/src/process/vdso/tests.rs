//! The image read as ld.so, musl and Go read it, and damaged images.
//!
//! Owns a second, independent look-up. Must not execute the image.

use super::*;
use proptest::prelude::*;

/// A dynamic section entry of the image, found as ld.so does.
fn dynamic(image: &[u8], tag: u64) -> u64 {
    let at = word64(image, 64 + 56 + 8).expect("dynamic segment");
    (0..16)
        .find_map(|index| (word64(image, at + index * 16)? == tag).then(|| word64(image, at + index * 16 + 8))?)
        .expect("entry")
}

fn text(image: &[u8], at: u64) -> &[u8] {
    let rest = &image[(dynamic(image, 5) + at) as usize..];
    &rest[..rest.iter().position(|&byte| byte == 0).expect("terminated")]
}

fn is_symbol(image: &[u8], index: u32, name: &str) -> bool {
    let symbol = dynamic(image, 6) + u64::from(index) * 24;
    text(image, u64::from(word32(image, symbol).expect("symbol"))) == name.as_bytes()
}

/// glibc's way: bloom filter, bucket, chain.
fn find_gnu(image: &[u8], name: &str) -> Option<u32> {
    let table = dynamic(image, 0x6fff_fef5);
    let word = |at| word32(image, table + at).expect("table");
    let (buckets, first, bloom_words, shift, hash) = (word(0), word(4), word(8), word(12), gnu_hash(name));
    assert!(bloom_words.is_power_of_two());
    let bloom = word64(image, table + 16 + u64::from(hash / 64 % bloom_words) * 8).expect("bloom");
    if bloom >> (hash % 64) & bloom >> ((hash >> shift) % 64) & 1 == 0 {
        return None;
    }
    let bucket_at = 16 + u64::from(bloom_words) * 8;
    let mut index = word(bucket_at + u64::from(hash % buckets) * 4);
    while index != 0 {
        let chain = word(bucket_at + u64::from(buckets + index - first) * 4);
        if chain | 1 == hash | 1 && is_symbol(image, index, name) {
            return Some(index);
        }
        index = if chain & 1 == 1 { 0 } else { index + 1 };
    }
    None
}

/// musl's and Go's way.
fn find_sysv(image: &[u8], name: &str) -> Option<u32> {
    let table = dynamic(image, 4);
    let word = |index: u32| word32(image, table + u64::from(index) * 4).expect("table");
    let buckets = word(0);
    let mut index = word(2 + sysv_hash(name) % buckets);
    while index != 0 && !is_symbol(image, index, name) {
        index = word(2 + buckets + index);
    }
    (index != 0).then_some(index)
}

#[test]
fn ld_so_finds_every_function_and_its_version() {
    let image = image();
    for (name, _) in FUNCTIONS {
        let index = find_gnu(&image, name).expect(name);
        assert_eq!(find_sysv(&image, name), Some(index), "{name}");
        let version = word32(&image, dynamic(&image, 0x6fff_fff0) + u64::from(index) * 2).expect("versym") & 0xffff;
        assert_eq!(version, u32::from(VERSION_INDEX));
    }
    for absent in ["__vdso_getrandom", "__vdso_sgx_enter_enclave", "clock_gettime"] {
        assert_eq!((find_gnu(&image, absent), find_sysv(&image, absent)), (None, None));
    }
}

#[test]
fn the_version_is_linux_2_6() {
    let image = image();
    let base = dynamic(&image, 0x6fff_fffc);
    let second = base + u64::from(word32(&image, base + 16).expect("vd_next"));
    let word = |offset| word32(&image, second + offset).expect("verdef");
    assert_eq!(word(4) & 0xffff, u32::from(VERSION_INDEX));
    assert_eq!(word(8), 0x3ae_75f6, "the hash that Go and musl compare");
    let name = word32(&image, second + u64::from(word(12))).expect("verdaux");
    assert_eq!(text(&image, u64::from(name)), b"LINUX_2.6");
}

#[test]
fn segments_are_as_ld_so_wants_them() {
    let image = image();
    let kinds: Vec<_> = (0..2).map(|index| word64(&image, 64 + index * 56).expect("header")).collect();
    assert_eq!(kinds, [1 | 5 << 32, 2 | 4 << 32], "LOAD R-E, DYNAMIC read-only");
    assert!(image.len() as u64 <= IMAGE_BYTES);
    assert!(image.len() < 0x1000, "one page");
}

#[test]
fn our_own_reader_reads_it() {
    let table = Table::for_host(&image(), 0x7000_0000_0000).expect("sound image");
    let first = 0x7000_0000_0000 + CODE_OFFSET;
    let all = [table.clock_gettime, table.gettimeofday, table.time, table.clock_getres, table.getcpu];
    assert!(all.iter().all(|&address| address >= first && address % 32 == 0));
}

#[test]
fn corrections_of_both_signs() {
    let check = |ns, seconds, rest| {
        let table = Table::default().with_correction(ns);
        let got = (table.correction_active, table.correction_seconds, table.correction_nanoseconds);
        assert_eq!(got, (u64::from(ns != 0), seconds, rest));
    };
    check(0, 0, 0);
    check(1_500_000_000, 1, 500_000_000);
    check(-1, -1, 999_999_999);
    check(i64::MIN, -9_223_372_037, 145_224_192);
    assert_eq!(Table::default().to_bytes().len(), size_of::<Table>());
    let clocks: Vec<u64> = (0..70).filter(|&clock| is_corrected(clock)).collect();
    assert_eq!(clocks, [1, 4, 6, 7]);
}

#[test]
fn the_vdso_is_found_in_maps() {
    let maps = "7f00-7f10 r--p 0 00:00 0 [vvar]\n7fff10-7fff30 r-xp 00000000 00:00 0                          [vdso]\n";
    assert_eq!(find_in_maps(maps), Some(0x7fff10..0x7fff30));
    assert_eq!(find_in_maps("10-20 r-xp 0 0 0 /bin/sh\n"), None);
}

proptest! {
    #[test]
    fn damaged_images_do_not_panic(flips in proptest::collection::vec((0usize..0x700, any::<u8>()), 1..8), cut in 0usize..0x800) {
        let mut bytes = image();
        for (at, byte) in flips {
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
        }
        bytes.truncate(cut.max(4));
        let _outcome = Table::for_host(&bytes, 0);
    }
}
