//! `dvm-exec kvm ps|pause|resume|stat`: what operators ask of the guests that were started on this host.
//!
//! Owns how answers are shown. Must not know how they are come by.

use super::control::{self, Answer, Description, Question};
use super::failure::Failure;
use super::figures::{NAMES, Row};
use super::limits::COMMAND_LATEST;
use clap::Args;
use serde_json::{Value, json};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

/// Options of `ps`.
#[derive(Args, Debug)]
pub struct PsOptions {
    /// As a JSON array.
    #[arg(long)]
    json: bool,
}

/// Options of `stat`.
#[derive(Args, Debug)]
pub struct StatOptions {
    /// The guest's name, as `ps` shows it.
    #[arg(value_parser = control::judge_name)]
    guest: String,
    /// As a JSON object.
    #[arg(long)]
    json: bool,
}

/// Options of `pause` and `resume`.
#[derive(Args, Debug)]
pub struct GuestOptions {
    /// The guest's name, as `ps` shows it.
    #[arg(value_parser = control::judge_name)]
    guest: String,
}

/// Lists the guests that this user has started on this host.
///
/// # Errors
/// The directory cannot be read.
pub fn ps(options: &PsOptions) -> Result<u8, Failure> {
    let guests = match control::directory() {
        Some(directory) => found(&directory).map_err(|source| Failure::Host {
            what: "look for guests",
            source,
            fix: "ask as the user who started them",
        })?,
        None => Vec::new(),
    };
    if options.json {
        println!("{}", json!(guests));
    } else {
        print!("{}", table(&guests));
    }
    Ok(0)
}

/// Who answers in the directory; the sockets of those that are gone are removed.
fn found(directory: &Path) -> io::Result<Vec<Description>> {
    let mut guests = Vec::new();
    for name in control::names(directory)? {
        let path = control::path_of(directory, &name);
        match control::ask(&path, Question::Describe, COMMAND_LATEST) {
            Ok(Answer::Description(description)) => guests.push(description),
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(&path)?,
            // It ended meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Ok(_) | Err(_) => eprintln!("dvm-exec: guest `{name}` does not answer"),
        }
    }
    Ok(guests)
}

fn table(guests: &[Description]) -> String {
    let heads = ["NAME", "PID", "STAGE", "CPUS", "MEMORY", "UP", "HOSTS", "IMAGE"].map(str::to_owned);
    let row = |guest: &Description| {
        let (pid, cpus) = (guest.pid.to_string(), guest.cpus.to_string());
        let (memory, up) = (format!("{}M", guest.memory_bytes >> 20), format!("{}s", guest.uptime_s));
        [guest.name.clone(), pid, guest.stage.clone(), cpus, memory, up, guest.hosts.join(","), guest.image.clone()]
    };
    columns(std::iter::once(heads).chain(guests.iter().map(row)).collect())
}

/// Rows whose columns stand below each other.
fn columns<const N: usize>(rows: Vec<[String; N]>) -> String {
    let widths: [usize; N] = std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    let line = |row: &[String; N]| {
        let cells: Vec<_> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

/// Holds every processor of a guest, or lets them go on.
///
/// # Errors
/// There is no such guest, it refuses, or hosts of it do not answer.
pub fn hold(options: &GuestOptions, is_wanted: bool) -> Result<u8, Failure> {
    let question = if is_wanted { Question::Pause } else { Question::Resume };
    match asked(&options.guest, question)? {
        Answer::Done => Ok(0),
        other => Err(unexpected(&options.guest, &other)),
    }
}

/// Shows what the processors of a guest have done until now.
///
/// # Errors
/// As above.
pub fn stat(options: &StatOptions) -> Result<u8, Failure> {
    let (stage, hosts, rows) = match asked(&options.guest, Question::Figures)? {
        Answer::Figures { stage, hosts, rows } => (stage, hosts, rows),
        other => return Err(unexpected(&options.guest, &other)),
    };
    let host_of = |row: &Row| hosts.get(usize::from(row.host)).cloned().unwrap_or_default();
    if options.json {
        let processor = |row: &Row| {
            let figures = NAMES.iter().zip(row.counts).map(|(name, count)| ((*name).to_owned(), json!(count)));
            let whose = [("cpu".to_owned(), json!(row.cpu)), ("host".to_owned(), json!(host_of(row)))];
            Value::Object(whose.into_iter().chain(figures).collect())
        };
        let processors: Vec<_> = rows.iter().map(processor).collect();
        println!("{}", json!({ "name": options.guest, "stage": stage, "processors": processors }));
    } else {
        let heads = ["CPU", "HOST"].into_iter().chain(NAMES).map(str::to_uppercase).collect::<Vec<_>>();
        let cells = |row: &Row| {
            let figures = row.counts.iter().map(ToString::to_string);
            [row.cpu.to_string(), host_of(row)].into_iter().chain(figures).collect::<Vec<_>>()
        };
        let rows = std::iter::once(heads).chain(rows.iter().map(cells));
        let rows: Vec<[String; NAMES.len() + 2]> = rows.filter_map(|row| row.try_into().ok()).collect();
        print!("{}", columns(rows));
    }
    Ok(0)
}

fn asked(guest: &str, question: Question) -> Result<Answer, Failure> {
    let none = || Failure::NoGuest(guest.to_owned());
    let path = control::path_of(&control::directory().ok_or_else(none)?, guest);
    control::ask(&path, question, COMMAND_LATEST).map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused | ErrorKind::PermissionDenied => none(),
        _ => Failure::Silent { guest: guest.to_owned(), who: error.to_string() },
    })
}

fn unexpected(guest: &str, answer: &Answer) -> Failure {
    let guest = guest.to_owned();
    match answer {
        Answer::Refused(reason) => Failure::Refused { guest, reason: reason.clone() },
        Answer::Silent(hosts) => Failure::Silent { guest, who: hosts.join(", ") },
        Answer::Done | Answer::Description(_) | Answer::Figures { .. } => {
            Failure::Refused { guest, reason: "it answers what was not asked: is it of another release?".to_owned() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_each_other() {
        let guest = Description {
            name: "web".to_owned(),
            pid: 12,
            stage: "running".to_owned(),
            cpus: 3,
            hosts: vec!["a".to_owned(), "b".to_owned()],
            memory_bytes: 64 << 20,
            uptime_s: 9,
            image: "hello".to_owned(),
        };
        assert_eq!(
            table(&[guest]),
            "NAME  PID  STAGE    CPUS  MEMORY  UP  HOSTS  IMAGE\nweb   12   running  3     64M     9s  a,b    hello\n"
        );
    }
}
