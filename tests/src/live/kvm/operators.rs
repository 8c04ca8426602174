//! What operators say to a guest: it is listed, held on all its hosts, and goes on.
//!
//! Owns these cases. The sockets of the guests are in a directory of the case's own.

use super::{LATEST, command, image};
use crate::live::bed::{Bed, shortened};
use crate::live::case::Case;
use anyhow::{Context, Result, ensure};
use dvm_hosts::{User, output_within, wait_within};
use serde_json::Value;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Output};
use std::thread::sleep;
use std::time::{Duration, Instant};

const DIRECTORY: &str = "DVM_GUESTS";
const NAME: &str = "held";
/// Each processor speaks so often, each 50 ms.
const TICKS: usize = 100;
const NO_GUEST: i32 = 66;

/// The cases.
pub fn cases() -> Vec<Case> {
    let mut cases = vec![Case::new("kvm/pause-local", 2, |bed| pause(bed, &["--local", "--cpus", "2"], 2))];
    for (hosts, cpus) in [(2, "2"), (3, "3")] {
        let over = move |bed: &mut Bed<'_>| pause(bed, &["--cpus", cpus], hosts);
        cases.push(Case::new(format!("kvm/pause-{hosts}"), hosts, over).within_seconds(120));
    }
    cases
}

/// A guest that runs, and where it speaks to.
struct Guest<'a> {
    bed: &'a Bed<'a>,
    child: Child,
    directory: PathBuf,
    said: PathBuf,
}

impl Drop for Guest<'_> {
    fn drop(&mut self) {
        // One that has ended cannot be killed, and needs not be.
        if self.child.kill().is_ok() {
            self.child.wait().ok();
        }
        fs::remove_dir_all(&self.directory).unwrap_or(());
    }
}

impl<'a> Guest<'a> {
    fn start(bed: &'a Bed<'a>, options: &[&str]) -> Result<Self> {
        let directory = bed.workshop.job_directory();
        fs::create_dir_all(&directory)?;
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o700))?;
        let said = directory.join("said");
        let words = [TICKS.to_string()];
        let mut command =
            command(bed, &[options, &["--name", NAME]].concat(), &image("ticks")?, &words.each_ref().map(String::as_str))?;
        command.env(DIRECTORY, &directory).stdout(File::create(&said)?).stderr(File::create(directory.join("told"))?);
        Ok(Self { bed, child: command.spawn()?, directory, said })
    }

    fn said(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.said)?)
    }

    fn operate(&self, words: &[&str]) -> Result<Output> {
        let mut command = self.bed.hosts.command(0, User::Root, &self.bed.hosts.binaries().exec)?;
        Ok(output_within(command.arg("kvm").args(words).env(DIRECTORY, &self.directory), LATEST)?)
    }

    fn succeed(&self, words: &[&str]) -> Result<String> {
        let output = self.operate(words)?;
        let told = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{words:?}: status {:?}: {told}", output.status.code());
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Until every processor has spoken.
    fn wait_for_all(&self, cpus: usize) -> Result<()> {
        let latest = Instant::now() + LATEST;
        while !(0..cpus).all(|cpu| self.said().is_ok_and(|said| said.contains(&format!("of processor {cpu}\n")))) {
            ensure!(Instant::now() < latest, "no word of some processor: {}", shortened(&self.said()?));
            sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn figures(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.succeed(&["stat", "--json", NAME])?)?)
    }
}

/// Nothing of the guest happens on any host while it is held, and nothing is lost by it.
fn pause(bed: &mut Bed<'_>, options: &[&str], cpus: usize) -> Result<String> {
    const HELD: Duration = Duration::from_secs(2);
    let mut guest = Guest::start(bed, options)?;
    guest.wait_for_all(cpus)?;
    let listed: Value = serde_json::from_str(&guest.succeed(&["ps", "--json"])?)?;
    let first = listed.get(0).context("no guest is listed")?;
    ensure!(first["name"] == NAME && first["stage"] == "running" && first["cpus"] == cpus, "{listed}");
    let started = Instant::now();
    guest.succeed(&["pause", NAME])?;
    let took = started.elapsed();
    let (before, counted) = (guest.said()?, guest.figures()?);
    sleep(HELD);
    let (after, recounted) = (guest.said()?, guest.figures()?);
    ensure!(before == after, "it spoke while it was held: {} bytes more", after.len() - before.len());
    ensure!(counted == recounted && counted["stage"] == "paused", "processors ran while they were held: {counted} {recounted}");
    let processors = counted["processors"].as_array().context("no processors")?;
    ensure!(processors.len() == cpus && processors.iter().all(|row| row["exits"].as_u64() > Some(0)), "{counted}");
    ensure!(guest.succeed(&["ps"])?.contains("paused"), "the table does not say so");
    guest.succeed(&["pause", NAME])?;
    guest.succeed(&["resume", NAME])?;
    let status = wait_within(&mut guest.child, LATEST)?;
    let said = guest.said()?;
    ensure!(status.code() == Some(0), "status {:?}: {}", status.code(), shortened(&said));
    ensure!(said.lines().count() == TICKS * cpus, "{} ticks instead of {}", said.lines().count(), TICKS * cpus);
    let gone = guest.operate(&["resume", NAME])?;
    ensure!(gone.status.code() == Some(NO_GUEST), "status {:?} of a guest that is gone", gone.status.code());
    Ok(format!("held after {} ms", took.as_millis()))
}
