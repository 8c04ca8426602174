//! Servers with threads, over two and three hosts: clients get the same answers as from a native one.
//!
//! Owns the servers, their clients, and the cases. Must not know how a job is watched.

use super::{Bed, Case, Need, further, put};
use crate::live::bed::shortened;
use anyhow::{Context, Result, bail, ensure};
use dvm_hosts::{User, output_within, wait_within};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::thread::sleep;
use std::time::{Duration, Instant};

const LISTENS_LATEST: Duration = Duration::from_secs(20);
/// For clients that natively take a second: fresh memory of a machine within a machine can cost twenty times as much.
const CLIENT_LATEST: Duration = Duration::from_secs(120);
const ENDS_LATEST: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);
/// Where the clients run, natively; the root of the job.
const ROOT: usize = 0;

/// A program that serves at a port of its host until SIGTERM.
struct Server {
    /// Name of the case.
    name: &'static str,
    program: &'static str,
    arguments: &'static [&'static str],
    port: u16,
    prepare: fn(&Path) -> Result<()>,
    clients: &'static [Client],
    needs: &'static [Need],
}

/// A program that asks, and ends.
struct Client {
    program: &'static str,
    arguments: &'static [&'static str],
    /// Whether it prints what it was answered, and not how long that took.
    is_compared: bool,
}

const PYTHON: Need = Need::Program("python3");

const fn asks(program: &'static str, arguments: &'static [&'static str]) -> Client {
    Client { program, arguments, is_compared: true }
}

const SERVERS: &[Server] = &[
    Server {
        name: "redis",
        program: "redis-server",
        arguments: &[
            "--port",
            "7901",
            "--bind",
            "127.0.0.1",
            "--io-threads",
            "4",
            "--io-threads-do-reads",
            "yes",
            "--save",
            "",
            "--enable-debug-command",
            "yes",
        ],
        port: 7901,
        prepare: |_| Ok(()),
        clients: &[
            Client {
                program: "redis-benchmark",
                arguments: &["-p", "7901", "-q", "-c", "16", "-n", "200", "-d", "64", "-t", "set,incr,lpush,rpop,sadd,hset,zadd"],
                is_compared: false,
            },
            asks("redis-cli", &["-p", "7901", "dbsize"]),
            asks("redis-cli", &["-p", "7901", "llen", "mylist"]),
            asks("redis-cli", &["-p", "7901", "debug", "digest"]),
        ],
        needs: &[Need::Program("redis-server"), Need::Program("redis-benchmark"), Need::Program("redis-cli")],
    },
    Server {
        name: "memcached",
        program: "memcached",
        arguments: &["-u", "root", "-t", "4", "-l", "127.0.0.1", "-p", "7902"],
        port: 7902,
        prepare: |directory| put(directory, "clients.py", include_str!("../../../programs/memcached-clients.py")),
        clients: &[asks("python3", &["clients.py", "7902"])],
        needs: &[Need::Program("memcached"), PYTHON],
    },
    // Without a master, which would fork: one process with a pool of threads that read files.
    Server {
        name: "nginx",
        program: "nginx",
        arguments: &["-p", ".", "-c", "nginx.conf", "-e", "stderr"],
        port: 7903,
        prepare: |directory| {
            put(directory, "nginx.conf", include_str!("../../../programs/nginx.conf"))?;
            put_files(directory)
        },
        clients: &[asks("python3", &["clients.py", "7903", "40"])],
        needs: &[Need::Program("nginx"), PYTHON],
    },
    Server {
        name: "http",
        program: "python3",
        arguments: &["-m", "http.server", "--bind", "127.0.0.1", "--directory", "files", "7904"],
        port: 7904,
        prepare: put_files,
        clients: &[asks("python3", &["clients.py", "7904", "3"])],
        needs: &[PYTHON],
    },
];

/// Each server on two and on three hosts, and one that cannot run.
pub fn cases() -> impl Iterator<Item = Case> {
    let workers = Case::new("refuse-workers-nginx", 2, refuse_workers).needs(&[Need::Program("nginx")]);
    let served = [2, 3].into_iter().flat_map(|hosts| SERVERS.iter().map(move |server| (hosts, server))).map(|(hosts, server)| {
        Case::new(further(server.name, hosts), hosts, move |bed| serve(bed, server)).needs(server.needs).within_seconds(200)
    });
    served.chain([workers])
}

/// A server whose master forks workers, and new ones for those that end.
fn refuse_workers(bed: &mut Bed<'_>) -> Result<String> {
    let job = bed.job("nginx", &["-p", ".", "-c", "nginx.conf", "-e", "stderr", "-g", "master_process on;"])?;
    fs::create_dir_all(&job.directory)?;
    put(&job.directory, "nginx.conf", &include_str!("../../../programs/nginx.conf").replace("master_process off;\n", ""))?;
    let finished = job.run(bed.hosts, bed.deadline)?;
    let said = shortened(&finished.stderr);
    ensure!(finished.code() == Some(126), "exit code {:?}; stderr: {said}", finished.code());
    let reasons = ["fork without exec is not supported: the child called epoll_wait", "forked children in a row"];
    ensure!(reasons.into_iter().all(|reason| said.contains(reason)), "it is not said why: {said}");
    Ok(format!("after {:.1} s", finished.elapsed.as_secs_f64()))
}

fn serve(bed: &mut Bed<'_>, server: &Server) -> Result<String> {
    let native = natively(bed, server).context("the native server")?;
    let job = bed.job(server.program, server.arguments)?.options(["--place", "rr"]);
    fs::create_dir_all(&job.directory)?;
    (server.prepare)(&job.directory)?;
    let mut running = job.start(bed.hosts)?;
    let answers = ask(bed, server, &job.directory);
    running.look();
    if answers.is_ok() {
        running.terminate();
    }
    let latest = if answers.is_ok() { bed.deadline.min(Instant::now() + ENDS_LATEST) } else { Instant::now() };
    let finished = running.wait(latest, &AtomicBool::new(false))?;
    let said = || format!("stderr: {}\n{}", shortened(&finished.stderr), finished.autopsy);
    let answers = answers.with_context(said)?;
    ensure!(finished.code().is_some(), "does not end within {} s of SIGTERM; {}", ENDS_LATEST.as_secs(), said());
    ensure!(finished.code() == native.code, "ends with {:?}, natively with {:?}; {}", finished.code(), native.code, said());
    for (index, (expected, found)) in native.answers.iter().zip(&answers).enumerate() {
        let client = &server.clients[index];
        ensure!(
            !client.is_compared || expected == found,
            "{} {:?} was answered:\n{}\nnatively:\n{}\n{}",
            client.program,
            client.arguments,
            shortened(found),
            shortened(expected),
            said()
        );
    }
    bed.all_hosts_worked(&finished)
}

/// What came of a native server.
struct Native {
    /// Exit code as a shell shows it.
    code: Option<i32>,
    /// What each client printed.
    answers: Vec<String>,
}

fn natively(bed: &mut Bed<'_>, server: &Server) -> Result<Native> {
    let directory = bed.workshop.native_directory(server.name)?;
    (server.prepare)(&directory)?;
    let errors = directory.join("stderr");
    let mut command = bed.hosts.command(ROOT, User::Root, &bed.workshop.program(server.program)?)?;
    command.args(server.arguments).current_dir(&directory).env("LC_ALL", "C").stdin(Stdio::null()).stdout(Stdio::null());
    let mut child = command.stderr(fs::File::create(&errors)?).spawn()?;
    let answers = ask(bed, server, &directory);
    kill(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGTERM).context("it ended before it was told to")?;
    let status = wait_within(&mut child, ENDS_LATEST)?;
    let said = || format!("stderr: {}", shortened(&String::from_utf8_lossy(&fs::read(&errors).unwrap_or_default())));
    Ok(Native {
        code: status.code().or_else(|| status.signal().map(|signal| 128 + signal)),
        answers: answers.with_context(said)?,
    })
}

/// Runs the clients one after another; gives what each printed.
fn ask(bed: &Bed<'_>, server: &Server, directory: &Path) -> Result<Vec<String>> {
    let latest = Instant::now() + LISTENS_LATEST;
    while !bed.hosts.is_listening(ROOT, server.port)? {
        ensure!(Instant::now() < latest, "nobody listens at port {} after {} s", server.port, LISTENS_LATEST.as_secs());
        sleep(POLL);
    }
    let mut answers = Vec::new();
    for client in server.clients {
        let mut command = bed.hosts.command(ROOT, User::Root, &bed.workshop.program(client.program)?)?;
        command.args(client.arguments).current_dir(directory).env("LC_ALL", "C");
        answers.push(output_of(&mut command).with_context(|| format!("{} {:?}", client.program, client.arguments))?);
    }
    Ok(answers)
}

fn output_of(command: &mut Command) -> Result<String> {
    let output = output_within(command, CLIENT_LATEST)?;
    if !output.status.success() {
        bail!("{}: {}", output.status, shortened(&String::from_utf8_lossy(&output.stderr)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The client of servers of files, and files of several sizes.
fn put_files(directory: &Path) -> Result<()> {
    put(directory, "clients.py", include_str!("../../../programs/http-clients.py"))?;
    let files = directory.join("files");
    fs::create_dir_all(&files)?;
    for number in 0..6_usize {
        let lines: String = (0..number * 8_000 + 100).map(|line| format!("{number} {line}\n")).collect();
        put(&files, &format!("file-{number}"), &lines)?;
    }
    Ok(())
}
