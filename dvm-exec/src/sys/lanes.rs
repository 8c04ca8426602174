//! The lanes of a long message's tag with the instructions this processor has.
//!
//! Owns the choice; both give the same words. Must not know what is hashed.

use crate::process::wire::lanes::{CONSTANTS, FINAL_ROUNDS, GROUP_BYTES, LANES, hash, key_words, length_word};
use std::arch::x86_64::{
    __m256i, _mm256_add_epi64, _mm256_loadu_si256, _mm256_or_si256, _mm256_set1_epi64x, _mm256_setr_epi64x, _mm256_shuffle_epi32,
    _mm256_slli_epi64, _mm256_srli_epi64, _mm256_storeu_si256, _mm256_xor_si256,
};

/// The hashes of the lanes of `groups`; see [`hash`].
pub fn lanes(key: &[u8; 16], groups: &[[u8; GROUP_BYTES]]) -> [u64; LANES] {
    if std::is_x86_feature_detected!("avx2") {
        // SAFETY: the feature was detected.
        return unsafe { hash_with_avx2(key, groups) };
    }
    hash(key, groups)
}

/// The states of four lanes.
type Quad = [__m256i; 4];

#[target_feature(enable = "avx2")]
fn hash_with_avx2(key: &[u8; 16], groups: &[[u8; GROUP_BYTES]]) -> [u64; LANES] {
    let splat = |word: u64| _mm256_set1_epi64x(word.cast_signed());
    let keys = key_words(key);
    let mut quads: [Quad; 2] = [std::array::from_fn(|index| splat(keys[index % 2] ^ CONSTANTS[index])); 2];
    absorb(&mut quads, [_mm256_setr_epi64x(0, 1, 2, 3), _mm256_setr_epi64x(4, 5, 6, 7)]);
    for group in groups {
        let (low, high) = group.split_at(GROUP_BYTES / 2);
        // SAFETY: each half is 32 readable bytes, and the load wants no alignment.
        let words = unsafe { [_mm256_loadu_si256(low.as_ptr().cast()), _mm256_loadu_si256(high.as_ptr().cast())] };
        absorb(&mut quads, words);
    }
    absorb(&mut quads, [splat(length_word(groups.len())); 2]);
    for quad in &mut quads {
        quad[2] = _mm256_xor_si256(quad[2], splat(0xff));
    }
    for _ in 0..FINAL_ROUNDS {
        round(&mut quads);
    }
    let mut out = [0; LANES];
    for (quad, out) in quads.iter().zip(out.chunks_exact_mut(LANES / 2)) {
        let folded = _mm256_xor_si256(_mm256_xor_si256(quad[0], quad[1]), _mm256_xor_si256(quad[2], quad[3]));
        // SAFETY: `out` is 32 writable bytes, and the store wants no alignment.
        unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), folded) };
    }
    out
}

#[target_feature(enable = "avx2")]
fn absorb(quads: &mut [Quad; 2], message: [__m256i; 2]) {
    for (quad, word) in quads.iter_mut().zip(message) {
        quad[3] = _mm256_xor_si256(quad[3], word);
    }
    round(quads);
    round(quads);
    for (quad, word) in quads.iter_mut().zip(message) {
        quad[0] = _mm256_xor_si256(quad[0], word);
    }
}

#[target_feature(enable = "avx2")]
fn round(quads: &mut [Quad; 2]) {
    for v in quads {
        v[0] = _mm256_add_epi64(v[0], v[1]);
        v[2] = _mm256_add_epi64(v[2], v[3]);
        v[1] = _mm256_xor_si256(rotate::<13, 51>(v[1]), v[0]);
        v[3] = _mm256_xor_si256(rotate::<16, 48>(v[3]), v[2]);
        v[0] = _mm256_shuffle_epi32::<0b10_11_00_01>(v[0]);
        v[2] = _mm256_add_epi64(v[2], v[1]);
        v[0] = _mm256_add_epi64(v[0], v[3]);
        v[1] = _mm256_xor_si256(rotate::<17, 47>(v[1]), v[2]);
        v[3] = _mm256_xor_si256(rotate::<21, 43>(v[3]), v[0]);
        v[2] = _mm256_shuffle_epi32::<0b10_11_00_01>(v[2]);
    }
}

#[target_feature(enable = "avx2")]
fn rotate<const LEFT: i32, const RIGHT: i32>(x: __m256i) -> __m256i {
    _mm256_or_si256(_mm256_slli_epi64::<LEFT>(x), _mm256_srli_epi64::<RIGHT>(x))
}
