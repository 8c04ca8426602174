//! A console (virtio 1.2, 5.3) of one port.
//!
//! Owns what was typed and is not taken yet. Must not know registers.

use super::{Device, Malformed, Request};
use std::collections::VecDeque;
use std::io::{Read, Write};

/// Its number in the standard.
const ID: u32 = 3;
/// The queue of what is typed; the other one is of what is shown.
pub const RECEIVE: usize = 0;
/// Most bytes that wait for the guest.
const TYPED_MAX: usize = 4096;
const CHUNK_BYTES: usize = 4096;

/// A console.
pub struct Console {
    screen: Box<dyn Write + Send>,
    typed: VecDeque<u8>,
    configuration: [u8; 12],
}

impl Console {
    /// A console that shows what the guest says on `screen`.
    pub fn new(screen: Box<dyn Write + Send>) -> Self {
        Self { screen, typed: VecDeque::new(), configuration: [0; 12] }
    }
}

impl Device for Console {
    fn id(&self) -> u32 {
        ID
    }

    fn features(&self) -> u64 {
        0
    }

    fn configuration(&self) -> &[u8] {
        &self.configuration
    }

    fn queues(&self) -> usize {
        2
    }

    fn is_ready(&self, queue: usize) -> bool {
        queue != RECEIVE || !self.typed.is_empty()
    }

    fn serve(&mut self, queue: usize, request: Request<'_>) -> Result<u32, Malformed> {
        let Request { mut from, mut to } = request;
        if queue == RECEIVE {
            let count = to.available_bytes().min(self.typed.len());
            let bytes: Vec<u8> = self.typed.drain(..count).collect();
            to.write_all(&bytes).map_err(|_| Malformed)?;
            return Ok(count as u32);
        }
        let mut chunk = [0; CHUNK_BYTES];
        while let Ok(count @ 1..) = from.read(&mut chunk) {
            // A console that nobody reads any more is no business of the guest.
            self.screen.write_all(chunk.get(..count).unwrap_or_default()).unwrap_or(());
        }
        Ok(0)
    }

    fn type_in(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(TYPED_MAX - self.typed.len());
        self.typed.extend(bytes.get(..count).unwrap_or_default());
        count
    }
}
