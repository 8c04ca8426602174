//! Authentication tags: who sent this header, and whose bytes are these.
//!
//! Owns the tag functions. Must not know where keys come from, nor what a wrong tag leads to.
//!
//! * header tag: SipHash-2-4 under the pair key over bytes 0..48 of the header and the payload tag. `dsm-fast` has it, since the
//!   kernel programs compute it too.
//! * payload tag: under the publisher's key over (space, page, era, bytes). A page is long and SipHash is one chain of dependent
//!   steps (2.0 us a page), so the bytes are dealt out, eight at a time, to eight lanes (0.4 us with 512-bit vectors): lane `i` is
//!   SipHash-2-4 over `i`, then words `i, i + 8, ..` of the payload; the tag is SipHash-2-4 over 8, space, page, era, length, the
//!   eight lane hashes and the bytes beyond the last whole group of 64. Nobody computes it in the kernel: it is stored with the page.

use crate::sys::sip_lanes;
pub(crate) use dsm_fast::{SipKey, header_tag};
use dsm_wire::{Era, PageNumber, SpaceId};
use siphasher::sip::SipHasher24;

/// Lanes of a payload tag.
pub(crate) const LANES: usize = 8;
/// Rounds after the last word.
pub(crate) const FINAL_ROUNDS: usize = 4;
/// SipHash's initial state.
pub(crate) const SIP_CONSTANTS: [u64; 4] =
    [0x736f_6d65_7073_6575, 0x646f_7261_6e64_6f6d, 0x6c79_6765_6e65_7261, 0x7465_6462_7974_6573];

const GROUP_BYTES: usize = LANES * 8;

/// Hash of `bytes` under `key`.
pub(crate) fn sip(key: SipKey, bytes: &[u8]) -> u64 {
    SipHasher24::new_with_keys(key.0, key.1).hash(bytes)
}

/// The key under which first and second handshake messages are tagged: a stranger's are dropped before any curve arithmetic.
pub(crate) fn greeting_key(cluster_key: &[u8; 32]) -> SipKey {
    let (first, second) = cluster_key.split_at(16);
    let key = SipKey::from_bytes(first.try_into().expect("half of 32 bytes"));
    let derive = |label: &[u8]| sip(key, &[label, second].concat());
    SipKey(derive(b"dvm greeting 0"), derive(b"dvm greeting 1"))
}

/// The payload tag of `bytes`, which begin at `page`.
pub(crate) fn payload_tag(key: SipKey, space: SpaceId, page: PageNumber, era: Era, bytes: &[u8]) -> u64 {
    let (groups, rest) = bytes.as_chunks::<GROUP_BYTES>();
    let lanes = sip_lanes(key, groups);
    let mut last = [0u8; 32 + GROUP_BYTES * 2];
    last[..8].copy_from_slice(&(LANES as u64).to_le_bytes());
    last[8..12].copy_from_slice(&space.0.to_le_bytes());
    last[12..16].copy_from_slice(&era.0.to_le_bytes());
    last[16..24].copy_from_slice(&page.0.to_le_bytes());
    last[24..32].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
    for (place, lane) in last[32..32 + GROUP_BYTES].chunks_exact_mut(8).zip(lanes) {
        place.copy_from_slice(&lane.to_le_bytes());
    }
    let end = 32 + GROUP_BYTES + rest.len();
    last[32 + GROUP_BYTES..end].copy_from_slice(rest);
    sip(key, &last[..end])
}

/// The last word SipHash absorbs in a lane of `groups` words after the lane's number.
pub(crate) const fn lane_length_word(groups: usize) -> u64 {
    (((groups + 1) * 8) as u64) << 56
}

/// The lane hashes, in plain Rust.
pub(crate) fn lanes_portable(key: SipKey, words: &[[u8; GROUP_BYTES]]) -> [u64; LANES] {
    let mut state = [
        [key.0 ^ SIP_CONSTANTS[0]; LANES],
        [key.1 ^ SIP_CONSTANTS[1]; LANES],
        [key.0 ^ SIP_CONSTANTS[2]; LANES],
        [key.1 ^ SIP_CONSTANTS[3]; LANES],
    ];
    absorb(&mut state, std::array::from_fn(|lane| lane as u64));
    for group in words {
        let (words, _) = group.as_chunks::<8>();
        absorb(&mut state, std::array::from_fn(|lane| u64::from_le_bytes(words[lane])));
    }
    absorb(&mut state, [lane_length_word(words.len()); LANES]);
    for word in &mut state[2] {
        *word ^= 0xff;
    }
    for _ in 0..FINAL_ROUNDS {
        round(&mut state);
    }
    let [v0, v1, v2, v3] = state;
    std::array::from_fn(|lane| v0[lane] ^ v1[lane] ^ v2[lane] ^ v3[lane])
}

fn absorb(state: &mut [[u64; LANES]; 4], message: [u64; LANES]) {
    for lane in 0..LANES {
        state[3][lane] ^= message[lane];
    }
    round(state);
    round(state);
    for lane in 0..LANES {
        state[0][lane] ^= message[lane];
    }
}

fn round(state: &mut [[u64; LANES]; 4]) {
    let [v0, v1, v2, v3] = state;
    for i in 0..LANES {
        v0[i] = v0[i].wrapping_add(v1[i]);
        v2[i] = v2[i].wrapping_add(v3[i]);
    }
    for i in 0..LANES {
        v1[i] = v1[i].rotate_left(13) ^ v0[i];
        v3[i] = v3[i].rotate_left(16) ^ v2[i];
        v0[i] = v0[i].rotate_left(32);
    }
    for i in 0..LANES {
        v2[i] = v2[i].wrapping_add(v1[i]);
        v0[i] = v0[i].wrapping_add(v3[i]);
    }
    for i in 0..LANES {
        v1[i] = v1[i].rotate_left(17) ^ v2[i];
        v3[i] = v3[i].rotate_left(21) ^ v0[i];
        v2[i] = v2[i].rotate_left(32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: SipKey = SipKey(0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908);

    #[test]
    fn lanes_are_plain_siphash() {
        for groups in [0usize, 1, 3, 64] {
            let words: Vec<[u8; 64]> = (0..groups).map(|g| std::array::from_fn(|i| (g * 64 + i * 3) as u8)).collect();
            let lanes = lanes_portable(KEY, &words);
            for (lane, hash) in lanes.into_iter().enumerate() {
                let mut bytes = (lane as u64).to_le_bytes().to_vec();
                words.iter().for_each(|group| bytes.extend_from_slice(&group[lane * 8..lane * 8 + 8]));
                assert_eq!(hash, sip(KEY, &bytes), "lane {lane} of {groups} groups");
            }
        }
    }

    #[test]
    fn payload_tag_depends_on_everything() {
        let bytes: Vec<u8> = (0..4096).map(|i| (i % 251) as u8).collect();
        let tag = |space, page, era, bytes: &[u8]| payload_tag(KEY, SpaceId(space), PageNumber(page), Era(era), bytes);
        let whole = tag(1, 2, 3, &bytes);
        assert_eq!(whole, tag(1, 2, 3, &bytes));
        assert_ne!(whole, tag(2, 2, 3, &bytes));
        assert_ne!(whole, tag(1, 3, 3, &bytes));
        assert_ne!(whole, tag(1, 2, 4, &bytes));
        assert_ne!(whole, tag(1, 2, 3, &bytes[..4095]));
        for at in [0, 63, 64, 2048, 4095] {
            let mut other = bytes.clone();
            other[at] ^= 1;
            assert_ne!(whole, tag(1, 2, 3, &other), "byte {at}");
        }
        let mut swapped = bytes.clone();
        swapped.swap(0, 8);
        assert_ne!(whole, tag(1, 2, 3, &swapped), "bytes of two lanes exchanged");
    }

    #[test]
    fn the_greeting_key_is_the_clusters() {
        assert!(greeting_key(&[1; 32]) != greeting_key(&[2; 32]));
    }
}
