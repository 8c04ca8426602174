//! The root husk: the user's `dvm-exec` process, which becomes the program.
//!
//! Owns the job's state at the root and the end of the job. Must not know how a call is executed.

use super::agent::{self, Agent, Opened};
use super::autoplace::{self, AutoPlace};
use super::clone;
use super::load::Program;
use super::memory::{JobMemory, LocalMemory, Memory, Space, map_view};
use super::placement::Placement;
use super::service::Member;
use super::signals::{self, Actions};
use super::sites::Sites;
use super::stat::{Figures, Report};
use super::thread::{Task, Tasks};
use super::vdso::{self, Table};
use super::wire::ThreadStart;
use super::{descriptors, hotpages, say};
use crate::exit::Failure;
use crate::sys::signal::{Disposition, replace_mask, set_disposition};
use crate::sys::startup::LIMIT_VARIABLE;
use crate::sys::{call, cpu, mapping, user};
use dvm_api::local::{CpuFeatures, JobRequest, ToAgent, ToHusk};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

const PRELOAD_VARIABLE: &str = "LD_PRELOAD";
/// The library of `--page-allocator`.
const ALLOCATOR: &str = "libdvm_alloc.so";

/// What the user asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// The program's name and arguments.
    pub command: Vec<Vec<u8>>,
    /// Hosts by name; empty: all.
    pub hosts: Vec<String>,
    /// Where threads go.
    pub placement: Placement,
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
    /// The stack limit the user had: soft, hard.
    pub stack_limit: (u64, u64),
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
    /// The program's process number.
    pub pid: i32,
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
    /// Processors of all hosts.
    pub processors: u32,
    /// Path of the program.
    pub executable: Vec<u8>,
    /// Stack limit the program sees.
    pub stack_limit: (u64, u64),
    /// Status of the last thread that called exit.
    pub last_exit: AtomicI32,
    /// What `--place auto` has done.
    pub autoplace: AutoPlace,
    /// Who made which memory, for `--hot-pages`.
    pub sites: Sites,
    /// Husks of the other hosts, once connected.
    pub members: Arc<OnceLock<Vec<Arc<Member>>>>,
    agent: Option<Arc<Agent>>,
    options: Options,
    /// Threads placed so far, the first included.
    placed: AtomicU64,
    is_ending: AtomicBool,
    /// Whether figures were shown and the agent told.
    is_told: AtomicBool,
}

static USERFAULTFD: OnceLock<OwnedFd> = OnceLock::new();
static ROOT: OnceLock<Root> = OnceLock::new();
static CORRECTION_NS: AtomicI64 = AtomicI64::new(0);
static PROCESSORS: AtomicU32 = AtomicU32::new(1);
static PROCESSOR_FIRST: AtomicU32 = AtomicU32::new(0);

/// The root's state, if this process is the root.
pub fn root() -> Option<&'static Root> {
    ROOT.get()
}

/// The root's state, where only the root comes.
pub fn expect_root() -> &'static Root {
    ROOT.get().expect("threads of the root exist only after the root's state")
}

/// What is added to this host's clocks that count from the boot.
pub fn clock_correction_ns() -> i64 {
    CORRECTION_NS.load(Ordering::Relaxed)
}

/// Processors of all hosts of the job.
pub fn processors() -> u32 {
    PROCESSORS.load(Ordering::Relaxed)
}

/// Number of this host's first processor among all.
pub fn processor_first() -> u32 {
    PROCESSOR_FIRST.load(Ordering::Relaxed)
}

/// Says what this host is in the job.
pub fn set_topology(processors: u32, processor_first: u32, correction_ns: i64) {
    PROCESSORS.store(processors, Ordering::Relaxed);
    PROCESSOR_FIRST.store(processor_first, Ordering::Relaxed);
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
    table.processor_first = u64::from(processor_first());
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
    if !cpu::has_fsgsbase() {
        return Err(Failure::Unsupported("this processor or kernel lacks FSGSBASE: linux 5.9 or newer is needed".to_owned()));
    }
    let program = Program::find(&options.command[0], options.command.clone())?;
    let allocator = options.has_page_allocator.then(|| page_allocator(&program)).transpose()?;
    let root = open_job(options, &program)?;
    let vdso = map_vdso()?;
    let environment = environment(root.hosts.len(), allocator.as_deref());
    let state = program.load(&root.space, &environment, vdso)?;
    name_process(&program);
    root.actions.inherit();
    signals::install(true, root.options.placement == Placement::Auto)
        .map_err(|error| Failure::Internal(format!("signal handlers: {error}")))?;
    drop(program);
    let task = Task::new(root.pid, 0, 0);
    root.tasks.add(&task);
    root.figures.count_thread(0);
    let mask = replace_mask(u64::MAX);
    let start = ThreadStart { state, mask, tid: root.pid, pid: root.pid, ..ThreadStart::default() };
    // The first thread is never asked to leave.
    clone::carry(root, &task, &start);
    clone::bury(root, &task);
    loop {
        call::raw(libc::SYS_pause, &[0; 6]);
    }
}

/// The program's environment: ours without what is for husks, and on several hosts without spinning, which would pull
/// pages back and forth. What the user has set stays.
fn environment(hosts: usize, allocator: Option<&Path>) -> Vec<Vec<u8>> {
    const CALM: [(&str, &str); 2] = [("GOMP_SPINCOUNT", "0"), ("OMP_WAIT_POLICY", "passive")];
    let added = CALM.into_iter().filter(|(name, _)| hosts > 1 && std::env::var_os(name).is_none());
    let preload = allocator.map(|path| {
        let others = std::env::var_os(PRELOAD_VARIABLE).unwrap_or_default();
        [PRELOAD_VARIABLE.as_bytes(), b"=", path.as_os_str().as_bytes(), b" ", others.as_bytes()].concat()
    });
    let is_kept = |name: &std::ffi::OsString| name != LIMIT_VARIABLE && (preload.is_none() || name != PRELOAD_VARIABLE);
    let own = std::env::vars_os().filter(|(name, _)| is_kept(name));
    own.map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes()].concat())
        .chain(added.map(|(name, value)| format!("{name}={value}").into_bytes()))
        .chain(preload.clone())
        .collect()
}

/// The library of `--page-allocator`, beside this program; refused where nothing would load it.
fn page_allocator(program: &Program) -> Result<PathBuf, Failure> {
    if program.is_static() {
        let path = program.path.display();
        return Err(Failure::NotRunnable(format!(
            "{path} is linked statically, so that --page-allocator cannot replace its malloc: leave the option out"
        )));
    }
    let own = std::env::current_exe().map_err(|error| Failure::Internal(format!("cannot find this program's file: {error}")))?;
    let path = own.with_file_name(ALLOCATOR);
    if !path.exists() {
        return Err(Failure::NotRunnable(format!(
            "--page-allocator needs {}, which does not exist: install it there",
            path.display()
        )));
    }
    Ok(path)
}

struct Job {
    memory: Box<dyn Memory>,
    hosts: Vec<Host>,
    agent: Option<Arc<Agent>>,
    members: Arc<OnceLock<Vec<Arc<Member>>>>,
    job_key: [u8; 16],
}

fn open_job(options: Options, program: &Program) -> Result<&'static Root, Failure> {
    let job = if options.is_local_test { alone()? } else { with_agent(&options, program)? };
    let processors = job.hosts.iter().map(|host| host.processors).sum();
    set_topology(processors, 0, 0);
    let root = Root {
        pid: cpu::thread_id(),
        space: Space::new(job.memory),
        actions: Actions::default(),
        tasks: Tasks::default(),
        figures: Figures::default(),
        hosts: job.hosts,
        members: job.members,
        agent: job.agent,
        processors,
        executable: program.path.as_os_str().as_bytes().to_vec(),
        stack_limit: options.stack_limit,
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
    Ok(root)
}

fn alone() -> Result<Job, Failure> {
    let memory = LocalMemory::new().map_err(|error| Failure::Unsupported(format!("cannot map the space: {error}")))?;
    let processors = std::thread::available_parallelism().map_or(1, |count| count.get() as u32);
    let host = Host { name: "local".to_owned(), node: 0, processors };
    Ok(Job { memory: Box::new(memory), hosts: vec![host], agent: None, members: Arc::default(), job_key: [0; 16] })
}

fn with_agent(options: &Options, program: &Program) -> Result<Job, Failure> {
    let agent = Agent::connect(&agent::find_socket(options.socket.as_deref())?)?;
    let request = JobRequest {
        hosts: options.hosts.clone(),
        program: program.path.display().to_string(),
        cpu: CpuFeatures::of_this_host(),
        has_stages: options.has_stages,
        has_sketch: options.hot_pages > 0 || options.placement == Placement::Auto,
    };
    let Opened { job, space, device } = agent.open_job(request)?;
    let (view, userfaultfd) = map_view(&space, &device)?;
    agent.hand_over(userfaultfd.as_fd())?;
    // The duplicate must outlive every thread of the program: it is never closed.
    USERFAULTFD.get_or_init(|| userfaultfd);
    let hosts = job
        .members
        .iter()
        .map(|member| Host { name: member.name.clone(), node: member.node, processors: u32::from(member.cpus) })
        .collect();
    let (agent, members) = (Arc::new(agent), Arc::default());
    let memory = JobMemory::new(view, Arc::clone(&agent), Arc::clone(&members));
    Ok(Job { memory: Box::new(memory), hosts, agent: Some(agent), members, job_key: job.job_key })
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
    watch_placement(root, agent)?;
    Ok(())
}

/// Starts the thread of `--place auto`, if the job wants it and has hosts to choose from.
fn watch_placement(root: &'static Root, agent: &Arc<Agent>) -> Result<(), Failure> {
    if root.options.placement != Placement::Auto || root.hosts.len() < 2 {
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
    /// The host for the next thread, an index into `hosts`.
    pub fn place(&self) -> usize {
        let number = self.placed.fetch_add(1, Ordering::Relaxed);
        let count = self.members().len() + 1;
        let living: Vec<usize> = (0..count).map(|host| self.tasks.count_on(host)).collect();
        let room = |host: &Host| match (self.options.threads_per_host, self.options.placement) {
            (Some(most), _) => most,
            (None, Placement::Fill) => host.processors as usize,
            (None, _) => usize::MAX,
        };
        let room: Vec<usize> = self.hosts.iter().take(count).map(room).collect();
        self.options.placement.host(number, &living, &room)
    }

    /// Husks of the other hosts; empty until they are connected.
    pub fn members(&self) -> &[Arc<Member>] {
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
        if self.options.placement == Placement::Auto {
            say::raw(&self.autoplace.report(self));
        }
        if let (Some(agent), 1..) = (&self.agent, self.options.hot_pages) {
            say::raw(&hotpages::report(self, agent, self.options.hot_pages));
        }
        self.end_job(status);
    }

    /// Ends the program on all hosts, and this process with it.
    pub fn finish(&self, ending: Ending) -> ! {
        if self.is_ending.swap(true, Ordering::SeqCst) {
            replace_mask(u64::MAX);
            loop {
                call::raw(libc::SYS_pause, &[0; 6]);
            }
        }
        self.prepare_death(match ending {
            Ending::Exit(status) => status,
            Ending::Signal(signal) => 128 + signal,
        });
        match ending {
            Ending::Exit(status) => cpu::exit(status),
            Ending::Signal(signal) => {
                set_disposition(signal, Disposition::Default).unwrap_or(());
                call::raw(libc::SYS_tgkill, &[self.pid as u64, cpu::thread_id() as u64, signal as u64, 0, 0, 0]);
                replace_mask(0);
                cpu::exit(128 + signal)
            }
        }
    }

    /// Ends the job because the husk cannot go on.
    pub fn fail(&self, reason: &str) -> ! {
        say::line(reason);
        self.finish(Ending::Exit(i32::from(Failure::Internal(String::new()).code())))
    }
}

/// Descriptor numbers the program may still use do not reach the husk's own.
///
/// # Errors
/// The kernel's error.
pub fn make_room_for_descriptors() -> Result<(), std::io::Error> {
    let (soft, hard) = cpu::limit(libc::RLIMIT_NOFILE)?;
    let wanted = descriptors::FLOOR + descriptors::COUNT_MAX;
    if soft < wanted { cpu::set_limit(libc::RLIMIT_NOFILE, wanted.min(hard), hard) } else { Ok(()) }
}
