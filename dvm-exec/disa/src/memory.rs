//! What the interpreter needs of memory, and of the world.
//!
//! Owns the two interfaces. Must not know what is behind them: a machine of one host, or pages that are faulted in.

use crate::map::Range;
use crate::trap::TrapKind;
use serde::{Deserialize, Serialize};

/// Whether bytes are to be read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read.
    Load,
    /// Written.
    Store,
}

/// Memory that may be accessed without asking: the bytes of `range` lie behind each other from `host` on.
#[derive(Clone, Copy, Debug)]
pub struct Region {
    /// The addresses.
    pub range: Range,
    /// Where they are in this process, for as long as the memory lives.
    pub host: *mut u8,
}

/// The memory of one runner, but for the register window, which the interpreter keeps.
pub trait Memory {
    /// Whether all of `range` may be accessed so.
    ///
    /// # Errors
    /// The trap that the access is; its address is the first of the range.
    fn check(&mut self, range: Range, access: Access) -> Result<(), TrapKind>;

    /// Reads bytes, little endian, at most 8.
    ///
    /// # Errors
    /// As [`Self::check`], or MEM.
    fn load(&mut self, address: u64, bytes: usize) -> Result<u64, TrapKind> {
        let mut all = [0; 8];
        self.read(address, &mut all[..bytes])?;
        Ok(u64::from_le_bytes(all))
    }

    /// Writes the low bytes of `value`, at most 8.
    ///
    /// # Errors
    /// As [`Self::check`], or MEM.
    fn store(&mut self, address: u64, bytes: usize, value: u64) -> Result<(), TrapKind> {
        self.write(address, &value.to_le_bytes()[..bytes])
    }

    /// Reads any number of bytes.
    ///
    /// # Errors
    /// As [`Self::load`].
    fn read(&mut self, address: u64, bytes: &mut [u8]) -> Result<(), TrapKind>;

    /// Writes any number of bytes.
    ///
    /// # Errors
    /// As [`Self::store`].
    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), TrapKind>;

    /// As [`Self::load`], if nothing has to be found out for it; a `None` says nothing and changes nothing.
    fn load_known(&self, address: u64, bytes: usize) -> Option<u64> {
        let (_, _) = (address, bytes);
        None
    }

    /// As [`Self::store`], if nothing has to be found out for it; whether it was done.
    fn store_known(&mut self, address: u64, bytes: usize, value: u64) -> bool {
        let (_, _, _) = (address, bytes, value);
        false
    }

    /// Lets the runner use a further range.
    fn grant(&mut self, range: Range);

    /// Memory around `range`, all of which may be accessed so at addresses of this process; `None`: only by asking.
    ///
    /// Counts as an access to `range`, and shows nothing that was not accessed. The region stays valid until the memory is dropped;
    /// [`Self::load`] and the others agree with it as long as [`Self::generation`] is the same.
    fn region(&mut self, range: Range, access: Access) -> Option<Region> {
        let (_, _) = (range, access);
        None
    }

    /// Another number when regions that were shown before are not to be used any more.
    fn generation(&self) -> u64 {
        0
    }
}

/// A runner to be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spawn {
    /// Its stack; `None`: one is to be allocated.
    pub stack: Option<Range>,
    /// What it may use.
    pub heap: Vec<Range>,
    /// What it waits for; empty: nothing.
    pub watched: Vec<Range>,
    /// Its first instruction.
    pub first: u64,
    /// Whether it watches on after it has committed.
    pub is_persistent: bool,
}

/// A runner that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Born {
    /// Its number.
    pub id: u64,
    /// Its stack.
    pub stack: Range,
}

/// What a runner does beside computing. Nothing of it may be seen by others before the runner has committed.
pub trait Effects {
    /// Makes a runner.
    ///
    /// # Errors
    /// MEM: too many.
    fn spawn(&mut self, spawn: Spawn) -> Result<Born, TrapKind>;

    /// Appends to the output.
    ///
    /// # Errors
    /// MEM: too much.
    fn print(&mut self, bytes: &[u8]) -> Result<(), TrapKind>;

    /// Appends to the log.
    ///
    /// # Errors
    /// MEM: too much.
    fn log(&mut self, bytes: &[u8]) -> Result<(), TrapKind>;

    /// Reads the program's input from `offset` on; how many bytes there were.
    fn input(&mut self, offset: u64, bytes: &mut [u8]) -> usize;

    /// Shows a file in shared memory; `None`: there is no such file.
    fn open(&mut self, name: &[u8]) -> Option<Range>;

    /// Allocates shared memory; `None`: there is no room.
    fn allocate(&mut self, bytes: u64) -> Option<Range>;

    /// Gives allocated memory back; `false`: there is none at this address.
    fn free(&mut self, base: u64) -> bool;

    /// Nanoseconds since 1970, or whatever stands for them.
    fn time(&mut self) -> u64;

    /// A number by chance, the same for the same runner.
    fn random(&mut self) -> u64;

    /// An argument of the program.
    fn argument(&mut self, index: u64) -> Option<&[u8]>;

    /// The range will be used.
    fn touch(&mut self, range: Range);

    /// The runner came to `brk`.
    fn breakpoint(&mut self, pc: u64);
}
