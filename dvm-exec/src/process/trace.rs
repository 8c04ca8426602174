//! `--strace`: one line for each delegated call, with host and latency.
//!
//! Owns where lines go and how they look. Must not know how calls travel.

use super::calls::shape::Argument;
use super::calls::{self, Class};
use super::wire::TRACE_BYTES_MAX;
use super::{descriptors, say};
use crate::exit::Failure;
use crate::sys::user;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Bytes of a path that are shown.
const PATH_BYTES_MAX: usize = 256;
/// Numbers above are addresses or flags.
const DECIMAL_MAX: i64 = 65_535;
const ERRNO_MAX: i64 = 4_095;

static OUTPUT: OnceLock<Output> = OnceLock::new();

enum Output {
    Stderr,
    File(File),
}

/// A delegated call, as the thread that made it saw it.
pub struct Traced<'a> {
    /// Name of the thread's host.
    pub host: &'a str,
    /// The thread.
    pub tid: i32,
    /// Number of the call.
    pub number: i64,
    /// Its arguments.
    pub arguments: &'a [u64; 6],
    /// Its result.
    pub value: i64,
    /// How long the thread waited for it.
    pub latency: Duration,
}

/// Whether the user asked for lines.
pub fn is_on() -> bool {
    OUTPUT.get().is_some()
}

/// The number of the file where lines go, if there is one.
pub fn descriptor() -> Option<RawFd> {
    match OUTPUT.get() {
        Some(Output::File(file)) => Some(file.as_raw_fd()),
        Some(Output::Stderr) | None => None,
    }
}

/// Lines go to this file from now on, or to stderr; after those that are there if this program `continues` another one.
///
/// # Errors
/// When the file cannot be made.
pub fn open(path: Option<&Path>, continues: bool) -> Result<(), Failure> {
    let output = match path {
        None => Output::Stderr,
        Some(path) => {
            let file = start(path, continues).and_then(|file| Ok(File::from(descriptors::hide(file.into())?)));
            Output::File(file.map_err(|error| Failure::Internal(format!("cannot write {}: {error}", path.display())))?)
        }
    };
    OUTPUT.get_or_init(|| output);
    Ok(())
}

fn start(path: &Path, continues: bool) -> Result<File, std::io::Error> {
    File::options().create(true).write(true).append(continues).truncate(!continues).open(path)
}

/// Writes a line that a member sent. An output that is full or gone is not an error of the program.
pub fn print(line: &[u8]) {
    let line = [line, b"\n"].concat();
    match OUTPUT.get() {
        Some(Output::File(file)) => (&*file).write_all(&line).unwrap_or(()),
        Some(Output::Stderr) => say::raw(&String::from_utf8_lossy(&line)),
        None => {}
    }
}

impl Traced<'_> {
    /// `<unix time of the call> <host> <tid> <name>(<arguments>) = <result> <latency>`.
    pub fn line(&self) -> Vec<u8> {
        let began = SystemTime::now() - self.latency;
        let began = began.duration_since(UNIX_EPOCH).unwrap_or_default();
        let read = |address| user::read_text(address, PATH_BYTES_MAX).ok();
        let text = format!("{}.{:06} {}", began.as_secs(), began.subsec_micros(), self.text(read));
        let mut line = text.into_bytes();
        line.truncate(TRACE_BYTES_MAX);
        line
    }

    fn text(&self, path: impl Fn(u64) -> Option<Vec<u8>>) -> String {
        let number = self.number as u64;
        let mut text = format!("{} {} ", self.host, self.tid);
        match calls::name(number) {
            "unknown" => push(&mut text, format_args!("syscall_{number}(")),
            name => push(&mut text, format_args!("{name}(")),
        }
        let shape = match calls::classify(number, self.arguments) {
            Class::Marshal(shape) => Some(shape),
            _ => None,
        };
        for (index, argument) in self.arguments.iter().enumerate().take(calls::arity(number)) {
            if index > 0 {
                text.push_str(", ");
            }
            let is_path = shape.is_some_and(|shape| shape.arguments[index] == Argument::Path);
            match path(*argument).filter(|_| is_path) {
                Some(path) => push(&mut text, format_args!("\"{}\"", path.escape_ascii())),
                None => push_number(&mut text, *argument as i64),
            }
        }
        text.push_str(") = ");
        push_number(&mut text, self.value);
        if (-ERRNO_MAX..0).contains(&self.value) {
            let error = std::io::Error::from_raw_os_error(-self.value as i32).to_string();
            push(&mut text, format_args!(" {}", error.split(" (os error").next().unwrap_or("")));
        }
        push(&mut text, format_args!(" <{:.1} us>", self.latency.as_nanos() as f64 / 1e3));
        text
    }
}

fn push(text: &mut String, what: std::fmt::Arguments<'_>) {
    text.write_fmt(what).expect("writing to a String does not fail");
}

fn push_number(text: &mut String, value: i64) {
    // A descriptor such as AT_FDCWD may come as 32 bits.
    let value = if value > i64::from(i32::MAX) && value <= i64::from(u32::MAX) && value as i32 >= -ERRNO_MAX as i32 {
        i64::from(value as i32)
    } else {
        value
    };
    if (-ERRNO_MAX..=DECIMAL_MAX).contains(&value) {
        push(text, format_args!("{value}"));
    } else {
        push(text, format_args!("{value:#x}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_program_goes_on_in_the_file() {
        let path = std::env::temp_dir().join(format!("dvm-exec-trace-{}", std::process::id()));
        let write = |text: &[u8], continues| start(&path, continues).and_then(|mut file| file.write_all(text)).expect("written");
        write(b"old and long", false);
        write(b"one ", false);
        write(b"two", true);
        let found = std::fs::read(&path).expect("read");
        std::fs::remove_file(&path).expect("removed");
        assert_eq!(found, b"one two");
    }

    #[test]
    fn a_call_is_one_line() {
        let check = |number, arguments: [u64; 6], value, expected: &str| {
            let latency = Duration::from_nanos(51_230);
            let call = Traced { host: "h1", tid: 7, number, arguments: &arguments, value, latency };
            assert_eq!(call.text(|_| Some(b"/a\nb".to_vec())), expected);
        };
        let at = libc::AT_FDCWD;
        check(
            libc::SYS_openat,
            [at as u64, 1, 0, 0, 9, 9],
            -2,
            "h1 7 openat(-100, \"/a\\nb\", 0, 0) = -2 No such file or directory <51.2 us>",
        );
        check(libc::SYS_openat, [u64::from(at as u32), 1, 0, 0, 9, 9], 3, "h1 7 openat(-100, \"/a\\nb\", 0, 0) = 3 <51.2 us>");
        check(libc::SYS_getppid, [5; 6], 99, "h1 7 getppid() = 99 <51.2 us>");
        check(libc::SYS_munmap, [0x1000_0000_0000, 4096, 0, 0, 0, 0], 0, "h1 7 munmap(0x100000000000, 4096) = 0 <51.2 us>");
        check(9_999, [1, 2, 3, 4, 5, 6], -38, "h1 7 syscall_9999(1, 2, 3, 4, 5, 6) = -38 Function not implemented <51.2 us>");
    }
}
