//! The beginning of a job: from the command line to the program's first thread.
//!
//! Owns its order: agent, memory, the program's image, members, signals. Must not know how a job goes on.

use super::{DEVICE, Host, Options, ROOT, Root, USERFAULTFD, map_vdso, set_topology};
use crate::exit::Failure;
use crate::process::agent::{self, Agent, Opened};
use crate::process::autoplace::{self, AutoPlace};
use crate::process::cputimers::CpuTimers;
use crate::process::features::{self, Masking};
use crate::process::jobmemory::{JobMemory, map_view};
use crate::process::load::Program;
use crate::process::memory::{LocalMemory, Memory, Space};
use crate::process::moving::{self, Passage};
use crate::process::placement::Placement;
use crate::process::service::Member;
use crate::process::signals::{self, Actions};
use crate::process::sites::Sites;
use crate::process::stat::Figures;
use crate::process::thread::{Task, Tasks};
use crate::process::view::Image;
use crate::process::view::machine::memory_field;
use crate::process::wire::ThreadStart;
use crate::process::{check, clone, descriptors, preload, say, trace};
use crate::sys::cpu::Scheduling;
use crate::sys::signal::replace_mask;
use crate::sys::startup::LIMIT_VARIABLE;
use crate::sys::{call, cpu, mapping, startup};
use dvm_api::local::JobRequest;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64};
use std::sync::{Arc, Mutex, OnceLock};

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
        outlives_root: false,
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
