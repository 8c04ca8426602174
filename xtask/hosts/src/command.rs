//! Commands with a deadline.
//!
//! Owns waiting for a short command and ending it when its time is over. Must not know what it does.

use std::io::{self, Read};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(5);
/// How long output may still come after the end: a grandchild may hold the pipe.
const DRAIN_LATEST: Duration = Duration::from_millis(500);

/// Runs a command to its end and gives its output; one that is not over in time is killed.
///
/// # Errors
/// It cannot be started, or was killed ([`io::ErrorKind::TimedOut`]).
pub fn output_within(command: &mut Command, limit: Duration) -> io::Result<Output> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let stdout = child.stdout.take().map(read_all);
    let stderr = child.stderr.take().map(read_all);
    let status = wait_within(&mut child, limit)?;
    let drained =
        |pipe: Option<Receiver<Vec<u8>>>| pipe.and_then(|pipe| pipe.recv_timeout(DRAIN_LATEST).ok()).unwrap_or_default();
    Ok(Output { status, stdout: drained(stdout), stderr: drained(stderr) })
}

/// Waits for a child; one that is not over in time is killed.
///
/// # Errors
/// It cannot be waited for, or was killed ([`io::ErrorKind::TimedOut`]).
pub fn wait_within(child: &mut Child, limit: Duration) -> io::Result<ExitStatus> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("not over after {:.1} s: killed", limit.as_secs_f64())));
        }
        thread::sleep(POLL);
    }
}

/// Reads a pipe to its end beside us; the thread goes with the pipe.
fn read_all(mut pipe: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What came before an error is still worth showing.
        if pipe.read_to_end(&mut bytes).is_ok() || !bytes.is_empty() {
            // Nobody waits any more: then nobody wants it.
            sender.send(bytes).ok();
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_comes_and_time_ends() {
        let output =
            output_within(Command::new("sh").args(["-c", "echo a; echo b >&2; exit 3"]), Duration::from_secs(10)).unwrap();
        assert_eq!(
            (output.status.code(), output.stdout.as_slice(), output.stderr.as_slice()),
            (Some(3), b"a\n".as_slice(), b"b\n".as_slice())
        );
        let error = output_within(Command::new("sleep").arg("100"), Duration::from_millis(30)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
