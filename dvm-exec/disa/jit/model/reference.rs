//! The reference model of DISA-1, which is no part of this project: a process of Python that is asked.
//!
//! Owns the process and how it is asked. Must not know what the answers mean.

use anyhow::{Context, Result, ensure};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

const DRIVER: &str = include_str!("driver.py");
/// Most bytes of an answer: the sets of outcomes are the longest.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// The model, running.
pub struct Reference {
    child: Child,
    questions: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Reference {
    /// The model in a directory.
    ///
    /// # Errors
    /// There is no Python.
    pub fn start(directory: &Path) -> Result<Self> {
        let mut command = Command::new("python3");
        command.args(["-c", DRIVER]).arg(directory).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("cannot start python3: install it")?;
        let answers = BufReader::new(child.stdout.take().context("python3 has no stdout")?);
        Ok(Self { questions: child.stdin.take(), answers, child })
    }

    /// Its answer to a question about a source.
    ///
    /// # Errors
    /// It has died: what it said is on stderr.
    pub fn ask(&mut self, question: &str, source: &str) -> Result<String> {
        let questions = self.questions.as_mut().context("the model was stopped")?;
        write!(questions, "{question} {}\n{source}", source.len()).context("the reference model has died")?;
        questions.flush().context("the reference model has died")?;
        let mut length = String::new();
        self.answers.read_line(&mut length)?;
        let length: usize = length.trim().parse().context("the reference model has died")?;
        ensure!(length <= ANSWER_BYTES_MAX, "the reference model answers with {length} bytes");
        let mut answer = vec![0; length];
        self.answers.read_exact(&mut answer).context("the reference model has died")?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        // At the end of its questions it ends itself.
        drop(self.questions.take());
        if let Err(error) = self.child.wait() {
            eprintln!("the reference model's end is not known: {error}");
        }
    }
}
