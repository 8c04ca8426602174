//! Programs that start programs, and programs that become other ones.
//!
//! Owns the ways and what must come of them: the same as natively, or a refusal by name. Must not know how a child is made.

use super::bed::{Bed, same_bytes, shortened};
use super::case::{Case, Need};
use anyhow::{Result, ensure};
use dvm_hosts::{Finished, Job, wait_within};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const GCC: Need = Need::Program("gcc");
const PYTHON: &str = include_str!("../../programs/children.py");
/// Programs that live by forked children: interpreter and script.
const SCRIPTS: [(&str, &str, &str); 3] = [
    ("bash", "bash", include_str!("../../programs/forks.sh")),
    ("python", "python3", include_str!("../../programs/forks.py")),
    ("perl", "perl", include_str!("../../programs/forks.pl")),
];
/// A forked child is refused after 10 s at the latest; a hang would be a minute.
const REFUSED_LATEST: Duration = Duration::from_secs(25);
const UNPACKED_LATEST: Duration = Duration::from_secs(30);

/// A program that gets the words after `--`, with which it becomes another.
struct Becoming {
    name: &'static str,
    program: &'static str,
    arguments: &'static [&'static str],
    /// Mebibytes of the sample it reads from standard input; 0: none.
    input_mebibytes: usize,
    needs: &'static [Need],
}

const PIGZ: &[Need] = &[Need::Program("pigz")];
const BECOMING: [Becoming; 6] = [
    Becoming {
        name: "env",
        program: "env",
        arguments: &["COLOUR=blue", "sh", "-c", "echo $COLOUR; exec env -u COLOUR sh -c 'echo $COLOUR; ulimit -n; ulimit -s'"],
        input_mebibytes: 0,
        needs: &[],
    },
    Becoming { name: "nice", program: "nice", arguments: &["-n", "5", "nice"], input_mebibytes: 0, needs: &[] },
    Becoming { name: "sh-pigz", program: "sh", arguments: &["-c", "exec pigz -p 6 -n -c"], input_mebibytes: 16, needs: PIGZ },
    Becoming {
        name: "shell-pipe",
        program: "bash",
        arguments: &["-c", "x=$(echo sub); echo $x; pigz -p 3 -n -c < /bin/bash | pigz -d | cmp - /bin/bash && echo same"],
        input_mebibytes: 0,
        needs: &[Need::Program("pigz"), Need::Program("bash")],
    },
    Becoming {
        name: "errors",
        program: "sh",
        arguments: &["-c", "/nonexistent; echo $?; /etc/passwd; echo $?; /; echo $?; exec cat /dev/null"],
        input_mebibytes: 0,
        needs: &[],
    },
    Becoming {
        name: "su-root",
        program: "sh",
        arguments: &["-c", "exec su -s /bin/sh -c 'id -u' root"],
        input_mebibytes: 0,
        needs: &[Need::Program("su")],
    },
];

/// Each way on two hosts, the threads' ones on three as well.
#[must_use]
pub fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = BECOMING
        .iter()
        .map(|becoming| {
            Case::new(format!("become-{}", becoming.name), 2, move |bed| become_another(bed, becoming)).needs(becoming.needs)
        })
        .collect();
    for hosts in [2, 3] {
        cases.push(Case::new(format!("children-of-threads-{hosts}"), hosts, of_threads).needs(&[GCC]).within_seconds(90));
    }
    for (hosts, place) in [(2, "rr"), (3, "rr"), (2, "local")] {
        let run = move |bed: &mut Bed<'_>| of_one_moment(bed, place);
        cases.push(Case::new(format!("children-of-one-moment-{place}-{hosts}"), hosts, run).needs(&[GCC]).within_seconds(90));
    }
    cases.push(Case::new("children-of-python", 2, of_python).needs(&[Need::Program("python3")]).within_seconds(90));
    cases.push(Case::new("children-script-7z", 2, seven_zip).needs(&[Need::Program("7z")]).within_seconds(90));
    for (how, word) in
        [("waits", "wait4"), ("forks", "clone"), ("sleeps", "clock_nanosleep"), ("computes", "10 s"), ("calls", "20000 calls")]
    {
        let run = move |bed: &mut Bed<'_>| goes_on(bed, how, word);
        cases.push(Case::new(format!("children-refused-{how}"), 2, run).needs(&[GCC]));
    }
    cases.push(Case::new("children-fork-bomb", 2, fork_bomb).needs(&[GCC]));
    for (name, program, script) in SCRIPTS {
        let run = move |bed: &mut Bed<'_>| of_script(bed, name, program, script);
        cases.push(Case::new(format!("forks-of-{name}"), 2, run).needs(&[Need::Program(program)]));
    }
    cases
}

/// Runs a job natively and over the hosts, and demands equal output.
fn as_natively(bed: &mut Bed<'_>, name: &str, job: &Job) -> Result<Finished> {
    let expected = bed.workshop.native(name, job)?;
    let finished = bed.succeed(job)?;
    same_bytes(&expected, &finished.stdout).map_err(|error| {
        let found = fs::read_to_string(&finished.stdout).unwrap_or_default();
        error.context(format!("stdout: {}; stderr: {}", shortened(&found), shortened(&finished.stderr)))
    })?;
    Ok(finished)
}

fn become_another(bed: &mut Bed<'_>, becoming: &Becoming) -> Result<String> {
    let mut job = bed.job(becoming.program, becoming.arguments)?.options(["--place", "rr"]);
    if becoming.input_mebibytes > 0 {
        job.stdin = Some(bed.workshop.sample(becoming.input_mebibytes)?);
    }
    let finished = as_natively(bed, &format!("become-{}", becoming.name), &job)?;
    if becoming.input_mebibytes > 0 {
        return bed.all_hosts_worked(&finished);
    }
    Ok(format!("{:.1} s", finished.elapsed.as_secs_f64()))
}

fn of_threads(bed: &mut Bed<'_>) -> Result<String> {
    let job = bed.job("children", &["starts", "6"])?.options(["--place", "rr"]);
    let finished = as_natively(bed, "children", &job)?;
    for host in finished.statistics.iter().flat_map(|statistics| &statistics.hosts) {
        ensure!(host.threads > 0, "{} ran no thread", host.host);
    }
    Ok(format!("{:.1} s", finished.elapsed.as_secs_f64()))
}

/// Children of a program whose threads go on writing, on the hosts or all at home: none sees a change without the one before it.
fn of_one_moment(bed: &mut Bed<'_>, place: &str) -> Result<String> {
    let job = bed.job("moments", &["3", "30", "12"])?.options(["--place", place]);
    let finished = as_natively(bed, "moments", &job)?;
    Ok(format!("{:.1} s", finished.elapsed.as_secs_f64()))
}

/// A script whose interpreter is found by another program.
fn of_python(bed: &mut Bed<'_>) -> Result<String> {
    // The first in PATH may be a script of the user's that chooses among several.
    let python = bed.workshop.program("python3")?;
    let script = bed.workshop.executable("children.py", format!("#!/usr/bin/env {}\n{PYTHON}", python.display()).as_bytes())?;
    let mut job = bed.job("true", &["one", "two words"])?.options(["--place", "rr"]);
    job.program = script;
    let finished = as_natively(bed, "children.py", &job)?;
    Ok(format!("{:.1} s", finished.elapsed.as_secs_f64()))
}

/// A script whose forked children go on by themselves.
fn of_script(bed: &mut Bed<'_>, name: &str, program: &str, script: &str) -> Result<String> {
    let program = bed.workshop.program(program)?;
    let path = bed.workshop.executable(&format!("forks.{name}"), script.as_bytes())?;
    let mut job = bed.job("true", &[&path.display().to_string()])?.options(["--place", "rr"]);
    job.program = program;
    let finished = as_natively(bed, &format!("forks.{name}"), &job)?;
    ensure!(finished.stderr.is_empty(), "stderr: {}", shortened(&finished.stderr));
    Ok(format!("{:.1} s", finished.elapsed.as_secs_f64()))
}

/// In Debian, 7z is a shell script that becomes the program.
fn seven_zip(bed: &mut Bed<'_>) -> Result<String> {
    let sample = bed.workshop.sample(8)?;
    let archive = bed.workshop.job_directory().join("sample.7z");
    // Small blocks: each is compressed by a thread of its own.
    let words = ["a", "-mmt4", "-m0=lzma2:d=1m:c=1m", "-bd", &archive.display().to_string(), &sample.display().to_string()];
    let job = bed.job("7z", &words)?.options(["--place", "rr"]);
    let finished = bed.succeed(&job)?;
    let unpacked = archive.with_extension("unpacked");
    let mut command = Command::new("7z");
    command.args(["e", "-so"]).arg(&archive).stdin(Stdio::null()).stderr(Stdio::null());
    let mut child = command.stdout(fs::File::create(&unpacked)?).spawn()?;
    ensure!(wait_within(&mut child, UNPACKED_LATEST)?.success(), "the archive cannot be unpacked");
    same_bytes(&sample, Path::new(&unpacked))?;
    bed.all_hosts_worked(&finished)
}

fn goes_on(bed: &mut Bed<'_>, how: &str, word: &str) -> Result<String> {
    let job = bed.job("children", &["goes-on", how])?.options(["--place", "rr"]);
    let finished = bed.succeed(&job)?;
    let said = shortened(&finished.stderr);
    let output = fs::read_to_string(&finished.stdout)?;
    ensure!(output == format!("{how}: status 126\n"), "the parent saw {output:?}; stderr: {said}");
    ensure!(said.lines().count() == 1 && said.contains("fork without exec") && said.contains(word), "no `{word}`: {said}");
    ensure!(finished.elapsed < REFUSED_LATEST, "refused after {:.1} s only", finished.elapsed.as_secs_f64());
    Ok(said)
}

fn fork_bomb(bed: &mut Bed<'_>) -> Result<String> {
    let job = bed.job("children", &["bomb", "40"])?.options(["--place", "rr"]);
    let finished = bed.succeed(&job)?;
    let output = fs::read_to_string(&finished.stdout)?;
    ensure!(output == "40 of 40 refused\n", "{output:?}; stderr: {}", shortened(&finished.stderr));
    let endless = bed.job("children", &["bomb", "1000"])?.options(["--place", "rr"]).run(bed.hosts, bed.deadline)?;
    let said = shortened(&endless.stderr);
    ensure!(endless.code() == Some(126), "1000 refused children: exit code {:?}; stderr: {said}", endless.code());
    ensure!(said.ends_with("if it can do so") && said.contains("64 forked children"), "the reason is not said last: {said}");
    Ok(format!("{:.1} s", finished.elapsed.as_secs_f64()))
}
