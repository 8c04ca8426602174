//! The root husk: the user's `dvm-exec` process, which becomes the program.
//!
//! Owns the job's state at the root and the end of the job; its beginning is in `start`. Must not know how a call is executed.

mod start;

pub use start::run;

use super::agent::Agent;
use super::autoplace::AutoPlace;
use super::cputimers::CpuTimers;
use super::features::Masking;
use super::memory::Space;
use super::placement::Placement;
use super::service::Member;
use super::sigframe::SignalInfo;
use super::signals::{self, Actions};
use super::sites::Sites;
use super::stat::{Figures, Report};
use super::thread::{Task, Tasks};
use super::vdso::{self, Table};
use super::view::Image;
use super::view::affinity::wished_host;
use super::view::cpuset::CpuSet;
use super::{check, hotpages, limits, moving, say, view};
use crate::exit::Failure;
use crate::sys::cpu::Scheduling;
use crate::sys::signal::{Disposition, replace_mask, set_disposition};
use crate::sys::{call, cpu, mapping, user};
use dvm_api::local::{ToAgent, ToHusk};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// What the user asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// The program's name and arguments.
    pub command: Vec<Vec<u8>>,
    /// Hosts by name; empty: all.
    pub hosts: Vec<String>,
    /// Where threads go; none: the user did not say.
    pub placement: Option<Placement>,
    /// Most threads on one host.
    pub threads_per_host: Option<usize>,
    /// Show figures at the end.
    pub stat: bool,
    /// Write figures as JSON there.
    pub stat_json: Option<PathBuf>,
    /// Measure the kernel's part in the stages of faults, too.
    pub has_stages: bool,
    /// So many pages that travel most are named at the end; 0: none.
    pub hot_pages: usize,
    /// The program gets the allocator that gives each thread pages of its own.
    pub has_page_allocator: bool,
    /// The agent's socket.
    pub socket: Option<PathBuf>,
    /// No agent: this process only.
    pub is_local_test: bool,
    /// This process only, and what would be refused is shown at the end.
    pub is_check: bool,
    /// Run although a host lacks features that cannot be hidden.
    pub accepts_unequal: bool,
    /// Show a line for each delegated call.
    pub has_strace: bool,
    /// Where these lines go, stderr if left out.
    pub output: Option<PathBuf>,
    /// The stack limit the user had: soft, hard.
    pub stack_limit: (u64, u64),
    /// The limit of open files the user had: soft, hard.
    pub files_limit: (u64, u64),
    /// The program's file, if it is not to be found by its name.
    pub image: Option<PathBuf>,
}

impl Options {
    /// Where threads go.
    pub fn placement(&self) -> Placement {
        self.placement.unwrap_or_default()
    }
}

/// How a program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// exit_group, or the last thread's exit.
    Exit(i32),
    /// Killed by this signal.
    Signal(i32),
}

/// A host of the job.
pub struct Host {
    /// Its name.
    pub name: String,
    /// Its node number.
    pub node: u16,
    /// Processors a job may use there.
    pub processors: u32,
}

/// State of the job at the root.
pub struct Root {
    pid: AtomicI32,
    /// The program's memory.
    pub space: Space,
    /// What the program does with signals.
    pub actions: Actions,
    /// The program's threads.
    pub tasks: Tasks,
    /// Counters.
    pub figures: Figures,
    /// Hosts, the root first.
    pub hosts: Vec<Host>,
    /// Path of the program.
    pub executable: Vec<u8>,
    /// Processor features that the program must not see.
    pub masking: Masking,
    image: OnceLock<Image>,
    /// Stack limit the program sees: soft, hard.
    pub stack_limit: Mutex<(u64, u64)>,
    /// Its timers on CPU time.
    pub cpu_timers: CpuTimers,
    /// How the program was scheduled at its start.
    pub scheduling: Scheduling,
    /// Status of the last thread that called exit.
    pub last_exit: AtomicI32,
    /// What `--place auto` has done.
    pub autoplace: AutoPlace,
    /// Who made which memory, for `--hot-pages`.
    pub sites: Sites,
    /// Husks of the other hosts, once connected.
    pub members: Arc<OnceLock<Vec<Arc<Member>>>>,
    agent: Option<Arc<Agent>>,
    /// What the user asked for.
    pub options: Options,
    /// Threads placed so far, the first included.
    placed: AtomicU64,
    /// Whether no thread has ever been anywhere else.
    is_home: Mutex<bool>,
    is_ending: AtomicBool,
    /// Whether figures were shown and the agent told.
    is_told: AtomicBool,
}

static USERFAULTFD: OnceLock<OwnedFd> = OnceLock::new();
static DEVICE: OnceLock<OwnedFd> = OnceLock::new();
static ROOT: OnceLock<Root> = OnceLock::new();
static CORRECTION_NS: AtomicI64 = AtomicI64::new(0);
static PROCESSOR_FIRST: AtomicU32 = AtomicU32::new(0);
static PROCESSOR_END: AtomicU32 = AtomicU32::new(1);

/// The root's state, if this process is the root.
pub fn root() -> Option<&'static Root> {
    ROOT.get()
}

/// The root's state, where only the root comes.
pub fn expect_root() -> &'static Root {
    ROOT.get().expect("threads of the root exist only after the root's state")
}

/// The open `/dev/userfaultfd` that the agent gave this husk, for its children.
pub fn userfaultfd_device() -> Option<BorrowedFd<'static>> {
    DEVICE.get().map(AsFd::as_fd)
}

/// What is added to this host's clocks that count from the boot.
pub fn clock_correction_ns() -> i64 {
    CORRECTION_NS.load(Ordering::Relaxed)
}

/// Numbers of this host's processors among all.
pub fn processors() -> Range<u32> {
    PROCESSOR_FIRST.load(Ordering::Relaxed)..PROCESSOR_END.load(Ordering::Relaxed)
}

/// Says what this host is in the job.
pub fn set_topology(processors: Range<u32>, correction_ns: i64) {
    PROCESSOR_FIRST.store(processors.start, Ordering::Relaxed);
    PROCESSOR_END.store(processors.end, Ordering::Relaxed);
    CORRECTION_NS.store(correction_ns, Ordering::Relaxed);
}

/// Maps the synthetic vdso; returns its address, 0 if this kernel's own cannot be used.
///
/// # Errors
/// When the place is taken.
pub fn map_vdso() -> Result<u64, Failure> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let Some(range) = vdso::find_in_maps(&maps) else { return Ok(0) };
    let Ok(bytes) = user::read_vec(range.start, (range.end - range.start) as usize) else { return Ok(0) };
    let Ok(table) = Table::for_host(&bytes, range.start) else { return Ok(0) };
    let mut table = table.with_correction(clock_correction_ns());
    table.processor_first = u64::from(processors().start);
    table.processors = u64::from(processors().end - processors().start);
    let map = |address, bytes: &[u8], protection| {
        mapping::map_bytes(address, bytes, protection)
            .map_err(|error| Failure::Unsupported(format!("cannot map the vdso at {address:#x}: {error}")))
    };
    map(vdso::IMAGE_ADDRESS, &vdso::image(), libc::PROT_READ | libc::PROT_EXEC)?;
    map(vdso::TABLE_ADDRESS, &table.to_bytes(), libc::PROT_READ)?;
    Ok(vdso::IMAGE_ADDRESS)
}

impl Root {
    /// The program's process number.
    pub fn pid(&self) -> i32 {
        self.pid.load(Ordering::Relaxed)
    }

    /// Whether no thread has ever been on another host, so that everything the program has is here. None goes there until the
    /// guard is dropped.
    pub fn is_home(&self) -> MutexGuard<'_, bool> {
        self.is_home.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A thread goes to `host`.
    pub fn note_leaving(&self, host: usize) {
        if host != 0 {
            *self.is_home() = false;
        }
    }

    /// In a forked child that has all of the program's memory: this process is the root of a program of its own from now on, on
    /// this host alone, with `task` as its one thread. Nobody waits for its figures.
    pub fn become_own(&self, task: &Arc<Task>) {
        self.pid.store(task.tid, Ordering::Relaxed);
        self.tasks.become_one(task);
        self.last_exit.store(0, Ordering::Relaxed);
        self.is_ending.store(false, Ordering::SeqCst);
        self.is_told.store(true, Ordering::SeqCst);
    }

    /// The host for the next thread, an index into `hosts`: the one in which all of its wish lies, or by `--place`.
    pub fn place(&self, wish: Option<&CpuSet>) -> usize {
        if let Some(host) = wished_host(wish, &view::processors(self)).filter(|host| *host <= self.members().len()) {
            return host;
        }
        if self.autoplace.is_gathered() {
            return 0;
        }
        let number = self.placed.fetch_add(1, Ordering::Relaxed);
        self.placed_by_option(number)
    }

    fn placed_by_option(&self, number: u64) -> usize {
        let count = self.members().len() + 1;
        let living: Vec<usize> = (0..count).map(|host| self.tasks.count_on(host)).collect();
        let room = |host: &Host| match (self.options.threads_per_host, self.options.placement()) {
            (Some(most), _) => most,
            (None, Placement::Fill) => host.processors as usize,
            (None, _) => usize::MAX,
        };
        let room: Vec<usize> = self.hosts.iter().take(count).map(room).collect();
        self.options.placement().host(number, &living, &room)
    }

    /// What the loader put on the program's stack.
    pub fn image(&self) -> Image {
        self.image.get().cloned().unwrap_or_default()
    }

    /// Husks of the other hosts; empty until they are connected, and in a forked child: a message of it would be a forgery among
    /// its parent's, and the locks may be held by threads that it does not have.
    pub fn members(&self) -> &[Arc<Member>] {
        if self.space.is_copy() {
            return &[];
        }
        self.members.get().map_or(&[], Vec::as_slice)
    }

    fn handle_packet(&self, packet: ToHusk) {
        match packet {
            ToHusk::HostLost { host, reason } => self.lose_host(&host, &reason),
            ToHusk::JobEnded => self.lose_agent("it ended the job"),
            ToHusk::JobOpened(_)
            | ToHusk::ViewAccepted
            | ToHusk::Completed { .. }
            | ToHusk::Failed { .. }
            | ToHusk::Connection { .. }
            | ToHusk::JobStatistics { .. }
            | ToHusk::Refused { .. }
            | ToHusk::Attached
            | ToHusk::Report(_) => {}
        }
    }

    fn lose_agent(&self, reason: &str) {
        let host = self.hosts.first().map_or("this", |host| host.name.as_str());
        self.lose_host(host, &format!("its agent is gone: {reason}"));
    }

    /// A member's husk is gone. The agent may know better why, so it gets a moment to say so.
    pub fn lose_husk(&self, host: &str, reason: &str) {
        const AGENT_WAIT: std::time::Duration = std::time::Duration::from_millis(700);
        if !self.is_ending.load(Ordering::SeqCst) {
            std::thread::sleep(AGENT_WAIT);
            self.lose_host(host, reason);
        }
    }

    /// Ends the job because a host is lost.
    fn lose_host(&self, host: &str, reason: &str) {
        if self.is_ending.swap(true, Ordering::SeqCst) {
            return;
        }
        let failure = Failure::HostLost { host: host.to_owned(), reason: reason.to_owned() };
        say::line(&failure.to_string());
        self.end_job(i32::from(failure.code()));
        cpu::exit(i32::from(failure.code()))
    }

    fn end_job(&self, status: i32) {
        if let Some(agent) = &self.agent {
            // An agent that is gone needs not be told.
            agent.send(&ToAgent::EndJob { status }, &[]).unwrap_or(());
        }
    }

    /// A thread of the program called exit with this status.
    pub fn note_exit(&self, status: i32) {
        self.last_exit.store(status, Ordering::Relaxed);
    }

    /// What must be done before this process is killed: figures shown, the agent told.
    pub fn prepare_death(&self, status: i32) {
        if self.is_told.swap(true, Ordering::SeqCst) {
            return;
        }
        if self.options.is_check {
            say::raw(&check::table(&String::from_utf8_lossy(&self.executable)));
        }
        self.show_figures();
        self.end_job(status);
    }

    fn show_figures(&self) {
        let _room = limits::room();
        if self.options.stat || self.options.stat_json.is_some() {
            let report = Report::gather(self, self.agent.as_deref());
            if self.options.stat {
                say::raw(&report.to_string());
            }
            if let Some(path) = &self.options.stat_json
                && let Err(error) = std::fs::write(path, report.to_json())
            {
                say::line(&format!("cannot write {}: {error}", path.display()));
            }
        }
        if self.options.placement == Some(Placement::Auto) || (self.options.stat && moving::is_wanted()) {
            say::raw(&self.autoplace.report(self));
        }
        if let (Some(agent), 1..) = (&self.agent, self.options.hot_pages) {
            say::raw(&hotpages::report(self, agent, self.options.hot_pages));
        }
    }

    /// This process is about to go on as another program; waits for ever if it is ending already. The job ends when the kernel
    /// has ended the program's other threads and closes the agent's socket: not before, for those threads still need pages.
    pub fn leave_job(&self) {
        self.begin_end();
        self.show_figures();
    }

    /// From now on a lost host is none; only the first caller comes back.
    fn begin_end(&self) {
        if self.is_ending.swap(true, Ordering::SeqCst) {
            replace_mask(u64::MAX);
            loop {
                call::raw(libc::SYS_pause, &[0; 6]);
            }
        }
    }

    /// Ends the program on all hosts, and this process with it.
    pub fn finish(&self, ending: Ending) -> ! {
        self.begin_end();
        self.prepare_death(match ending {
            Ending::Exit(status) => status,
            Ending::Signal(signal) => 128 + signal,
        });
        match ending {
            Ending::Exit(status) => cpu::exit(status),
            Ending::Signal(signal) => {
                if cpu::limit(libc::RLIMIT_CORE).is_ok_and(|(soft, _)| soft > 0) && signals::dumps_core(signal) {
                    say::line("a core file holds the husk of this host, none of the program's memory");
                }
                set_disposition(signal, Disposition::Default).unwrap_or(());
                call::raw(libc::SYS_tgkill, &[self.pid() as u64, cpu::thread_id() as u64, signal as u64, 0, 0, 0]);
                replace_mask(0);
                cpu::exit(128 + signal)
            }
        }
    }

    /// Ends the program by a signal that thread `tid` on `host` got for what it did at `ip`.
    pub fn die_of_fault(&self, tid: i32, host: &str, info: &SignalInfo, ip: u64) -> ! {
        let (signal, address) = (info.signal(), info.address());
        say::line(&format!("fatal signal {signal} in thread {tid} on host {host} at {ip:#x}, address {address:#x}"));
        if let Some(reason) = self.space.explain(address).filter(|_| signal == libc::SIGSEGV) {
            say::line(&format!("thread {tid}: {reason}"));
        }
        self.finish(Ending::Signal(signal))
    }

    /// Ends the job because the husk cannot go on.
    pub fn fail(&self, reason: &str) -> ! {
        say::line(reason);
        self.finish(Ending::Exit(i32::from(Failure::Internal(String::new()).code())))
    }
}
