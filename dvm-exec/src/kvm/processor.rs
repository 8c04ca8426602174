//! The thread of one virtual processor.
//!
//! Owns the loop between KVM and the machine: what is injected before the guest runs, and what each exit means. Must not know devices.

use super::failure::Failure;
use super::figures::count;
use super::given::Given;
use super::machine::{Machine, Processor};
use super::setup::Start;
use crate::sys::vm::{self, Memory};
use dvm_apic::local::Order;
use kvm_bindings::{kvm_regs, kvm_segment};
use kvm_ioctls::{VcpuExit, VcpuFd};
use std::io::Error;

/// How a processor goes on after an exit.
enum Next {
    Run,
    Halt,
    TripleFault,
    Nowhere(u64),
    Broken(String),
}

/// A processor and where it is.
pub struct Carrier<'a> {
    machine: &'a Machine,
    cpu: usize,
    vcpu: &'a mut VcpuFd,
    /// As KVM made it: what a reset goes back to.
    reset: Start,
    is_halted: bool,
    given: Given,
    /// How many scales of the clock it knows.
    scales: u32,
    /// The last model-specific register that there was not.
    refused: Option<u32>,
}

impl<'a> Carrier<'a> {
    /// Processor `cpu`, run by this thread from now on; the bootstrap processor starts with these registers.
    ///
    /// # Errors
    /// KVM's error.
    pub fn new(
        machine: &'a Machine,
        memory: &'static Memory,
        cpu: usize,
        vcpu: VcpuFd,
        start: Option<Start>,
    ) -> Result<Self, Error> {
        let (vcpu, kicker) = vm::Kicker::new(vcpu);
        machine.processors[cpu].set_kicker(kicker);
        let reset = (vcpu.get_sregs().map_err(os)?, vcpu.get_regs().map_err(os)?);
        if let Some((special, general)) = start {
            vcpu.set_sregs(&special).and_then(|()| vcpu.set_regs(&general)).map_err(os)?;
        }
        let given = Given::new(memory, machine.began_ns);
        Ok(Self { machine, cpu, vcpu, reset, is_halted: false, given, scales: 0, refused: None })
    }

    /// Runs until the guest is over; the kernel may have the APIC.
    pub fn run(mut self, has_kernel_apic: bool) {
        let ended = self.turns(has_kernel_apic);
        self.machine.processors[self.cpu].desk.close();
        if let Err(failure) = ended {
            self.machine.fail(failure);
        }
    }

    fn turns(&mut self, has_kernel_apic: bool) -> Result<(), Failure> {
        let processor = &self.machine.processors[self.cpu];
        loop {
            // Before the stage of life, too: who changes that rouses every processor after it.
            let is_kicked = processor.look();
            if !self.machine.life.wait_to_run(|| processor.desk.close()) {
                return Ok(());
            }
            if is_kicked {
                processor.desk.hear(|message| self.machine.take(self.cpu, message));
            }
            if has_kernel_apic || self.prepare(processor).map_err(|error| self.broken(&format!("an error at entry: {error}")))? {
                let next = self.enter();
                self.after(next)?;
            }
        }
    }

    /// Does what is due before the guest runs; false if it is not to run yet.
    fn prepare(&mut self, processor: &Processor) -> Result<bool, Error> {
        let mut apic = processor.apic();
        if let Some(order) = apic.poll_order() {
            self.is_halted = false;
            drop(apic);
            self.obey(order)?;
            return Ok(false);
        }
        if apic.waits_for_start() || self.is_halted && !apic.is_wakeful() {
            // As above.
            if self.machine.life.is_running() {
                drop(processor.wait(apic));
            }
            return Ok(false);
        }
        self.is_halted = false;
        let is_ready = self.vcpu.get_kvm_run().ready_for_interrupt_injection != 0;
        if is_ready && let Some(vector) = apic.acknowledge() {
            vm::interrupt(self.vcpu, vector)?;
            count(&processor.figures.interrupts);
        }
        let run = self.vcpu.get_kvm_run();
        run.request_interrupt_window = u8::from(apic.poll_interrupt().is_some());
        run.cr8 = u64::from(apic.control_register());
        let may_end_silently = apic.may_end_silently();
        drop(apic);
        self.given.offer(may_end_silently);
        let scales = self.machine.scales();
        if scales != self.scales {
            self.scales = scales;
            self.given.write_clock(&self.machine.scale());
        }
        Ok(true)
    }

    fn obey(&mut self, order: Order) -> Result<(), Error> {
        let (special, general) = &self.reset;
        match order {
            Order::Nmi => self.vcpu.nmi().map_err(os),
            Order::Reset => {
                self.given.forget();
                self.machine.rename(self.cpu);
                self.vcpu.set_sregs(special).and_then(|()| self.vcpu.set_regs(general)).map_err(os)
            }
            Order::Start { page } => {
                let mut special = *special;
                special.cs.selector = u16::from(page) << 8;
                special.cs.base = u64::from(page) << 12;
                let general = kvm_regs { rip: 0, ..*general };
                self.vcpu.set_sregs(&special).and_then(|()| self.vcpu.set_regs(&general)).map_err(os)
            }
        }
    }

    /// Runs the guest until it leaves.
    fn enter(&mut self) -> Next {
        let (machine, cpu) = (self.machine, self.cpu);
        let processor = &machine.processors[cpu];
        let figures = &processor.figures;
        count(&figures.exits);
        let before = self.vcpu.get_kvm_run().cr8 as u8 & 15;
        processor.desk.open();
        let exit = self.vcpu.run();
        // Before anything that asks which interrupt the processor is in.
        if self.given.is_ended() {
            machine.end_silently(cpu);
        }
        let next = match exit {
            Ok(VcpuExit::IoOut(port, data)) => {
                count(&figures.ports);
                machine.port_out(cpu, port, data);
                Next::Run
            }
            Ok(VcpuExit::IoIn(port, data)) => {
                count(&figures.ports);
                machine.port_in(cpu, port, data);
                Next::Run
            }
            Ok(VcpuExit::MmioRead(address, data)) => {
                count(&figures.addresses);
                if machine.read(cpu, address, data) { Next::Run } else { Next::Nowhere(address) }
            }
            Ok(VcpuExit::MmioWrite(address, data)) => {
                count(&figures.addresses);
                if machine.write(cpu, address, data) { Next::Run } else { Next::Nowhere(address) }
            }
            Ok(VcpuExit::X86Rdmsr(exit)) => {
                count(&figures.registers);
                let value = self.given.read_register(exit.index).or_else(|| machine.read_register(cpu, exit.index));
                (*exit.data, *exit.error) = (value.unwrap_or(0), u8::from(value.is_none()));
                self.refused = value.is_none().then_some(exit.index).or(self.refused);
                Next::Run
            }
            Ok(VcpuExit::X86Wrmsr(exit)) => {
                count(&figures.registers);
                let is_taken = self.given.write_register(exit.index, exit.data, &machine.scale());
                let is_taken = is_taken.unwrap_or_else(|| machine.write_register(cpu, exit.index, exit.data));
                *exit.error = u8::from(!is_taken);
                self.refused = (!is_taken).then_some(exit.index).or(self.refused);
                Next::Run
            }
            Ok(VcpuExit::Hlt) => {
                count(&figures.halts);
                Next::Halt
            }
            Ok(VcpuExit::IrqWindowOpen | VcpuExit::Intr | VcpuExit::SetTpr) => Next::Run,
            Ok(VcpuExit::Shutdown) => Next::TripleFault,
            Ok(other) => Next::Broken(format!("{other:?}")),
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => Next::Run,
            Err(error) => Next::Broken(format!("an error: {}", os(error))),
        };
        let after = self.vcpu.get_kvm_run().cr8 as u8 & 15;
        let mut apic = processor.apic();
        // What this exit wrote to the APIC itself came later.
        if after != before && apic.control_register() == before {
            apic.set_control_register(after);
        }
        drop(apic);
        next
    }

    fn after(&mut self, next: Next) -> Result<(), Failure> {
        match next {
            Next::Run => {}
            Next::Halt => self.is_halted = true,
            Next::TripleFault => return Err(Failure::TripleFault { cpu: self.cpu, state: self.state() }),
            Next::Nowhere(address) => return Err(Failure::Nowhere { cpu: self.cpu, address, state: self.state() }),
            Next::Broken(reason) => return Err(self.broken(&reason)),
        }
        Ok(())
    }

    fn broken(&self, reason: &str) -> Failure {
        Failure::Kvm { cpu: self.cpu, reason: reason.to_owned(), state: self.state() }
    }

    /// Registers, as text.
    fn state(&self) -> String {
        let refused = self.refused.map_or(String::new(), |index| format!(", last refused MSR {index:#x}"));
        match (self.vcpu.get_regs(), self.vcpu.get_sregs()) {
            (Ok(general), Ok(special)) => format!(
                "rip {:#x} rsp {:#x} rflags {:#x} rax {:#x} cs {:#x} cr0 {:#x} cr2 {:#x} cr3 {:#x} cr4 {:#x} efer {:#x}{refused}",
                general.rip,
                general.rsp,
                general.rflags,
                general.rax,
                special.cs.selector,
                special.cr0,
                special.cr2,
                special.cr3,
                special.cr4,
                special.efer
            ),
            _ => format!("registers unknown{refused}"),
        }
    }
}

/// A flat segment.
pub fn segment(selector: u16, kind: u8, is_code_64: bool) -> kvm_segment {
    kvm_segment {
        limit: u32::MAX,
        selector,
        type_: kind,
        present: 1,
        s: 1,
        l: u8::from(is_code_64),
        db: u8::from(!is_code_64),
        g: 1,
        ..kvm_segment::default()
    }
}

fn os(error: kvm_ioctls::Error) -> Error {
    Error::from_raw_os_error(error.errno())
}
