//! The deployment itself: all hosts looked at, then all copied to, then changed.
//!
//! Owns the phases and who waits for whom. Must not know paths or commands.

use super::bundle::{self, Bundle, Programs, Scratch};
use super::exit::{Exit, Failure};
use super::found::{self, Found, Init};
use super::hosts_file::{self, HostEntry, HostsFile};
use super::layout::{ETC, STAGING, version};
use super::plan::{self, Plan};
use super::remote::{Connection, Trouble};
use super::wanted::{self, Wanted};
use super::{Options, diagnosis, key, steps, unit};
use crate::{cargo, ebpf, setup};
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

const LOOK_LATEST: Duration = Duration::from_secs(30);
const COPY_LATEST: Duration = Duration::from_secs(600);
const DOCTOR_LATEST: Duration = Duration::from_secs(60);
/// The agent's end and its start have deadlines of their own, below this.
const APPLY_LATEST: Duration = Duration::from_secs(120);
/// How long agents may take to see each other.
const PEERS_LATEST: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(500);
const ROLLING_WAIT: Duration = Duration::from_secs(600);

/// A host that answers.
struct Host {
    entry: HostEntry,
    connection: Connection,
    found: Found,
}

/// What a host is to become.
struct Task<'a> {
    host: &'a Host,
    wanted: Wanted,
    plan: Plan,
    bundle: Bundle,
    /// Of all that its agent must be started with.
    digest: String,
}

/// Does what the options say.
///
/// # Errors
/// Each cause with its exit code, a line for each host.
pub fn run(options: &Options) -> Result<Exit, Failure> {
    let wrong = |what: String| Failure::new(Exit::Input, format!("{}: {what}", options.hosts.display()));
    let text = fs::read_to_string(&options.hosts)
        .map_err(|error| wrong(format!("cannot be read ({error}); give its path with --hosts")))?;
    let file = hosts_file::parse(&text).map_err(wrong)?;
    let kept = key::path(&options.hosts);
    let has_key = key::is_there(&kept).map_err(|error| Failure::new(Exit::Input, format!("{error:#}")))?;
    let scratch = Scratch::new()?;
    if options.remove {
        let hosts = look(&file, "", &scratch)?;
        return remove(options, &hosts, &kept);
    }
    let programs = Programs::gather(&binaries(options)?, scratch.path())?;
    let hosts = look(&file, &programs.id, &scratch)?;
    let key = if has_key { kept } else { obtain_key(options, &hosts, &kept, &scratch)? };
    let tasks = plan_all(&file, &hosts, &programs, &key, &scratch)?;
    for Task { host, plan, .. } in &tasks {
        for step in &plan.steps {
            println!("{}: {step}", host.entry.name);
        }
    }
    if !options.rolling && !options.check {
        require_idle(options, tasks.iter().filter(|task| task.plan.restart().is_some()).map(|task| task.host))?;
    }
    let copied = copy_all(&tasks, programs.bytes);
    if copied.is_err() || options.check {
        withdraw(&tasks);
    }
    copied?;
    let is_idle = tasks.iter().all(|task| task.plan.steps.is_empty());
    if is_idle || options.check {
        println!(
            "{} hosts are fit; {}",
            tasks.len(),
            if is_idle { "nothing to change" } else { "nothing was changed (--check)" }
        );
        return Ok(if is_idle { Exit::Success } else { Exit::Pending });
    }
    if options.rolling {
        roll(options, &tasks)?
    } else {
        in_parallel(&tasks, Exit::Partial, apply).map(drop)?
    }
    see_peers(&tasks)?;
    println!("{} hosts run version {}", tasks.len(), programs.id);
    Ok(Exit::Success)
}

fn binaries(options: &Options) -> Result<PathBuf, Failure> {
    if let Some(directory) = &options.binaries {
        return Ok(directory.clone());
    }
    for lack in setup::prepare(setup::FOR_ETCD).unwrap_or_default() {
        eprintln!("setup: {lack}; the agent is built without etcd");
    }
    let built = ebpf::provide().and_then(|_| cargo::build(&["dvm-agent", "dvm-exec", "dvm-alloc"]));
    built.map_err(|error| Failure::new(Exit::Input, format!("{error:#}")))
}

/// Does something for each of many, beside each other; if any fails, gives the lines of all that did.
fn in_parallel<'a, T: Sync, R: Send>(
    items: &'a [T],
    exit: Exit,
    act: impl Fn(&'a T) -> Result<R, Vec<String>> + Sync,
) -> Result<Vec<R>, Failure> {
    let act = &act;
    let results: Vec<Result<R, Vec<String>>> = scope(|scope| {
        let threads: Vec<_> = items.iter().map(|item| scope.spawn(move || act(item))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no thread panics")).collect()
    });
    let (mut done, mut lines) = (Vec::new(), Vec::new());
    for result in results {
        match result {
            Ok(result) => done.push(result),
            Err(failed) => lines.extend(failed),
        }
    }
    if lines.is_empty() { Ok(done) } else { Err(Failure { exit, lines }) }
}

/// A line of a host.
fn of<'a>(entry: &'a HostEntry) -> impl Fn(Trouble) -> Vec<String> + 'a {
    |Trouble(text)| vec![format!("{}: {text}", entry.name)]
}

/// Connects to all hosts and looks at them.
fn look(file: &HostsFile, id: &str, scratch: &Scratch) -> Result<Vec<Host>, Failure> {
    let numbered: Vec<(usize, &HostEntry)> = file.hosts.iter().enumerate().collect();
    in_parallel(&numbered, Exit::Connection, |(number, entry)| {
        let connection = Connection::open(entry, *number, scratch.path()).map_err(of(entry))?;
        let found = ask(&connection, entry, id).map_err(of(entry))?;
        Ok(Host { entry: (*entry).clone(), connection, found })
    })
}

fn ask(connection: &Connection, entry: &HostEntry, id: &str) -> Result<Found, Trouble> {
    let script = found::script(&entry.name, entry.interface.as_deref(), &wanted::paths(id));
    let said = connection.script("look", &script, LOOK_LATEST)?;
    found::parse(&said).map_err(|what| Trouble(format!("look: {what}")))
}

/// The key of the first host that has one, or a new one; kept unless this is only a check.
fn obtain_key(options: &Options, hosts: &[Host], kept: &Path, scratch: &Scratch) -> Result<PathBuf, Failure> {
    let path = format!("{ETC}/key");
    let owner = hosts.iter().find(|host| host.found.manifest.is_some() && host.found.entries.contains_key(&path));
    let key = match owner {
        Some(host) => {
            let fetched = host.connection.script("fetch the key", &steps::show_key(), LOOK_LATEST);
            let fetched = fetched.map_err(|trouble| Failure { exit: Exit::Connection, lines: of(&host.entry)(trouble) })?;
            if !key::is_key(fetched.as_bytes()) {
                return Err(Failure::new(Exit::Unfit, format!("{}: {path} holds no key: remove it", host.entry.name)));
            }
            eprintln!("deploy: the cluster key is that of {}", host.entry.name);
            fetched
        }
        None => key::new()?,
    };
    let path = if options.check { scratch.path().join("new.key") } else { kept.to_path_buf() };
    key::keep(&path, &key)?;
    if !options.check {
        eprintln!("deploy: the cluster key is kept in {}", path.display());
    }
    Ok(path)
}

fn plan_all<'a>(
    file: &HostsFile,
    hosts: &'a [Host],
    programs: &Programs,
    key: &Path,
    scratch: &Scratch,
) -> Result<Vec<Task<'a>>, Failure> {
    let addresses =
        in_parallel(hosts, Exit::Unfit, |host| address(host).map_err(|what| vec![format!("{}: {what}", host.entry.name)]))?;
    let cluster = wanted::cluster_toml(file, &addresses);
    in_parallel(hosts, Exit::Unfit, |host| {
        let Host { entry, found, .. } = host;
        let failed = |error: anyhow::Error| vec![format!("{}: {error:#}", entry.name)];
        let texts = [
            ("cluster.toml", cluster.clone()),
            ("node.toml", wanted::node_toml(entry)),
            (super::layout::UNIT, unit::unit(entry.memory.as_deref())),
        ];
        let bundle = Bundle::new(&scratch.path().join(format!("host-{}", entry.name)), programs, &texts, key).map_err(failed)?;
        let wanted = Wanted::new(&programs.id, &bundle.digests, found.init, programs.glibc);
        let digest = bundle::digest(&wanted.text()).map_err(failed)?;
        let named = |lines: Vec<String>| lines.into_iter().map(|line| format!("{}: {line}", entry.name)).collect::<Vec<_>>();
        let plan = plan::plan(&wanted, found, &digest).map_err(named)?;
        Ok(Task { host, wanted, plan, bundle, digest })
    })
}

/// Where other hosts reach it.
fn address(host: &Host) -> Result<IpAddr, String> {
    let HostEntry { address, interface, .. } = &host.entry;
    let Some(interface) = interface else {
        return address.parse().map_err(|_| format!("address = \"{address}\" is no IP address"));
    };
    let first = host.found.addresses.iter().find_map(|address| address.parse().ok());
    first.ok_or_else(|| format!("interface {interface} has no address: correct `interface` in the hosts file"))
}

/// Copies to all hosts that need it, and asks doctor on all.
fn copy_all(tasks: &[Task<'_>], bytes: u64) -> Result<(), Failure> {
    in_parallel(tasks, Exit::Copy, |task| {
        let Task { host: Host { entry, connection, .. }, wanted, plan, bundle, .. } = task;
        if !plan.copies() {
            return Ok(());
        }
        let script = |what, text: &str| connection.script(what, text, LOOK_LATEST).map_err(of(entry));
        script("prepare", &steps::stage(plan, bytes))?;
        connection.copy(&bundle.files, STAGING, COPY_LATEST).map_err(of(entry))?;
        script("check the copies", &steps::verify(wanted))?;
        eprintln!("{}: copied {} files, {:.1} MiB", entry.name, bundle.files.len(), bytes as f64 / f64::from(1 << 20));
        Ok(())
    })?;
    in_parallel(tasks, Exit::Unfit, |task| {
        let Task { host: Host { entry, connection, .. }, wanted, plan, .. } = task;
        let (programs, configuration) = if plan.copies() { (STAGING.to_owned(), STAGING) } else { (version(&wanted.id), ETC) };
        let said = connection.script("doctor", &steps::doctor(&programs, configuration), DOCTOR_LATEST).map_err(of(entry))?;
        let lacks: Vec<String> = diagnosis::lacks(&said).into_iter().map(|line| format!("{}: {line}", entry.name)).collect();
        if lacks.is_empty() { Ok(()) } else { Err(lacks) }
    })?;
    Ok(())
}

/// Takes the copies away again.
fn withdraw(tasks: &[Task<'_>]) {
    let done = in_parallel(tasks, Exit::Copy, |task| {
        let Host { entry, connection, found } = task.host;
        let script = steps::unstage(&task.plan, found.manifest.is_some());
        if task.plan.copies() { connection.script("clean up", &script, LOOK_LATEST).map(drop).map_err(of(entry)) } else { Ok(()) }
    });
    for line in done.err().into_iter().flat_map(|failure| failure.lines) {
        eprintln!("deploy: {line}; the next deployment will");
    }
}

/// Changes a host and waits for its agent.
fn apply(task: &Task<'_>) -> Result<(), Vec<String>> {
    let Task { host: Host { entry, connection, found }, wanted, plan, digest, .. } = task;
    if plan.steps.is_empty() {
        eprintln!("{}: nothing to change", entry.name);
        return Ok(());
    }
    let script = steps::apply(wanted, plan, digest, &entry.name);
    let advice = |Trouble(text)| vec![format!("{}: {text}; deploy again once that is mended", entry.name)];
    connection.script("install", &script, APPLY_LATEST).map_err(advice)?;
    let how = match found.init {
        Init::Systemd => "",
        Init::None => "; there is no systemd: a supervisor keeps it running, until the host restarts",
    };
    eprintln!("{}: {}{how}", entry.name, if plan.restart().is_some() { "the agent answers" } else { "done" });
    Ok(())
}

/// Changes one host after the other.
fn roll(options: &Options, tasks: &[Task<'_>]) -> Result<(), Failure> {
    for (done, task) in tasks.iter().enumerate() {
        let left = |mut failure: Failure| {
            withdraw(tasks.get(done..).unwrap_or_default());
            failure.lines.push(format!("{done} of {} hosts were upgraded; the others are as they were", tasks.len()));
            failure
        };
        if task.plan.restart().is_some() {
            wait_idle(options, &[task.host]).map_err(left)?;
        }
        apply(task).map_err(|lines| left(Failure { exit: Exit::Partial, lines }))?;
    }
    Ok(())
}

/// Waits until no job runs on these hosts; then says which still do.
fn wait_idle(options: &Options, hosts: &[&Host]) -> Result<(), Failure> {
    let wait = options.wait.map_or(if options.rolling { ROLLING_WAIT } else { Duration::ZERO }, Duration::from_secs);
    let latest = Instant::now() + wait;
    let mut has_said = false;
    loop {
        let mut lines = Vec::new();
        for host in hosts {
            let found = ask(&host.connection, &host.entry, "")
                .map_err(|trouble| Failure { exit: Exit::Connection, lines: of(&host.entry)(trouble) })?;
            lines.extend(found.jobs().into_iter().map(|job| format!("{}: {job} runs there", host.entry.name)));
            if found.agent.is_some() && found.status.is_none() {
                lines.push(format!("{}: the agent does not answer, so nobody knows which jobs run there", host.entry.name));
            }
        }
        if lines.is_empty() {
            return Ok(());
        }
        if Instant::now() >= latest {
            let why = "with a fixed list of hosts, an agent that ends also ends the jobs of its host";
            if options.end_jobs {
                lines.iter().for_each(|line| eprintln!("{line}, and is ended: {why}"));
                return Ok(());
            }
            lines.push(format!("{why}: wait for them (--wait SECONDS), or end them (--end-jobs)"));
            return Err(Failure { exit: Exit::Busy, lines });
        }
        if !has_said {
            lines.iter().for_each(|line| eprintln!("{line}: waiting up to {} s for its end", wait.as_secs()));
            has_said = true;
        }
        sleep(POLL);
    }
}

fn require_idle<'a>(options: &Options, hosts: impl Iterator<Item = &'a Host>) -> Result<(), Failure> {
    wait_idle(options, &hosts.collect::<Vec<_>>())
}

/// Waits until every agent sees all others.
fn see_peers(tasks: &[Task<'_>]) -> Result<(), Failure> {
    in_parallel(tasks, Exit::Partial, |task| {
        let Host { entry, connection, .. } = task.host;
        let latest = Instant::now() + PEERS_LATEST;
        loop {
            let found = ask(connection, entry, "").map_err(of(entry))?;
            let down = found.peers_down();
            if found.status.is_some() && down.is_empty() {
                return Ok(());
            }
            if Instant::now() >= latest {
                let down = if down.is_empty() {
                    "itself does not answer".to_owned()
                } else {
                    format!("does not see {}", down.join(", "))
                };
                return Err(vec![format!(
                    "{}: its agent {down}: see `dvm-agent status` there, and firewalls between them",
                    entry.name
                )]);
            }
            sleep(POLL);
        }
    })
    .map(drop)
}

/// Takes everything away.
fn remove(options: &Options, hosts: &[Host], key: &Path) -> Result<Exit, Failure> {
    require_idle(options, hosts.iter())?;
    let removed = in_parallel(hosts, Exit::Partial, |host| {
        let Host { entry, connection, found } = host;
        let Some(manifest) = &found.manifest else {
            println!("{}: nothing of ours is there", entry.name);
            return Ok(false);
        };
        let said =
            connection.script("remove", &steps::remove(manifest, found.init, &entry.name), APPLY_LATEST).map_err(of(entry))?;
        println!("{}: removed", entry.name);
        said.lines().for_each(|line| println!("{}: {line}", entry.name));
        Ok(true)
    })?;
    let count = removed.into_iter().filter(|is_removed| *is_removed).count();
    println!("removed from {count} of {} hosts", hosts.len());
    if key.exists() {
        println!("the cluster key stays in {}", key.display());
    }
    Ok(Exit::Success)
}
