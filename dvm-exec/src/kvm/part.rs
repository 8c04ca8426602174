//! What every host of a guest does alike: memory, processors and their threads, the clock.
//!
//! Owns the making of this host's part. Must not know whether there are others.

use super::boot::Shape;
use super::failure::Failure;
use super::layout::{self, PRIVATE, PRIVATE_BYTES};
use super::limits::AGENT_LATEST;
use super::machine::Machine;
use super::processor::Carrier;
use super::rate::{self, Factor};
use super::setup::{self, Board, Start};
use crate::sys::vm::{self, Memory};
use kvm_ioctls::VcpuFd;
use std::io::{self, Read};
use std::sync::Arc;
use std::thread;
use vm_memory::{GuestAddress, GuestRegionMmap, MmapRegion};

/// Where the guest's memory lies in a space: its address there is its own behind this.
pub const VIEW: u64 = 0x1000_0000_0000;

/// The processors of this host, before they run.
pub struct Part {
    vcpus: Vec<(usize, VcpuFd)>,
    memory: &'static Memory,
}

impl Part {
    /// Makes them. At the root, the shape learns the rate of the time-stamp counter.
    ///
    /// # Errors
    /// What this host cannot.
    pub fn make(board: &Board, shape: &mut Shape) -> Result<Self, Failure> {
        vm::install_kick().map_err(|source| Failure::Host { what: "catch a signal", source, fix: "report it" })?;
        let local = (0..shape.hosts.len()).filter(|cpu| shape.hosts[*cpu] == shape.here);
        let vcpus = local.map(|cpu| Ok((cpu, board.processor(cpu)?))).collect::<Result<Vec<_>, Failure>>()?;
        if let (0, Some((_, vcpu))) = (shape.tsc_khz, vcpus.first()) {
            shape.tsc_khz = setup::tsc_khz(vcpu)?;
        }
        Ok(Self { vcpus, memory: board.memory })
    }

    /// The first of them.
    ///
    /// # Errors
    /// There is none.
    pub fn first(&self) -> Result<&VcpuFd, Failure> {
        self.vcpus.first().map(|(_, vcpu)| vcpu).ok_or_else(|| Failure::Settings("a host without a processor".to_owned()))
    }

    /// Has the time-stamp counters of all of them run at `wanted_khz`; gives what this host's is multiplied with for that.
    ///
    /// # Errors
    /// This host's runs at another rate, and its processor or kernel cannot make up for that.
    pub fn match_rate(&self, board: &Board, wanted_khz: u64) -> Result<Factor, Failure> {
        let own_khz = setup::tsc_khz(self.first()?)?;
        if rate::is_near(own_khz, wanted_khz) {
            return Ok(Factor::default());
        }
        let refused = |reason: &str| {
            Failure::Settings(format!(
                "the time-stamp counter runs at {own_khz} kHz here and at {wanted_khz} kHz at the root, and {reason}: choose \
                 hosts that are alike, or whose processors scale it"
            ))
        };
        if !board.has_scaling() {
            return Err(refused("KVM here cannot scale it (no KVM_CAP_TSC_CONTROL)"));
        }
        self.vcpus.iter().try_for_each(|(_, vcpu)| setup::set_tsc_khz(vcpu, wanted_khz))?;
        let (own, seen) = setup::counter(self.first()?)?;
        let seen = seen.wrapping_sub(vm::tsc_offset(self.first()?));
        Factor::find(own_khz, wanted_khz, &own, seen).ok_or_else(|| {
            refused("KVM here does not scale it as processors do (tsc_tolerance_ppm of the module kvm above 250?)")
        })
    }

    /// Has all of them add `offset` to this host's time-stamp counter, after its factor.
    ///
    /// # Errors
    /// KVM's error.
    pub fn set_tsc_offset(&self, offset: u64) -> Result<(), Failure> {
        let mut set = self.vcpus.iter().map(|(_, vcpu)| vm::set_tsc_offset(vcpu, offset));
        set.try_for_each(|set| set).map_err(|source| Failure::Host {
            what: "shift the time-stamp counter",
            source,
            fix: "linux 5.16 or newer is needed",
        })
    }

    /// Starts their threads, which wait until the guest runs, and the clock; the bootstrap processor has registers to start with.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn start(self, machine: &Arc<Machine>, mut start: Option<Start>, has_kernel_apic: bool) -> Result<(), Failure> {
        for (cpu, vcpu) in self.vcpus {
            let (machine, start, memory) = (Arc::clone(machine), start.take(), self.memory);
            let carry = move || match Carrier::new(&machine, memory, cpu, vcpu, start) {
                Ok(carrier) => carrier.run(has_kernel_apic),
                Err(error) => {
                    machine.fail(Failure::Kvm { cpu, reason: format!("an error at start: {error}"), state: String::new() })
                }
            };
            spawn(format!("cpu {cpu}"), carry)?;
        }
        let clock = Arc::clone(machine);
        spawn("clock".to_owned(), move || clock.keep_time())?;
        watch_pages(Arc::clone(machine))
    }
}

/// Ends the guest when contents of its memory are lost, unless the agent has said by then which host they were lost with.
fn watch_pages(machine: Arc<Machine>) -> Result<(), Failure> {
    let refused = |source| Failure::Host { what: "watch for lost memory", source, fix: "raise the limit of open files" };
    let mut told = vm::park_at_lost_pages().map_err(refused)?;
    spawn("pages".to_owned(), move || {
        if told.read_exact(&mut [0]).is_ok() {
            thread::sleep(AGENT_LATEST);
            machine.fail(Failure::HostLost { host: "of the guest".to_owned(), reason: "memory was lost with it".to_owned() });
        }
    })
}

/// Starts a thread.
///
/// # Errors
/// The kernel refuses.
pub fn spawn(name: String, body: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    match thread::Builder::new().name(name).spawn(body) {
        Ok(_) => Ok(()),
        Err(source) => Err(Failure::Host { what: "start a thread", source, fix: "raise the limit of processes" }),
    }
}

/// The memory of a guest on this host.
#[derive(Clone, Copy)]
pub struct Memories {
    /// All of it.
    pub all: &'static Memory,
    /// What every host has, which is what devices use.
    pub shared: &'static Memory,
}

/// The memory of a guest: its own, of this process or of the view, and what each host has of its own. For ever.
///
/// # Errors
/// The kernel refuses.
pub fn memory(bytes: u64, is_view: bool) -> Result<Memories, Failure> {
    let refused = |source| Failure::Host { what: "map the guest's memory", source, fix: "ask for less" };
    let own = |first, bytes: u64| -> Result<GuestRegionMmap<()>, io::Error> {
        let mapping = MmapRegion::new(bytes as usize).map_err(|error| io::Error::other(error.to_string()))?;
        GuestRegionMmap::new(mapping, GuestAddress(first)).ok_or_else(|| io::Error::other("the region has no end"))
    };
    let shared = |(first, bytes)| if is_view { vm::region(VIEW + first, bytes, first) } else { own(first, bytes) };
    let regions = layout::pieces(bytes).into_iter().map(|piece| shared(piece).map(Arc::new));
    let mut regions = regions.collect::<Result<Vec<_>, _>>().map_err(refused)?;
    let whole = |regions| -> Result<&'static Memory, Failure> {
        let memory = Memory::from_arc_regions(regions).map_err(|error| refused(io::Error::other(error.to_string())))?;
        Ok(Box::leak(Box::new(memory)))
    };
    let shared = whole(regions.clone())?;
    regions.insert(1, Arc::new(own(PRIVATE, PRIVATE_BYTES).map_err(refused)?));
    Ok(Memories { all: whole(regions)?, shared })
}
