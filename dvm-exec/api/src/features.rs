//! What processors can do: whether a program that may use one host's instructions can run on another.
//!
//! Owns the sets and the names of features, which are those of /proc/cpuinfo. Must not know whose sets are compared.

use serde::{Deserialize, Serialize};
use std::arch::x86_64::{__cpuid, __cpuid_count};

/// Instruction-set features a program may use, as CPUID leaves 1, 7.0, 0x8000_0001 and XCR0 give them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuFeatures {
    /// Leaf 1: ECX, EDX.
    pub leaf1: [u32; 2],
    /// Leaf 7 subleaf 0: EBX, ECX, EDX.
    pub leaf7: [u32; 3],
    /// Leaf 0x8000_0001: ECX, EDX.
    pub extended: [u32; 2],
    /// XCR0, 0 without OSXSAVE.
    pub xcr0: u64,
    /// Bytes of an XSAVE area for XCR0.
    pub xsave_bytes: u32,
    /// Whether the CPUID instruction can be made to trap, so that a program sees what it is to see.
    pub can_trap_cpuid: bool,
}

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

const WORDS: usize = 7;

/// (which word, bit, name) of what programs are known to test.
const NAMES: &[(usize, u32, &str)] = &[
    (0, 0, "pni"),
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
    (2, 29, "sha_ni"),
    (2, 30, "avx512bw"),
    (2, 31, "avx512vl"),
    (3, 0, "prefetchwt1"),
    (3, 1, "avx512vbmi"),
    (3, 5, "waitpkg"),
    (3, 6, "avx512_vbmi2"),
    (3, 8, "gfni"),
    (3, 9, "vaes"),
    (3, 10, "vpclmulqdq"),
    (3, 11, "avx512_vnni"),
    (3, 12, "avx512_bitalg"),
    (3, 14, "avx512_vpopcntdq"),
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
    (5, 0, "lahf_lm"),
    (5, 5, "abm"),
    (5, 6, "sse4a"),
    (5, 8, "3dnowprefetch"),
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

/// Register sets that exist only with AVX-512.
const AVX512_STATES: u64 = 0xe0;

impl CpuFeatures {
    /// Those of this host. Husks and agents of a job compare them, so both must read them here.
    #[must_use]
    pub fn of_this_host() -> Self {
        const OSXSAVE: u32 = 1 << 27;
        let (one, seven, extended) = (__cpuid(1), __cpuid_count(7, 0), __cpuid(0x8000_0001));
        let has_xsave = one.ecx & OSXSAVE != 0;
        Self {
            leaf1: [one.ecx, one.edx],
            leaf7: [seven.ebx, seven.ecx, seven.edx],
            extended: [extended.ecx, extended.edx],
            xcr0: if has_xsave { crate::sys::xcr0() } else { 0 },
            xsave_bytes: if has_xsave { __cpuid_count(13, 0).ebx } else { 0 },
            can_trap_cpuid: crate::sys::trap_cpuid(false).is_ok(),
        }
    }

    /// What both have.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        let words: [u32; WORDS] = std::array::from_fn(|word| self.words()[word] & other.words()[word]);
        Self {
            xcr0: self.xcr0 & other.xcr0,
            xsave_bytes: self.xsave_bytes.min(other.xsave_bytes),
            can_trap_cpuid: self.can_trap_cpuid && other.can_trap_cpuid,
            ..Self::from_words(words)
        }
    }

    /// These without the named ones, and without all of AVX-512 if `avx512f` is among them; `cpuid_fault` stands for
    /// [`CpuFeatures::can_trap_cpuid`].
    #[must_use]
    pub fn without(&self, names: &[&str]) -> Self {
        let has_avx512 = !names.contains(&"avx512f");
        let mut words = self.words();
        let is_taken = |name: &str| names.contains(&name) || !has_avx512 && name.starts_with("avx512");
        for (word, bit, _) in NAMES.iter().filter(|row| is_taken(row.2)) {
            words[*word] &= !(1 << bit);
        }
        let xcr0 = if has_avx512 { self.xcr0 } else { self.xcr0 & !AVX512_STATES };
        let can_trap_cpuid = self.can_trap_cpuid && !names.contains(&"cpuid_fault");
        Self { xcr0, xsave_bytes: self.xsave_bytes, can_trap_cpuid, ..Self::from_words(words) }
    }

    /// What the CPUID instruction shall say for `leaf` and `subleaf` instead of `said` (EAX, EBX, ECX, EDX): features that
    /// these lack are taken away, everything else stays.
    #[must_use]
    pub fn shown(&self, leaf: u32, subleaf: u32, mut said: [u32; 4]) -> [u32; 4] {
        match (leaf, subleaf) {
            (1, _) => {
                said[2] &= self.leaf1[0] | NOT_USER_1C;
                said[3] &= self.leaf1[1] | !USER_1D;
            }
            (7, 0) => {
                for (index, word) in [(1, 0), (2, 1), (3, 2)] {
                    said[index] &= self.leaf7[word] | !of_word(2 + word);
                }
            }
            // Instructions of AVX that came after AVX-512: not compared, so not shown.
            (7, _) => said = [0; 4],
            (0x8000_0001, _) => {
                for (index, word) in [(2, 0), (3, 1)] {
                    said[index] &= self.extended[word] | !of_word(5 + word);
                }
            }
            _ => {}
        }
        said
    }

    fn words(&self) -> [u32; WORDS] {
        let Self { leaf1, leaf7, extended, .. } = self;
        [leaf1[0], leaf1[1], leaf7[0], leaf7[1], leaf7[2], extended[0], extended[1]]
    }

    fn from_words(words: [u32; WORDS]) -> Self {
        let [one_c, one_d, seven_b, seven_c, seven_d, extended_c, extended_d] = words;
        let (leaf1, leaf7, extended) = ([one_c, one_d], [seven_b, seven_c, seven_d], [extended_c, extended_d]);
        Self { leaf1, leaf7, extended, ..Self::default() }
    }
}

/// Names of what `program` may use and `here` lacks; empty when the program can run here.
#[must_use]
pub fn missing(program: &CpuFeatures, here: &CpuFeatures) -> Vec<String> {
    let words = |features: &CpuFeatures| {
        let masks = [!NOT_USER_1C, USER_1D, of_word(2), of_word(3), of_word(4), of_word(5), of_word(6)];
        let words = features.words();
        std::array::from_fn::<u32, WORDS, _>(|word| words[word] & masks[word])
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
        let (leaf1, leaf7) = ([1 | 1 << 28, 1], [1 << 5, 0, 0]);
        let here = CpuFeatures { leaf1, leaf7, extended: [0, 0], xcr0: 7, xsave_bytes: 832, can_trap_cpuid: true };
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
    fn what_is_common_is_shown_and_nothing_more() {
        let all = CpuFeatures {
            leaf1: [u32::MAX; 2],
            leaf7: [u32::MAX; 3],
            extended: [u32::MAX; 2],
            xcr0: 0xe7,
            ..CpuFeatures::default()
        };
        let less = all.without(&["avx512f", "abm"]);
        assert_eq!(less.xcr0, 7);
        let names = missing(&all, &less);
        assert!(names.contains(&"avx512_vnni".to_owned()) && names.contains(&"abm".to_owned()), "{names:?}");
        assert!(!names.contains(&"avx2".to_owned()));
        let common = all.and(&less);
        assert_eq!(missing(&all, &common), names);
        assert!(missing(&less, &common).is_empty());
        assert_eq!(common.shown(7, 0, [u32::MAX; 4])[1] & (1 << 16 | 1 << 5), 1 << 5);
        assert_eq!(common.shown(0x8000_0001, 0, [u32::MAX; 4])[2] & 1 << 5, 0);
        assert_eq!(common.shown(1, 0, [u32::MAX; 4])[2..], [u32::MAX; 2]);
        assert_eq!(common.shown(4, 1, [9; 4]), [9; 4]);
    }

    #[test]
    fn this_host_can_run_its_own_programs() {
        let here = CpuFeatures::of_this_host();
        assert!(missing(&here, &here).is_empty());
    }
}
