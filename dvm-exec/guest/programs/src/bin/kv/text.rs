//! Text of a bounded length.
//!
//! Owns the bytes. What does not fit is cut off.

use core::fmt::{self, Arguments, Write};

/// Longest text.
pub const BYTES_MAX: usize = 512;

/// A text.
#[derive(Clone)]
pub struct Text {
    bytes: [u8; BYTES_MAX],
    length: usize,
}

impl Text {
    /// No text.
    pub const fn new() -> Self {
        Self { bytes: [0; BYTES_MAX], length: 0 }
    }

    /// Formatted text.
    pub fn of(arguments: Arguments<'_>) -> Self {
        let mut text = Self::new();
        // What does not fit is cut off.
        text.write_fmt(arguments).unwrap_or(());
        text
    }

    /// As a string.
    pub fn as_str(&self) -> &str {
        core::str::from_utf8(self.bytes.get(..self.length).unwrap_or_default()).unwrap_or("?")
    }

    /// Its words.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        self.as_str().split_ascii_whitespace()
    }

    /// One byte more; false if there is no room.
    pub fn push(&mut self, byte: u8) -> bool {
        let place = self.bytes.get_mut(self.length);
        let has_room = place.is_some();
        if let Some(place) = place {
            *place = byte;
            self.length += 1;
        }
        has_room
    }
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if text.bytes().all(|byte| self.push(byte)) { Ok(()) } else { Err(fmt::Error) }
    }
}
