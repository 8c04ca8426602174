//! A machine made by KVM, as this project wants it: no interrupt controller in the kernel.
//!
//! Owns the calls that make it, what processors say of themselves, and the registers a guest starts with. Must not run it.

use super::boot::GLOBAL_DESCRIPTORS;
use super::failure::Failure;
use super::given;
use super::image::Entry;
use super::layout::{BOOT, DESCRIPTORS, START_INFO, TABLES, TSS, ZERO_PAGE};
use super::processor::segment;
use crate::sys::vm::{self, Memory};
use dvm_apic::local::registers::{MSR_BASE, MSR_TSC_DEADLINE};
use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, Msrs, kvm_enable_cap, kvm_msr_entry, kvm_regs, kvm_sregs};
use kvm_ioctls::{Cap, Kvm, MsrExitReason, MsrFilterDefaultAction, MsrFilterRange, MsrFilterRangeFlags, VcpuFd, VmFd};
use std::io::Error;
use std::ops::RangeInclusive;

/// What a machine is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Guests.
    Ours,
    /// To try what guests do without what a software KVM offers beside: they are emulated there.
    Plain,
    /// To compare our interrupt controllers with the kernel's, which it has.
    KernelApic,
}

/// A machine without processors.
pub struct Board {
    vm: VmFd,
    cpuid: CpuId,
    /// Its memory.
    pub memory: &'static Memory,
}

impl Board {
    /// Makes a machine with this memory.
    ///
    /// # Errors
    /// What this host cannot.
    pub fn new(memory: &'static Memory, kind: Kind) -> Result<Self, Failure> {
        let kvm =
            Kvm::new().map_err(|error| host("open /dev/kvm", error, "load kvm_intel or kvm_amd, or ask for the group kvm"))?;
        let vm = kvm.create_vm().map_err(|error| host("make a machine", error, "see dmesg"))?;
        if !vm.check_extension(Cap::X86UserSpaceMsr) || !vm.check_extension(Cap::X86MsrFilter) {
            return Err(host("see model-specific registers", errno(libc::ENOSYS), "linux 5.10 or newer is needed"));
        }
        vm.set_tss_address(TSS as usize).map_err(|error| host("place the task segment", error, "see dmesg"))?;
        match kind {
            Kind::KernelApic => vm.create_irq_chip().map_err(|error| host("make interrupt controllers", error, "see dmesg"))?,
            Kind::Ours => see_registers(&vm, &OURS)?,
            Kind::Plain => see_registers(&vm, &[&OURS[..], &[SOFTWARE]].concat())?,
        }
        vm::map_memory(&vm, memory).map_err(|source| Failure::Host {
            what: "give the guest memory",
            source,
            fix: "ask for less",
        })?;
        let cpuid =
            kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(|error| host("ask for features", error, "see dmesg"))?;
        Ok(Self { vm, cpuid, memory })
    }

    /// Whether the processors of this host can run a guest's time-stamp counter at another rate than their own.
    pub fn has_scaling(&self) -> bool {
        self.vm.check_extension(Cap::TscControl)
    }

    /// Sets line `pin` of the kernel's I/O APIC.
    pub fn set_line(&self, pin: u32, is_asserted: bool) {
        // Without such a controller nobody calls this; a line that is refused is as good as masked.
        self.vm.set_irq_line(pin, is_asserted).unwrap_or(());
    }

    /// Adds processor `cpu`.
    ///
    /// # Errors
    /// What this host cannot.
    pub fn processor(&self, cpu: usize) -> Result<VcpuFd, Failure> {
        let vcpu = self.vm.create_vcpu(cpu as u64).map_err(|error| host("make a processor", error, "ask for fewer"))?;
        let mut cpuid = self.cpuid.clone();
        describe(&mut cpuid, cpu as u32);
        vcpu.set_cpuid2(&cpuid).map_err(|error| host("describe a processor", error, "see dmesg"))?;
        Ok(vcpu)
    }
}

/// Whether this host's KVM keeps shadows of a guest's page tables instead of having the processor walk them. It then does not follow
/// what another host changes in tables that lie in shared memory.
pub fn has_shadow_tables() -> bool {
    let walks = |module: &str, parameter: &str| {
        let value = std::fs::read_to_string(format!("/sys/module/{module}/parameters/{parameter}"));
        value.is_ok_and(|value| value.starts_with(['Y', '1']))
    };
    !walks("kvm_intel", "ept") && !walks("kvm_amd", "npt")
}

/// Registers to start with.
pub type Start = (kvm_sregs, kvm_regs);

/// Rate of the guest's time-stamp counter.
///
/// # Errors
/// KVM does not tell it.
pub fn tsc_khz(vcpu: &VcpuFd) -> Result<u64, Failure> {
    vcpu.get_tsc_khz().map(u64::from).map_err(|error| host("ask for the rate of the time-stamp counter", error, "see dmesg"))
}

/// Has the guest's time-stamp counter run at that rate, where [`Board::has_scaling`].
///
/// # Errors
/// The rate is none that KVM can make.
pub fn set_tsc_khz(vcpu: &VcpuFd, khz: u64) -> Result<(), Failure> {
    let refused = |error| host("scale the time-stamp counter", error, "choose hosts that are alike");
    vcpu.set_tsc_khz(u32::try_from(khz).map_err(|_| refused(errno(libc::EINVAL)))?).map_err(refused)
}

/// What the guest's time-stamp counter reads, and this host's before and after that.
///
/// # Errors
/// KVM does not tell it.
pub fn counter(vcpu: &VcpuFd) -> Result<(RangeInclusive<u64>, u64), Failure> {
    const COUNTER: u32 = 0x10;
    let refused = |error| host("read the time-stamp counter of a guest", error, "see dmesg");
    let wanted = kvm_msr_entry { index: COUNTER, ..kvm_msr_entry::default() };
    let mut read = Msrs::from_entries(&[wanted]).map_err(|_| refused(errno(libc::ENOMEM)))?;
    let before = vm::timestamp();
    let count = vcpu.get_msrs(&mut read).map_err(refused)?;
    let after = vm::timestamp();
    match read.as_slice() {
        [entry] if count == 1 => Ok((before..=after, entry.data)),
        _ => Err(refused(errno(libc::EIO))),
    }
}

/// Registers of the bootstrap processor where the image wants to be started.
///
/// # Errors
/// KVM does not tell those after a reset.
pub fn start(vcpu: &VcpuFd, entry: &Entry) -> Result<Start, Failure> {
    let special = vcpu.get_sregs().map_err(|error| host("read registers", error, "see dmesg"))?;
    let general = |rip| kvm_regs { rip, rflags: 2, ..kvm_regs::default() };
    Ok(match entry {
        Entry::Native(address) => (long_mode(special), kvm_regs { rdi: BOOT, ..general(*address) }),
        Entry::Linux(address, _) => (long_mode(special), kvm_regs { rsi: ZERO_PAGE, ..general(*address) }),
        Entry::Pvh(address) => (protected_mode(special), kvm_regs { rbx: START_INFO, ..general(*address) }),
    })
}

const CODE: u16 = 0x10;
const DATA: u16 = 0x18;
const CODE_KIND: u8 = 11;
const DATA_KIND: u8 = 3;
const PROTECTED: u64 = 1;

fn long_mode(before: kvm_sregs) -> kvm_sregs {
    const PAGING_AND_ALL: u64 = 0x8005_0033;
    const PAE_AND_SSE: u64 = 0x620;
    const LONG_ACTIVE: u64 = 0xd01;
    let mut special = with_data(before);
    special.cs = segment(CODE, CODE_KIND, true);
    special.gdt.base = DESCRIPTORS;
    special.gdt.limit = (GLOBAL_DESCRIPTORS.len() * 8 - 1) as u16;
    special.idt.limit = 0;
    (special.cr0, special.cr3, special.cr4, special.efer) = (PAGING_AND_ALL, TABLES, PAE_AND_SSE, LONG_ACTIVE);
    special
}

fn protected_mode(before: kvm_sregs) -> kvm_sregs {
    let mut special = with_data(before);
    special.cs = segment(CODE, CODE_KIND, false);
    special.cr0 = PROTECTED;
    special
}

fn with_data(mut special: kvm_sregs) -> kvm_sregs {
    let data = segment(DATA, DATA_KIND, false);
    (special.ds, special.es, special.fs, special.gs, special.ss) = (data, data, data, data, data);
    special
}

/// The base register of the APIC, the timer's deadline, and those that give us pages; those of x2APIC come to us anyway.
const OURS: [u32; 5] = [MSR_BASE, MSR_TSC_DEADLINE, given::WALL, given::CLOCK, given::ENDS];
/// Where a software KVM says that it is one; nobody here answers for it.
const SOFTWARE: u32 = 0x4b56_4d11;

/// Has what the guest does to these model-specific registers, and to those that are not KVM's, come to us.
fn see_registers(vm: &VmFd, ours: &[u32]) -> Result<(), Failure> {
    let reasons = MsrExitReason::Inval | MsrExitReason::Unknown | MsrExitReason::Filter;
    let mut wanted = kvm_enable_cap { cap: kvm_bindings::KVM_CAP_X86_USER_SPACE_MSR, ..kvm_enable_cap::default() };
    wanted.args[0] = u64::from(reasons.bits());
    vm.enable_cap(&wanted).map_err(|error| host("see model-specific registers", error, "see dmesg"))?;
    filter(vm, ours).map_err(|error| host("filter model-specific registers", error, "see dmesg"))
}

fn filter(vm: &VmFd, ours: &[u32]) -> Result<(), kvm_ioctls::Error> {
    let flags = MsrFilterRangeFlags::READ | MsrFilterRangeFlags::WRITE;
    let range = |base: &u32| MsrFilterRange { flags, base: *base, msr_count: 1, bitmap: &[0] };
    let ranges: Vec<_> = ours.iter().map(range).collect();
    vm.set_msr_filter(MsrFilterDefaultAction::ALLOW, &ranges)
}

/// What processor `cpu` says of itself: its number, an APIC of all modes, and no service of KVM beyond its clock.
fn describe(cpuid: &mut CpuId, cpu: u32) {
    const X2APIC: u32 = 1 << 21;
    const TSC_DEADLINE: u32 = 1 << 24;
    const HYPERVISOR: u32 = 1 << 31;
    const THREADS: u32 = 1 << 28;
    const CLOCK: u32 = 1 << 3 | 1 << 24;
    for entry in cpuid.as_mut_slice() {
        match entry.function {
            1 => {
                entry.ebx = entry.ebx & 0xffff | 1 << 16 | cpu << 24;
                entry.ecx |= X2APIC | TSC_DEADLINE | HYPERVISOR;
                entry.edx &= !THREADS;
            }
            0xb | 0x1f => (entry.eax, entry.ebx, entry.edx) = (0, u32::from(entry.index == 0), cpu),
            0x4000_0001 => entry.eax &= CLOCK,
            0x8000_0008 => entry.ecx &= !0xf0ff,
            0x8000_001e => (entry.eax, entry.ebx, entry.ecx) = (cpu, cpu, 0),
            _ => {}
        }
    }
}

fn errno(number: i32) -> kvm_ioctls::Error {
    kvm_ioctls::Error::new(number)
}

fn host(what: &'static str, error: kvm_ioctls::Error, fix: &'static str) -> Failure {
    Failure::Host { what, source: Error::from_raw_os_error(error.errno()), fix }
}
