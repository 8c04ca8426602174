//! The table, and calls carried from a fake program's memory to a fake kernel and back.
//!
//! Owns the fakes. Must not run real calls.

use super::super::wire::{Buffer, Call, INLINE_BYTES_MAX, Return, Room};
use super::marshal::{Memory, Prepared, pack, unpack};
use super::shape::{Argument, Fill, Length};
use super::*;
use proptest::prelude::*;

const START: u64 = 0x10_0000;

/// One run of accessible memory.
struct Program(Vec<u8>);

impl Program {
    fn new() -> Self {
        Self(vec![0xee; 256 * 1024])
    }

    fn part(&mut self, address: u64, bytes: usize) -> Option<&mut [u8]> {
        let start = usize::try_from(address.checked_sub(START)?).ok()?;
        self.0.get_mut(start..start.checked_add(bytes)?)
    }

    fn put(&mut self, address: u64, bytes: &[u8]) {
        self.part(address, bytes.len()).expect("inside").copy_from_slice(bytes);
    }

    fn get(&mut self, address: u64, bytes: usize) -> Vec<u8> {
        self.part(address, bytes).expect("inside").to_vec()
    }
}

impl Memory for Program {
    fn read(&mut self, address: u64, out: &mut [u8]) -> bool {
        let part = self.part(address, out.len());
        part.is_some_and(|part| {
            out.copy_from_slice(part);
            true
        })
    }

    fn write(&mut self, address: u64, bytes: &[u8]) -> bool {
        self.part(address, bytes.len()).is_some_and(|part| {
            part.copy_from_slice(bytes);
            true
        })
    }
}

fn shape_of(number: i64, arguments: &[u64; 6]) -> &'static Shape {
    match classify(number as u64, arguments) {
        Class::Marshal(shape) => shape,
        other => panic!("call {number} is {other:?}"),
    }
}

fn packed(program: &mut Program, number: i64, arguments: [u64; 6]) -> Option<Call> {
    pack(number as u32, arguments, shape_of(number, &arguments), program)
}

fn input(call: &Call, argument: u8) -> &[u8] {
    &call.inputs.iter().find(|buffer| buffer.argument == argument).expect("input").bytes
}

/// Runs a call whose output buffers the kernel fills with these bytes, and puts the answer back.
fn round_trip(program: &mut Program, number: i64, arguments: [u64; 6], fills: &[(u8, &[u8])], value: i64) -> Return {
    let call = packed(program, number, arguments).expect("packs");
    let shape = shape_of(number, &arguments);
    let mut prepared = Prepared::new(&call, shape).expect("sound");
    for (argument, bytes) in fills {
        prepared.fill_for_test(*argument, bytes);
    }
    let answer = prepared.finish(value);
    assert!(unpack(arguments, shape, &answer, program));
    answer
}

#[test]
fn the_table_is_that_of_the_kernel() {
    let check = |number: i64, expected: &str| assert_eq!(name(number as u64), expected);
    check(libc::SYS_read, "read");
    check(libc::SYS_rt_sigreturn, "rt_sigreturn");
    check(libc::SYS_getdents64, "getdents64");
    check(libc::SYS_epoll_pwait, "epoll_pwait");
    check(libc::SYS_prlimit64, "prlimit64");
    check(libc::SYS_rseq, "rseq");
    check(libc::SYS_clone3, "clone3");
    check(libc::SYS_futex_waitv, "futex_waitv");
    check(462, "mseal");
    check(335, "unknown");
    check(470, "unknown");
    check(-1, "unknown");
    let all: Vec<&str> = (0..470).map(name).filter(|name| *name != "unknown").collect();
    assert_eq!(all.len(), 335 + 46);
    assert_eq!(all.iter().collect::<std::collections::BTreeSet<_>>().len(), all.len(), "each name once");
}

#[test]
fn unknown_and_dangerous_calls_are_refused() {
    let refused = |number: i64, first: u64, second: u64| match classify(number as u64, &[first, second, 0, 0, 0, 0]) {
        Class::Refuse(refusal) => (refusal.errno, refusal.quiet),
        other => panic!("call {number} is {other:?}"),
    };
    for number in [335, 423, 470, 0x4000_0000, i64::MAX, -1] {
        assert_eq!(refused(number, 0, 0), (libc::ENOSYS, false));
    }
    for number in [libc::SYS_io_uring_setup, libc::SYS_shmat] {
        assert_eq!(refused(number, 0, 0), (libc::ENOSYS, false));
    }
    assert_eq!(refused(libc::SYS_rseq, 0, 0), (libc::ENOSYS, true));
    assert_eq!(refused(libc::SYS_futex, 0, 11 | 128), (libc::ENOSYS, false));
    assert_eq!(refused(libc::SYS_prctl, 59, 1), (libc::EINVAL, false));
    assert_eq!(refused(libc::SYS_arch_prctl, 0x3001, 0), (libc::EINVAL, true));
    assert_eq!(refused(libc::SYS_personality, 0x40000, 0), (libc::EPERM, false));
}

#[test]
fn arguments_refine_the_class() {
    let class = |number: i64, arguments: [u64; 6]| classify(number as u64, &arguments);
    assert_eq!(class(libc::SYS_personality, [0xffff_ffff, 0, 0, 0, 0, 0]), Class::Answer(0));
    assert_eq!(class(libc::SYS_arch_prctl, [0x1002, 0, 0, 0, 0, 0]), Class::Local);
    assert_eq!(class(libc::SYS_ioctl, [1, 0x1234, 0, 0, 0, 0]), Class::Delegate);
    assert!(matches!(class(libc::SYS_ioctl, [1, libc::TIOCGWINSZ, 0, 0, 0, 0]), Class::Marshal(_)));
    assert_eq!(class(libc::SYS_futex, [0, 129, 0, 0, 0, 0]), Class::Delegate);
    assert!(matches!(class(libc::SYS_futex, [0, 128, 0, 0, 0, 0]), Class::Marshal(_)));
    assert_eq!(class(libc::SYS_setsockopt, [3, 1, 26, 0, 16, 0]), Class::Delegate);
    assert!(matches!(class(libc::SYS_setsockopt, [3, 1, 2, 0, 4, 0]), Class::Marshal(_)));
    let direct = without_pinning(libc::SYS_openat as u64, [0, 0, (libc::O_DIRECT | libc::O_RDWR) as u64, 0, 0, 0]);
    assert_eq!(direct[2], libc::O_RDWR as u64);
    assert_eq!(named_path(libc::SYS_openat as u64), Some(NamedPath { directory: Some(0), path: 1, action: PathUse::Open }));
}

#[test]
fn every_shape_is_sound() {
    for number in 0..470 {
        let Class::Marshal(shape) = classify(number, &[0; 6]) else { continue };
        for (index, argument) in shape.arguments.iter().enumerate() {
            let (length, fill) = match *argument {
                Argument::In(length) => (Some(length), None),
                Argument::Out(length, fill) | Argument::InOut(length, fill) => (Some(length), Some(fill)),
                Argument::VectorIn(count) | Argument::VectorOut(count) => (Some(Length::Argument(count)), None),
                Argument::Value | Argument::Path => (None, None),
            };
            let named = match length {
                Some(Length::Argument(named) | Length::Elements(named, _) | Length::DescriptorSet(named)) => {
                    assert_eq!(shape.arguments[usize::from(named)], Argument::Value, "{}", name(number));
                    named
                }
                Some(Length::Pointed(named)) => {
                    assert!(usize::from(named) > index, "{}: a length follows its buffer", name(number));
                    assert_eq!(fill, Some(Fill::Pointed(named)), "{}", name(number));
                    named
                }
                Some(Length::Bytes(_)) | None => 0,
            };
            assert!(named < 6);
        }
    }
}

#[test]
fn reads_and_writes_carry_their_bytes() {
    let mut program = Program::new();
    program.put(START + 100, b"hello");
    let call = packed(&mut program, libc::SYS_write, [1, START + 100, 5, 0, 0, 0]).expect("packs");
    assert_eq!(input(&call, 1), b"hello");
    round_trip(&mut program, libc::SYS_read, [0, START, 4096, 0, 0, 0], &[(1, b"abcdef")], 3);
    assert_eq!(program.get(START, 5), b"abc\xee\xee");
    let answer = round_trip(&mut program, libc::SYS_read, [0, START, 4096, 0, 0, 0], &[(1, b"zzz")], -9);
    assert_eq!((answer.value, answer.outputs.len()), (-9, 0));
    let nothing = packed(&mut program, libc::SYS_write, [1, START, 0, 0, 0, 0]).expect("packs");
    assert!(Prepared::new(&nothing, shape_of(libc::SYS_write, &nothing.arguments)).is_some());
}

#[test]
fn long_or_unreadable_buffers_stay_raw() {
    let mut program = Program::new();
    let long = INLINE_BYTES_MAX as u64;
    assert!(packed(&mut program, libc::SYS_write, [1, START, long, 0, 0, 0]).is_some());
    assert_eq!(packed(&mut program, libc::SYS_write, [1, START, long + 1, 0, 0, 0]), None);
    assert_eq!(packed(&mut program, libc::SYS_read, [1, START, u64::MAX, 0, 0, 0]), None);
    assert_eq!(packed(&mut program, libc::SYS_write, [1, 8, 4, 0, 0, 0]), None);
    assert_eq!(packed(&mut program, libc::SYS_unlink, [START, 0, 0, 0, 0, 0]), None, "no end within 4096 bytes");
    assert_eq!(packed(&mut program, libc::SYS_readv, [0, START, 4000, 0, 0, 0]), None);
}

#[test]
fn paths_travel_with_their_end() {
    let mut program = Program::new();
    let at = START + 250;
    let long = [b"/".repeat(1000), vec![0]].concat();
    program.put(at, &long);
    let call = packed(&mut program, libc::SYS_openat, [0xffff_ff9c, at, 0, 0, 0, 0]).expect("packs");
    assert_eq!(input(&call, 1), long);
    assert_eq!(call.arguments[0], 0xffff_ff9c);
    let last = START + 256 * 1024 - 2;
    program.put(last, b"x\0");
    assert!(packed(&mut program, libc::SYS_chdir, [last, 0, 0, 0, 0, 0]).is_some());
}

#[test]
fn vectors_become_one_buffer() {
    let mut program = Program::new();
    let entries = [(START + 0x1000, 3_u64), (0, 0), (START + 0x2000, 4)];
    let vector: Vec<u8> = entries.iter().flat_map(|entry| [entry.0.to_le_bytes(), entry.1.to_le_bytes()].concat()).collect();
    program.put(START, &vector);
    program.put(START + 0x1000, b"abc");
    program.put(START + 0x2000, b"defg");
    let call = packed(&mut program, libc::SYS_writev, [1, START, 3, 0, 0, 0]).expect("packs");
    assert_eq!(input(&call, 1), b"abcdefg");
    let mut prepared = Prepared::new(&call, shape_of(libc::SYS_writev, &call.arguments)).expect("sound");
    assert_eq!(prepared.arguments()[2], 1, "one entry");
    round_trip(&mut program, libc::SYS_readv, [1, START, 3, 0, 0, 0], &[(1, b"12345")], 5);
    assert_eq!(program.get(START + 0x1000, 4), b"123\xee");
    assert_eq!(program.get(START + 0x2000, 4), b"45fg");
}

#[test]
fn lengths_behind_pointers_are_followed() {
    let mut program = Program::new();
    program.put(START, &16_u32.to_le_bytes());
    let arguments = [3, START + 0x100, START, 0, 0, 0];
    let answer = round_trip(&mut program, libc::SYS_getsockname, arguments, &[(1, b"addressaddress.."), (2, &[7, 0, 0, 0])], 0);
    assert_eq!(answer.outputs.len(), 2);
    assert_eq!(program.get(START + 0x100, 9), b"address\xee\xee");
    assert_eq!(program.get(START, 4), [7, 0, 0, 0]);
    let none = packed(&mut program, libc::SYS_accept, [3, 0, 0, 0, 0, 0]).expect("packs");
    assert!(none.inputs.is_empty() && none.outputs.is_empty());
}

#[test]
fn elements_and_rests_come_back() {
    let mut program = Program::new();
    round_trip(&mut program, libc::SYS_epoll_wait, [3, START, 4, 0, 0, 0], &[(1, &[7; 48])], 2);
    assert_eq!(program.get(START, 26), [[7; 24].to_vec(), vec![0xee; 2]].concat());
    program.put(START, &[1; 16]);
    program.put(START + 0x100, &[2; 16]);
    let arguments = [START, 2, START + 0x100, 0, 8, 0];
    round_trip(&mut program, libc::SYS_ppoll, arguments, &[(0, &[9; 16]), (2, &[8; 16])], -4);
    assert_eq!(program.get(START, 16), [1; 16], "nothing on failure");
    assert_eq!(program.get(START + 0x100, 16), [8; 16], "but the time that is left");
    round_trip(&mut program, libc::SYS_select, [65, START, 0, 0, 0, 0], &[(1, &[5; 16])], 1);
    assert_eq!(program.get(START, 17)[15..], [5, 7], "two words for 65 descriptors");
}

#[test]
fn a_forged_call_is_refused() {
    let arguments = [1, START, 100, 0, 0, 0];
    let write = shape_of(libc::SYS_write, &arguments);
    let with = |inputs: Vec<Buffer>, outputs: Vec<Room>| Call { number: 1, arguments, inputs, outputs };
    let buffer = |argument, bytes: usize| Buffer { argument, bytes: vec![0; bytes] };
    let is_taken = |call: &Call| Prepared::new(call, write).is_some();
    assert!(is_taken(&with(vec![buffer(1, 100)], vec![])));
    assert!(!is_taken(&with(vec![], vec![])), "no buffer");
    assert!(!is_taken(&with(vec![buffer(1, 99)], vec![])), "the kernel would read on");
    assert!(!is_taken(&with(vec![buffer(1, 100), buffer(1, 100)], vec![])));
    assert!(!is_taken(&with(vec![buffer(1, 100), buffer(2, 1)], vec![])));
    assert!(!is_taken(&with(vec![buffer(6, 100)], vec![])));
    assert!(!is_taken(&with(vec![buffer(1, 100)], vec![Room { argument: 1, bytes: 100 }])));
    assert!(!is_taken(&with(vec![], vec![Room { argument: 1, bytes: u32::MAX }])));
    let forged = Return { value: 0, outputs: vec![Buffer { argument: 1, bytes: vec![1; 5000] }], ..Return::default() };
    let read = [0, START, 4096, 0, 0, 0];
    assert!(!unpack(read, shape_of(libc::SYS_read, &read), &forged, &mut Program::new()), "longer than asked");
}

proptest! {
    #[test]
    fn no_call_panics(number in 0u64..470, words in proptest::array::uniform6(prop_oneof![
        (0u64..300_000).prop_map(|offset| START + offset), 0u64..200, any::<u64>(),
    ]), value in any::<i64>()) {
        let mut program = Program::new();
        if let Class::Marshal(shape) = classify(number, &words)
            && let Some(call) = pack(number as u32, words, shape, &mut program)
        {
            let mut prepared = Prepared::new(&call, shape).expect("what was packed is sound");
            prop_assert!(prepared.arguments().iter().zip(words).all(|(new, old)| *new == old || old != 0));
            let answer = prepared.finish(value);
            let _written = unpack(words, shape, &answer, &mut program);
        }
    }
}
