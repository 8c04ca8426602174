//! Round trips, golden bytes, and everything a stranger may send.
//!
//! Owns the strategies for messages. Must not use sockets.

use super::super::ask::ThreadUsage;
use super::super::moving::Luggage;
use super::super::sigframe::{Action, Registers};
use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

fn found() -> impl Strategy<Value = Found> {
    prop_oneof![Just(Found::Hole), Just(Found::Area), Just(Found::BeyondFile)]
}

const KEY: [u8; 16] = *b"0123456789abcdef";

fn pair() -> (Sealer, Opener) {
    (session(&KEY, Side::Root, 1, 2).0, session(&KEY, Side::Member, 1, 2).1)
}

fn sealed(sealer: &mut Sealer, message: &Message) -> Vec<u8> {
    let mut frame = Vec::new();
    sealer.seal(message, &mut frame).expect("fits");
    assert_eq!(frame_bytes(*frame.first_chunk().expect("length")), Ok(frame.len() - LENGTH_BYTES));
    frame.split_off(LENGTH_BYTES)
}

#[test]
fn the_first_frame_has_these_bytes() {
    let (mut sealer, _) = session(&KEY, Side::Member, 7, 9);
    let mut frame = Vec::new();
    let inputs = std::vec![Buffer { argument: 1, bytes: b"hi".to_vec() }];
    let call = Call { number: 1, arguments: [1, 0x1000, 2, 0, 0, 0], inputs, outputs: Vec::new() };
    sealer.seal(&Message::Call(call), &mut frame).expect("fits");
    let text: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
    let expected = concat!(
        "4c000000", // length: body 68, tag 8
        "02",
        "01000000",
        "0100000000000000",
        "0010000000000000",
        "0200000000000000",
        "000000000000000000000000000000000000000000000000",
        "01000000",
        "01",
        "02000000",
        "6869",
        "00000000",
        "ecef22a33dbe6311",
    );
    assert_eq!(text, expected);
}

#[test]
fn every_byte_of_a_long_frame_is_authenticated() {
    for bytes in [500, 512, 4096, 5000] {
        let (mut sealer, opener) = pair();
        let answer = Return { outputs: std::vec![Buffer { argument: 1, bytes: std::vec![7; bytes] }], ..Return::default() };
        let frame = sealed(&mut sealer, &Message::Return(answer.clone()));
        assert_eq!(opener.clone().open(&frame), Ok(Message::Return(answer)));
        for at in 0..frame.len() {
            let mut changed = frame.clone();
            changed[at] ^= 0x10;
            assert_eq!(opener.clone().open(&changed), Err(WireError::Forged { sequence: 0 }), "byte {at} of {bytes}");
        }
    }
}

#[test]
fn what_is_out_of_place_is_forged() {
    let (mut sealer, opener) = pair();
    let first = sealed(&mut sealer, &Message::SetMask(5));
    let second = sealed(&mut sealer, &Message::SetMask(6));
    let forged = |sequence| Err(WireError::Forged { sequence });
    assert_eq!(opener.clone().open(&first), Ok(Message::SetMask(5)));
    assert_eq!(opener.clone().open(&second), forged(0), "skipped");
    let mut after = opener.clone();
    assert_eq!(after.open(&first), Ok(Message::SetMask(5)));
    assert_eq!(after.open(&first), forged(1), "replayed");
    assert_eq!(after.open(&second), Ok(Message::SetMask(6)), "a refused frame changes nothing");
    let others = [
        session(&KEY, Side::Root, 1, 2).1,
        session(&KEY, Side::Member, 2, 1).1,
        session(&KEY, Side::Member, 1, 3).1,
        session(b"0123456789abcdeF", Side::Member, 1, 2).1,
    ];
    for mut other in others {
        assert_eq!(other.open(&first), forged(0), "own direction, other nonces, other key");
    }
    assert_eq!(opener.clone().open(&[]), forged(0));
}

#[test]
fn lengths_are_bounded() {
    let check = |bytes: u32| frame_bytes(bytes.to_le_bytes());
    assert_eq!(check(8), Err(WireError::Length { bytes: 8 }));
    assert_eq!(check(9), Ok(9));
    let max = (BODY_BYTES_MAX + TAG_BYTES) as u32;
    assert_eq!(check(max), Ok(max as usize));
    assert_eq!(check(max + 1), Err(WireError::Length { bytes: max + 1 }));
    assert_eq!(check(u32::MAX), Err(WireError::Length { bytes: u32::MAX }));
    let buffer = |bytes| Buffer { argument: 0, bytes: std::vec![0; bytes] };
    let with = |outputs| Message::Return(Return { outputs, ..Return::default() });
    let (mut sealer, mut opener) = pair();
    let full = with(std::vec![buffer(INLINE_BYTES_MAX)]);
    let mut out = std::vec![1];
    let long = with(std::vec![buffer(INLINE_BYTES_MAX), buffer(INLINE_BYTES_MAX)]);
    assert!(matches!(sealer.seal(&long, &mut out), Err(WireError::TooLong { .. })));
    assert_eq!(out, [1], "nothing was appended");
    assert_eq!(opener.open(&sealed(&mut sealer, &full)), Ok(full), "and no number was used up");
}

#[test]
fn authentic_nonsense_is_malformed() {
    let check = |body: &[u8], reason| assert_eq!(codec::decode(body), Err(WireError::Malformed(reason)));
    check(&[], "it ends early");
    check(&[0], "unknown kind");
    check(&[200], "unknown kind");
    check(&[8, 0, 0], "it ends early");
    check(&[8, 0, 0, 0, 0, 0, 0, 0, 0, 0], "bytes after the message");
    check(&[[9].to_vec(), std::vec![0; 16]].concat(), "an empty range");
    check(&[[12].to_vec(), std::vec![0; 4], std::vec![2]].concat(), "a flag is neither 0 nor 1");
    check(&[[4].to_vec(), std::vec![0; 8], std::vec![7, 0, 0, 0]].concat(), "a list is too long");
    check(&[[4].to_vec(), std::vec![0; 8], std::vec![1, 0, 0, 0, 6]].concat(), "no such argument");
}

fn buffers() -> impl Strategy<Value = Vec<Buffer>> {
    vec((0u8..6, vec(any::<u8>(), 0..40)).prop_map(|(argument, bytes)| Buffer { argument, bytes }), 0..=BUFFERS_MAX)
}

fn call() -> impl Strategy<Value = Call> {
    let rooms = vec((0u8..6, 0u32..=INLINE_BYTES_MAX as u32).prop_map(|(argument, bytes)| Room { argument, bytes }), 0..6);
    (any::<u32>(), any::<[u64; 6]>(), buffers(), rooms).prop_map(|(number, arguments, inputs, outputs)| Call {
        number,
        arguments,
        inputs,
        outputs,
    })
}

fn state() -> impl Strategy<Value = Box<ThreadState>> {
    (vec(any::<u8>(), 144), any::<u64>(), any::<u8>()).prop_map(|(bytes, fs_base, x87)| {
        let mut state = ThreadState { fs_base, ..ThreadState::default() };
        state.registers = Registers::from_bytes(bytes[..].first_chunk().expect("144 bytes"));
        state.fxsave.0[100] = x87;
        Box::new(state)
    })
}

fn signal() -> impl Strategy<Value = Option<SignalOrder>> {
    proptest::option::of((any::<u8>(), any::<[u64; 4]>()).prop_map(|(byte, words)| SignalOrder {
        info: SignalInfo([byte; 128]),
        action: Action { handler: words[0], flags: words[1], restorer: words[2], mask: words[3] },
    }))
}

fn question() -> impl Strategy<Value = Question> {
    prop_oneof![
        Just(Question::Memory),
        Just(Question::Processor),
        Just(Question::Times),
        Just(Question::Usage),
        any::<i32>().prop_map(Question::Thread),
        any::<[i32; 4]>()
            .prop_map(|[tid, policy, priority, nice]| Question::Schedule(tid, Scheduling { policy, priority, nice })),
    ]
}

fn message() -> impl Strategy<Value = Message> {
    let range = || (0u64..u64::MAX, 1u64..).prop_map(|(start, bytes)| start..start.saturating_add(bytes));
    let rights = || (0u64..8).prop_map(Protection::from_bits);
    let start = || {
        (state(), any::<[u64; 5]>(), any::<[i32; 2]>(), any::<u32>()).prop_map(|(state, words, ids, flags)| {
            let altstack = AltStack { address: words[2], flags, bytes: words[3] };
            let [tid, pid] = ids;
            Box::new(ThreadStart {
                state: *state,
                mask: words[0],
                tid,
                pid,
                clear_tid: words[1],
                altstack,
                luggage: Luggage {
                    registers: Registers { rax: words[4], ..Registers::default() },
                    floating: std::vec![7; flags as usize % 99],
                    used: ThreadUsage { cpu_ns: words[0], user_ticks: words[1], system_ticks: words[2], processor: words[3] },
                },
                is_traced: flags & 1 == 1,
                scheduling: (flags & 2 == 2).then_some(Scheduling { policy: tid, priority: pid, nice: 3 }),
            })
        })
    };
    prop_oneof![
        start().prop_map(Message::Start),
        start().prop_map(Message::Depart),
        call().prop_map(Message::Call),
        (call(), state(), any::<u64>()).prop_map(|(call, state, mask)| Message::Clone { call, state, mask }),
        (any::<i64>(), buffers(), signal(), any::<bool>())
            .prop_map(|(value, outputs, signal, is_signalled)| Message::Return(Return { value, outputs, signal, is_signalled })),
        any::<u64>().prop_map(Message::SetMask),
        (any::<u8>(), any::<u64>(), any::<bool>()).prop_map(|(byte, ip, is_blocked)| Message::Fault {
            info: SignalInfo([byte; 128]),
            ip,
            is_blocked
        }),
        any::<u64>().prop_map(|tag| Message::Barrier { tag }),
        any::<i32>().prop_map(|status| Message::ExitThread { status }),
        any::<u64>().prop_map(|address| Message::MapQuery { address }),
        (range(), rights(), found()).prop_map(|(range, protection, found)| Message::MapAnswer { range, protection, found }),
        (any::<u64>(), range(), rights()).prop_map(|(tag, range, protection)| Message::Protect { tag, range, protection }),
        any::<u64>().prop_map(|tag| Message::ProtectDone { tag }),
        any::<i32>().prop_map(|tid| Message::Move { tid }),
        any::<[i32; 2]>().prop_map(|[tid, carrier]| Message::Carrier { tid, carrier }),
        (any::<i32>(), signal()).prop_map(|(tid, signal)| Message::Kick { tid, signal }),
        any::<i32>().prop_map(|status| Message::Exit { status }),
        any::<i64>().prop_map(|correction_ns| Message::ClockOffset { correction_ns }),
        (any::<[u64; 2]>(), any::<u32>(), vec(any::<(u32, u64, u64)>(), 0..9))
            .prop_map(|(ns, threads, calls)| { Message::Figures { user_ns: ns[0], system_ns: ns[1], threads, calls } }),
        (any::<u64>(), question()).prop_map(|(tag, question)| Message::Ask { tag, question }),
        (any::<u64>(), vec(any::<u8>(), 0..40)).prop_map(|(tag, answer)| Message::Told { tag, answer }),
        vec(any::<u8>(), 0..40).prop_map(|line| Message::Traced { line }),
        (vec(any::<u8>(), 0..40), any::<bool>()).prop_map(|(bytes, is_last)| Message::Runners { bytes, is_last }),
    ]
}

proptest! {
    #[test]
    fn every_message_arrives(messages in vec(message(), 1..6)) {
        let (mut sealer, mut opener) = pair();
        for message in messages {
            prop_assert_eq!(opener.open(&sealed(&mut sealer, &message)), Ok(message));
        }
    }

    #[test]
    fn any_change_is_noticed(message in message(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let (mut sealer, mut opener) = pair();
        let mut frame = sealed(&mut sealer, &message);
        let at = at.index(frame.len());
        frame[at] ^= 1 << bit;
        prop_assert_eq!(opener.open(&frame), Err(WireError::Forged { sequence: 0 }));
    }

    #[test]
    fn no_body_panics(message in message(), flips in vec((any::<prop::sample::Index>(), any::<u8>()), 0..5), cut in any::<prop::sample::Index>(), noise in vec(any::<u8>(), 0..200)) {
        let mut body = Vec::new();
        codec::encode(&message, &mut body);
        for (at, byte) in flips {
            let at = at.index(body.len());
            body[at] = byte;
        }
        let whole = codec::decode(&body);
        if let Ok(message) = whole {
            let mut again = Vec::new();
            codec::encode(&message, &mut again);
            prop_assert_eq!(again, body.clone(), "one meaning has one form");
        }
        body.truncate(cut.index(body.len() + 1));
        drop(codec::decode(&body));
        drop(codec::decode(&noise));
    }
}
