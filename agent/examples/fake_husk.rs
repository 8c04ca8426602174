//! A husk without a program: what the tests of the agent start where `dvm-exec` would run.
//!
//! Owns the husk's half of the control socket and a loop of orders. Must not know how the agent does its part.
//!
//! `fake_husk --husk` is a member: it serves orders over the connections it is given.
//! `fake_husk SOCKET [HOST...]` is a root: it opens a job and takes orders from stdin, one answer per line:
//! `load N` / `store N V` (word N of the space), `at NODE ORDER...` (there), `who`, `discard N`, `statistics`, `end S`.

use anyhow::{Context, Result, bail};
use dsm_wire::{PageNumber, PageRange};
use dvm_api::local::{API_VERSION, JobOpened, JobRequest, PageSpan, Purpose, ToAgent, ToHusk};
use dvm_api::socket::{inherited, receive, send};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, OnceLock};
use std::thread::spawn;
use uffd_dsm::{Access, View};

/// Where the words of `load` and `store` are: one page each.
const FIRST: u64 = 0x1000_0000;
const PAGES: u64 = 64;

/// Kinds of the descriptors this process was started with.
static KINDS: OnceLock<String> = OnceLock::new();
/// The job was told to end.
static IS_ENDING: AtomicBool = AtomicBool::new(false);

fn main() -> Result<()> {
    KINDS.get_or_init(inherited_kinds);
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [flag] if flag == "--husk" => member(inherited().context("no control socket")?),
        [socket, hosts @ ..] => root(Path::new(socket), hosts),
        [] => bail!("usage: fake_husk --husk | SOCKET [HOST...]"),
    }
}

/// Opens or joins a job with its first packet and hands the view over.
fn attach(control: &OwnedFd, first: &ToAgent) -> Result<(JobOpened, View)> {
    send(control.as_fd(), first, &[])?;
    let (job, descriptors) = match receive::<ToHusk>(control.as_fd())? {
        (ToHusk::JobOpened(job), descriptors) => (job, descriptors),
        (ToHusk::Refused { code, reason }, _) => {
            println!("refused {code} {reason}");
            std::process::exit(i32::from(code));
        }
        (other, _) => bail!("unexpected {other:?}"),
    };
    let [memfd, device] = descriptors.as_slice() else { bail!("{} descriptors", descriptors.len()) };
    let view = View::map(memfd.as_fd(), Some(device.as_fd()))?;
    view.protect(PageRange::new(PageNumber::containing(FIRST), PAGES), Access::READ_WRITE)?;
    send(control.as_fd(), &ToAgent::ViewReady, &[view.userfaultfd()])?;
    match receive::<ToHusk>(control.as_fd())?.0 {
        ToHusk::ViewAccepted => Ok((job, view)),
        other => bail!("unexpected {other:?}"),
    }
}

fn member(control: OwnedFd) -> Result<()> {
    let (_, view) = attach(&control, &ToAgent::JoinJob { version: API_VERSION })?;
    let view = Arc::new(view);
    loop {
        match receive::<ToHusk>(control.as_fd())? {
            (ToHusk::Connection { .. }, descriptors) => {
                for socket in descriptors {
                    let view = Arc::clone(&view);
                    spawn(move || serve(&TcpStream::from(socket), &view));
                }
            }
            (ToHusk::JobEnded, _) => return Ok(()),
            (other, _) => bail!("unexpected {other:?}"),
        }
    }
}

fn serve(socket: &TcpStream, view: &View) -> Result<()> {
    for line in BufReader::new(socket).lines() {
        let answer = obey(view, &line?).unwrap_or_else(|| "what?".to_owned());
        let mut socket = socket;
        writeln!(socket, "{answer}")?;
    }
    Ok(())
}

/// Orders that need nothing but this process.
fn obey(view: &View, order: &str) -> Option<String> {
    let words: Vec<&str> = order.split_whitespace().collect();
    let address = |word: &str| word.parse::<u64>().ok().filter(|page| *page < PAGES).map(|page| FIRST + page * 4096);
    match words.as_slice() {
        ["load", word] => Some(view.load(address(word)?).to_string()),
        ["store", word, value] => {
            view.store(address(word)?, value.parse().ok()?);
            Some("stored".to_owned())
        }
        ["who"] => Some(who()),
        _ => None,
    }
}

fn inherited_kinds() -> String {
    let links = std::fs::read_dir("/proc/self/fd").into_iter().flatten().filter_map(Result::ok);
    let link = |entry: std::fs::DirEntry| {
        let number: u32 = entry.file_name().to_str()?.parse().ok()?;
        Some((number, std::fs::read_link(entry.path()).ok()?.display().to_string()))
    };
    // The directory being read is open, too.
    let mut open: Vec<(u32, String)> = links.filter_map(link).filter(|(_, link)| !link.ends_with("/fd")).collect();
    open.sort_unstable();
    open.iter().map(|(_, link)| link.split(':').next().unwrap_or_default()).collect::<Vec<_>>().join(",")
}

/// Process, user, groups, environment and session of this husk.
fn who() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.split_whitespace().collect::<Vec<_>>().join(",")
    };
    let environment: Vec<String> = std::env::vars().map(|(name, _)| name).collect();
    let kinds = KINDS.get_or_init(inherited_kinds);
    let pid = std::process::id();
    format!(
        "pid={pid} uid={} gid={} groups={} env={} fds={}",
        field("Uid:"),
        field("Gid:"),
        field("Groups:"),
        environment.join(","),
        kinds
    )
}

struct Root {
    control: OwnedFd,
    view: View,
    answers: Receiver<(ToHusk, Vec<OwnedFd>)>,
    connections: BTreeMap<u16, BufReader<TcpStream>>,
}

fn root(path: &Path, hosts: &[String]) -> Result<()> {
    let control = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
    connect(control.as_raw_fd(), &UnixAddr::new(path)?)?;
    let job = JobRequest {
        hosts: hosts.to_vec(),
        program: "fake".to_owned(),
        has_stages: false,
        has_sketch: false,
        outlives_members: false,
        outlives_root: false,
    };
    let (job, view) = attach(&control, &ToAgent::OpenJob { version: API_VERSION, job })?;
    let hosts: Vec<String> = job.members.iter().map(|member| format!("{}={}", member.node, member.name)).collect();
    println!("opened {} {}", job.space, hosts.join(" "));
    let (sender, answers) = channel();
    let reading = control.try_clone()?;
    spawn(move || {
        loop {
            match receive::<ToHusk>(reading.as_fd()) {
                Ok((ToHusk::HostLost { host, reason }, _)) => {
                    println!("lost {host} {reason}");
                    std::process::exit(87);
                }
                Ok(answer) => drop(sender.send(answer)),
                // The agent closes a job's connection when it ends.
                Err(_) if IS_ENDING.load(Ordering::Relaxed) => return,
                Err(error) => {
                    println!("agent {error}");
                    std::process::exit(88);
                }
            }
        }
    });
    let mut root = Root { control, view, answers, connections: BTreeMap::new() };
    for line in std::io::stdin().lines() {
        let line = line?;
        let answer = root.obey(&line).unwrap_or_else(|error| format!("failed {error:#}"));
        println!("{answer}");
        if let Some(status) = line.strip_prefix("end ") {
            std::process::exit(status.trim().parse()?);
        }
    }
    Ok(())
}

impl Root {
    fn obey(&mut self, order: &str) -> Result<String> {
        if let Some(answer) = obey(&self.view, order) {
            return Ok(answer);
        }
        let words: Vec<&str> = order.split_whitespace().collect();
        match words.as_slice() {
            ["at", node, rest @ ..] => self.at(node.parse()?, &rest.join(" ")),
            ["discard", page] => {
                let range = PageSpan { first: (FIRST >> 12) + page.parse::<u64>()?, count: 1 };
                self.ask(&ToAgent::Discard { tag: 7, range, keeps_source: false }).map(|answer| format!("{answer:?}"))
            }
            ["discard-outside"] => {
                let range = PageSpan { first: u64::MAX, count: 2 };
                self.ask(&ToAgent::Discard { tag: 8, range, keeps_source: false }).map(|answer| format!("{answer:?}"))
            }
            ["statistics"] => match self.ask(&ToAgent::Statistics { tag: 9 })? {
                ToHusk::JobStatistics { hosts, .. } => {
                    let host = |host: &dvm_api::local::HostStatistics| format!("{}:{}", host.host, host.counters.len());
                    Ok(hosts.iter().map(host).collect::<Vec<_>>().join(" "))
                }
                other => bail!("unexpected {other:?}"),
            },
            ["end", status] => {
                IS_ENDING.store(true, Ordering::Relaxed);
                send(self.control.as_fd(), &ToAgent::EndJob { status: status.parse()? }, &[])?;
                Ok("ended".to_owned())
            }
            _ => bail!("what?"),
        }
    }

    fn ask(&self, request: &ToAgent) -> Result<ToHusk> {
        send(self.control.as_fd(), request, &[])?;
        Ok(self.answers.recv()?.0)
    }

    fn at(&mut self, node: u16, order: &str) -> Result<String> {
        if !self.connections.contains_key(&node) {
            send(self.control.as_fd(), &ToAgent::Connect { tag: 1, node, purpose: Purpose::Thread }, &[])?;
            match self.answers.recv()? {
                (ToHusk::Connection { .. }, descriptors) => {
                    let socket = descriptors.into_iter().next().context("no descriptor")?;
                    self.connections.insert(node, BufReader::new(TcpStream::from(socket)));
                }
                (ToHusk::Failed { reason, .. }, _) => bail!("{reason}"),
                (other, _) => bail!("unexpected {other:?}"),
            }
        }
        let connection = self.connections.get_mut(&node).context("no connection")?;
        writeln!(connection.get_ref(), "{order}")?;
        let mut answer = String::new();
        connection.read_line(&mut answer)?;
        Ok(answer.trim().to_owned())
    }
}
