//! One local APIC: register by register, and what no order of events may do.
//!
//! Owns nothing but the cases.

use dvm_apic::command::{Command, Mode, Target, Width};
use dvm_apic::local::{Effect, LocalApic, Order};
use dvm_apic::{Deadline, Now, Signal};
use proptest::prelude::*;
use std::collections::BTreeSet;

const NOW: Now = Now { ns: 0, tsc: 0 };

fn vector(vector: u8) -> Signal {
    Signal::Interrupt { vector, is_level: false }
}

fn enabled() -> LocalApic {
    let mut apic = LocalApic::new(0, true);
    assert_eq!(apic.write(0xf0, 0x1ff, NOW), Effect::None);
    apic
}

#[test]
fn after_power_on() {
    let mut apic = LocalApic::new(3, false);
    for (offset, value) in
        [(0x20, 3 << 24), (0x30, 0x0005_0014), (0x80, 0), (0xd0, 0), (0xe0, u32::MAX), (0xf0, 0xff), (0x350, 1 << 16)]
    {
        assert_eq!(apic.read(offset, NOW), value, "{offset:#x}");
    }
    assert!(apic.waits_for_start() && !apic.accept(vector(0x40)), "disabled");
    assert_eq!((apic.base(), LocalApic::new(0, true).base()), (0xfee0_0800, 0xfee0_0900));
}

#[test]
fn priorities() {
    let mut apic = enabled();
    for number in [0x31, 0x52, 0x55] {
        assert!(apic.accept(vector(number)));
    }
    assert!(!apic.accept(vector(0x55)), "already requested");
    assert_eq!(apic.acknowledge(), Some(0x55));
    assert_eq!((apic.poll_interrupt(), apic.read(0xa0, NOW)), (None, 0x50));
    assert!(apic.accept(vector(0x60)));
    assert_eq!(apic.acknowledge(), Some(0x60));
    assert_eq!(apic.write(0xb0, 0, NOW), Effect::None);
    assert_eq!(apic.write(0xb0, 0, NOW), Effect::None);
    assert_eq!(apic.write(0x80, 0x4f, NOW), Effect::None);
    assert_eq!(apic.acknowledge(), Some(0x52));
    assert_eq!(apic.write(0xb0, 0, NOW), Effect::None);
    assert_eq!((apic.poll_interrupt(), apic.control_register()), (None, 4));
    apic.set_control_register(3);
    assert_eq!(apic.poll_interrupt(), None);
    apic.set_control_register(2);
    assert_eq!(apic.acknowledge(), Some(0x31));
}

#[test]
fn the_end_of_a_level_interrupt_is_told() {
    let mut apic = enabled();
    assert!(apic.accept(Signal::Interrupt { vector: 0x61, is_level: true }));
    assert_eq!(apic.acknowledge(), Some(0x61));
    assert_eq!(apic.read(0x180 + 0x30, NOW), 2);
    assert_eq!(apic.write(0xb0, 0, NOW), Effect::EndOfInterrupt { vector: 0x61 });
    assert_eq!(apic.write(0xb0, 0, NOW), Effect::None, "nothing in service");
}

#[test]
fn an_end_for_which_nobody_waits() {
    let mut apic = enabled();
    assert!(!apic.may_end_silently(), "nothing is in service");
    assert!(apic.accept(vector(0x41)) && apic.acknowledge() == Some(0x41) && apic.may_end_silently());
    assert!(apic.accept(vector(0x31)) && !apic.may_end_silently(), "one of a lower class waits");
    assert_eq!((apic.end_silently(), apic.acknowledge()), (Effect::None, Some(0x31)), "an end is an end all the same");
    assert!(apic.may_end_silently());
    assert!(apic.accept(vector(0x52)) && apic.acknowledge() == Some(0x52) && !apic.may_end_silently(), "two are in service");
    assert_eq!(apic.write(0xb0, 0, NOW), Effect::None);
    assert!(apic.may_end_silently() && apic.end_silently() == Effect::None && !apic.may_end_silently());
    assert!(apic.accept(Signal::Interrupt { vector: 0x61, is_level: true }) && apic.acknowledge() == Some(0x61));
    assert!(!apic.may_end_silently(), "the I/O APIC waits");
    assert_eq!(apic.end_silently(), Effect::EndOfInterrupt { vector: 0x61 });
}

#[test]
fn start_of_a_processor() {
    let mut apic = LocalApic::new(1, false);
    assert_eq!(apic.poll_order(), None);
    assert!(apic.accept(Signal::Init) && apic.accept(Signal::Startup { page: 8 }) && apic.accept(Signal::Startup { page: 9 }));
    assert_eq!(apic.poll_order(), Some(Order::Reset));
    assert_eq!(apic.poll_order(), Some(Order::Start { page: 8 }));
    assert!(!apic.accept(Signal::Startup { page: 10 }), "it runs");
    assert_eq!(apic.poll_order(), None);
    assert!(apic.accept(Signal::Nmi));
    assert_eq!((apic.poll_order(), apic.poll_order()), (Some(Order::Nmi), None));
    assert_eq!(apic.write(0xf0, 0x1ff, NOW), Effect::None);
    assert!(apic.accept(vector(0x40)) && apic.accept(Signal::Init));
    assert_eq!(apic.poll_order(), Some(Order::Reset));
    assert_eq!((apic.poll_interrupt(), apic.waits_for_start()), (None, true));
}

#[test]
fn modes_and_model_specific_registers() {
    let mut apic = LocalApic::new(18, false);
    assert!(apic.read_msr(0x802, NOW).is_err(), "not in that mode");
    assert_eq!(apic.set_base(0xfee0_0c00), Ok(Effect::Renamed));
    assert_eq!((apic.read_msr(0x802, NOW), apic.read_msr(0x80d, NOW)), (Ok(18), Ok(0x0001_0004)));
    assert!(apic.set_base(0xfee0_0800).is_err(), "back without a stop");
    for index in [0x802, 0x803, 0x80a, 0x80d, 0x80e, 0x831, 0x839, 0x83a, 0x8ff] {
        assert!(apic.write_msr(index, 0, NOW).is_err(), "write {index:#x}");
    }
    for index in [0x80b, 0x83f, 0x831, 0x80e, 0x8ff] {
        assert!(apic.read_msr(index, NOW).is_err(), "read {index:#x}");
    }
    for (index, value) in [(0x808, 0x100), (0x80b, 1), (0x80f, 0x1000), (0x828, 1), (0x83e, 4), (0x808, 1 << 32)] {
        assert!(apic.write_msr(index, value, NOW).is_err(), "write {index:#x} = {value:#x}");
    }
    assert_eq!(apic.write_msr(0x80f, 0x1ff, NOW), Ok(Effect::None));
    let fixed = |target| Effect::Send(Command { mode: Mode::Fixed, vector: 0x41, is_level: false, target });
    assert_eq!(apic.write_msr(0x830, 0x0000_0007_0000_0041, NOW), Ok(fixed(Target::Physical(7, Width::Wide))));
    assert_eq!(apic.write_msr(0x830, 0x0001_0003_0000_0841, NOW), Ok(fixed(Target::Logical(0x0001_0003, Width::Wide))));
    assert_eq!(apic.write_msr(0x83f, 0x41, NOW), Ok(fixed(Target::Oneself)));
    assert_eq!(apic.set_base(0xfee0_0000), Ok(Effect::Renamed));
    assert!(apic.set_base(0xfee0_0c00).is_err(), "off to x2APIC");
    assert!(!apic.accept(vector(0x40)), "off");
}

#[test]
fn errors() {
    let mut apic = enabled();
    assert_eq!(apic.write(0x370, 0xfe, NOW), Effect::None);
    assert_eq!(apic.write(0x300, 0x5, NOW), Effect::None, "illegal vector");
    assert!(!apic.accept(vector(3)));
    assert_eq!(apic.read(0x40, NOW), 0);
    assert_eq!(apic.read(0x280, NOW), 0, "not before it is written");
    assert_eq!(apic.write(0x280, 0, NOW), Effect::None);
    assert_eq!(apic.read(0x280, NOW), 0xe0);
    assert_eq!(apic.acknowledge(), Some(0xfe));
}

#[test]
fn the_timer_by_its_registers() {
    let mut apic = enabled();
    for (offset, value) in [(0x3e0, 0xb), (0x320, 0x2_00ec), (0x380, 1_000_000)] {
        assert_eq!(apic.write(offset, value, NOW), Effect::None);
    }
    assert_eq!(apic.poll_timeout(), Some(Deadline::Ns(1_000_000)));
    assert!(apic.handle_timeout(Now { ns: 1_000_000, tsc: 0 }));
    assert_eq!(apic.acknowledge(), Some(0xec));
    assert_eq!(apic.write(0x320, 0x4_00ed, NOW), Effect::None);
    assert_eq!(apic.poll_timeout(), None, "another mode");
    assert_eq!(apic.write_msr(0x6e0, 77, NOW), Ok(Effect::None));
    assert!(!apic.handle_timeout(Now { ns: u64::MAX, tsc: 76 }) && apic.handle_timeout(Now { ns: 0, tsc: 77 }));
    // Masked, it runs without a word; and switched off by software, every entry is masked.
    assert_eq!(apic.write(0x320, 0x1_00ed, NOW), Effect::None);
    assert_eq!(apic.write(0x380, 5, NOW), Effect::None);
    assert!(!apic.handle_timeout(Now { ns: 5, tsc: 0 }));
    assert_eq!(apic.write(0xf0, 0xff, NOW), Effect::None);
    assert_eq!(apic.write(0x320, 0xed, NOW), Effect::None);
    assert_eq!(apic.read(0x320, NOW), 0x1_00ed);
}

#[derive(Clone, Debug)]
enum Event {
    Arrive(u8),
    Take,
    End,
    Priority(u8),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (16..=255_u8).prop_map(Event::Arrive),
        4 => Just(Event::Take),
        3 => Just(Event::End),
        1 => any::<u8>().prop_map(Event::Priority),
    ]
}

proptest! {
    /// Against a model of sets: the highest first, none lost, none twice, never one below what is in service or the task.
    #[test]
    fn nothing_is_lost_doubled_or_inverted(events in proptest::collection::vec(event(), 0..400)) {
        let mut apic = enabled();
        let (mut waiting, mut serviced, mut task) = (BTreeSet::new(), BTreeSet::new(), 0);
        for event in events {
            match event {
                Event::Arrive(number) => prop_assert_eq!(apic.accept(vector(number)), waiting.insert(number)),
                Event::End => {
                    serviced.pop_last();
                    prop_assert_eq!(apic.write(0xb0, 0, NOW), Effect::None);
                }
                Event::Priority(value) => {
                    task = value;
                    prop_assert_eq!(apic.write(0x80, u32::from(value), NOW), Effect::None);
                }
                Event::Take => {
                    let floor = serviced.last().copied().unwrap_or(0).max(task) >> 4;
                    let due = waiting.last().copied().filter(|number| number >> 4 > floor);
                    prop_assert_eq!(apic.acknowledge(), due);
                    if let Some(number) = due {
                        waiting.remove(&number);
                        serviced.insert(number);
                    }
                }
            }
        }
        prop_assert_eq!(apic.write(0x80, 0, NOW), Effect::None);
        while serviced.pop_last().is_some() {
            prop_assert_eq!(apic.write(0xb0, 0, NOW), Effect::None);
        }
        while let Some(number) = waiting.pop_last() {
            prop_assert_eq!(apic.acknowledge(), Some(number));
            prop_assert_eq!(apic.write(0xb0, 0, NOW), Effect::None);
        }
        prop_assert_eq!(apic.acknowledge(), None);
    }
}
