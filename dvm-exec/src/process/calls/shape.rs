//! Which arguments of a call point to buffers, and how long those are.
//!
//! Owns the vocabulary. Must not know which call has which shape.

/// The six arguments of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// In order; unused ones are values.
    pub arguments: [Argument; 6],
}

/// A shape from its first arguments; the others are values.
#[must_use]
pub const fn shape<const COUNT: usize>(first: [Argument; COUNT]) -> Shape {
    let mut arguments = [Argument::Value; 6];
    let mut index = 0;
    while index < COUNT {
        arguments[index] = first[index];
        index += 1;
    }
    Shape { arguments }
}

/// What an argument is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Argument {
    /// A number, or a pointer that stays one (a futex word).
    Value,
    /// A zero-terminated string, at most 4096 bytes.
    Path,
    /// Read by the call.
    In(Length),
    /// Written by the call.
    Out(Length, Fill),
    /// Read and written.
    InOut(Length, Fill),
    /// An iovec array whose buffers are read; the count is in this argument.
    VectorIn(u8),
    /// An iovec array whose buffers are written; the count is in this argument.
    VectorOut(u8),
}

/// How long a buffer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// So many bytes.
    Bytes(u32),
    /// What this argument says.
    Argument(u8),
    /// This argument times so many bytes.
    Elements(u8, u32),
    /// The u32 this argument points to (socklen_t).
    Pointed(u8),
    /// An fd_set for the descriptor count in this argument.
    DescriptorSet(u8),
}

/// How much of an output buffer comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// As many bytes as the result says.
    Result,
    /// As many elements of so many bytes as the result says.
    ResultElements(u32),
    /// All of it, if the call succeeded.
    Whole,
    /// All of it, also on failure (the rest of a sleep).
    Always,
    /// As much as the u32 behind this argument says afterwards, if the call succeeded.
    Pointed(u8),
}
