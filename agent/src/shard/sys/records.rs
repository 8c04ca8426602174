//! The records that perf events leave in their rings.
//!
//! Owns the kernel's layout of those asked for in [`super::perf`]. Must not know rings, or what a record is matched with.

/// Page faults and switches of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::shard) struct Record {
    /// CLOCK_MONOTONIC, in nanoseconds.
    pub(in crate::shard) at_ns: u64,
    /// The thread, in this process's process-id namespace.
    pub(in crate::shard) thread: u32,
    /// What happened to it.
    pub(in crate::shard) what: What,
}

/// What a record says of its thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::shard) enum What {
    /// It faulted on this address.
    Fault {
        /// The byte touched.
        address: u64,
    },
    /// It left its processor.
    Out,
    /// It runs.
    In,
}

const HEADER_BYTES: usize = 8;
const PERF_RECORD_LOST: u32 = 2;
const PERF_RECORD_SAMPLE: u32 = 9;
const PERF_RECORD_SWITCH: u32 = 14;
const PERF_RECORD_MISC_SWITCH_OUT: u16 = 1 << 13;

/// Appends the records in `bytes`, oldest first, to `records`; returns how many the kernel says it lost. Kinds not asked for are
/// passed over; where the bytes are no records, the rest counts as one lost.
pub(super) fn parse(bytes: &[u8], records: &mut Vec<Record>) -> u64 {
    let mut lost = 0_u64;
    let mut rest = bytes;
    while !rest.is_empty() {
        let Some((kind, flags, body, after)) = split(rest) else { return lost.saturating_add(1) };
        rest = after;
        let record = match kind {
            PERF_RECORD_SAMPLE => sample(body),
            PERF_RECORD_SWITCH => switch(body, flags & PERF_RECORD_MISC_SWITCH_OUT != 0),
            PERF_RECORD_LOST => {
                lost = lost.saturating_add(word(body, 1).unwrap_or(1));
                continue;
            }
            _ => continue,
        };
        match record {
            Some(record) => records.push(record),
            None => lost = lost.saturating_add(1),
        }
    }
    lost
}

/// The first record of `bytes`: kind, flags, body, and what follows it.
fn split(bytes: &[u8]) -> Option<(u32, u16, &[u8], &[u8])> {
    let header: &[u8; HEADER_BYTES] = bytes.first_chunk()?;
    let [a, b, c, d, flags @ .., e, f] = *header;
    let length = usize::from(u16::from_ne_bytes([e, f]));
    let body = bytes.get(HEADER_BYTES..length)?;
    Some((u32::from_ne_bytes([a, b, c, d]), u16::from_ne_bytes(flags), body, &bytes[length..]))
}

/// `struct { u32 pid, tid; u64 time; u64 addr; }`
fn sample(body: &[u8]) -> Option<Record> {
    let address = word(body, 2)?;
    Some(Record { at_ns: word(body, 1)?, thread: thread(body)?, what: What::Fault { address } })
}

/// A switch has no body of its own: only the trailer, `struct { u32 pid, tid; u64 time; }`.
fn switch(body: &[u8], is_out: bool) -> Option<Record> {
    Some(Record { at_ns: word(body, 1)?, thread: thread(body)?, what: if is_out { What::Out } else { What::In } })
}

fn thread(body: &[u8]) -> Option<u32> {
    let ([_, thread, ..], _) = body.as_chunks::<4>() else { return None };
    Some(u32::from_ne_bytes(*thread))
}

fn word(body: &[u8], index: usize) -> Option<u64> {
    body.as_chunks::<8>().0.get(index).map(|word| u64::from_ne_bytes(*word))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn record(kind: u32, flags: u16, body: &[u8]) -> Vec<u8> {
        let length = (HEADER_BYTES + body.len()) as u16;
        [&kind.to_ne_bytes()[..], &flags.to_ne_bytes(), &length.to_ne_bytes(), body].concat()
    }

    fn who_and_when(thread: u32, at_ns: u64) -> Vec<u8> {
        [&1_u32.to_ne_bytes()[..], &thread.to_ne_bytes(), &at_ns.to_ne_bytes()].concat()
    }

    pub(in crate::shard::sys) fn fault(thread: u32, at_ns: u64, address: u64) -> Vec<u8> {
        record(PERF_RECORD_SAMPLE, 1, &[who_and_when(thread, at_ns), address.to_ne_bytes().to_vec()].concat())
    }

    fn switched(thread: u32, at_ns: u64, is_out: bool) -> Vec<u8> {
        let flags = if is_out { PERF_RECORD_MISC_SWITCH_OUT } else { 0 };
        record(PERF_RECORD_SWITCH, flags, &who_and_when(thread, at_ns))
    }

    fn lost(count: u64) -> Vec<u8> {
        record(PERF_RECORD_LOST, 0, &[7_u64.to_ne_bytes().to_vec(), count.to_ne_bytes().to_vec(), who_and_when(0, 9)].concat())
    }

    #[test]
    fn records_are_told_apart() {
        #[track_caller]
        fn check(bytes: &[Vec<u8>], expected: &[(u64, u32, What)], expected_lost: u64) {
            let mut records = Vec::new();
            let lost = parse(&bytes.concat(), &mut records);
            let found: Vec<_> = records.iter().map(|record| (record.at_ns, record.thread, record.what)).collect();
            assert_eq!((found.as_slice(), lost), (expected, expected_lost));
        }
        let faulted = (50, 77, What::Fault { address: 0x7654_3210 });
        check(&[], &[], 0);
        check(&[fault(77, 50, 0x7654_3210)], &[faulted], 0);
        check(&[switched(5, 60, true), switched(5, 70, false)], &[(60, 5, What::Out), (70, 5, What::In)], 0);
        check(&[lost(12), fault(77, 50, 0x7654_3210)], &[faulted], 12);
        check(&[record(99, 0, &[0; 40]), fault(77, 50, 0x7654_3210)], &[faulted], 0);
        // A record too short for its kind, one that says it is shorter than its header, one cut off.
        check(&[record(PERF_RECORD_SAMPLE, 0, &[0; 16]), fault(77, 50, 0x7654_3210)], &[faulted], 1);
        check(&[vec![0; 8], fault(77, 50, 0x7654_3210)], &[], 1);
        check(&[fault(77, 50, 0x7654_3210), fault(77, 50, 1)[..20].to_vec()], &[faulted], 1);
        check(&[vec![0; 3]], &[], 1);
    }
}
