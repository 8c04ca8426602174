//! Pages that come in pieces.
//!
//! Owns a bounded table of pages under way. Must not know who sent them is who he says (checked before) nor what becomes of them.

use crate::Nanos;
use crate::limits::{FRAGMENTS_MAX, REASSEMBLIES_MAX, REASSEMBLY_TIMEOUT};
use dsm_wire::PAGE_BYTES;

/// What a piece belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PieceOf {
    pub(crate) source: u16,
    pub(crate) request: u64,
    pub(crate) page: u64,
    pub(crate) era: u32,
    /// Flags of the grant besides its counts.
    pub(crate) flags: u16,
    /// Pieces of the page.
    pub(crate) pieces: u16,
}

/// A piece contradicts its header or its siblings.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Contradiction;

struct Assembly {
    of: PieceOf,
    since: Nanos,
    seen: u16,
    piece_bytes: usize,
    bytes: Box<[u8; PAGE_BYTES]>,
}

/// Pages under way.
pub(crate) struct Reassembly {
    under_way: Vec<Assembly>,
    spare: Vec<Box<[u8; PAGE_BYTES]>>,
    expired: u64,
}

impl Reassembly {
    /// An empty table.
    pub(crate) fn new() -> Reassembly {
        Reassembly { under_way: Vec::with_capacity(REASSEMBLIES_MAX), spare: Vec::new(), expired: 0 }
    }

    /// Pages given up so far.
    pub(crate) fn expired(&self) -> u64 {
        self.expired
    }

    /// Adds piece `index` with its `bytes`. Returns the page once it is whole; give it back with [`Reassembly::give_back`].
    pub(crate) fn add(
        &mut self,
        now: Nanos,
        of: PieceOf,
        index: u16,
        bytes: &[u8],
    ) -> Result<Option<Box<[u8; PAGE_BYTES]>>, Contradiction> {
        let piece_bytes = piece_bytes(of.pieces, index, bytes.len())?;
        let place = match self.under_way.iter().position(|assembly| assembly.of == of) {
            Some(place) => place,
            None => self.begin(now, of, piece_bytes),
        };
        let assembly = &mut self.under_way[place];
        if assembly.piece_bytes != piece_bytes {
            return Err(Contradiction);
        }
        let offset = usize::from(index) * piece_bytes;
        assembly.bytes[offset..offset + bytes.len()].copy_from_slice(bytes);
        assembly.seen |= 1 << index;
        let all = u16::MAX >> (FRAGMENTS_MAX as u16 - of.pieces);
        Ok((assembly.seen == all).then(|| self.under_way.swap_remove(place).bytes))
    }

    /// Keeps the memory of a delivered page for the next.
    pub(crate) fn give_back(&mut self, bytes: Box<[u8; PAGE_BYTES]>) {
        if self.spare.len() < REASSEMBLIES_MAX {
            self.spare.push(bytes);
        }
    }

    fn begin(&mut self, now: Nanos, of: PieceOf, piece_bytes: usize) -> usize {
        let before = self.under_way.len();
        let spare = &mut self.spare;
        let mut index = 0;
        while index < self.under_way.len() {
            if now.since(self.under_way[index].since) > REASSEMBLY_TIMEOUT {
                spare.push(self.under_way.swap_remove(index).bytes);
            } else {
                index += 1;
            }
        }
        if self.under_way.len() == REASSEMBLIES_MAX
            && let Some((oldest, _)) = self.under_way.iter().enumerate().min_by_key(|(_, assembly)| assembly.since)
        {
            spare.push(self.under_way.swap_remove(oldest).bytes);
        }
        self.expired += (before - self.under_way.len()) as u64;
        let bytes = self.spare.pop().unwrap_or_else(|| Box::new([0; PAGE_BYTES]));
        self.under_way.push(Assembly { of, since: now, seen: 0, piece_bytes, bytes });
        self.under_way.len() - 1
    }
}

/// Bytes of every piece but the last, from any one piece.
fn piece_bytes(pieces: u16, index: u16, length: usize) -> Result<usize, Contradiction> {
    let pieces_before_last = usize::from(pieces).saturating_sub(1);
    if pieces < 2 || usize::from(pieces) > FRAGMENTS_MAX || index >= pieces || length == 0 || length >= PAGE_BYTES {
        return Err(Contradiction);
    }
    let piece_bytes = if usize::from(index) < pieces_before_last {
        length
    } else if (PAGE_BYTES - length).is_multiple_of(pieces_before_last) {
        (PAGE_BYTES - length) / pieces_before_last
    } else {
        return Err(Contradiction);
    };
    if PAGE_BYTES.div_ceil(piece_bytes) == usize::from(pieces) { Ok(piece_bytes) } else { Err(Contradiction) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(page: u64, pieces: u16) -> PieceOf {
        PieceOf { source: 1, request: 2, page, era: 3, flags: 0, pieces }
    }

    fn page() -> [u8; PAGE_BYTES] {
        std::array::from_fn(|i| (i % 253) as u8)
    }

    fn check(bytes: usize, order: &[usize]) {
        let page = page();
        let pieces: Vec<&[u8]> = page.chunks(bytes).collect();
        let mut table = Reassembly::new();
        for (turn, index) in order.iter().enumerate() {
            let whole = table.add(Nanos(0), of(9, pieces.len() as u16), *index as u16, pieces[*index]).unwrap();
            assert_eq!(whole.is_some(), turn + 1 == order.len(), "piece {index} of {order:?}");
            assert!(whole.is_none_or(|whole| *whole == page));
        }
    }

    #[test]
    fn any_order_and_doubles() {
        check(1408, &[0, 1, 2]);
        check(1408, &[2, 1, 0]);
        check(1408, &[2, 2, 0, 0, 1]);
        check(2048, &[1, 0]);
        check(276, &[14, 0, 1, 2, 3, 4, 5, 13, 12, 11, 10, 9, 8, 7, 6]);
        check(256, &[15, 0, 1, 2, 3, 4, 5, 13, 12, 11, 10, 9, 8, 7, 14, 6]);
    }

    #[test]
    fn contradictions_are_refused() {
        let page = page();
        let mut table = Reassembly::new();
        for (pieces, index, length) in
            [(1, 0, 4000), (3, 3, 1408), (3, 0, 4096), (3, 0, 0), (3, 0, 1000), (3, 2, 1281), (17, 0, 256), (3, 0, 2048)]
        {
            let result = table.add(Nanos(0), of(1, pieces), index, &page[..length]);
            assert!(matches!(result, Err(Contradiction)), "{index} of {pieces}, {length} bytes: {result:?}");
        }
        assert!(table.add(Nanos(0), of(1, 3), 0, &page[..1408]).unwrap().is_none());
        assert!(table.add(Nanos(0), of(1, 3), 1, &page[..1400]).is_err(), "siblings have equal length");
    }

    #[test]
    fn table_is_bounded_and_forgets() {
        let page = page();
        let mut table = Reassembly::new();
        for number in 0..REASSEMBLIES_MAX as u64 + 5 {
            table.add(Nanos(number), of(number, 3), 0, &page[..1408]).unwrap();
        }
        assert_eq!((table.under_way.len(), table.expired()), (REASSEMBLIES_MAX, 5));
        let late = Nanos(10_000).after(REASSEMBLY_TIMEOUT);
        table.add(late, of(999, 3), 0, &page[..1408]).unwrap();
        assert_eq!((table.under_way.len(), table.expired()), (1, 5 + REASSEMBLIES_MAX as u64));
    }
}
