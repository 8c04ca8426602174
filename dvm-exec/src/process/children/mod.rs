//! Children of the program: fork, vfork and posix_spawn, and a program that becomes another one.
//!
//! Owns the parts below and how they meet. Must not know members: a child runs at the root, whoever asked for it.
//!
//! * [`birth`]: makes the child and waits until it has left the program's memory.
//! * [`whole`]: forks that go on by themselves, since they get all of the program's memory, which is [`contents`].
//! * [`still`]: what keeps memory as it is until a child has its picture.
//! * [`child`]: what a child may do until then, and how its calls differ from a thread's.
//! * [`request`]: which processes can be made.
//! * [`replace`]: execve of a child, which runs natively, and of the program itself, which runs distributed again.

pub mod birth;
pub mod child;
pub mod contents;
pub mod replace;
pub mod request;
pub mod still;
pub mod whole;

pub use birth::start;
pub use child::Child;
