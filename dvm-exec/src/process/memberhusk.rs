//! A member husk: the process that hosts the program's threads on a host other than the root.
//!
//! Owns its connections to agent and root, the rights of its view, and its end. Must not know calls or signals.
//!
//! Rights: all pages start without any. A fault asks the root over the service connection; the thread that reads that
//! connection applies answers and losses of rights in the order they come, so none can overtake another.

use super::agent::{Agent, Opened};
use super::ask::ThreadUsage;
use super::connection::{Connection, ConnectionError, Sender};
use super::ear::Ear;
use super::husk::{map_vdso, set_topology};
use super::jobmemory::{ViewMemory, map_view};
use super::service::GRANT_TAG;
use super::signals::{self, KICK};
use super::vma::{Found, Protection};
use super::wire::{Message, Side};
use super::{ask, barrier, features, member, moving, say};
use crate::exit::Failure;
use crate::sys::signal::replace_mask;
use crate::sys::{call, cpu, mapping};
use dvm_api::local::{JobOpened, Purpose, ToHusk};
use dvm_api::socket::SocketError;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, channel};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::time::Duration;

/// How much later than a thread's connection the service connection may be ready.
const SERVICE_LATEST: Duration = Duration::from_secs(10);
/// Interrupts for threads that are not here, remembered; one for a thread that has ended stays until its number returns.
const EARLY_KICKS_MAX: usize = 4096;
/// The descriptor a member husk is started with.
const CONTROL_DESCRIPTOR: i32 = 3;

static MEMBER: OnceLock<MemberHusk> = OnceLock::new();

/// What a member knows.
pub struct MemberHusk {
    job: JobOpened,
    agent: Agent,
    view: ViewMemory,
    service: Mutex<Option<Sender>>,
    /// The root opened the service connection; a thread's first fault may come before this host noticed.
    served: Condvar,
    state: Mutex<State>,
    /// Whether any thread shall go to another host.
    leaving: AtomicBool,
}

#[derive(Default)]
struct State {
    /// Kernel thread of each thread of the program here.
    carriers: BTreeMap<i32, Carrier>,
    /// Threads that were to be interrupted before they were here.
    early_kicks: BTreeSet<i32>,
    /// Who waits for an answer about the map; answers come in the order of the questions.
    waiters: VecDeque<mpsc::Sender<Answer>>,
    calls: BTreeMap<u32, (u64, u64)>,
    threads: u32,
    /// Threads that shall go to another host.
    leaving: BTreeSet<i32>,
}

type Answer = (Protection, Found);

/// A kernel thread that carries one thread of the program after the other.
#[derive(Clone, Copy, Debug)]
pub struct Carrier {
    /// Its number.
    pub tid: i32,
    /// What it had used when the thread it carries now began, less what that thread had used elsewhere.
    pub before: ThreadUsage,
}

/// This member; only called in member husks.
pub fn member() -> &'static MemberHusk {
    MEMBER.get().expect("threads of a member exist only after the member's state")
}

/// Runs this process as a member husk; returns only if it cannot.
pub fn run() -> Failure {
    match start() {
        Ok(()) => cpu::exit(0),
        Err(failure) => failure,
    }
}

fn start() -> Result<(), Failure> {
    say::keep_stderr();
    mapping::keep_view_out_of_cores();
    if !cpu::has_fsgsbase() {
        return Err(Failure::Unsupported("this processor or kernel lacks FSGSBASE: linux 5.9 or newer is needed".to_owned()));
    }
    let socket = mapping::adopt(CONTROL_DESCRIPTOR)
        .map_err(|error| Failure::NoAgent(format!("descriptor {CONTROL_DESCRIPTOR} is not the agent's socket: {error}")))?;
    replace_mask(u64::MAX);
    let agent = Agent::over(socket)?;
    let Opened { job, space, device } = agent.join_job()?;
    note_topology(&job);
    // The root has judged already; what it accepted holds here.
    features::judge(&job.members, true)?.arm();
    let (view, userfaultfd) = map_view(&space, &device)?;
    map_vdso()?;
    signals::install(false, true).map_err(|error| Failure::Internal(format!("signal handlers: {error}")))?;
    agent.hand_over(std::os::fd::AsFd::as_fd(&userfaultfd))?;
    drop((space, device));
    let husk = MemberHusk {
        job,
        agent,
        view,
        service: Mutex::new(None),
        served: Condvar::new(),
        state: Mutex::default(),
        leaving: AtomicBool::new(false),
    };
    let husk = MEMBER.get_or_init(|| husk);
    let error = husk.agent.listen(|packet, descriptors| husk.handle(packet, descriptors));
    match error {
        SocketError::Closed => Ok(()),
        other => Err(Failure::NoAgent(format!("the agent of this host is gone: {other}"))),
    }
}

fn note_topology(job: &JobOpened) {
    let before = job.members.iter().take_while(|member| member.node != job.me);
    let first: u32 = before.map(|member| u32::from(member.cpus)).sum();
    let own = job.members.iter().find(|member| member.node == job.me);
    let processors = own.map_or(0, |member| u32::from(member.cpus));
    set_topology(first..first + processors, own.map_or(0, |member| -significant(member.monotonic_offset_ns)));
}

/// Clocks of one machine, or nearly so, are left alone: the measurement's error would only disturb them.
fn significant(offset_ns: i64) -> i64 {
    const NOISE_NS: u64 = 1_000_000;
    if offset_ns.unsigned_abs() < NOISE_NS { 0 } else { offset_ns }
}

impl MemberHusk {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handle(&'static self, packet: ToHusk, descriptors: Vec<OwnedFd>) {
        match packet {
            ToHusk::Connection { purpose, .. } => {
                for socket in descriptors {
                    self.accept(purpose, socket);
                }
            }
            ToHusk::JobEnded => cpu::exit(0),
            ToHusk::HostLost { host, reason } if self.job.outlives_root => {
                crate::disa::lose(&self.agent, &self.job, &host, reason)
            }
            ToHusk::HostLost { host, reason } => self.fail(&format!("host {host} lost: {reason}")),
            other => say::line(&format!("the agent sent {other:?}, which is out of place")),
        }
    }

    fn accept(&'static self, purpose: Purpose, socket: OwnedFd) {
        let body = move || {
            if purpose == Purpose::Attach {
                return crate::disa::attach(socket).unwrap_or_else(|failure| say::line(&failure.to_string()));
            }
            let connection = match Connection::start(socket, &self.job.job_key, Side::Member) {
                Ok(connection) => connection,
                Err(error) => return say::line(&format!("a connection from the root failed: {error}")),
            };
            match purpose {
                Purpose::Thread => member::carry(self, connection),
                Purpose::Service => self.serve(connection),
                // Served above.
                Purpose::Attach => {}
                Purpose::Runners => {
                    if let Err(failure) = crate::disa::serve(&self.agent, &self.job, connection) {
                        self.fail(&failure.to_string());
                    }
                }
            }
        };
        let former = replace_mask(u64::MAX);
        let spawned = std::thread::Builder::new().stack_size(super::clone::STACK_BYTES).spawn(body);
        replace_mask(former);
        if let Err(error) = spawned {
            self.fail(&format!("cannot start a thread: {error}"));
        }
    }

    fn serve(&self, connection: Connection) {
        let Connection { sender, receiver } = connection;
        *self.service.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        self.served.notify_all();
        match self.obey(Ear::new(receiver)) {
            // The root has ended; what that means is for the agent to say.
            Ok(()) | Err(ConnectionError::Closed) => {}
            Err(error) => self.fail(&format!("service connection to the root: {error}")),
        }
    }

    fn obey(&self, mut ear: Ear) -> Result<(), ConnectionError> {
        loop {
            match ear.next()? {
                Message::MapAnswer { range, protection, found } => self.grant(&range, protection, found),
                Message::Protect { tag: GRANT_TAG, range, protection } => self.protect(&range, protection),
                Message::Protect { tag, range, .. } => {
                    self.protect(&range, Protection::NONE);
                    self.tell(&Message::ProtectDone { tag });
                }
                Message::Ask { tag, question } => {
                    let answer = ask::answer(question, |tid| self.carrier(tid));
                    self.tell(&Message::Told { tag, answer });
                }
                Message::Barrier { tag } => {
                    barrier::pass_here();
                    self.tell(&Message::ProtectDone { tag });
                }
                Message::Kick { tid, .. } => self.kick(tid),
                Message::Move { tid } => self.ask_to_move(tid),
                Message::Exit { .. } => self.report(),
                Message::ClockOffset { .. } => {}
                Message::Guest(bytes) => ear = crate::kvm::member::handle(member(), &bytes, ear)?,
                other => self.fail(&format!("the root sent {other:?}, which is out of place")),
            }
        }
    }

    fn protect(&self, range: &Range<u64>, protection: Protection) {
        if let Err(error) = self.view.protect(range, protection.bits()) {
            self.fail(&format!("cannot protect {:#x}..{:#x}: {error}", range.start, range.end));
        }
    }

    fn grant(&self, range: &Range<u64>, protection: Protection, found: Found) {
        if protection != Protection::NONE {
            self.protect(range, protection);
        }
        let waiter = self.lock().waiters.pop_front();
        if let Some(waiter) = waiter {
            // One who no longer waits needs no answer.
            waiter.send((protection, found)).unwrap_or(());
        }
    }

    /// The service connection, as soon as it is there. The root opens it before any thread's, so it is only late.
    fn service(&self) -> MutexGuard<'_, Option<Sender>> {
        let service = self.service.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.served.wait_timeout_while(service, SERVICE_LATEST, |service| service.is_none());
        let (service, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() {
            self.fail(&format!("the root opened no service connection within {SERVICE_LATEST:?}: is its host overloaded?"));
        }
        service
    }

    /// Asks the root what is at `address`; its rights hold here when this returns. `None` if the root is gone.
    pub fn ask_map(&self, address: u64) -> Option<(Protection, Found)> {
        let (answer, receiver) = channel();
        let mut service = self.service();
        let sender = service.as_mut()?;
        // Under the sender's lock, so that waiters stand in the order of the questions.
        self.lock().waiters.push_back(answer);
        let sent = sender.send(&Message::MapQuery { address });
        drop(service);
        self.check(sent);
        receiver.recv().ok()
    }

    /// Lets this process use a part of the space that is no program's.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn open(&self, range: &Range<u64>) -> Result<(), std::io::Error> {
        self.view.protect(range, Protection::READ_WRITE.bits())
    }

    /// Tells the root.
    pub fn tell(&self, message: &Message) {
        self.tell_or(message, &|| {});
    }

    /// As [`MemberHusk::tell`], but calls `before_wait` if this thread has to wait for that.
    pub fn tell_or(&self, message: &Message, before_wait: &dyn Fn()) {
        if let Err(TryLockError::WouldBlock) = self.service.try_lock() {
            before_wait();
        }
        let mut service = self.service();
        let Some(sender) = service.as_mut() else { return };
        let sent = sender.send_or(message, before_wait);
        drop(service);
        self.check(sent);
    }

    /// Goes on after an exchange with the root, waits for the agent's word if the root has ended, or fails.
    pub fn check<T>(&self, exchanged: Result<T, ConnectionError>) -> T {
        match exchanged {
            Ok(value) => value,
            Err(ConnectionError::Closed) => loop {
                call::raw(libc::SYS_pause, &[0; 6]);
            },
            Err(error) => self.fail(&format!("connection to the root: {error}")),
        }
    }

    fn kick(&self, tid: i32) {
        let mut state = self.lock();
        if let Some(Carrier { tid: carrier, .. }) = state.carriers.get(&tid) {
            let process = u64::from(std::process::id());
            // While the lock is held the carrier cannot end, so its number is still its own.
            call::raw(libc::SYS_tgkill, &[process, *carrier as u64, KICK as u64, 0, 0, 0]);
        } else if state.early_kicks.len() < EARLY_KICKS_MAX {
            state.early_kicks.insert(tid);
        }
    }

    fn ask_to_move(&self, tid: i32) {
        let mut state = self.lock();
        let Some(carrier) = state.carriers.get(&tid).copied() else { return };
        state.leaving.insert(tid);
        self.leaving.store(true, Ordering::Relaxed);
        // While the lock is held the carrier cannot end, so its number is still its own.
        moving::interrupt(carrier.tid);
    }

    /// Whether some thread shall go to another host; takes no lock.
    pub fn may_anybody_move(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    /// Whether thread `tid` shall go to another host.
    pub fn shall_move(&self, tid: i32) -> bool {
        self.lock().leaving.contains(&tid)
    }

    fn report(&self) {
        let (calls, threads) = {
            let state = self.lock();
            let calls = state.calls.iter().map(|(number, (count, ns))| (*number, *count, *ns)).collect();
            (calls, state.threads)
        };
        let (user_ns, system_ns) = cpu::process_times_ns();
        self.tell(&Message::Figures { user_ns, system_ns, threads, calls });
    }

    /// The kernel thread that carries thread `tid`.
    fn carrier(&self, tid: i32) -> Option<Carrier> {
        self.lock().carriers.get(&tid).copied()
    }

    /// Tells the root of a delegated call.
    pub fn trace(&self, line: Vec<u8>) {
        self.tell(&Message::Traced { line });
    }

    /// This host's name.
    pub fn name(&self) -> &str {
        self.job.members.iter().find(|member| member.node == self.job.me).map_or("?", |member| &member.name)
    }

    /// A thread of the program starts on kernel thread `carrier`; true if it was to be interrupted before.
    pub fn add_carrier(&self, tid: i32, carrier: Carrier) -> bool {
        let mut state = self.lock();
        state.carriers.insert(tid, carrier);
        state.threads += 1;
        let was_interrupted = state.early_kicks.remove(&tid);
        drop(state);
        self.tell(&Message::Carrier { tid, carrier: carrier.tid });
        was_interrupted
    }

    /// It has ended. Its number may already name the next thread on another carrier.
    pub fn remove_carrier(&self, tid: i32, carrier: i32) {
        let mut state = self.lock();
        if state.carriers.get(&tid).is_some_and(|found| found.tid == carrier) {
            state.carriers.remove(&tid);
        }
        state.leaving.remove(&tid);
        self.leaving.store(!state.leaving.is_empty(), Ordering::Relaxed);
    }

    /// Counts a call answered by the root.
    pub fn count_call(&self, number: u32, latency: Duration) {
        let mut state = self.lock();
        let entry = state.calls.entry(number).or_default();
        entry.0 += 1;
        entry.1 += u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
    }

    /// Ends this husk because it cannot go on; the agent tells the root.
    pub fn fail(&self, reason: &str) -> ! {
        say::line(reason);
        cpu::exit(i32::from(Failure::Internal(String::new()).code()))
    }
}
