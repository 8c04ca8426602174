//! Programs on runtimes of their own, with schedulers, collectors and code made at run time: Go, Java, V8, Ruby, Perl, Python.
//!
//! Owns their arguments, and the files they read. Must not know how they are run.

use super::{Bed, Need, PLAIN, Program, put, shortened};
use anyhow::{Context, Result, ensure};
use dvm_hosts::output_within;
use std::fmt::Write as _;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

pub const JAVA: &[Need] = &[Need::Program("java"), Need::Program("javac")];
const NATIVE_LATEST: Duration = Duration::from_secs(60);
/// What the repository of restic is locked with.
const PASSWORD: &str = "echo secret";

pub const PROGRAMS: &[Program] = &[
    Program { name: "fzf", arguments: &["--filter", "hm gra 12"], input_mebibytes: 2, needs: &[Need::Program("fzf")], ..PLAIN },
    Program { name: "gron", arguments: &["records.json"], prepare: put_records, needs: &[Need::Program("gron")], ..PLAIN },
    // A Go program that starts a child: the one that tells the password.
    Program {
        name: "restic",
        arguments: &[
            "-q",
            "-r",
            "repository",
            "--no-cache",
            "--no-lock",
            "--password-command",
            PASSWORD,
            "dump",
            "--archive",
            "tar",
            "latest",
            "/",
        ],
        prepare: put_repository,
        needs: &[Need::Program("restic")],
        ..PLAIN
    },
    Program {
        name: "java-g1",
        command: Some("java"),
        arguments: &["-XX:+UseG1GC", "-Xmx64m", "-cp", ".", "Checksum", "4", "10000"],
        prepare: put_class,
        needs: JAVA,
        ..PLAIN
    },
    Program {
        name: "java-parallel",
        command: Some("java"),
        arguments: &["-XX:+UseParallelGC", "-Xmx64m", "-cp", ".", "Checksum", "4", "10000"],
        prepare: put_class,
        needs: JAVA,
        ..PLAIN
    },
    Program {
        name: "node",
        arguments: &["workers.js"],
        prepare: |_, directory| put(directory, "workers.js", include_str!("../../../programs/workers.js")),
        needs: &[Need::Program("node")],
        ..PLAIN
    },
    Program {
        name: "ruby",
        arguments: &["threads.rb"],
        prepare: |_, directory| put(directory, "threads.rb", include_str!("../../../programs/threads.rb")),
        needs: &[Need::Program("ruby")],
        ..PLAIN
    },
    Program {
        name: "perl",
        arguments: &["threads.pl"],
        prepare: |_, directory| put(directory, "threads.pl", include_str!("../../../programs/threads.pl")),
        // Of the same package as the modules for threads.
        needs: &[Need::Program("shasum")],
        ..PLAIN
    },
    Program {
        name: "sqlite",
        command: Some("python3"),
        arguments: &["rows.py"],
        prepare: |_, directory| put(directory, "rows.py", include_str!("../../../programs/rows.py")),
        needs: &[Need::Program("python3")],
        ..PLAIN
    },
];

/// A collector that maps its heap at three addresses: the mapping is refused by name, and the JVM ends as for any such error.
pub fn refuse_zgc(bed: &mut Bed<'_>) -> Result<String> {
    const ABORTED: i32 = 134;
    let job = bed.job("java", &["-XX:+UseZGC", "-XX:-UsePerfData", "-Xmx64m", "-cp", ".", "Checksum", "4", "1000"])?;
    fs::create_dir_all(&job.directory)?;
    put_class(bed, &job.directory)?;
    let finished = job.run(bed.hosts, bed.deadline)?;
    let said = shortened(&finished.stderr);
    ensure!(finished.code() == Some(ABORTED), "exit code {:?}; stderr: {said}", finished.code());
    ensure!(said.contains("a writable shared file mapping cannot span hosts"), "it is not said why: {said}");
    Ok(format!("after {:.1} s", finished.elapsed.as_secs_f64()))
}

fn put_records(_: &mut Bed<'_>, directory: &Path) -> Result<()> {
    let mut text = String::from("[");
    for number in 0..2000 {
        let comma = if number == 0 { "" } else { ",\n" };
        let (third, square) = (number % 3, number * number);
        write!(text, r#"{comma}{{"number":{number},"name":"record {number}","list":[{third},{square},null,{{"deep":true}}]}}"#)?;
    }
    text.push(']');
    put(directory, "records.json", &text)
}

fn put_class(bed: &mut Bed<'_>, directory: &Path) -> Result<()> {
    let classes = bed.workshop.made("classes", |classes| {
        let source = classes.with_extension("java");
        fs::create_dir_all(&source)?;
        put(&source, "Checksum.java", include_str!("../../../programs/Checksum.java"))?;
        succeed(Command::new("javac").arg("-d").arg(classes).arg(source.join("Checksum.java")))
    })?;
    fs::copy(classes.join("Checksum.class"), directory.join("Checksum.class"))?;
    Ok(())
}

/// A repository with a tree of files in it, made natively, that all runs read.
fn put_repository(bed: &mut Bed<'_>, directory: &Path) -> Result<()> {
    let sample = bed.workshop.sample(1)?;
    let repository = bed.workshop.made("repository", |repository| {
        let tree = repository.with_extension("tree");
        fs::create_dir_all(&tree)?;
        let bytes = fs::read(&sample)?;
        for number in 1..=8_usize {
            fs::write(tree.join(number.to_string()), &bytes[number * 10_000..number * 100_000])?;
        }
        let restic = |words: &[&str]| {
            let mut command = Command::new("restic");
            command.arg("-q").arg("-r").arg(repository).args(["--no-cache", "--password-command", PASSWORD]).args(words);
            succeed(command.current_dir(&tree))
        };
        restic(&["init"])?;
        restic(&["backup", "."])
    })?;
    let link = directory.join("repository");
    match symlink(&repository, &link) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            Err(error).with_context(|| format!("cannot create {}", link.display()))
        }
        _ => Ok(()),
    }
}

fn succeed(command: &mut Command) -> Result<()> {
    let output = output_within(command, NATIVE_LATEST).with_context(|| format!("cannot run {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
