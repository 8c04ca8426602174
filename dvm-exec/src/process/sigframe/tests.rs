//! Frames as handlers and rt_sigreturn see them, and hostile areas.
//!
//! Owns samples of registers and XSAVE areas. Must not raise signals.

use super::*;
use proptest::prelude::*;

const COMPONENTS: u64 = 7;

fn xsave(state: usize) -> Vec<u8> {
    let mut bytes = vec![0; state + 4];
    bytes[..FXSAVE_BYTES].copy_from_slice(&Fxsave::default().0);
    bytes[MXCSR_MASK_OFFSET..MXCSR_MASK_OFFSET + 4].copy_from_slice(&0xffff_u32.to_le_bytes());
    bytes[SOFTWARE_OFFSET..SOFTWARE_OFFSET + 4].copy_from_slice(&MAGIC1.to_le_bytes());
    bytes[SOFTWARE_OFFSET + 4..SOFTWARE_OFFSET + 8].copy_from_slice(&(state as u32 + 4).to_le_bytes());
    bytes[SOFTWARE_OFFSET + 8..SOFTWARE_OFFSET + 16].copy_from_slice(&COMPONENTS.to_le_bytes());
    bytes[SOFTWARE_OFFSET + 16..SOFTWARE_OFFSET + 20].copy_from_slice(&(state as u32).to_le_bytes());
    bytes[HEADER_OFFSET..HEADER_OFFSET + 8].copy_from_slice(&3_u64.to_le_bytes());
    bytes[state..].copy_from_slice(&MAGIC2.to_le_bytes());
    bytes
}

fn registers() -> Registers {
    let mut bytes = [0; Registers::BYTES];
    bytes.chunks_exact_mut(8).enumerate().for_each(|(index, place)| place[0] = index as u8 + 1);
    Registers { rsp: 0x1000_0000_1238, rip: 0x40_1000, flags: 0x10746, ..Registers::from_bytes(&bytes) }
}

fn action(flags: u64) -> Action {
    Action { handler: 0x40_2000, flags: flags | Action::RESTORER, restorer: 0x40_3000, mask: 0x10 }
}

fn built(flags: u64, altstack: AltStack, floating: &[u8]) -> Result<Frame, FrameError> {
    let info = SignalInfo::fault(11, 1, 0x1234);
    let fault = FaultWords { error: 6, trap: 14, address: 0x1234 };
    let registers = registers();
    build(&Delivery { info: &info, action: action(flags), registers: &registers, floating, mask: 1, altstack, fault })
}

#[test]
fn the_handler_finds_its_frame() {
    let floating = xsave(832);
    let frame = built(0, AltStack::default(), &floating).expect("builds");
    let before = registers();
    assert_eq!(frame.address % 16, 8, "as after a call");
    assert!(frame.address + frame.bytes.len() as u64 <= before.rsp - 128, "the red zone is kept");
    let after = frame.registers;
    assert_eq!((after.rdi, after.rip, after.rsp, after.rax), (11, 0x40_2000, frame.address, 0));
    assert_eq!(after.flags, 0x246, "direction, trap and resume are off");
    assert_eq!(Registers { r12: 0, ..after }, Registers { r12: 0, r8: before.r8, ..after });
    assert_eq!(action(0).running_mask(11, 1), 1 | 0x10 | 1 << 10);
    assert_eq!(u64_at(&frame.bytes, 0), 0x40_3000, "returns to the restorer");
    let info = (after.rsi - frame.address) as usize;
    assert_eq!(u32_at(&frame.bytes, info), 11);
    assert_eq!(u64_at(&frame.bytes, info + 16), 0x1234);
    let context = (after.rdx - frame.address) as usize;
    let ucontext = frame.bytes[context..].first_chunk().expect("ucontext");
    let restored = parse(ucontext);
    assert_eq!((restored.registers, restored.mask, restored.altstack), (before, 1, AltStack::default()));
    assert_eq!(restored.floating_address % 64, 0);
    let at = (restored.floating_address - frame.address) as usize;
    assert_eq!(&frame.bytes[at..], &floating[..]);
    assert_eq!(u64_at(ucontext, 0), 7);
    assert_eq!(u64_at(ucontext, 184), 0x002b_0000_0000_0033, "cs, gs, fs, ss");
    assert_eq!((u64_at(ucontext, 192), u64_at(ucontext, 200), u64_at(ucontext, 216)), (6, 14, 0x1234));
}

#[test]
fn the_offsets_are_those_of_libc() {
    assert_eq!(UCONTEXT_BYTES, 304);
    assert_eq!(std::mem::offset_of!(libc::ucontext_t, uc_mcontext), UC_REGISTERS);
    assert_eq!(std::mem::offset_of!(libc::ucontext_t, uc_sigmask), UC_MASK);
    assert_eq!(std::mem::offset_of!(libc::ucontext_t, uc_stack), UC_STACK);
    assert_eq!(std::mem::offset_of!(libc::mcontext_t, fpregs) + UC_REGISTERS, UC_FLOATING);
    assert_eq!(std::mem::offset_of!(Registers, rsp) / 8, libc::REG_RSP as usize);
    assert_eq!(std::mem::offset_of!(Registers, rax) / 8, libc::REG_RAX as usize);
    assert_eq!(std::mem::offset_of!(Registers, flags) / 8, libc::REG_EFL as usize);
    assert_eq!(Registers::from_bytes(&registers().to_bytes()), registers());
    assert_eq!(registers().to_bytes()[8 * libc::REG_RIP as usize + 2], 0x40);
}

#[test]
fn the_alternate_stack_is_chosen() {
    let floating = xsave(832);
    let stack = AltStack { address: 0x2000_0000_0000, flags: 0, bytes: 8192 };
    let is_there = |frame: &Frame| (stack.address..stack.address + stack.bytes).contains(&frame.address);
    assert!(is_there(&built(Action::ON_STACK, stack, &floating).expect("builds")));
    assert!(!is_there(&built(0, stack, &floating).expect("builds")), "not asked for");
    let disabled = AltStack { flags: AltStack::DISABLE, ..stack };
    assert!(!is_there(&built(Action::ON_STACK, disabled, &floating).expect("builds")));
    let own = AltStack { address: registers().rsp - 0x1000, flags: 0, bytes: 0x2000 };
    let nested = built(Action::ON_STACK, own, &floating).expect("builds");
    assert!(nested.address < registers().rsp, "already on it: goes on below");
    let small = AltStack { bytes: 1024, ..stack };
    assert!(matches!(built(Action::ON_STACK, small, &floating), Err(FrameError::StackOverflow { stack_bytes: 1024, .. })));
    let once = AltStack { flags: AltStack::AUTODISARM, ..stack };
    let frame = built(Action::ON_STACK, once, &floating).expect("builds");
    assert!(is_there(&frame));
    assert_eq!(frame.altstack, AltStack::default(), "disarmed while the handler runs");
    let ucontext = frame.bytes[8..].first_chunk().expect("ucontext");
    assert_eq!(parse(ucontext).altstack, once, "and restored by its return");
}

#[test]
fn what_cannot_be_built_is_an_error() {
    let floating = xsave(832);
    let info = SignalInfo::fault(5, 0, 0);
    let registers = Registers { rsp: 0x100, ..registers() };
    let altstack = AltStack::default();
    let fault = FaultWords::default();
    let delivery =
        Delivery { info: &info, action: action(0), registers: &registers, floating: &floating, mask: 0, altstack, fault };
    assert!(matches!(build(&delivery), Err(FrameError::Outside(_))));
    let bare = Action { flags: 0, ..action(0) };
    assert_eq!(build(&Delivery { action: bare, ..delivery }), Err(FrameError::NoRestorer(5)));
    assert!(matches!(build(&Delivery { floating: &[0; 100], ..delivery }), Err(FrameError::Floating(_))));
}

#[test]
fn sigaltstack_judges() {
    let none = AltStack::default();
    let stack = AltStack { address: 0x10_0000, flags: 0, bytes: 8192 };
    assert_eq!(none.report(0), AltStack { address: 0, flags: AltStack::DISABLE, bytes: 0 });
    assert_eq!(none.replace(stack, 0x100, 2048), Ok(stack));
    assert_eq!(none.replace(AltStack { bytes: 100, ..stack }, 0x100, 2048), Err(libc::ENOMEM));
    assert_eq!(none.replace(AltStack { flags: 8, ..stack }, 0x100, 2048), Err(libc::EINVAL));
    assert_eq!(stack.replace(none, 0x10_1000, 2048), Err(libc::EPERM));
    assert_eq!(stack.replace(none, 0x10_0000, 2048), Ok(none), "an address equal to the start is outside");
    assert_eq!(stack.report(0x10_1000).flags, AltStack::ON_STACK);
    assert_eq!(stack.report(0x20_0000).flags, 0);
    let bytes = AltStack { flags: AltStack::AUTODISARM, ..stack }.to_bytes();
    assert_eq!(AltStack::from_bytes(&bytes).to_bytes(), bytes);
}

#[test]
fn floating_areas_are_judged() {
    let own = xsave(832);
    let change = |offset: usize, bytes: &[u8]| {
        let mut program = own.clone();
        program[offset..offset + bytes.len()].copy_from_slice(bytes);
        accept_floating(&program, &own)
    };
    assert_eq!(accept_floating(&own, &own), Ok(own.clone()));
    assert_eq!(change(200, &[9]).expect("x87 and SSE registers")[200], 9);
    assert_eq!(change(600, &[9]).expect("AVX registers")[600], 9);
    assert!(change(MXCSR_OFFSET, &[0, 0, 1, 0]).is_err());
    assert!(change(HEADER_OFFSET, &[0xff]).is_err());
    assert!(change(HEADER_OFFSET + 8, &[1]).is_err());
    let legacy = change(SOFTWARE_OFFSET, &[0; 4]).expect("without marks");
    assert_eq!(u64_at(&legacy, HEADER_OFFSET), 3);
    assert_eq!(u32_at(&legacy, SOFTWARE_OFFSET), MAGIC1, "the kernel's own marks stay");
    assert!(accept_floating(&xsave(896), &own).is_err(), "another processor's");
    assert_eq!(accept_floating(&own, &own[..FXSAVE_BYTES]).map(|bytes| bytes.len()), Ok(FXSAVE_BYTES));
    assert_eq!(floating_bytes(own[..].first_chunk().expect("512")), 836);
    assert_eq!(floating_bytes(&[0; FXSAVE_BYTES]), FXSAVE_BYTES);
}

proptest! {
    #[test]
    fn no_area_panics(bytes in proptest::collection::vec(any::<u8>(), 0..1200), size in any::<u32>(), marked in any::<bool>()) {
        let own = xsave(832);
        let mut program = bytes;
        if marked && program.len() >= FXSAVE_BYTES {
            program[SOFTWARE_OFFSET..SOFTWARE_OFFSET + 4].copy_from_slice(&MAGIC1.to_le_bytes());
            program[SOFTWARE_OFFSET + 4..SOFTWARE_OFFSET + 8].copy_from_slice(&size.to_le_bytes());
        }
        if let Ok(accepted) = accept_floating(&program, &own) {
            prop_assert_eq!(accepted.len(), own.len());
            prop_assert_eq!(floating_sizes(&accepted), floating_sizes(&own));
        }
        let _frame = built(0, AltStack::default(), &program);
    }

    #[test]
    fn no_stack_panics(rsp in any::<u64>(), address in any::<u64>(), bytes in any::<u64>(), flags in any::<u32>(), signal in any::<i32>()) {
        let floating = xsave(832);
        let info = SignalInfo::fault(signal, 0, 0);
        let registers = Registers { rsp, ..Registers::default() };
        let altstack = AltStack { address, flags, bytes };
        let fault = FaultWords::default();
        let action = action(Action::ON_STACK);
        let delivery = Delivery { info: &info, action, registers: &registers, floating: &floating, mask: 0, altstack, fault };
        if let Ok(frame) = build(&delivery) {
            prop_assert!(frame.address >= SPACE_START && frame.address + (frame.bytes.len() as u64) <= SPACE_END);
        }
        let _report = altstack.report(rsp);
    }
}

#[test]
fn a_handler_starts_with_fresh_floating_point_state() {
    let mut own = xsave(832);
    own[0..2].copy_from_slice(&0x0f7f_u16.to_le_bytes());
    own[MXCSR_OFFSET..MXCSR_OFFSET + 4].copy_from_slice(&0x7f80_u32.to_le_bytes());
    own[HEADER_OFFSET..HEADER_OFFSET + 8].copy_from_slice(&0x207_u64.to_le_bytes());
    let fresh = initial_floating(&own);
    assert_eq!(fresh.len(), own.len());
    assert_eq!((fresh[0], fresh[1], u32_at(&fresh, MXCSR_OFFSET)), (0x7f, 0x03, 0x1f80));
    assert_eq!(u64_at(&fresh, HEADER_OFFSET), 0x200, "protection keys stay");
    assert_eq!(fresh[SOFTWARE_OFFSET..FXSAVE_BYTES], own[SOFTWARE_OFFSET..FXSAVE_BYTES]);
    assert_eq!(initial_floating(&own[..FXSAVE_BYTES])[MXCSR_OFFSET + 1], 0x1f, "without extended state as well");
}
