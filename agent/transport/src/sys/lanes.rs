//! Eight SipHash-2-4 lanes side by side, with the widest instructions this processor has.
//!
//! Owns the choice of instructions; every choice gives the same words. Must not know what is hashed.
#![expect(unsafe_code, reason = "functions compiled for instructions that were just detected, and their loads")]

use crate::tags::{LANES, SipKey, lanes_portable};

/// The hashes of the lanes of `words`; see [`lanes_portable`].
pub(crate) fn sip_lanes(key: SipKey, words: &[[u8; LANES * 8]]) -> [u64; LANES] {
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("avx512f") {
        // SAFETY: the feature was detected.
        return unsafe { avx512::lanes(key, words) };
    } else if std::is_x86_feature_detected!("avx2") {
        // SAFETY: the feature was detected.
        return unsafe { avx2::lanes(key, words) };
    }
    lanes_portable(key, words)
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use super::{LANES, SipKey};
    use crate::tags::{FINAL_ROUNDS, SIP_CONSTANTS, lane_length_word};
    use std::arch::x86_64::{
        __m512i, _mm512_add_epi64, _mm512_loadu_si512, _mm512_rol_epi64, _mm512_set_epi64, _mm512_set1_epi64,
        _mm512_storeu_si512, _mm512_xor_si512,
    };

    #[target_feature(enable = "avx512f")]
    fn round(v: &mut [__m512i; 4]) {
        v[0] = _mm512_add_epi64(v[0], v[1]);
        v[2] = _mm512_add_epi64(v[2], v[3]);
        v[1] = _mm512_xor_si512(_mm512_rol_epi64::<13>(v[1]), v[0]);
        v[3] = _mm512_xor_si512(_mm512_rol_epi64::<16>(v[3]), v[2]);
        v[0] = _mm512_rol_epi64::<32>(v[0]);
        v[2] = _mm512_add_epi64(v[2], v[1]);
        v[0] = _mm512_add_epi64(v[0], v[3]);
        v[1] = _mm512_xor_si512(_mm512_rol_epi64::<17>(v[1]), v[2]);
        v[3] = _mm512_xor_si512(_mm512_rol_epi64::<21>(v[3]), v[0]);
        v[2] = _mm512_rol_epi64::<32>(v[2]);
    }

    #[target_feature(enable = "avx512f")]
    fn absorb(v: &mut [__m512i; 4], message: __m512i) {
        v[3] = _mm512_xor_si512(v[3], message);
        round(v);
        round(v);
        v[0] = _mm512_xor_si512(v[0], message);
    }

    #[target_feature(enable = "avx512f")]
    pub(super) fn lanes(key: SipKey, words: &[[u8; LANES * 8]]) -> [u64; LANES] {
        let splat = |word: u64| _mm512_set1_epi64(word.cast_signed());
        let keys = [key.0, key.1, key.0, key.1];
        let mut v: [__m512i; 4] = std::array::from_fn(|index| splat(keys[index] ^ SIP_CONSTANTS[index]));
        absorb(&mut v, _mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0));
        for group in words {
            // SAFETY: the group is 64 readable bytes, and the load wants no alignment.
            absorb(&mut v, unsafe { _mm512_loadu_si512(group.as_ptr().cast()) });
        }
        absorb(&mut v, splat(lane_length_word(words.len())));
        v[2] = _mm512_xor_si512(v[2], splat(0xff));
        for _ in 0..FINAL_ROUNDS {
            round(&mut v);
        }
        let folded = _mm512_xor_si512(_mm512_xor_si512(v[0], v[1]), _mm512_xor_si512(v[2], v[3]));
        let mut out = [0u64; LANES];
        // SAFETY: `out` is 64 writable bytes, and the store wants no alignment.
        unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), folded) };
        out
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::{LANES, SipKey};
    use crate::tags::{FINAL_ROUNDS, SIP_CONSTANTS, lane_length_word};
    use std::arch::x86_64::{
        __m256i, _mm256_add_epi64, _mm256_or_si256, _mm256_set_epi8, _mm256_set_epi64x, _mm256_set1_epi64x, _mm256_shuffle_epi8,
        _mm256_shuffle_epi32, _mm256_slli_epi64, _mm256_srli_epi64, _mm256_xor_si256,
    };

    /// Four lanes.
    #[derive(Clone, Copy)]
    struct Quad {
        v: [__m256i; 4],
    }

    #[target_feature(enable = "avx2")]
    fn rotate<const LEFT: i32, const RIGHT: i32>(x: __m256i) -> __m256i {
        _mm256_or_si256(_mm256_slli_epi64::<LEFT>(x), _mm256_srli_epi64::<RIGHT>(x))
    }

    #[target_feature(enable = "avx2")]
    fn rotate_16(x: __m256i) -> __m256i {
        let order = _mm256_set_epi8(
            13, 12, 11, 10, 9, 8, 15, 14, 5, 4, 3, 2, 1, 0, 7, 6, 13, 12, 11, 10, 9, 8, 15, 14, 5, 4, 3, 2, 1, 0, 7, 6,
        );
        _mm256_shuffle_epi8(x, order)
    }

    #[target_feature(enable = "avx2")]
    fn round(quads: &mut [Quad; 2]) {
        for Quad { v } in quads {
            v[0] = _mm256_add_epi64(v[0], v[1]);
            v[2] = _mm256_add_epi64(v[2], v[3]);
            v[1] = _mm256_xor_si256(rotate::<13, 51>(v[1]), v[0]);
            v[3] = _mm256_xor_si256(rotate_16(v[3]), v[2]);
            v[0] = _mm256_shuffle_epi32::<0b10_11_00_01>(v[0]);
            v[2] = _mm256_add_epi64(v[2], v[1]);
            v[0] = _mm256_add_epi64(v[0], v[3]);
            v[1] = _mm256_xor_si256(rotate::<17, 47>(v[1]), v[2]);
            v[3] = _mm256_xor_si256(rotate::<21, 43>(v[3]), v[0]);
            v[2] = _mm256_shuffle_epi32::<0b10_11_00_01>(v[2]);
        }
    }

    #[target_feature(enable = "avx2")]
    fn absorb(quads: &mut [Quad; 2], message: [__m256i; 2]) {
        for (quad, word) in quads.iter_mut().zip(message) {
            quad.v[3] = _mm256_xor_si256(quad.v[3], word);
        }
        round(quads);
        round(quads);
        for (quad, word) in quads.iter_mut().zip(message) {
            quad.v[0] = _mm256_xor_si256(quad.v[0], word);
        }
    }

    #[target_feature(enable = "avx2")]
    fn load(words: &[u8; LANES * 8], quad: usize) -> __m256i {
        let word = |lane: usize| {
            let at = (quad * 4 + lane) * 8;
            i64::from_le_bytes(words[at..at + 8].try_into().expect("eight bytes"))
        };
        _mm256_set_epi64x(word(3), word(2), word(1), word(0))
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn lanes(key: SipKey, words: &[[u8; LANES * 8]]) -> [u64; LANES] {
        let splat = |word: u64| _mm256_set1_epi64x(word.cast_signed());
        let start = Quad {
            v: [
                splat(key.0 ^ SIP_CONSTANTS[0]),
                splat(key.1 ^ SIP_CONSTANTS[1]),
                splat(key.0 ^ SIP_CONSTANTS[2]),
                splat(key.1 ^ SIP_CONSTANTS[3]),
            ],
        };
        let mut quads = [start; 2];
        absorb(&mut quads, [_mm256_set_epi64x(3, 2, 1, 0), _mm256_set_epi64x(7, 6, 5, 4)]);
        for group in words {
            absorb(&mut quads, [load(group, 0), load(group, 1)]);
        }
        absorb(&mut quads, [splat(lane_length_word(words.len())); 2]);
        for Quad { v } in &mut quads {
            v[2] = _mm256_xor_si256(v[2], splat(0xff));
        }
        for _ in 0..FINAL_ROUNDS {
            round(&mut quads);
        }
        let mut out = [0; LANES];
        for (quad, out) in quads.iter().zip(out.chunks_exact_mut(4)) {
            let folded = _mm256_xor_si256(_mm256_xor_si256(quad.v[0], quad.v[1]), _mm256_xor_si256(quad.v[2], quad.v[3]));
            out.copy_from_slice(&unpack(folded));
        }
        out
    }

    #[target_feature(enable = "avx2")]
    fn unpack(x: __m256i) -> [u64; 4] {
        use std::arch::x86_64::_mm256_extract_epi64;
        [
            _mm256_extract_epi64::<0>(x).cast_unsigned(),
            _mm256_extract_epi64::<1>(x).cast_unsigned(),
            _mm256_extract_epi64::<2>(x).cast_unsigned(),
            _mm256_extract_epi64::<3>(x).cast_unsigned(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instruction_set_gives_the_same_words() {
        let key = SipKey(0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210);
        for groups in [0, 1, 2, 5, 64] {
            let words: Vec<[u8; 64]> = (0..groups).map(|g| std::array::from_fn(|i| (g * 31 + i * 7) as u8)).collect();
            let expected = lanes_portable(key, &words);
            assert_eq!(sip_lanes(key, &words), expected);
            #[cfg(target_arch = "x86_64")]
            if std::is_x86_feature_detected!("avx2") {
                // SAFETY: the feature was detected.
                assert_eq!(unsafe { avx2::lanes(key, &words) }, expected);
            }
        }
    }
}
