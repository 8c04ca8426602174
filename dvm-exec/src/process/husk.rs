//! The root husk: the user's `dvm-exec` process, which becomes the program.
//!
//! Owns the job's state at the root and the end of the job. Must not know how a call is executed.

use super::agent::{self, Agent, Opened};
use super::autoplace::{self, AutoPlace};
use super::clone;
use super::cputimers::CpuTimers;
use super::features::{self, Masking};
use super::load::Program;
use super::memory::{JobMemory, LocalMemory, Memory, Space, map_view};
use super::moving::{self, Passage};
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
use super::view::machine::memory_field;
use super::wire::ThreadStart;
use super::{check, descriptors, hotpages, limits, preload, say, trace, view};
use crate::exit::Failure;
use crate::sys::cpu::Scheduling;
use crate::sys::signal::{Disposition, replace_mask, set_disposition};
use crate::sys::startup::LIMIT_VARIABLE;
use crate::sys::{call, cpu, mapping, startup, user};
use dvm_api::local::{JobRequest, ToAgent, ToHusk};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
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

/// Runs the program in this process; returns only if it could not be started.
pub fn run(options: Options) -> Failure {
    match start(options) {
        Ok(never) => never,
        Err(failure) => failure,
    }
}

fn start(options: Options) -> Result<Failure, Failure> {
    say::keep_stderr();
    mapping::keep_view_out_of_cores();
    if !cpu::has_fsgsbase() {
        return Err(Failure::Unsupported("this processor or kernel lacks FSGSBASE: linux 5.9 or newer is needed".to_owned()));
    }
    if options.is_check {
        check::start();
    }
    if options.has_strace {
        trace::open(options.output.as_deref(), options.image.is_some())?;
    }
    let arguments = options.command.clone();
    let program = match &options.image {
        Some(path) => Program::at(path.clone(), arguments)?,
        None => Program::find(&options.command[0], arguments)?,
    };
    // The user did not choose a program that another one executes.
    let has_allocator = options.has_page_allocator && !(options.image.is_some() && program.is_static());
    let allocator = has_allocator.then(|| preload::allocator(&program)).transpose()?;
    let root = open_job(options, &program)?;
    if let Some(bytes) = memory_bytes(root.hosts.len() as u64) {
        root.space.map().set_promise(bytes);
    }
    let vdso = map_vdso()?;
    let environment = environment(root.hosts.len(), &root.masking, allocator.as_deref());
    let state = program.load(&root.space, &environment, vdso, &root.masking)?;
    let image = Image::read(state.registers.rsp);
    root.image.get_or_init(|| image.expect("the loader has just written the program's stack"));
    name_process(&program);
    root.actions.inherit();
    signals::install(true, moving::is_wanted()).map_err(|error| Failure::Internal(format!("signal handlers: {error}")))?;
    drop(program);
    let task = Task::new(root.pid(), 0, 0);
    root.tasks.add(&task);
    root.figures.count_thread(0);
    let mask = replace_mask(u64::MAX);
    let start = ThreadStart { state, mask, tid: root.pid(), pid: root.pid(), ..ThreadStart::default() };
    startup::close_again();
    // The first thread is never asked to leave.
    clone::carry(root, &task, Passage::new(start));
    clone::bury(root, &task);
    loop {
        call::raw(libc::SYS_pause, &[0; 6]);
    }
}

/// Memory and swap of all hosts, taken to be alike; none where the kernel promises without limit.
fn memory_bytes(hosts: u64) -> Option<u64> {
    let policy = std::fs::read_to_string("/proc/sys/vm/overcommit_memory").ok()?;
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let total = memory_field(&text, "MemTotal")? + memory_field(&text, "SwapTotal").unwrap_or(0);
    (policy.trim() != "1").then(|| total.saturating_mul(1024).saturating_mul(hosts.max(1)))
}

/// The program's environment: ours without what is for husks, and on several hosts without spinning, which would pull
/// pages back and forth. What the user has set stays.
fn environment(hosts: usize, masking: &Masking, allocator: Option<&Path>) -> Vec<Vec<u8>> {
    const TUNABLES: &str = "GLIBC_TUNABLES";
    let tunables = masking.tunables(std::env::var(TUNABLES).ok().as_deref());
    const CALM: [(&str, &str); 2] = [("GOMP_SPINCOUNT", "0"), ("OMP_WAIT_POLICY", "passive")];
    let added = CALM.into_iter().filter(|(name, _)| hosts > 1 && std::env::var_os(name).is_none());
    let others = std::env::var_os(preload::VARIABLE).unwrap_or_default();
    let preloaded = allocator.map(|path| preload::with(path, others.as_bytes()));
    let is_kept = |name: &std::ffi::OsStr| {
        name != LIMIT_VARIABLE && (name != TUNABLES || tunables.is_none()) && (name != preload::VARIABLE || preloaded.is_none())
    };
    let own = std::env::vars_os().filter(|(name, _)| is_kept(name));
    own.map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes()].concat())
        .chain(added.map(|(name, value)| format!("{name}={value}").into_bytes()))
        .chain(tunables.as_ref().map(|value| format!("{TUNABLES}={value}").into_bytes()))
        .chain(preloaded.clone())
        .collect()
}

struct Job {
    memory: Box<dyn Memory>,
    hosts: Vec<Host>,
    agent: Option<Arc<Agent>>,
    members: Arc<OnceLock<Vec<Arc<Member>>>>,
    job_key: [u8; 16],
    masking: Masking,
    /// Whether threads find on each host the register sets that they have on another.
    is_alike: bool,
}

fn open_job(options: Options, program: &Program) -> Result<&'static Root, Failure> {
    let job = if options.is_local_test || options.is_check { alone()? } else { with_agent(&options, program)? };
    set_topology(0..job.hosts[0].processors, 0);
    let root = Root {
        pid: AtomicI32::new(cpu::thread_id()),
        is_home: Mutex::new(true),
        space: Space::new(job.memory),
        actions: Actions::default(),
        tasks: Tasks::default(),
        figures: Figures::default(),
        hosts: job.hosts,
        members: job.members,
        agent: job.agent,
        executable: program.path.as_os_str().as_bytes().to_vec(),
        masking: job.masking,
        image: OnceLock::new(),
        stack_limit: Mutex::new(options.stack_limit),
        cpu_timers: CpuTimers::default(),
        scheduling: Scheduling::of(0),
        last_exit: AtomicI32::new(0),
        autoplace: AutoPlace::default(),
        sites: Sites::new(options.hot_pages > 0),
        placed: AtomicU64::new(1),
        is_ending: AtomicBool::new(false),
        is_told: AtomicBool::new(false),
        options,
    };
    let root = ROOT.get_or_init(|| root);
    connect(root, &job.job_key)?;
    watch_placement(root, job.is_alike)?;
    Ok(root)
}

fn alone() -> Result<Job, Failure> {
    let memory = LocalMemory::new().map_err(|error| Failure::Unsupported(format!("cannot map the space: {error}")))?;
    let processors = std::thread::available_parallelism().map_or(1, |count| count.get() as u32);
    let host = Host { name: "local".to_owned(), node: 0, processors };
    Ok(Job {
        memory: Box::new(memory),
        hosts: vec![host],
        agent: None,
        members: Arc::default(),
        job_key: [0; 16],
        masking: Masking::default(),
        is_alike: true,
    })
}

fn with_agent(options: &Options, program: &Program) -> Result<Job, Failure> {
    let agent = Agent::connect(&agent::find_socket(options.socket.as_deref())?)?;
    let request = JobRequest {
        hosts: options.hosts.clone(),
        program: program.path.display().to_string(),
        has_stages: options.has_stages,
        has_sketch: options.hot_pages > 0 || options.placement() == Placement::Auto,
        outlives_members: false,
    };
    let Opened { job, space, device } = agent.open_job(request)?;
    let masking = features::judge(&job.members, options.accepts_unequal)?;
    masking.arm();
    let is_alike = features::save_alike(&job.members);
    let (view, userfaultfd) = map_view(&space, &device)?;
    agent.hand_over(userfaultfd.as_fd())?;
    // The duplicate must outlive every thread of the program: it is never closed.
    USERFAULTFD.get_or_init(|| userfaultfd);
    let device = descriptors::hide(device).map_err(|error| Failure::Internal(format!("userfaultfd device: {error}")))?;
    DEVICE.get_or_init(|| device);
    let hosts = job
        .members
        .iter()
        .map(|member| Host { name: member.name.clone(), node: member.node, processors: u32::from(member.cpus) })
        .collect();
    let (agent, members) = (Arc::new(agent), Arc::default());
    let space = descriptors::hide(space).map_err(|error| Failure::Internal(format!("the space's file: {error}")))?;
    let memory = JobMemory::new(view, space, Arc::clone(&agent), Arc::clone(&members));
    Ok(Job { memory: Box::new(memory), hosts, agent: Some(agent), members, job_key: job.job_key, masking, is_alike })
}

/// Listens to the agent and opens the service connections.
fn connect(root: &'static Root, job_key: &[u8; 16]) -> Result<(), Failure> {
    let Some(agent) = &root.agent else { return Ok(()) };
    let former = replace_mask(u64::MAX);
    let listener = Arc::clone(agent);
    let body = move || {
        let error = listener.listen(|packet, _| root.handle_packet(packet));
        root.lose_agent(&error.to_string());
    };
    let connected = std::thread::Builder::new()
        .name("agent".to_owned())
        .spawn(body)
        .map_err(|error| Failure::Internal(format!("cannot start a thread: {error}")))
        .and_then(|_| {
            let others = root.hosts.iter().skip(1);
            others
                .map(|host| {
                    Member::open(agent, host.node, &host.name, *job_key)
                        .map_err(|reason| Failure::HostLost { host: host.name.clone(), reason })
                })
                .collect::<Result<Vec<_>, _>>()
        });
    replace_mask(former);
    let members = connected?;
    root.members.get_or_init(|| members);
    Ok(())
}

/// Starts the thread of `--place auto`, if the job wants it and has hosts to choose from.
fn watch_placement(root: &'static Root, is_alike: bool) -> Result<(), Failure> {
    let Some(agent) = root.agent.as_ref().filter(|_| moving::is_wanted() && root.hosts.len() > 1) else { return Ok(()) };
    if !is_alike {
        if root.options.placement.is_some() {
            say::line("the processors of the hosts save different registers: --place auto moves no thread");
        }
        return Ok(());
    }
    let agent = Arc::clone(agent);
    let former = replace_mask(u64::MAX);
    let spawned = std::thread::Builder::new().name("placement".to_owned()).spawn(move || autoplace::watch(root, &agent));
    replace_mask(former);
    spawned.map(drop).map_err(|error| Failure::Internal(format!("cannot start a thread: {error}")))
}

fn name_process(program: &Program) {
    let name = program.path.file_name().unwrap_or_default().as_bytes();
    let mut text = [0_u8; 16];
    let bytes = name.len().min(15);
    text[..bytes].copy_from_slice(&name[..bytes]);
    call::raw(libc::SYS_prctl, &[libc::PR_SET_NAME as u64, text.as_ptr() as u64, 0, 0, 0, 0]);
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
