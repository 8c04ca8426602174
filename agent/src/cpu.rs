//! Whether a program that may use one host's instructions can run on another.
//!
//! Owns the names of features. Must not know where the two sets come from.

use dvm_api::local::CpuFeatures;

/// Bits of leaf 1 ECX that are no instruction set: OSXSAVE, TSC deadline, x2APIC, hypervisor, MONITOR, VMX, SMX, EIST, TM2, xTPR, PDCM, DCA.
const NOT_USER_1C: u32 = 1 << 27
    | 1 << 24
    | 1 << 21
    | 1 << 31
    | 1 << 3
    | 1 << 5
    | 1 << 6
    | 1 << 7
    | 1 << 8
    | 1 << 14
    | 1 << 15
    | 1 << 18
    | 1 << 2
    | 1 << 4
    | 1 << 10
    | 1 << 11
    | 1 << 17;
/// Bits of leaf 1 EDX that programs use: FPU, TSC, CX8, CMOV, CLFSH, MMX, FXSR, SSE, SSE2.
const USER_1D: u32 = 1 | 1 << 4 | 1 << 8 | 1 << 15 | 1 << 19 | 1 << 23 | 1 << 24 | 1 << 25 | 1 << 26;

/// (which word, bit, name) of what programs are known to test.
const NAMES: &[(usize, u32, &str)] = &[
    (0, 0, "sse3"),
    (0, 1, "pclmulqdq"),
    (0, 9, "ssse3"),
    (0, 12, "fma"),
    (0, 13, "cx16"),
    (0, 19, "sse4_1"),
    (0, 20, "sse4_2"),
    (0, 22, "movbe"),
    (0, 23, "popcnt"),
    (0, 25, "aes"),
    (0, 26, "xsave"),
    (0, 28, "avx"),
    (0, 29, "f16c"),
    (0, 30, "rdrand"),
    (1, 0, "fpu"),
    (1, 4, "tsc"),
    (1, 8, "cx8"),
    (1, 15, "cmov"),
    (1, 19, "clflush"),
    (1, 23, "mmx"),
    (1, 24, "fxsr"),
    (1, 25, "sse"),
    (1, 26, "sse2"),
    (2, 0, "fsgsbase"),
    (2, 3, "bmi1"),
    (2, 4, "hle"),
    (2, 5, "avx2"),
    (2, 8, "bmi2"),
    (2, 9, "erms"),
    (2, 11, "rtm"),
    (2, 16, "avx512f"),
    (2, 17, "avx512dq"),
    (2, 18, "rdseed"),
    (2, 19, "adx"),
    (2, 21, "avx512ifma"),
    (2, 23, "clflushopt"),
    (2, 24, "clwb"),
    (2, 26, "avx512pf"),
    (2, 27, "avx512er"),
    (2, 28, "avx512cd"),
    (2, 29, "sha"),
    (2, 30, "avx512bw"),
    (2, 31, "avx512vl"),
    (3, 0, "prefetchwt1"),
    (3, 1, "avx512vbmi"),
    (3, 5, "waitpkg"),
    (3, 6, "avx512vbmi2"),
    (3, 8, "gfni"),
    (3, 9, "vaes"),
    (3, 10, "vpclmulqdq"),
    (3, 11, "avx512vnni"),
    (3, 12, "avx512bitalg"),
    (3, 14, "avx512vpopcntdq"),
    (3, 22, "rdpid"),
    (3, 25, "cldemote"),
    (3, 27, "movdiri"),
    (3, 28, "movdir64b"),
    (4, 2, "avx512_4vnniw"),
    (4, 3, "avx512_4fmaps"),
    (4, 4, "fsrm"),
    (4, 8, "avx512_vp2intersect"),
    (4, 14, "serialize"),
    (4, 22, "amx_bf16"),
    (4, 23, "avx512_fp16"),
    (4, 24, "amx_tile"),
    (4, 25, "amx_int8"),
    (5, 0, "lahf"),
    (5, 5, "lzcnt"),
    (5, 6, "sse4a"),
    (5, 8, "prefetchw"),
    (5, 11, "xop"),
    (5, 16, "fma4"),
    (5, 21, "tbm"),
    (5, 29, "monitorx"),
    (6, 27, "rdtscp"),
    (6, 30, "3dnowext"),
    (6, 31, "3dnow"),
];

/// Register sets of XCR0 by bit.
const STATES: &[(u32, &str)] = &[
    (0, "x87"),
    (1, "sse"),
    (2, "avx"),
    (3, "mpx"),
    (4, "mpx"),
    (5, "avx512"),
    (6, "avx512"),
    (7, "avx512"),
    (9, "pku"),
    (17, "amx"),
    (18, "amx"),
];

/// Names of what `program` may use and `here` lacks; empty when the program can run here.
#[must_use]
pub fn missing(program: &CpuFeatures, here: &CpuFeatures) -> Vec<String> {
    let words = |features: &CpuFeatures| {
        [
            features.leaf1[0] & !NOT_USER_1C,
            features.leaf1[1] & USER_1D,
            features.leaf7[0] & of_word(2),
            features.leaf7[1] & of_word(3),
            features.leaf7[2] & of_word(4),
            features.extended[0] & of_word(5),
            features.extended[1] & of_word(6),
        ]
    };
    let mut names = Vec::new();
    for (word, (wanted, have)) in words(program).into_iter().zip(words(here)).enumerate() {
        for bit in bits(u64::from(wanted & !have)) {
            let known = NAMES.iter().find(|row| (row.0, row.1) == (word, bit));
            names.push(known.map_or_else(|| format!("cpuid word {word} bit {bit}"), |row| row.2.to_owned()));
        }
    }
    for bit in bits(program.xcr0 & !here.xcr0) {
        let known = STATES.iter().find(|row| row.0 == bit);
        names.push(known.map_or_else(|| format!("xcr0 bit {bit}"), |row| format!("{} registers", row.1)));
    }
    names.dedup();
    names
}

/// The bits of a word that have a name: others are the kernel's affair.
fn of_word(word: usize) -> u32 {
    NAMES.iter().filter(|row| row.0 == word).fold(0, |mask, row| mask | 1 << row.1)
}

fn bits(word: u64) -> impl Iterator<Item = u32> {
    (0..u64::BITS).filter(move |bit| word >> bit & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lacks_is_named_and_what_programs_cannot_use_is_not() {
        let here = CpuFeatures { leaf1: [1 | 1 << 28, 1], leaf7: [1 << 5, 0, 0], extended: [0, 0], xcr0: 7, xsave_bytes: 832 };
        assert!(missing(&here, &here).is_empty());
        assert!(missing(&CpuFeatures::default(), &here).is_empty());
        let mut program = here;
        program.leaf7[0] |= 1 << 16;
        program.xcr0 |= 0xe0;
        assert_eq!(missing(&program, &here), ["avx512f", "avx512 registers"]);
        let mut kernel = here;
        kernel.leaf1[0] |= 1 << 31;
        kernel.leaf7[2] |= 1 << 26;
        assert!(missing(&kernel, &here).is_empty());
    }

    #[test]
    fn this_host_can_run_its_own_programs() {
        let here = CpuFeatures::of_this_host();
        assert!(missing(&here, &here).is_empty());
    }
}
