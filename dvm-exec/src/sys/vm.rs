//! What of /dev/kvm needs `unsafe`: memory slots, interrupts without an interrupt controller, and signals to virtual processors.
//!
//! Owns these calls as safe types. Must not know what a guest is.

use kvm_bindings::{KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, kvm_device_attr, kvm_userspace_memory_region};
use kvm_ioctls::{VcpuFd, VmFd};
use std::cell::Cell;
use std::io::{Error, PipeReader};
use std::os::fd::{AsRawFd, IntoRawFd};
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicU8, Ordering};
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap, MmapRegion};

const KVM_INTERRUPT: u64 = 0x4004_ae86;
/// `KVM_GET_DEVICE_ATTR`, which kvm-ioctls lacks for processors.
const KVM_GET_DEVICE_ATTR: u64 = 0x4018_aee2;

/// `KVM_SET_DEVICE_ATTR`, likewise.
const KVM_SET_DEVICE_ATTR: u64 = 0x4018_aee1;

/// The guest's memory, mapped in this process.
pub type Memory = GuestMemoryMmap<()>;

/// Ends a stay in the guest from another thread.
///
/// What is to be seen by the processor is stored before [`Kicker::kick`]; the processor clears the flag with [`Kicker::clear`] before it
/// looks. So it either sees it or does not stay in the guest.
#[derive(Debug)]
pub struct Kicker {
    immediate_exit: *const AtomicU8,
    process: i32,
    thread: i32,
}

// SAFETY: the pointer is to memory shared with the kernel that is only used by atomic stores and lives as long as the process.
unsafe impl Send for Kicker {}
// SAFETY: as above.
unsafe impl Sync for Kicker {}

impl Kicker {
    /// For the calling thread, which alone runs `vcpu`. The processor's descriptor is kept open for ever.
    pub fn new(vcpu: VcpuFd) -> (&'static mut VcpuFd, Self) {
        let vcpu = Box::leak(Box::new(vcpu));
        let immediate_exit = (&raw mut vcpu.get_kvm_run().immediate_exit).cast::<AtomicU8>().cast_const();
        // SAFETY: no memory is involved.
        let (process, thread) = unsafe { (libc::getpid(), libc::gettid()) };
        // SAFETY: a set of signals is plain memory; the calls write and read only this one.
        unsafe {
            let mut kicks: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut kicks);
            libc::sigaddset(&raw mut kicks, kick_signal());
            libc::sigaddset(&raw mut kicks, libc::SIGBUS);
            libc::sigaddset(&raw mut kicks, libc::SIGIO);
            libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const kicks, std::ptr::null_mut());
        }
        HERE.with(|here| here.set(immediate_exit));
        (vcpu, Self { immediate_exit, process, thread })
    }

    /// The processor leaves the guest, now or before it enters the next time.
    pub fn kick(&self) {
        self.flag().store(1, Ordering::SeqCst);
        // SAFETY: no memory is involved. A thread that has ended is not found, which is as good.
        unsafe { libc::syscall(libc::SYS_tgkill, self.process, self.thread, kick_signal()) };
    }

    /// Before the processor looks for what it has to do: whether somebody ended its stay.
    pub fn clear(&self) -> bool {
        self.flag().swap(0, Ordering::SeqCst) != 0
    }

    fn flag(&self) -> &AtomicU8 {
        // SAFETY: points into the mapping of a processor that is never closed, see `new`; the kernel only reads it.
        unsafe { &*self.immediate_exit }
    }
}

fn kick_signal() -> i32 {
    libc::SIGRTMIN() + 3
}

thread_local! {
    /// The flag of the processor that this thread runs.
    static HERE: Cell<*const AtomicU8> = const { Cell::new(ptr::null()) };
}

extern "C" fn nothing(_: i32) {}

/// Something has arrived for this thread.
extern "C" fn arrived(_: i32) {
    HERE.with(|here| {
        let flag = here.get();
        if !flag.is_null() {
            // SAFETY: as in `Kicker::flag`; the variable needs neither memory nor an end, so handlers may read it.
            unsafe { (*flag).store(1, Ordering::SeqCst) };
        }
    });
}

/// Makes the signal of [`Kicker::kick`] break off calls and do nothing else, and SIGIO end the stay of this thread's processor.
///
/// # Errors
/// The kernel's error.
pub fn install_kick() -> Result<(), Error> {
    for (signal, handler) in [(kick_signal(), nothing as *const ()), (libc::SIGIO, arrived as *const ())] {
        // SAFETY: zeros are a valid sigaction: no flags, nothing blocked.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = handler as usize;
        // SAFETY: the handlers touch nothing but that flag; the action outlives the call.
        if unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) } != 0 {
            return Err(Error::last_os_error());
        }
    }
    Ok(())
}

/// Where [`park`] tells of it.
static LOST: AtomicI32 = AtomicI32::new(-1);

/// A thread that touches what is lost goes no further: what the guest's memory was there nobody knows.
extern "C" fn park(_: i32) {
    // SAFETY: the byte is constant; the call is one of those that handlers may make, and nobody waits for its result.
    unsafe { libc::write(LOST.load(Ordering::Relaxed), c"!".as_ptr().cast(), 1) };
    loop {
        // SAFETY: no memory is involved.
        unsafe { libc::pause() };
    }
}

/// From now on a thread that touches memory whose contents are lost stays where it is, instead of ending the process; a byte comes out
/// of the pipe then. To be called once.
///
/// # Errors
/// The kernel's error.
pub fn park_at_lost_pages() -> Result<PipeReader, Error> {
    let (told, tells) = std::io::pipe()?;
    LOST.store(tells.into_raw_fd(), Ordering::Relaxed);
    // SAFETY: zeros are a valid sigaction: no flags, nothing blocked.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = park as *const () as usize;
    // SAFETY: the handler makes only calls that handlers may make; the action outlives the call.
    match unsafe { libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut()) } {
        0 => Ok(told),
        _ => Err(Error::last_os_error()),
    }
}

/// A region of guest memory at `guest`, over `bytes` at `address`, which stay mapped for ever.
///
/// # Errors
/// The range is none.
pub fn region(address: u64, bytes: u64, guest: u64) -> Result<GuestRegionMmap<()>, Error> {
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_NORESERVE);
    // SAFETY: the caller has mapped it for the life of this process; Rust never borrows its bytes.
    let mapping = unsafe { MmapRegion::build_raw(address as *mut u8, bytes as usize, protection, flags) };
    let mapping = mapping.map_err(|error| Error::other(error.to_string()))?;
    GuestRegionMmap::new(mapping, GuestAddress(guest)).ok_or_else(|| Error::other("the region has no end"))
}

/// Gives `memory` to the machine, a slot for each region.
///
/// # Errors
/// The kernel's error.
pub fn map_memory(vm: &VmFd, memory: &'static Memory) -> Result<(), Error> {
    for (slot, region) in memory.iter().enumerate() {
        let region = kvm_userspace_memory_region {
            slot: slot as u32,
            flags: 0,
            guest_phys_addr: region.start_addr().0,
            memory_size: region.len(),
            userspace_addr: region.as_ptr() as u64,
        };
        // SAFETY: the mapping lives for ever; Rust never borrows its bytes, vm-memory copies by raw pointers.
        unsafe { vm.set_user_memory_region(region) }.map_err(os_error)?;
    }
    Ok(())
}

/// The processor takes interrupt `vector` at its next entry. Only while it is ready for one.
///
/// # Errors
/// The kernel's error.
pub fn interrupt(vcpu: &VcpuFd, vector: u8) -> Result<(), Error> {
    let vector = u32::from(vector);
    // SAFETY: the kernel reads one word, which outlives the call.
    match unsafe { libc::ioctl(vcpu.as_raw_fd(), KVM_INTERRUPT as _, &raw const vector) } {
        0 => Ok(()),
        _ => Err(Error::last_os_error()),
    }
}

/// What the processor adds to this host's time-stamp counter; 0 where the kernel does not tell.
pub fn tsc_offset(vcpu: &VcpuFd) -> u64 {
    let mut offset = 0_u64;
    let attribute = attribute(&raw mut offset);
    // SAFETY: the kernel writes one word at the address in the structure; both outlive the call.
    match unsafe { libc::ioctl(vcpu.as_raw_fd(), KVM_GET_DEVICE_ATTR as _, &raw const attribute) } {
        0 => offset,
        _ => 0,
    }
}

/// Has the processor add `offset`.
///
/// # Errors
/// The kernel's error.
pub fn set_tsc_offset(vcpu: &VcpuFd, mut offset: u64) -> Result<(), Error> {
    let attribute = attribute(&raw mut offset);
    // SAFETY: the kernel reads one word at the address in the structure; both outlive the call.
    match unsafe { libc::ioctl(vcpu.as_raw_fd(), KVM_SET_DEVICE_ATTR as _, &raw const attribute) } {
        0 => Ok(()),
        _ => Err(Error::last_os_error()),
    }
}

fn attribute(word: *mut u64) -> kvm_device_attr {
    kvm_device_attr { flags: 0, group: KVM_VCPU_TSC_CTRL, attr: u64::from(KVM_VCPU_TSC_OFFSET), addr: word as u64 }
}

/// This host's time-stamp counter.
pub fn timestamp() -> u64 {
    // SAFETY: every x86-64 processor has it.
    unsafe { core::arch::x86_64::_rdtsc() }
}

fn os_error(error: kvm_ioctls::Error) -> Error {
    Error::from_raw_os_error(error.errno())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::io::Read;
    use vm_memory::{Bytes, FileOffset};

    #[test]
    fn who_touches_lost_memory_stays_where_it_is() {
        let path = std::env::temp_dir().join(format!("dvm-lost-{}", std::process::id()));
        fs::write(&path, [7; 4096]).unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let place = Some(FileOffset::new(file.try_clone().unwrap(), 0));
        let memory = Memory::from_ranges_with_files([(GuestAddress(0), 4096, place)]).unwrap();
        assert_eq!(memory.read_obj::<u8>(GuestAddress(9)).unwrap(), 7);
        let mut told = park_at_lost_pages().unwrap();
        file.set_len(0).unwrap();
        let touching = std::thread::spawn(move || memory.read_obj::<u8>(GuestAddress(9)).unwrap());
        told.read_exact(&mut [0]).unwrap();
        assert!(!touching.is_finished());
    }
}
