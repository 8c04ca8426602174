//! A slot: one runner process, and the thread that talks to it.
//!
//! Owns the process and its pipes. Must not know what runs are for.

use super::driver::Input;
use super::runner::{self, FromRunner, ToRunner};
use super::{frames, spawn};
use crate::exit::Failure;
use dvm_disa::machine::Settings;
use std::io::{BufReader, BufWriter, Error};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, Sender, channel};

/// Starts the process of slot `index`; what is sent to the answer goes to it.
pub fn start(
    index: usize,
    object: &[u8],
    settings: &Settings,
    inputs: &mpsc::Sender<Input>,
) -> Result<Sender<ToRunner>, Failure> {
    let failed = |error: Error| Failure::Internal(format!("cannot start a runner process: {error}"));
    let program = std::env::current_exe().map_err(failed)?;
    let mut command = Command::new(program);
    command.args([super::super::NAME, runner::NAME]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let child = command.spawn().map_err(failed)?;
    // Each process would hold a copy: the husk has the files.
    let first = ToRunner::Program(object.to_vec(), Settings { files: Vec::new(), ..settings.clone() });
    let (sender, receiver) = channel();
    let inputs = inputs.clone();
    spawn("slot", move || {
        let reason = match serve(child, &first, index, &receiver, &inputs) {
            Ok(()) => "its husk ended".to_owned(),
            Err(error) => error.to_string(),
        };
        inputs.send(Input::Failed(Failure::Internal(format!("runner process {index} is gone: {reason}")))).unwrap_or(());
    })?;
    Ok(sender)
}

fn serve(
    mut child: Child,
    first: &ToRunner,
    index: usize,
    receiver: &Receiver<ToRunner>,
    inputs: &mpsc::Sender<Input>,
) -> Result<(), Error> {
    let missing = || Error::other("no pipe");
    let mut to = BufWriter::new(child.stdin.take().ok_or_else(missing)?);
    let mut from = BufReader::new(child.stdout.take().ok_or_else(missing)?);
    frames::write(&mut to, first)?;
    while let Ok(message) = receiver.recv() {
        frames::write(&mut to, &message)?;
        let Some(answer) = frames::read::<FromRunner>(&mut from)? else {
            return Err(Error::other(format!("it ended: {}", child.wait()?)));
        };
        if inputs.send(Input::Runner(index, answer)).is_err() {
            break;
        }
    }
    Ok(())
}
