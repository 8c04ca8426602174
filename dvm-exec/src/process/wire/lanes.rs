//! SipHash-2-4 in eight lanes side by side: what is one chain of dependent steps otherwise.
//!
//! Owns the hash of a lane: SipHash-2-4 over the lane's number, then every eighth word of the bytes, beginning with the lane's. Must not
//! know which instructions it is compiled for; [`crate::sys::lanes`] chooses those, and has the
//! same in vectors (a page takes 2.4 us here).

/// Lanes.
pub const LANES: usize = 8;
/// Bytes of one word for each lane.
pub const GROUP_BYTES: usize = LANES * 8;
/// Rounds after the last word.
pub const FINAL_ROUNDS: usize = 4;
/// SipHash's initial state.
pub const CONSTANTS: [u64; 4] = [0x736f_6d65_7073_6575, 0x646f_7261_6e64_6f6d, 0x6c79_6765_6e65_7261, 0x7465_6462_7974_6573];

type Words = [u64; LANES];

/// The hashes of the lanes under `key`.
pub fn hash(key: &[u8; 16], groups: &[[u8; GROUP_BYTES]]) -> Words {
    let keys = key_words(key);
    let mut state: [Words; 4] = std::array::from_fn(|index| [keys[index % 2] ^ CONSTANTS[index]; LANES]);
    absorb(&mut state, std::array::from_fn(|lane| lane as u64));
    for group in groups {
        absorb(&mut state, std::array::from_fn(|lane| u64::from_le_bytes(std::array::from_fn(|byte| group[lane * 8 + byte]))));
    }
    absorb(&mut state, [length_word(groups.len()); LANES]);
    for word in &mut state[2] {
        *word ^= 0xff;
    }
    for _ in 0..FINAL_ROUNDS {
        round(&mut state);
    }
    let [v0, v1, v2, v3] = state;
    std::array::from_fn(|lane| v0[lane] ^ v1[lane] ^ v2[lane] ^ v3[lane])
}

/// Both halves of the key.
pub fn key_words(key: &[u8; 16]) -> [u64; 2] {
    [0, 8].map(|at| u64::from_le_bytes(std::array::from_fn(|byte| key[at + byte])))
}

/// The last word of a lane of `groups` words after its number.
pub fn length_word(groups: usize) -> u64 {
    (((groups + 1) * 8) as u64) << 56
}

fn absorb(state: &mut [Words; 4], message: Words) {
    for lane in 0..LANES {
        state[3][lane] ^= message[lane];
    }
    round(state);
    round(state);
    for lane in 0..LANES {
        state[0][lane] ^= message[lane];
    }
}

fn round([v0, v1, v2, v3]: &mut [Words; 4]) {
    for i in 0..LANES {
        v0[i] = v0[i].wrapping_add(v1[i]);
        v2[i] = v2[i].wrapping_add(v3[i]);
        v1[i] = v1[i].rotate_left(13) ^ v0[i];
        v3[i] = v3[i].rotate_left(16) ^ v2[i];
        v0[i] = v0[i].rotate_left(32);
        v2[i] = v2[i].wrapping_add(v1[i]);
        v0[i] = v0[i].wrapping_add(v3[i]);
        v1[i] = v1[i].rotate_left(17) ^ v2[i];
        v3[i] = v3[i].rotate_left(21) ^ v0[i];
        v2[i] = v2[i].rotate_left(32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use siphasher::sip::SipHasher24;
    use std::hash::Hasher;

    #[test]
    fn a_lane_is_a_siphash_of_its_words() {
        let key = *b"0123456789abcdef";
        for count in [0, 1, 2, 8, 65] {
            let groups: Vec<[u8; GROUP_BYTES]> =
                (0..count).map(|group| std::array::from_fn(|byte| (group * 31 + byte * 7) as u8)).collect();
            let expected: Words = std::array::from_fn(|lane| {
                let mut hasher = SipHasher24::new_with_key(&key);
                hasher.write(&(lane as u64).to_le_bytes());
                for group in &groups {
                    hasher.write(&group[lane * 8..lane * 8 + 8]);
                }
                hasher.finish()
            });
            assert_eq!(hash(&key, &groups), expected);
            assert_eq!(crate::sys::lanes::lanes(&key, &groups), expected);
        }
    }
}
