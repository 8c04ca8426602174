//! The header tag: SipHash-2-4 over the tagged bytes of a header, word by word.
//!
//! Owns the hash of exactly seven words (the first 48 bytes of a header and its payload tag). Must not know where keys come from.
//! Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012.

use dsm_wire::{Header, TAGGED_BYTES};

const WORDS: usize = TAGGED_BYTES / 8 + 1;
const INITIAL: [u64; 4] = [0x736f_6d65_7073_6575, 0x646f_7261_6e64_6f6d, 0x6c79_6765_6e65_7261, 0x7465_6462_7974_6573];
/// The last block: no byte left over, and how many there were.
const LENGTH: u64 = (WORDS as u64 * 8) << 56;

/// A SipHash key: its first and second eight bytes, little-endian.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SipKey(pub u64, pub u64);

impl SipKey {
    /// The key with these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> SipKey {
        let word = u128::from_le_bytes(bytes);
        SipKey(word as u64, (word >> 64) as u64)
    }

    /// The bytes of the key.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 16] {
        (self.0 as u128 | (self.1 as u128) << 64).to_le_bytes()
    }
}

// A key is not for logs.
impl core::fmt::Debug for SipKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("SipKey")
    }
}

/// The header tag of `header`, whose payload tag is set, under the pair key `key`.
#[must_use]
pub fn header_tag(key: SipKey, header: &Header) -> u64 {
    hash(key, &words(header))
}

/// The words the tag covers, as the bytes lie on the wire.
fn words(header: &Header) -> [u64; WORDS] {
    let low = u64::from(header.version)
        | u64::from(header.kind) << 8
        | u64::from(header.flags.get()) << 16
        | u64::from(header.cluster.get()) << 32;
    let nodes = u64::from(header.source.get()) << 32 | u64::from(header.destination.get()) << 48;
    [
        low,
        u64::from(header.epoch.get()) | nodes,
        u64::from(header.space.get()) | u64::from(header.page_version.get()) << 32,
        header.page.get(),
        header.request.get(),
        header.sequence.get(),
        header.payload_tag.get(),
    ]
}

// Called, not copied: the programs check and make tags in several places.
#[inline(never)]
fn hash(SipKey(first, second): SipKey, words: &[u64; WORDS]) -> u64 {
    let mut state = [INITIAL[0] ^ first, INITIAL[1] ^ second, INITIAL[2] ^ first, INITIAL[3] ^ second];
    for word in words {
        absorb(&mut state, *word);
    }
    absorb(&mut state, LENGTH);
    state[2] ^= 0xff;
    for _ in 0..4 {
        round(&mut state);
    }
    state[0] ^ state[1] ^ state[2] ^ state[3]
}

#[inline(always)]
fn absorb(state: &mut [u64; 4], word: u64) {
    state[3] ^= word;
    round(state);
    round(state);
    state[0] ^= word;
}

#[inline(always)]
fn round(state: &mut [u64; 4]) {
    let [v0, v1, v2, v3] = state;
    *v0 = v0.wrapping_add(*v1);
    *v1 = v1.rotate_left(13) ^ *v0;
    *v0 = v0.rotate_left(32);
    *v2 = v2.wrapping_add(*v3);
    *v3 = v3.rotate_left(16) ^ *v2;
    *v0 = v0.wrapping_add(*v3);
    *v3 = v3.rotate_left(21) ^ *v0;
    *v2 = v2.wrapping_add(*v1);
    *v1 = v1.rotate_left(17) ^ *v2;
    *v2 = v2.rotate_left(32);
}

#[cfg(test)]
mod tests {
    use super::*;
    use siphasher::sip::SipHasher24;

    #[test]
    fn key_bytes_round_trip() {
        let bytes = core::array::from_fn(|i| i as u8 * 17);
        assert_eq!(SipKey::from_bytes(bytes).to_bytes(), bytes);
    }

    #[test]
    fn it_is_the_siphash_of_the_bytes_on_the_wire() {
        let mut header = Header { version: 1, kind: 2, ..Header::default() };
        for turn in 0..100u64 {
            header.flags.set(turn as u16 * 7);
            header.cluster.set(turn as u32 * 0x0101_0107);
            header.source.set(turn as u16);
            header.page.set(turn.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            header.sequence.set(!turn);
            header.payload_tag.set(turn << 40 | 5);
            let mut bytes = [0; WORDS * 8];
            bytes[..TAGGED_BYTES].copy_from_slice(&zerocopy::IntoBytes::as_bytes(&header)[..TAGGED_BYTES]);
            bytes[TAGGED_BYTES..].copy_from_slice(&header.payload_tag.get().to_le_bytes());
            let key = SipKey(turn, turn.rotate_left(31) ^ 0x55);
            assert_eq!(header_tag(key, &header), SipHasher24::new_with_keys(key.0, key.1).hash(&bytes));
        }
    }
}
