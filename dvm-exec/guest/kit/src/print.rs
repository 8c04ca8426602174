//! Text to the console.
//!
//! Owns the one line at a time. Must not be used by interrupt handlers.

use crate::sys::port;
use crate::{Lock, Page};
use core::fmt::{self, Write};

struct Serial;

static CONSOLE: Page<Lock<Serial>> = Page(Lock::new(Serial));

impl Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(port::put);
        Ok(())
    }
}

/// Writes formatted text; used by [`print!`](crate::print!).
pub fn write(arguments: fmt::Arguments<'_>) {
    // The serial line takes everything.
    CONSOLE.lock().write_fmt(arguments).unwrap_or(());
}

/// Writes formatted text to the console.
#[macro_export]
macro_rules! print {
    ($($argument:tt)*) => { $crate::print::write(core::format_args!($($argument)*)) };
}
