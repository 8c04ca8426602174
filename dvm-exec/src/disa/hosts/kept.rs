//! The output of a run whose first root is lost, until somebody has seen it.
//!
//! Owns what is kept, and how it is told to `dvm-exec disa attach`. Must not know where a run goes on.
//!
//! ```text
//!   attach: place of the first byte wanted (8 bytes) -> husk: parts, each kind (1), length (4), bytes; the last is the end
//! ```

use crate::exit::Failure;
use std::collections::VecDeque;
use std::io::{Error, Read, Result, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Bytes kept; the first ones leave when there are more.
const KEPT_BYTES_MAX: usize = 64 << 20;
/// Bytes of one part.
const PART_BYTES_MAX: usize = 1 << 20;
/// Most who see a run at a time: each has a thread.
const VIEWERS_MAX: usize = 64;
/// How long one who has come may take to say from where on.
const PLACE_LATEST: Duration = Duration::from_secs(10);
/// How long the end of a run is kept for somebody to come.
const END_KEPT: Duration = Duration::from_secs(600);

/// What a part is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Output.
    Output = 0,
    /// What goes to stderr.
    Said = 1,
    /// The end: one byte, the exit status.
    End = 2,
    /// It is not kept here: why.
    Refused = 3,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Output, Self::Said, Self::End, Self::Refused];
}

#[derive(Debug, Default)]
struct State {
    /// Whether this host shows the run.
    is_here: bool,
    /// The host that does, as far as is known.
    root: String,
    /// Place of the first byte that is kept.
    begin: u64,
    kept: VecDeque<u8>,
    /// What is said at the end, and the exit status.
    end: Option<(String, u8)>,
    /// Somebody has seen the end.
    is_seen: bool,
    /// How many see it.
    viewers: usize,
}

/// What is kept.
#[derive(Debug, Default)]
pub struct Kept {
    state: Mutex<State>,
    changed: Condvar,
}

impl Kept {
    /// Nothing.
    pub const fn new() -> Self {
        let state =
            State { is_here: false, root: String::new(), begin: 0, kept: VecDeque::new(), end: None, is_seen: false, viewers: 0 };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The host of this name shows the run.
    pub fn follow(&self, root: &str) {
        root.clone_into(&mut self.lock().root);
    }

    /// Output was released that begins at this place.
    pub fn append(&self, begin: u64, bytes: &[u8]) {
        let mut state = self.lock();
        if !state.is_here {
            (state.is_here, state.begin) = (true, begin);
        }
        state.kept.extend(bytes);
        let surplus = state.kept.len().saturating_sub(KEPT_BYTES_MAX);
        state.kept.drain(..surplus);
        state.begin += surplus as u64;
        self.changed.notify_all();
    }

    /// The run is over; returns when somebody has seen that, or nobody came.
    pub fn end(&self, said: String, status: u8) {
        let mut state = self.lock();
        state.is_here = true;
        state.end = Some((said, status));
        self.changed.notify_all();
        let waited = self.changed.wait_timeout_while(state, END_KEPT, |state| !state.is_seen);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// Serves one who has come to see.
    ///
    /// # Errors
    /// He has gone.
    pub fn show(&self, stream: &mut UnixStream) -> Result<()> {
        let mut place = [0; 8];
        stream.set_read_timeout(Some(PLACE_LATEST))?;
        stream.read_exact(&mut place)?;
        let mut state = self.lock();
        if state.viewers >= VIEWERS_MAX {
            drop(state);
            let reason = format!("{VIEWERS_MAX} see this run already: end one of those");
            return part(stream, Kind::Refused, reason.as_bytes());
        }
        state.viewers += 1;
        drop(state);
        let shown = self.show_from(u64::from_le_bytes(place), stream);
        self.lock().viewers -= 1;
        shown
    }

    fn show_from(&self, mut place: u64, stream: &mut UnixStream) -> Result<()> {
        loop {
            let state = self.lock();
            if !state.is_here {
                let reason = match state.root.as_str() {
                    "" => "the run has not begun here".to_owned(),
                    root => format!("the run is shown on host {root}, as far as is known here: ask there"),
                };
                drop(state);
                return part(stream, Kind::Refused, reason.as_bytes());
            }
            place = place.max(state.begin);
            let from = usize::try_from(place - state.begin).unwrap_or(usize::MAX).min(state.kept.len());
            if from < state.kept.len() {
                let until = state.kept.len().min(from + PART_BYTES_MAX);
                let bytes: Vec<u8> = state.kept.range(from..until).copied().collect();
                drop(state);
                part(stream, Kind::Output, &bytes)?;
                place += bytes.len() as u64;
                continue;
            }
            let Some((said, status)) = state.end.clone() else {
                drop(self.changed.wait(state).unwrap_or_else(PoisonError::into_inner));
                continue;
            };
            drop(state);
            part(stream, Kind::Said, said.as_bytes())?;
            part(stream, Kind::End, &[status])?;
            self.lock().is_seen = true;
            self.changed.notify_all();
            return Ok(());
        }
    }
}

fn part(stream: &mut UnixStream, kind: Kind, bytes: &[u8]) -> Result<()> {
    stream.write_all(&[kind as u8])?;
    stream.write_all(&(bytes.len() as u32).to_le_bytes())?;
    stream.write_all(bytes)
}

/// Sees a run from a place on, to its end: its exit status.
///
/// # Errors
/// It is not kept there, or its host is lost, too.
pub fn see(stream: &mut UnixStream, place: u64, mut show: impl FnMut(Kind, &[u8])) -> std::result::Result<u8, Failure> {
    let gone = |error: Error| Failure::Internal(format!("the host that has the run's output: {error}"));
    stream.write_all(&place.to_le_bytes()).map_err(gone)?;
    loop {
        let mut head = [0; 5];
        stream.read_exact(&mut head).map_err(gone)?;
        let length = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let Some(kind) = Kind::ALL.into_iter().find(|kind| *kind as u8 == head[0]).filter(|_| length <= KEPT_BYTES_MAX) else {
            return Err(gone(Error::other("it says what this release does not know")));
        };
        let mut bytes = vec![0; length];
        stream.read_exact(&mut bytes).map_err(gone)?;
        match kind {
            Kind::Output | Kind::Said => show(kind, &bytes),
            Kind::End => return Ok(bytes.first().copied().unwrap_or_default()),
            Kind::Refused => return Err(Failure::NotFound(String::from_utf8_lossy(&bytes).into_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    fn seen(kept: &Kept, place: u64) -> (std::result::Result<u8, Failure>, Vec<u8>) {
        let (mut one, mut two) = UnixStream::pair().expect("a pair of sockets");
        thread::scope(|scope| {
            let shown = scope.spawn(move || kept.show(&mut two));
            let mut all = Vec::new();
            let status = see(&mut one, place, |_, bytes| all.extend(bytes));
            shown.join().expect("it does not panic").expect("nobody has gone");
            (status, all)
        })
    }

    #[test]
    fn who_comes_later_sees_all_or_the_rest() {
        let kept = Kept::new();
        assert!(matches!(seen(&kept, 0).0, Err(Failure::NotFound(_))));
        kept.follow("h1");
        assert!(matches!(seen(&kept, 0).0, Err(Failure::NotFound(reason)) if reason.contains("shown on host h1,")));
        kept.lock().viewers = VIEWERS_MAX;
        assert!(matches!(seen(&kept, 0).0, Err(Failure::NotFound(reason)) if reason.contains("64 see")));
        kept.lock().viewers = 0;
        kept.append(3, b"lo ");
        thread::scope(|scope| {
            let first = scope.spawn(|| seen(&kept, 0));
            kept.append(6, b"world\n");
            scope.spawn(|| kept.end("armed\n".to_owned(), 3));
            assert_eq!(first.join().expect("it does not panic"), (Ok(3), b"lo world\narmed\n".to_vec()));
        });
        assert_eq!(seen(&kept, 6), (Ok(3), b"world\narmed\n".to_vec()));
        assert_eq!(seen(&kept, 1000), (Ok(3), b"armed\n".to_vec()));
        assert_eq!(kept.lock().viewers, 0);
    }
}
