//! A guest that writes anything anywhere: no register panics, and what is handed out is of the architecture.
//!
//! Owns nothing but the cases.

use dvm_apic::local::registers::{MSR_BASE, MSR_TSC_DEADLINE};
use dvm_apic::{Effect, IoApic, LocalApic, Now, Signal};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Access {
    Read(u32, usize),
    Write(u32, Vec<u8>),
    ReadMsr(u32),
    WriteMsr(u32, u64),
    Arrive(u8, bool),
    Other(Signal),
    Take,
    Time(u64),
    Control(u8),
}

fn register() -> impl Strategy<Value = u32> {
    prop_oneof![8 => (0..0x40_u32).prop_map(|index| index << 4), 1 => 0..0x1000_u32]
}

fn model_specific() -> impl Strategy<Value = u32> {
    prop_oneof![8 => 0x800..0x900_u32, 2 => Just(MSR_BASE), 2 => Just(MSR_TSC_DEADLINE), 1 => any::<u32>()]
}

fn value() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        0..=0xffff_u64,
        Just(0x1ff),
        (0..4_u64).prop_map(|mode| 0xfee0_0000 | mode << 10),
        (any::<u32>(), 0..8_u64, 0..256_u64).prop_map(|(high, mode, vector)| u64::from(high) << 32 | mode << 8 | vector)
    ]
}

fn access() -> impl Strategy<Value = Access> {
    let length = prop_oneof![Just(1_usize), Just(2), Just(4), Just(8)];
    let bytes = prop_oneof![
        value().prop_map(|value| (value as u32).to_le_bytes().to_vec()),
        proptest::collection::vec(any::<u8>(), 0..9)
    ];
    let signal = prop_oneof![Just(Signal::Nmi), Just(Signal::Init), any::<u8>().prop_map(|page| Signal::Startup { page })];
    prop_oneof![
        (register(), length).prop_map(|(at, length)| Access::Read(at, length)),
        (register(), bytes).prop_map(|(at, bytes)| Access::Write(at, bytes)),
        model_specific().prop_map(Access::ReadMsr),
        (model_specific(), value()).prop_map(|(index, value)| Access::WriteMsr(index, value)),
        (any::<u8>(), any::<bool>()).prop_map(|(vector, is_level)| Access::Arrive(vector, is_level)),
        signal.prop_map(Access::Other),
        Just(Access::Take),
        any::<u64>().prop_map(Access::Time),
        any::<u8>().prop_map(Access::Control),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn local(accesses in proptest::collection::vec(access(), 0..120)) {
        let mut apic = LocalApic::new(1, false);
        let mut now = Now::default();
        for access in accesses {
            let effect = match access {
                Access::Read(at, length) => {
                    apic.read_bytes(at, &mut vec![0; length], now);
                    Effect::None
                }
                Access::Write(at, bytes) => apic.write_bytes(at, &bytes, now),
                Access::ReadMsr(index) => apic.read_msr(index, now).map_or(Effect::None, |_| Effect::None),
                Access::WriteMsr(index, value) => apic.write_msr(index, value, now).unwrap_or(Effect::None),
                Access::Arrive(vector, is_level) => {
                    apic.accept(Signal::Interrupt { vector, is_level });
                    Effect::None
                }
                Access::Other(signal) => {
                    apic.accept(signal);
                    apic.poll_order();
                    Effect::None
                }
                Access::Take => {
                    let wanted = apic.poll_interrupt();
                    prop_assert_eq!(apic.acknowledge(), wanted);
                    prop_assert!(wanted.is_none_or(|vector| vector >= 16));
                    Effect::None
                }
                Access::Time(later) => {
                    now = Now { ns: now.ns.saturating_add(later >> 20), tsc: now.tsc.saturating_add(later >> 20) };
                    apic.handle_timeout(now);
                    Effect::None
                }
                Access::Control(value) => {
                    apic.set_control_register(value & 15);
                    Effect::None
                }
            };
            if let Effect::Send(command) = effect {
                prop_assert!(!command.is_illegal());
            }
        }
    }

    #[test]
    fn io(accesses in proptest::collection::vec((0..0x24_u64, any::<u64>(), 0..9_usize, 0..5_u8, 0..40_usize), 0..200)) {
        let mut apic = IoApic::default();
        for (offset, value, length, kind, pin) in accesses {
            let bytes = &value.to_le_bytes()[..length.min(8)];
            match kind {
                0 => apic.read_bytes(offset, &mut vec![0; length]),
                1 => drop(apic.write_bytes(offset & 0x10, bytes)),
                2 => drop(apic.set_line(pin, value & 1 == 1)),
                3 => drop(apic.end_of_interrupt(value as u8)),
                _ => drop(apic.write_bytes(offset, bytes)),
            }
        }
    }
}
