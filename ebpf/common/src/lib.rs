//! The directory: who owns a page, who shares it, and the one function that changes the answer.
//!
//! Owns the layout of a directory word. Must not know frames, pagers or timers.
#![no_std]
#![forbid(unsafe_code)]
