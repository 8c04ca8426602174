//! What operators say to a running guest: a socket of it, in a directory that only its user may enter.
//!
//! Owns the directory, the questions and the answers, and who answers them. Must not know how they are shown.

use super::failure::Failure;
use super::figures::Row;
use super::hosts::Members;
use super::life::Stage;
use super::limits::{ANSWERS_LATEST, HELD_LATEST, TAKEN_BACK_LATEST, WORDS_BYTES_MAX, WORDS_LATEST};
use super::machine::Machine;
use super::part;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Version of the words below; both sides must speak the same.
const VERSION: u32 = 1;
/// Names the directory instead of the places below.
const VARIABLE: &str = "DVM_GUESTS";
const ROOT_DIRECTORY: &str = "/run/dvm-guests";
const USER_DIRECTORY: &str = "dvm-guests";
const END: &str = "sock";
const NAME_BYTES_MAX: usize = 64;
/// What is answered to who asks something of a guest that is over.
const OVER: &str = "it is over";

/// What is asked of a guest, as a line of JSON.
#[derive(Debug, Serialize, Deserialize)]
struct Asked {
    version: u32,
    question: Question,
}

/// A question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Question {
    /// What are you? Answer: [`Answer::Description`].
    Describe,
    /// Hold all processors. Answer: [`Answer::Done`].
    Pause,
    /// Let them go on. Answer: [`Answer::Done`].
    Resume,
    /// What have they done? Answer: [`Answer::Figures`].
    Figures,
}

/// An answer, as a line of JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Answer {
    /// What it is.
    Description(Description),
    /// It is so on every host.
    Done,
    /// What its processors have done until now.
    Figures {
        /// Stage of its life.
        stage: String,
        /// Names of its hosts, by their place in the rows.
        hosts: Vec<String>,
        /// A row for each processor.
        rows: Vec<Row>,
    },
    /// It is not done: why, and what to do.
    Refused(String),
    /// These hosts do not answer; it is as before.
    Silent(Vec<String>),
}

/// A guest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Description {
    /// Its name.
    pub name: String,
    /// Its process on this host.
    pub pid: u32,
    /// Stage of its life.
    pub stage: String,
    /// Processors.
    pub cpus: usize,
    /// Names of its hosts, this one first.
    pub hosts: Vec<String>,
    /// Bytes of its memory.
    pub memory_bytes: u64,
    /// Seconds since it was started.
    pub uptime_s: u64,
    /// Its image.
    pub image: String,
}

/// The place of a guest in the directory, until it is dropped.
pub struct Control {
    listener: UnixListener,
    path: PathBuf,
    /// The guest's name.
    pub name: String,
}

impl Drop for Control {
    fn drop(&mut self) {
        // What stays is found dead by the next who looks.
        fs::remove_file(&self.path).unwrap_or(());
    }
}

/// Where sockets of this user's guests are; none where a user has no such place.
pub fn directory() -> Option<PathBuf> {
    if let Some(given) = std::env::var_os(VARIABLE) {
        return Some(given.into());
    }
    let own = fs::metadata("/proc/self").ok()?;
    if own.uid() == 0 {
        return Some(ROOT_DIRECTORY.into());
    }
    std::env::var_os("XDG_RUNTIME_DIR").map(|directory| Path::new(&directory).join(USER_DIRECTORY))
}

/// Whether a guest can be called so.
///
/// # Errors
/// What is wrong with it.
pub fn judge_name(name: &str) -> Result<String, String> {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.starts_with('.') || !name.bytes().all(is_good) {
        return Err(format!(
            "`{name}` is no name of a guest: 1 to {NAME_BYTES_MAX} letters, digits, `-`, `_` and `.`, no `.` first"
        ));
    }
    Ok(name.to_owned())
}

/// Where the socket of guest `name` is.
pub fn path_of(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.{END}"))
}

/// Names of all sockets there.
///
/// # Errors
/// The kernel's error; a directory that there is not is empty.
pub fn names(directory: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_stem().and_then(|stem| stem.to_str());
        if let (Some(name), true) = (name, path.extension().is_some_and(|end| end == END)) {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

impl Control {
    /// Makes a place in the directory for this process's guest; none if this user has no directory and asked for no name.
    ///
    /// # Errors
    /// The name is taken, or the directory cannot be used.
    pub fn open(name: Option<&str>) -> Result<Option<Self>, Failure> {
        match (directory(), name) {
            (Some(directory), _) => Self::open_in(&directory, name).map(Some),
            (None, None) => Ok(None),
            (None, Some(name)) => Err(Failure::Settings(format!(
                "guest `{name}`: this user has no place for the sockets of guests: set XDG_RUNTIME_DIR or {VARIABLE}"
            ))),
        }
    }

    fn open_in(directory: &Path, name: Option<&str>) -> Result<Self, Failure> {
        const TRIES: usize = 3;
        let failed = |source| Failure::Host { what: "make a socket for operators", source, fix: "look at DVM_GUESTS" };
        prepare(directory).map_err(failed)?;
        let name = name.map_or_else(|| process::id().to_string(), str::to_owned);
        // Under another name until somebody listens: who finds a socket where nobody does removes it.
        let early = directory.join(format!(".{name}.{}", process::id()));
        let listener = UnixListener::bind(&early).map_err(failed)?;
        let path = path_of(directory, &name);
        let placed = fs::set_permissions(&early, Permissions::from_mode(0o600))
            .and_then(|()| (0..TRIES).find_map(|_| place(&early, &path)).unwrap_or_else(|| Err(ErrorKind::AlreadyExists.into())));
        fs::remove_file(&early).unwrap_or(());
        match placed {
            Ok(()) => Ok(Self { listener, path, name }),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                Err(Failure::Settings(format!("a guest `{name}` runs already: choose another --name")))
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// Answers what is asked, on a thread of its own, as long as the process lives.
    ///
    /// # Errors
    /// The kernel refuses a thread.
    pub fn serve(&self, guest: Guest) -> Result<(), Failure> {
        let copied = self.listener.try_clone();
        let listener =
            copied.map_err(|source| Failure::Host { what: "copy a descriptor", source, fix: "raise the limit of open files" })?;
        part::spawn("control".to_owned(), move || {
            for stream in listener.incoming() {
                match stream {
                    // Who does not wait for the answer does not want it.
                    Ok(stream) => guest.converse(&stream).unwrap_or(()),
                    Err(_) => std::thread::sleep(WORDS_LATEST),
                }
            }
        })
    }
}

/// The directory, which must be this user's alone.
fn prepare(directory: &Path) -> io::Result<()> {
    let made = DirBuilder::new().mode(0o700).create(directory);
    if made.as_ref().is_err_and(|error| error.kind() != ErrorKind::AlreadyExists) {
        return made;
    }
    let (found, own) = (fs::symlink_metadata(directory)?, fs::metadata("/proc/self")?);
    if !found.is_dir() || found.uid() != own.uid() || found.mode() & 0o077 != 0 {
        let reason = format!("{} is not a directory of this user alone: remove it, or chmod 0700", directory.display());
        return Err(io::Error::new(ErrorKind::PermissionDenied, reason));
    }
    Ok(())
}

/// Gives the socket its name; none if a dead one stood there, which is gone now.
fn place(early: &Path, path: &Path) -> Option<io::Result<()>> {
    match fs::hard_link(early, path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => match UnixStream::connect(path) {
            Err(dead) if dead.kind() == ErrorKind::ConnectionRefused => {
                fs::remove_file(path).unwrap_or(());
                None
            }
            _ => Some(Err(error)),
        },
        other => Some(other),
    }
}

/// Asks the guest with this socket.
///
/// # Errors
/// Nobody listens there, or it does not answer in time.
pub fn ask(path: &Path, question: Question, latest: Duration) -> io::Result<Answer> {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(latest))?;
    stream.set_write_timeout(Some(latest))?;
    say(&stream, &Asked { version: VERSION, question })?;
    // An answer of all processors is long, and from our own user.
    hear(&stream, u64::MAX)
}

fn say(mut stream: &UnixStream, words: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(words)?;
    line.push(b'\n');
    stream.write_all(&line)
}

fn hear<T: DeserializeOwned>(stream: &UnixStream, bytes_max: u64) -> io::Result<T> {
    let mut line = String::new();
    BufReader::new(stream.take(bytes_max)).read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}

/// A guest, for who asks it.
pub struct Guest {
    /// Its machine on this host.
    pub machine: Arc<Machine>,
    /// Its other hosts.
    pub members: Option<Arc<Members>>,
    /// What it is; stage and time are filled in.
    pub description: Description,
    /// When it was started.
    pub started: Instant,
}

impl Guest {
    fn converse(&self, stream: &UnixStream) -> io::Result<()> {
        stream.set_read_timeout(Some(WORDS_LATEST))?;
        stream.set_write_timeout(Some(WORDS_LATEST))?;
        let Asked { version, question } = hear(stream, WORDS_BYTES_MAX)?;
        let answer = match (version, question) {
            (VERSION, question) => self.answer(question),
            (other, _) => Answer::Refused(format!(
                "guest `{}` was started by another release: it speaks version {VERSION}, not {other}",
                self.description.name
            )),
        };
        say(stream, &answer)
    }

    fn answer(&self, question: Question) -> Answer {
        let (stage, refusal) = self.machine.life.judge(|stage| (stage.word(), refusal(stage)));
        match (question, refusal) {
            (Question::Describe, _) => {
                let uptime_s = self.started.elapsed().as_secs();
                Answer::Description(Description { stage: stage.to_owned(), uptime_s, ..self.description.clone() })
            }
            (Question::Pause | Question::Resume, Some(reason)) => Answer::Refused(reason.to_owned()),
            (Question::Pause, None) => self.pause(),
            (Question::Resume, None) => self.resume(),
            (Question::Figures, _) => {
                let mut rows = self.machine.figures();
                let silent = self.members.as_ref().map_or_else(Vec::new, |members| {
                    let told = members.figures(ANSWERS_LATEST, || self.machine.life.is_over());
                    rows.extend(told.rows);
                    told.silent
                });
                rows.sort_by_key(|row| row.cpu);
                let hosts = self.description.hosts.clone();
                if silent.is_empty() { Answer::Figures { stage: stage.to_owned(), hosts, rows } } else { Answer::Silent(silent) }
            }
        }
    }

    /// Everybody at once, so that processors of one host wait little for those of another.
    fn pause(&self) -> Answer {
        let was_running = self.machine.pause();
        let mut silent = self.hold_others(true, ANSWERS_LATEST);
        if !self.machine.wait_for_held(HELD_LATEST) {
            silent.extend(self.description.hosts.first().cloned());
        }
        if silent.is_empty() {
            return Answer::Done;
        }
        if was_running {
            self.machine.resume();
            // Who does not answer gets it when it listens again.
            self.hold_others(false, TAKEN_BACK_LATEST);
        }
        self.over_or(Answer::Silent(silent))
    }

    fn resume(&self) -> Answer {
        self.machine.resume();
        let silent = self.hold_others(false, ANSWERS_LATEST);
        if silent.is_empty() { Answer::Done } else { self.over_or(Answer::Silent(silent)) }
    }

    fn hold_others(&self, is_wanted: bool, latest: Duration) -> Vec<String> {
        let is_over = || self.machine.life.is_over();
        self.members.as_ref().map_or_else(Vec::new, |members| members.hold(is_wanted, latest, is_over))
    }

    fn over_or(&self, answer: Answer) -> Answer {
        if self.machine.life.is_over() { Answer::Refused(OVER.to_owned()) } else { answer }
    }
}

/// Why a guest at this stage is neither held nor let go on.
fn refusal(stage: &Stage) -> Option<&'static str> {
    match stage {
        Stage::Created => Some("its hosts are not ready yet: ask again"),
        Stage::Running | Stage::Paused => None,
        Stage::Stopped(_) | Stage::Failed(_) => Some(OVER),
    }
}

#[cfg(test)]
mod tests;
