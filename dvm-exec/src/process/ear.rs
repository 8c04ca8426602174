//! Who listens to another host: a thread of its own, or the thread of a processor that is interrupted from there again and again.
//!
//! Owns the passing of a connection's receiving half between both. Must not know what messages mean.
//!
//! ```text
//! listener --(IN_A_ROW messages for one processor, which is in its guest)--> that processor's thread, by SIGIO
//! listener <--(a message that it does not take, TAKEN_MAX of them at once, or before it may wait)-- processor's thread
//! ```
//!
//! A listener has to be woken, and has to interrupt the processor: where both share a core, two switches and an exit. The kernel's
//! signal ends the processor's stay in the guest by itself.

use super::connection::{ConnectionError, Receiver};
use super::wire::Message;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Messages in a row for one processor after which it listens itself.
const IN_A_ROW: u32 = 8;
/// Messages that it takes before it runs again.
const TAKEN_MAX: u32 = 64;

/// A message, or the end of the connection.
type Found = Result<Message, ConnectionError>;

/// The side of the thread that listens.
#[derive(Debug)]
pub struct Ear {
    receiver: Receiver,
    /// What came back with it.
    found: Option<Found>,
    /// The number of messages in a row for this processor.
    row: (usize, u32),
}

/// The side of a processor's thread: what it listens to.
#[derive(Debug, Default)]
pub struct Desk {
    lent: Mutex<Vec<Lent>>,
    /// Whether something can be lent; changes under the lock.
    is_open: AtomicBool,
}

#[derive(Debug)]
struct Lent {
    receiver: Receiver,
    back: mpsc::Sender<(Receiver, Option<Found>)>,
    /// Whether the kernel signals arrivals to this thread.
    is_signalled: bool,
    /// What it did not take.
    found: Option<Found>,
}

impl Ear {
    /// Listens.
    pub fn new(receiver: Receiver) -> Self {
        Self { receiver, found: None, row: (0, 0) }
    }

    /// Waits for the next message.
    ///
    /// # Errors
    /// [`ConnectionError`], but never `Interrupted`.
    pub fn next(&mut self) -> Found {
        match self.found.take() {
            Some(found) => found,
            None => self.receiver.receive(None),
        }
    }

    /// The last message was for no processor here.
    pub fn end_row(&mut self) {
        self.row.1 = 0;
    }

    /// The last message was for processor `cpu`. After some it listens itself if it is in its guest; `rouse` has it begin. Returns when
    /// it does so no more.
    pub fn handle_message_for(mut self, cpu: usize, desk: &Desk, rouse: impl FnOnce()) -> Result<Self, ConnectionError> {
        let before = if self.row.0 == cpu { self.row.1 } else { 0 };
        self.row = (cpu, before + 1);
        if self.row.1 < IN_A_ROW {
            return Ok(self);
        }
        self.row.1 = 0;
        let (back, returned) = channel();
        if let Some(lent) = desk.lend(Lent { receiver: self.receiver, back, is_signalled: false, found: None }) {
            self.receiver = lent.receiver;
            return Ok(self);
        }
        rouse();
        // A thread that ends gives back what it has, so it is there unless the thread panicked.
        let (receiver, found) = returned.recv().map_err(|_| ConnectionError::Closed)?;
        Ok(Self { receiver, found, row: (cpu, 0) })
    }
}

impl Desk {
    fn lent(&self) -> MutexGuard<'_, Vec<Lent>> {
        self.lent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives back what cannot be lent now.
    fn lend(&self, lent: Lent) -> Option<Lent> {
        let mut all = self.lent();
        // Relaxed: changes under the lock.
        if !self.is_open.load(Ordering::Relaxed) {
            return Some(lent);
        }
        all.push(lent);
        None
    }

    /// From now on something may be lent to this thread, which asks [`Desk::hear`] whenever it is interrupted.
    pub fn open(&self) {
        // Relaxed: only this thread changes it.
        if !self.is_open.load(Ordering::Relaxed) {
            let all = self.lent();
            self.is_open.store(true, Ordering::Relaxed);
            drop(all);
        }
    }

    /// Gives everything back: to be called before this thread waits for anything but the guest.
    pub fn close(&self) {
        if self.is_open.load(Ordering::Relaxed) {
            let mut all = self.lent();
            self.is_open.store(false, Ordering::Relaxed);
            let given = mem::take(&mut *all);
            drop(all);
            given.into_iter().for_each(Lent::give_back);
        }
    }

    /// Takes what has come, as long as `take` does; what it does not take goes back with the connection.
    pub fn hear(&self, mut take: impl FnMut(&Message) -> bool) {
        let mut all = self.lent();
        let mut index = 0;
        while let Some(lent) = all.get_mut(index) {
            if lent.hear(&mut take) {
                index += 1;
            } else {
                all.swap_remove(index).give_back();
            }
        }
    }
}

impl Lent {
    /// False if another has to go on, with what was found.
    fn hear(&mut self, take: &mut impl FnMut(&Message) -> bool) -> bool {
        if !self.is_signalled {
            if let Err(error) = self.receiver.signal_arrivals(true) {
                self.found = Some(Err(error.into()));
                return false;
            }
            self.is_signalled = true;
        }
        for _ in 0..TAKEN_MAX {
            match self.receiver.try_receive() {
                Ok(None) => return true,
                Ok(Some(message)) if take(&message) => {}
                Ok(Some(message)) => {
                    self.found = Some(Ok(message));
                    return false;
                }
                Err(error) => {
                    self.found = Some(Err(error));
                    return false;
                }
            }
        }
        false
    }

    fn give_back(self) {
        let Self { receiver, back, is_signalled, mut found } = self;
        if is_signalled && let Err(error) = receiver.signal_arrivals(false) {
            found.get_or_insert(Err(error.into()));
        }
        // A listener that is gone needs nothing more.
        back.send((receiver, found)).unwrap_or(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::connection::{Connection, Sender};
    use crate::process::wire::Side;
    use crate::sys::vm::install_kick;
    use std::os::unix::net::UnixStream;
    use std::thread;

    const CPU: usize = 3;

    fn pair() -> (Sender, Ear) {
        // What the kernel signals would end the process of the tests.
        install_kick().expect("as it should be");
        let (here, there) = UnixStream::pair().expect("as it should be");
        let key = [7; 16];
        let starting = thread::spawn(move || Connection::start(there.into(), &key, Side::Root).expect("as it should be"));
        let receiver = Connection::start(here.into(), &key, Side::Member).expect("as it should be").receiver;
        (starting.join().expect("as it should be").sender, Ear::new(receiver))
    }

    fn message(number: u8) -> Message {
        Message::Guest(vec![number])
    }

    /// As a listener does; gives the numbers of messages that it handled itself. Message 0 is for no processor and 255 the last.
    fn listen(mut ear: Ear, desk: &Desk) -> Vec<u8> {
        let mut handled = Vec::new();
        loop {
            let Ok(Message::Guest(bytes)) = ear.next() else { return handled };
            handled.push(bytes[0]);
            match bytes[0] {
                255 => return handled,
                0 => ear.end_row(),
                _ => match ear.handle_message_for(CPU, desk, || {}) {
                    Ok(back) => ear = back,
                    Err(_) => return handled,
                },
            }
        }
    }

    #[test]
    fn every_message_is_taken_once_and_in_order() {
        let (mut sender, ear) = pair();
        let desk = Desk::default();
        desk.open();
        let mut taken = Vec::new();
        let handled = thread::scope(|scope| {
            let listening = scope.spawn(|| listen(ear, &desk));
            for number in 1..=200 {
                sender.send(&message(number)).expect("as it should be");
                desk.hear(|message| {
                    let Message::Guest(bytes) = message else { return false };
                    let is_taken = bytes[0] % 50 != 0;
                    taken.extend(is_taken.then_some(bytes[0]));
                    is_taken
                });
                if number % 70 == 0 {
                    desk.close();
                    desk.open();
                }
            }
            sender.send(&message(255)).expect("as it should be");
            while !listening.is_finished() {
                desk.hear(|_| false);
                thread::yield_now();
            }
            listening.join().expect("as it should be")
        });
        assert!(handled.is_sorted() && taken.is_sorted(), "{handled:?} {taken:?}");
        let mut all = [&handled[..], &taken].concat();
        all.sort_unstable();
        assert!(all.into_iter().eq((1..=200).chain([255])), "{handled:?} {taken:?}");
        assert!([50, 100, 150, 200].iter().all(|number| handled.contains(number)), "{handled:?}");
    }

    #[test]
    fn what_is_closed_gets_nothing() {
        let (mut sender, ear) = pair();
        let desk = Desk::default();
        for number in (1..=20).chain([255]) {
            sender.send(&message(number)).expect("as it should be");
        }
        assert_eq!(listen(ear, &desk).len(), 21);
    }

    #[test]
    fn the_end_comes_back_to_the_listener() {
        let (mut sender, ear) = pair();
        let desk = Desk::default();
        desk.open();
        thread::scope(|scope| {
            let listening = scope.spawn(|| listen(ear, &desk));
            for number in 1..=8 {
                sender.send(&message(number)).expect("as it should be");
            }
            drop(sender);
            while !listening.is_finished() {
                desk.hear(|_| true);
                thread::yield_now();
            }
            assert!(listening.join().expect("as it should be").len() <= 8);
        });
    }
}
