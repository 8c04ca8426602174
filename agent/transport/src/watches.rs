//! Watched descriptors.
//!
//! Owns tokens, duplicates of the descriptors, and which is ready. Must not know what they are.

use crate::limits::WATCHES_MAX;
use std::collections::VecDeque;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

struct Watch {
    fd: OwnedFd,
    token: u32,
    generation: u32,
    is_ready: bool,
}

/// Every watch. A watch is named to the kernel by place and generation, so that a late completion of an ended watch is known.
#[derive(Default)]
pub(crate) struct Watches {
    places: Vec<Option<Watch>>,
    generation: u32,
    ready: VecDeque<u64>,
}

impl Watches {
    /// Adds a watch; returns its name and descriptor. `None`: token in use, or table full.
    pub(crate) fn add(&mut self, fd: OwnedFd, token: u32) -> Option<(u64, RawFd)> {
        if self.places.iter().flatten().any(|watch| watch.token == token) {
            return None;
        }
        let place = match self.places.iter().position(Option::is_none) {
            Some(place) => place,
            None if self.places.len() < WATCHES_MAX => {
                self.places.push(None);
                self.places.len() - 1
            }
            None => return None,
        };
        self.generation = self.generation.wrapping_add(1);
        let raw = fd.as_raw_fd();
        self.places[place] = Some(Watch { fd, token, generation: self.generation, is_ready: false });
        Some((name(place, self.generation), raw))
    }

    /// Ends the watch of `token`; returns its name.
    pub(crate) fn remove(&mut self, token: u32) -> Option<u64> {
        let place = self.places.iter().position(|watch| watch.as_ref().is_some_and(|watch| watch.token == token))?;
        let watch = self.places[place].take()?;
        Some(name(place, watch.generation))
    }

    /// The kernel says that `name` is ready.
    pub(crate) fn on_ready(&mut self, name: u64) {
        if let Some(watch) = self.find(name)
            && !watch.is_ready
        {
            watch.is_ready = true;
            self.ready.push_back(name);
        }
    }

    /// The kernel ended the watch `name` by itself: its descriptor, to watch it again.
    pub(crate) fn on_ended(&mut self, name: u64) -> Option<RawFd> {
        self.find(name).map(|watch| watch.fd.as_raw_fd())
    }

    /// Token of the next ready descriptor.
    pub(crate) fn pop_ready(&mut self) -> Option<u32> {
        while let Some(name) = self.ready.pop_front() {
            if let Some(watch) = self.find(name) {
                watch.is_ready = false;
                return Some(watch.token);
            }
        }
        None
    }

    /// Whether [`Watches::pop_ready`] may have something.
    pub(crate) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    fn find(&mut self, name: u64) -> Option<&mut Watch> {
        let place = (name & 0xffff) as usize;
        self.places.get_mut(place)?.as_mut().filter(|watch| u64::from(watch.generation) == name >> 16)
    }
}

fn name(place: usize, generation: u32) -> u64 {
    u64::from(generation) << 16 | place as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    fn fd() -> OwnedFd {
        OwnedFd::from(UdpSocket::bind("127.0.0.1:0").unwrap())
    }

    #[test]
    fn tokens_are_unique_and_late_completions_are_ignored() {
        let mut watches = Watches::default();
        let (first, _) = watches.add(fd(), 7).unwrap();
        assert!(watches.add(fd(), 7).is_none());
        watches.on_ready(first);
        watches.on_ready(first);
        assert_eq!((watches.pop_ready(), watches.pop_ready()), (Some(7), None), "said once");
        watches.on_ready(first);
        assert_eq!(watches.remove(7), Some(first));
        assert_eq!(watches.pop_ready(), None, "nothing after the end");
        let (second, _) = watches.add(fd(), 7).unwrap();
        assert_ne!(first, second);
        watches.on_ready(first);
        assert!(watches.pop_ready().is_none() && watches.on_ended(first).is_none() && watches.on_ended(second).is_some());
    }
}
