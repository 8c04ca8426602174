//! `cargo xtask deploy` against real sshd: the life of an installation, and what may go wrong.
//!
//! Owns what must be seen on the hosts and what the operator must be told. Must not know how it is done.

mod sshd;

use super::bed::{Bed, shortened};
use super::case::{Case, Need};
use anyhow::{Context, Result, ensure};
use dvm_hosts::{Statistics, output_within};
use sshd::Operator;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

const HOSTS: usize = 3;
const DEPLOY_LATEST: Duration = Duration::from_secs(100);
const JOB_LATEST: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(5);
/// Exit codes of the guide.
const CONNECTION: i32 = 41;
const UNFIT: i32 = 42;
const COPY: i32 = 43;
const PENDING: i32 = 45;
const BUSY: i32 = 46;
const NEEDS: [Need; 3] = [Need::Program("sshd"), Need::Program("ssh"), Need::Program("setpriv")];

/// Three cases on three hosts.
#[must_use]
pub fn cases() -> Vec<Case> {
    let case =
        |name, run: fn(&mut Bed<'_>) -> Result<String>| Case::new(name, HOSTS, run).needs(&NEEDS).within_seconds(280).harmful();
    vec![case("deploy", life).needs(&[Need::Program("pigz")]), case("deploy-failures", failures), case("deploy-killed", killed)]
}

/// What a deployment said.
struct Said {
    code: Option<i32>,
    text: String,
}

impl Said {
    fn demand(&self, code: i32, words: &[&str]) -> Result<()> {
        ensure!(self.code == Some(code), "exit code {:?}, {code} expected: {}", self.code, shortened(&self.text));
        for word in words {
            ensure!(self.text.contains(word), "`{word}` is not said: {}", shortened(&self.text));
        }
        Ok(())
    }
}

fn deploy(operator: &Operator<'_>, hosts: &Path, binaries: &Path, words: &[&str]) -> Result<Said> {
    let output = output_within(&mut operator.deploy_command(hosts, binaries, words)?, DEPLOY_LATEST).context("deploy")?;
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    Ok(Said { code: output.status.code(), text })
}

fn binaries(bed: &Bed<'_>) -> Result<PathBuf> {
    Ok(bed.hosts.binaries().agent.parent().context("programs without a directory")?.to_path_buf())
}

/// Another release: the same programs, an agent with other bytes.
fn other_release(operator: &Operator<'_>, from: &Path) -> Result<PathBuf> {
    let to = operator.path("release");
    fs::create_dir_all(&to)?;
    for name in ["dvm-agent", "dvm-exec", "libdvm_alloc.so"] {
        fs::copy(from.join(name), to.join(name))?;
    }
    let mut agent = fs::read(to.join("dvm-agent"))?;
    agent.extend_from_slice(b"another release");
    fs::write(to.join("dvm-agent"), agent)?;
    Ok(to)
}

/// Installed, used, installed again, upgraded beside jobs, removed.
fn life(bed: &mut Bed<'_>) -> Result<String> {
    let (binaries, sample) = (binaries(bed)?, bed.workshop.sample(8)?);
    let operator = Operator::new(bed)?;
    let hosts = operator.hosts_file("hosts.toml", "known", &[(1, "interface = \"eth0\""), (2, "memory = \"1G\"")])?;
    let before = operator.files()?;
    deploy(&operator, &hosts, &binaries, &["--check"])?
        .demand(PENDING, &["h1: write /etc/dvm/key (not there)", "nothing was changed"])?;
    same_but_for_times(&before, &operator.files()?)?;
    let started = Instant::now();
    deploy(&operator, &hosts, &binaries, &[])?
        .demand(0, &["3 hosts run version", "h2: the agent answers; there is no systemd"])?;
    let took = started.elapsed();
    one_key(&operator)?;
    let page = operator.demand(1, "cat /usr/local/share/man/man1/dvm-agent-drain.1")?;
    ensure!(page.contains("take no new jobs"), "no manual page: {}", shortened(&page));
    operator.demand(2, "grep -q page-allocator /usr/local/share/bash-completion/completions/dvm-exec")?;
    job(&operator, &sample)?;
    let (installed, agents) = (operator.files()?, agents(&operator)?);
    deploy(&operator, &hosts, &binaries, &[])?.demand(0, &["nothing to change"])?;
    same(&installed, &operator.files()?, "the second deployment")?;
    ensure!(agents == self::agents(&operator)?, "the second deployment started agents again");
    upgrade(&operator, &hosts, &other_release(&operator, &binaries)?)?;
    let upgraded = self::agents(&operator)?;
    ensure!(upgraded.iter().zip(&agents).all(|(new, old)| new != old), "the same agents run: {upgraded:?}");
    job(&operator, &sample)?;
    deploy(&operator, &hosts, &binaries, &["--remove"])?.demand(0, &["removed from 3 of 3 hosts"])?;
    same_but_for_times(&before, &operator.files()?)?;
    deploy(&operator, &hosts, &binaries, &["--remove"])?.demand(0, &["h0: nothing of ours is there", "removed from 0 of 3"])?;
    Ok(format!("installed in {:.1} s, upgraded beside a job, removed", took.as_secs_f64()))
}

/// A job that does not end in time keeps its hosts as they are; one that ends is waited for. It ends when its input does.
fn upgrade(operator: &Operator<'_>, hosts: &Path, release: &Path) -> Result<()> {
    let mut command = operator.ssh_command(1, "/usr/local/bin/dvm-exec --place rr -- cat")?;
    let mut running = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut input = running.stdin.take().context("no pipe")?;
    input.write_all(b"running\n")?;
    let mut said = BufReader::new(running.stdout.take().context("no pipe")?).lines();
    ensure!(said.next().transpose()?.as_deref() == Some("running"), "the job did not start");
    deploy(operator, hosts, release, &[])?.demand(BUSY, &["h0: ", "h2: ", "cat (space ", "runs there", "(--end-jobs)"])?;
    let late = deploy(operator, hosts, release, &["--rolling", "--wait", "1"])?;
    late.demand(BUSY, &["h0: ", "cat (space ", "runs there", "0 of 3 hosts were upgraded"])?;
    let mut command = operator.deploy_command(hosts, release, &["--rolling", "--wait", "80"])?;
    let mut rolling = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(rolling.stderr.take().context("no pipe")?).lines().map_while(Result::ok);
    ensure!(lines.any(|line| line.contains("waiting up to 80 s for its end")), "the job was not waited for");
    drop(input);
    ensure!(running.wait()?.success(), "the job failed");
    let told: Vec<String> = lines.collect();
    ensure!(rolling.wait()?.success(), "the hosts were not upgraded: {}", told.join("; "));
    Ok(())
}

/// Each cause: its exit code, its host and what to do are said, and no host is changed.
fn failures(bed: &mut Bed<'_>) -> Result<String> {
    let binaries = binaries(bed)?;
    let operator = Operator::new(bed)?;
    let good = operator.hosts_file("hosts.toml", "known", &[])?;
    let before = operator.files()?;
    let refused = |what: &str, hosts: &Path, code, words: &[&str]| {
        deploy(&operator, hosts, &binaries, &[]).and_then(|said| said.demand(code, words)).with_context(|| what.to_owned())?;
        same_but_for_times(&before, &operator.files()?).with_context(|| what.to_owned())
    };
    let known = fs::read_to_string(operator.path("known"))?;
    let (own, stranger) = (fs::read_to_string(operator.path("h1.pub"))?, fs::read_to_string(operator.path("stranger.pub"))?);
    fs::write(operator.path("changed"), known.replace(own.trim(), stranger.trim()))?;
    fs::write(operator.path("unknown"), "")?;
    let hosts = operator.hosts_file("changed.toml", "changed", &[])?;
    refused("another host key", &hosts, CONNECTION, &["h1: its host key is not the one that is known"])?;
    let hosts = operator.hosts_file("unknown.toml", "unknown", &[])?;
    refused("no host key", &hosts, CONNECTION, &["h0: its host key is not known", "h2: its host key is not known"])?;
    let hosts = operator.hosts_file("port.toml", "known", &[(1, "port = 2222"), (2, "port = 2222")])?;
    refused("nothing listens", &hosts, CONNECTION, &["h1: it cannot be reached", "h2: it cannot be reached"])?;
    operator.demand(1, "mount -o remount,size=8m /usr/local")?;
    refused("full disk", &good, COPY, &["h1: prepare: /usr/local/lib/dvm has room for"])?;
    operator.demand(1, "mount -o remount,size=400m,nr_inodes=9 /usr/local")?;
    refused("full while copying", &good, COPY, &["h1: copy: "])?;
    operator.demand(1, "mount -o remount,nr_inodes=1000 /usr/local")?;
    operator.demand(0, "mount --bind /dev/null /dev/userfaultfd")?;
    operator.demand(2, "mount --bind /dev/null /dev/userfaultfd")?;
    refused("doctor", &good, UNFIT, &["h0: doctor: userfaultfd: ", "h2: doctor: userfaultfd: "])?;
    operator.demand(0, "umount /dev/userfaultfd")?;
    operator.demand(2, "umount /dev/userfaultfd; echo mine > /usr/local/bin/dvm-exec")?;
    let said = deploy(&operator, &good, &binaries, &[])?;
    said.demand(UNFIT, &["h2: /usr/local/bin/dvm-exec is there and no deployment made it"])?;
    ensure!(operator.demand(2, "cat /usr/local/bin/dvm-exec")? == "mine\n", "a file of others was changed");
    Ok("seven causes, each named with its host, nothing changed".to_owned())
}

/// Killed while it copies: the next deployment finds that and ends it, and so does a removal.
fn killed(bed: &mut Bed<'_>) -> Result<String> {
    let binaries = binaries(bed)?;
    let operator = Operator::new(bed)?;
    let hosts = operator.hosts_file("hosts.toml", "known", &[])?;
    let before = operator.files()?;
    kill_while_copying(&operator, &hosts, &binaries)?;
    deploy(&operator, &hosts, &binaries, &["--remove"])?.demand(0, &["h1: removed"])?;
    same_but_for_times(&before, &operator.files()?)?;
    kill_while_copying(&operator, &hosts, &binaries)?;
    let again = deploy(&operator, &hosts, &binaries, &[])?;
    again.demand(0, &["h1: clean up after a deployment that did not end", "3 hosts run version"])?;
    deploy(&operator, &hosts, &binaries, &[])?.demand(0, &["nothing to change"])?;
    // As a host that restarts while things are switched leaves it.
    operator.demand(
        2,
        "rm /usr/local/lib/dvm/complete /usr/local/bin/dvm-exec; touch /etc/dvm/key.new; mkdir /usr/local/lib/dvm/.old",
    )?;
    let again = deploy(&operator, &hosts, &binaries, &[])?;
    again.demand(
        0,
        &["h2: clean up after a deployment that did not end", "h2: link /usr/local/bin/dvm-exec", "h0: nothing to change"],
    )?;
    deploy(&operator, &hosts, &binaries, &["--remove"])?.demand(0, &["removed from 3 of 3 hosts"])?;
    same_but_for_times(&before, &operator.files()?)?;
    Ok("found, ended and removed".to_owned())
}

fn kill_while_copying(operator: &Operator<'_>, hosts: &Path, binaries: &Path) -> Result<()> {
    let mut command = operator.deploy_command(hosts, binaries, &[])?;
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let seen = operator
        .ssh(1, "for i in $(seq 2000); do [ ! -e /usr/local/lib/dvm/.staging/dvm-agent ] || exit 0; sleep 0.005; done; exit 1");
    child.kill()?;
    child.wait()?;
    ensure!(seen?.status.success(), "no copy was seen on its way");
    ensure!(!operator.ssh(1, "test -e /usr/local/lib/dvm/complete")?.status.success(), "it was killed too late");
    let latest = Instant::now() + JOB_LATEST;
    while operator.demand(1, "pgrep -c sftp-server || true")?.trim() != "0" && Instant::now() < latest {
        sleep(POLL);
    }
    Ok(())
}

/// Every host has the same key, which only root may read; so is the one kept beside the hosts file.
fn one_key(operator: &Operator<'_>) -> Result<()> {
    let kept = fs::read_to_string(operator.path("hosts.key"))?;
    for host in 0..HOSTS {
        let seen = operator.demand(host, "stat -c %a:%u /etc/dvm/key; cat /etc/dvm/key")?;
        ensure!(seen == format!("600:0\n{kept}"), "host {host} has another key, or one that is open");
    }
    Ok(())
}

/// A program of an ordinary user, over all hosts, with the output of its native run.
fn job(operator: &Operator<'_>, sample: &Path) -> Result<()> {
    let figures = operator.path("open").join("stat.json");
    fs::create_dir_all(operator.path("open"))?;
    let user = "setpriv --reuid=4711 --regid=4711 --clear-groups";
    let line = format!(
        "chown 4711 {open} && cd {open} && {user} /usr/local/bin/dvm-exec --place rr --stat-json {} -- pigz -p 6 -n -c {sample} > all && \
         pigz -p 6 -n -c {sample} | cmp - all",
        figures.display(),
        open = operator.path("open").display(),
        sample = sample.display(),
    );
    let output = output_within(&mut operator.ssh_command(0, &line)?, JOB_LATEST)?;
    ensure!(output.status.success(), "the job fails: {}", shortened(&String::from_utf8_lossy(&output.stderr)));
    let figures = Statistics::read(&figures)?;
    let worked = figures.hosts.iter().filter(|host| host.threads > 0 && !host.cpu().is_zero()).count();
    ensure!(worked == HOSTS, "the job ran on {worked} of {HOSTS} hosts: {:?}", figures.hosts);
    Ok(())
}

/// Number and executable of each host's agent.
fn agents(operator: &Operator<'_>) -> Result<Vec<String>> {
    (0..HOSTS)
        .map(|host| operator.demand(host, "pid=$(cat /run/dvm/agent.pid) && echo $pid $(readlink /proc/$pid/exe)"))
        .collect()
}

fn same(before: &[String], after: &[String], what: &str) -> Result<()> {
    for (host, (before, after)) in before.iter().zip(after).enumerate() {
        let changed: Vec<&str> = after.lines().filter(|line| !before.lines().any(|other| other == *line)).collect();
        ensure!(before == after, "{what} changed host {host}: {changed:?}");
    }
    Ok(())
}

/// Directories in which something was made and removed have another time.
fn same_but_for_times(before: &[String], after: &[String]) -> Result<()> {
    let timeless = |lists: &[String]| -> Vec<String> {
        let line = |line: &str| {
            if line.contains(" d ") { line.rsplit_once(' ').map_or(line, |(rest, _)| rest).to_owned() } else { line.to_owned() }
        };
        lists.iter().map(|list| list.lines().map(line).collect::<Vec<_>>().join("\n")).collect()
    };
    same(&timeless(before), &timeless(after), "a deployment that was taken back")
}
