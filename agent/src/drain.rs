//! `drain`: asks the agent of this host to have one drained, and waits until it has left.
//!
//! Owns what is printed meanwhile. Must not know who keeps the list of hosts.

use crate::client::{self, Target};
use crate::exit::{Exit, Failure};
use crate::status::Status;
use anyhow::anyhow;
use dvm_api::local::ToAgent;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

const LOOK_PAUSE: Duration = Duration::from_millis(250);

/// What is wished.
#[derive(Debug)]
pub struct Options {
    /// Name of the host; none: the one of the agent asked.
    pub host: Option<String>,
    /// False takes the wish back.
    pub is_wanted: bool,
    /// How long to wait until it has left, in seconds; none: not at all.
    pub wait: Option<u64>,
    /// JSON instead of lines.
    pub is_json: bool,
}

/// Asks, and says what is still there to wait for.
///
/// # Errors
/// When it is refused, or the host does not leave in time.
pub fn drain(target: &Target, options: &Options, print: fn(&str) -> Result<(), Failure>) -> Result<(), Failure> {
    let socket = target.socket()?;
    let question = ToAgent::Drain { host: options.host.clone(), is_wanted: options.is_wanted };
    let text = client::exchange(&socket, &question)?.map_err(|reason| Failure::new(Exit::Drain, anyhow!(reason)))?;
    let status: Status = client::parse(&text)?;
    let host = options.host.clone().unwrap_or_else(|| status.node.clone());
    let jobs = jobs_of(&status, &host);
    print(&told(options, &host, &jobs)?)?;
    match options.wait {
        None => Ok(()),
        Some(seconds) => wait(&socket, &status, &host, Duration::from_secs(seconds)),
    }
}

fn told(options: &Options, host: &str, jobs: &[String]) -> Result<String, Failure> {
    if options.is_json {
        let object = serde_json::json!({ "host": host, "draining": options.is_wanted, "jobs": jobs });
        return Ok(format!("{object}\n"));
    }
    let mut text = match options.is_wanted {
        true => format!("{host} takes no new jobs and leaves after its last one; running now: {}\n", jobs.len()),
        false => format!("{host} takes new jobs\n"),
    };
    for job in jobs {
        text += &format!("job {job}\n");
    }
    Ok(text)
}

fn jobs_of(status: &Status, host: &str) -> Vec<String> {
    let spaces = status.membership.spaces.iter().filter(|(_, entry)| entry.hosts.iter().any(|name| name == host));
    spaces.map(|(space, entry)| format!("{space} `{}` on {}", entry.program, entry.hosts.join(", "))).collect()
}

/// Waits until `host` is a member no more, or its agent, if it is the one asked, has ended.
fn wait(socket: &Path, first: &Status, host: &str, patience: Duration) -> Result<(), Failure> {
    let deadline = Instant::now() + patience;
    loop {
        match client::status_text(socket) {
            Ok(text) => {
                let status: Status = client::parse(&text)?;
                if !status.membership.hosts.iter().any(|name| name == host) {
                    return Ok(());
                }
                if Instant::now() > deadline {
                    let jobs = jobs_of(&status, host);
                    let error = anyhow!("{host} has not left in {} s, it waits for: {}", patience.as_secs(), jobs.join("; "));
                    return Err(Failure::new(Exit::Draining, error));
                }
            }
            Err(failure) if failure.exit == Exit::NoAgent && host == first.node => return Ok(()),
            Err(failure) => return Err(failure),
        }
        sleep(LOOK_PAUSE);
    }
}
