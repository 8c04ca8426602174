//! Takes a call's buffers out of the program's memory, lays them out for the shadow, and puts the results back.
//!
//! Owns the three steps [`pack`] (member), [`Prepared`] (root) and [`unpack`] (member). Must not touch memory but through
//! [`Memory`].

use super::super::wire::{Buffer, Call, INLINE_BYTES_MAX, Return, Room};
use super::shape::{Argument, Fill, Length, Shape};

/// The program's memory as the member sees it. False: a page there cannot be accessed.
pub trait Memory {
    /// Copies from the program.
    fn read(&mut self, address: u64, out: &mut [u8]) -> bool;
    /// Copies to the program.
    fn write(&mut self, address: u64, bytes: &[u8]) -> bool;
}

/// Longest path with its zero, as in the kernel.
const PATH_BYTES_MAX: usize = 4096;
/// A path is read up to the next multiple of this: never into a page it does not reach.
const PATH_STEP_BYTES: u64 = 256;
/// Buffers of one vector, as in the kernel.
const VECTOR_COUNT_MAX: u64 = 1024;
const VECTOR_ENTRY_BYTES: usize = 16;
/// Descriptors in a set: more than any limit allows.
const DESCRIPTORS_MAX: u64 = 1 << 19;

/// Packs a call with its buffers; `None` if it must run on raw arguments (too long, or memory that cannot be read, on
/// which the kernel itself shall fail).
pub fn pack(number: u32, arguments: [u64; 6], shape: &Shape, memory: &mut dyn Memory) -> Option<Call> {
    let mut call = Call { number, arguments, inputs: Vec::new(), outputs: Vec::new() };
    let (mut bytes_in, mut bytes_out) = (0_usize, 0_usize);
    for (index, kind) in shape.arguments.iter().enumerate() {
        let pointer = arguments[index];
        if pointer == 0 {
            continue;
        }
        let argument = index as u8;
        let (input, room) = match *kind {
            Argument::Value => continue,
            Argument::Path => (Some(read_path(memory, pointer)?), None),
            Argument::In(length) => {
                let bytes = measure(length, &arguments, memory)?;
                (Some(read(memory, pointer, bytes)?), None)
            }
            Argument::Out(length, _) => (None, Some(measure(length, &arguments, memory)?)),
            Argument::InOut(length, _) => {
                let bytes = measure(length, &arguments, memory)?;
                (Some(read(memory, pointer, bytes)?), Some(bytes))
            }
            Argument::VectorIn(count) => (Some(gather(memory, pointer, arguments[usize::from(count)])?), None),
            Argument::VectorOut(count) => {
                let vector = read_vector(memory, pointer, arguments[usize::from(count)])?;
                (None, Some(vector_bytes(&vector)?))
            }
        };
        if let Some(bytes) = input {
            bytes_in += bytes.len();
            call.inputs.push(Buffer { argument, bytes });
        }
        if let Some(bytes) = room {
            bytes_out = bytes_out.checked_add(bytes)?;
            call.outputs.push(Room { argument, bytes: u32::try_from(bytes).ok()? });
        }
        if bytes_in > INLINE_BYTES_MAX || bytes_out > INLINE_BYTES_MAX {
            return None;
        }
    }
    Some(call)
}

/// Writes a call's results to the program. False: some of it cannot be written; the program gets EFAULT.
#[must_use]
pub fn unpack(arguments: [u64; 6], shape: &Shape, answer: &Return, memory: &mut dyn Memory) -> bool {
    answer.outputs.iter().all(|output| {
        let index = usize::from(output.argument);
        let (Some(&address), Some(kind)) = (arguments.get(index), shape.arguments.get(index)) else { return false };
        match *kind {
            Argument::Out(length, _) | Argument::InOut(length, _) => {
                // A length that the call itself sets still holds what the program gave: it comes after its buffer.
                let room = measure(length, &arguments, memory);
                room.is_some_and(|room| output.bytes.len() <= room) && memory.write(address, &output.bytes)
            }
            Argument::VectorOut(count) => scatter(memory, address, arguments[usize::from(count)], &output.bytes),
            Argument::Value | Argument::Path | Argument::In(_) | Argument::VectorIn(_) => false,
        }
    })
}

/// A call at the root, its buffers in the husk's own memory.
#[derive(Debug)]
pub struct Prepared {
    arguments: [u64; 6],
    places: [Place; 6],
}

/// What an argument of a prepared call points to.
#[derive(Debug, Default)]
struct Place {
    buffer: Option<Vec<u8>>,
    /// The vector that stands for the program's: one entry.
    vector: Option<Vec<u64>>,
    fill: Option<Fill>,
}

impl Prepared {
    /// Lays out a call that came with buffers; `None` if they do not suit the shape (a forged or confused peer).
    #[must_use]
    pub fn new(call: &Call, shape: &Shape) -> Option<Self> {
        let mut prepared = Self { arguments: call.arguments, places: Default::default() };
        for input in &call.inputs {
            let place = prepared.places.get_mut(usize::from(input.argument))?;
            if place.buffer.replace(input.bytes.clone()).is_some() {
                return None;
            }
        }
        for room in &call.outputs {
            let place = prepared.places.get_mut(usize::from(room.argument))?;
            let bytes = usize::try_from(room.bytes).ok().filter(|&bytes| bytes <= INLINE_BYTES_MAX)?;
            match &place.buffer {
                Some(buffer) if buffer.len() != bytes => return None,
                Some(_) => {}
                None => place.buffer = Some(vec![0; bytes]),
            }
        }
        for (index, kind) in shape.arguments.iter().enumerate() {
            prepared.judge(index, *kind, call)?;
        }
        Some(prepared)
    }

    /// The buffer of one argument is what its kind and the other arguments say.
    fn judge(&mut self, index: usize, kind: Argument, call: &Call) -> Option<()> {
        let is_input = call.inputs.iter().any(|input| usize::from(input.argument) == index);
        let is_output = call.outputs.iter().any(|room| usize::from(room.argument) == index);
        let pointer = self.arguments[index];
        if pointer == 0 || kind == Argument::Value {
            return (!is_input && !is_output).then_some(());
        }
        let (input, output, fill) = match kind {
            Argument::Value => return None,
            Argument::Path | Argument::In(_) | Argument::VectorIn(_) => (true, false, None),
            Argument::Out(_, fill) => (false, true, Some(fill)),
            Argument::InOut(_, fill) => (true, true, Some(fill)),
            Argument::VectorOut(_) => (false, true, Some(Fill::Result)),
        };
        let bytes = self.places[index].buffer.as_ref()?.len();
        let is_sound = match kind {
            Argument::Value => false,
            Argument::Path => self.places[index].buffer.as_ref()?.last() == Some(&0),
            Argument::In(length) | Argument::Out(length, _) | Argument::InOut(length, _) => self.expected(length) == Some(bytes),
            Argument::VectorIn(count) | Argument::VectorOut(count) => {
                self.arguments[usize::from(count)] = 1;
                self.places[index].vector = Some(vec![0; 2]);
                true
            }
        };
        self.places[index].fill = fill;
        (is_sound && is_input == input && is_output == output).then_some(())
    }

    /// How long a buffer must be, as the kernel will judge.
    fn expected(&self, length: Length) -> Option<usize> {
        match length {
            Length::Pointed(index) => self.pointed(index),
            other => plain_length(other, &self.arguments),
        }
    }

    /// The u32 in an argument's buffer.
    fn pointed(&self, index: u8) -> Option<usize> {
        let bytes = self.places[usize::from(index)].buffer.as_ref()?.first_chunk()?;
        usize::try_from(u32::from_le_bytes(*bytes)).ok()
    }

    /// Arguments for the kernel, pointing into this value's buffers. They hold until [`Prepared::finish`].
    #[must_use]
    pub fn arguments(&mut self) -> [u64; 6] {
        let mut arguments = self.arguments;
        for (argument, place) in arguments.iter_mut().zip(&mut self.places) {
            let Some(buffer) = &mut place.buffer else { continue };
            *argument = buffer.as_mut_ptr().expose_provenance() as u64;
            if let Some(vector) = &mut place.vector {
                vector.copy_from_slice(&[*argument, buffer.len() as u64]);
                *argument = vector.as_mut_ptr().expose_provenance() as u64;
            }
        }
        arguments
    }

    /// What comes back after the call returned `value`.
    #[must_use]
    pub fn finish(mut self, value: i64) -> Return {
        let mut outputs = Vec::new();
        for index in 0..self.places.len() {
            let Some(fill) = self.places[index].fill else { continue };
            let filled = self.filled(fill, value);
            let Some(mut bytes) = self.places[index].buffer.take() else { continue };
            bytes.truncate(filled);
            if !bytes.is_empty() {
                outputs.push(Buffer { argument: index as u8, bytes });
            }
        }
        Return { value, outputs, ..Return::default() }
    }

    /// What the kernel would do with an argument's buffer.
    #[cfg(test)]
    pub(super) fn fill_for_test(&mut self, argument: u8, bytes: &[u8]) {
        let buffer = self.places[usize::from(argument)].buffer.as_mut().expect("a buffer");
        buffer[..bytes.len()].copy_from_slice(bytes);
    }

    /// How many bytes of a buffer come back; more than it has means all.
    fn filled(&self, fill: Fill, value: i64) -> usize {
        let result = usize::try_from(value).ok();
        match fill {
            Fill::Result => result.unwrap_or(0),
            Fill::ResultElements(bytes) => result.map_or(0, |count| count.saturating_mul(bytes as usize)),
            Fill::Whole => result.map_or(0, |_| usize::MAX),
            Fill::Always => usize::MAX,
            // The length follows its buffer among the arguments: it has not been taken yet.
            Fill::Pointed(index) => result.and_then(|_| self.pointed(index)).unwrap_or(0),
        }
    }
}

/// Length of a buffer that the arguments alone decide.
fn plain_length(length: Length, arguments: &[u64; 6]) -> Option<usize> {
    let bytes = match length {
        Length::Bytes(bytes) => u64::from(bytes),
        Length::Argument(index) => arguments[usize::from(index)],
        Length::Elements(index, bytes) => arguments[usize::from(index)].checked_mul(u64::from(bytes))?,
        Length::DescriptorSet(index) => {
            // A negative count is the kernel's to refuse.
            let count = arguments[usize::from(index)];
            (count <= DESCRIPTORS_MAX).then(|| count.div_ceil(64) * 8)?
        }
        Length::Pointed(_) => return None,
    };
    usize::try_from(bytes).ok().filter(|&bytes| bytes <= INLINE_BYTES_MAX)
}

/// Length of a buffer in the program's memory.
fn measure(length: Length, arguments: &[u64; 6], memory: &mut dyn Memory) -> Option<usize> {
    let Length::Pointed(index) = length else { return plain_length(length, arguments) };
    let bytes = read(memory, arguments[usize::from(index)], 4)?;
    let bytes = u32::from_le_bytes(*bytes.first_chunk()?) as usize;
    (bytes <= INLINE_BYTES_MAX).then_some(bytes)
}

fn read(memory: &mut dyn Memory, address: u64, bytes: usize) -> Option<Vec<u8>> {
    let mut out = vec![0; bytes];
    (bytes == 0 || memory.read(address, &mut out)).then_some(out)
}

fn read_path(memory: &mut dyn Memory, address: u64) -> Option<Vec<u8>> {
    let mut path = Vec::new();
    while path.len() < PATH_BYTES_MAX {
        let at = address.checked_add(path.len() as u64)?;
        let step = (PATH_STEP_BYTES - at % PATH_STEP_BYTES) as usize;
        let part = read(memory, at, step.min(PATH_BYTES_MAX - path.len()))?;
        if let Some(end) = part.iter().position(|&byte| byte == 0) {
            path.extend_from_slice(&part[..=end]);
            return Some(path);
        }
        path.extend_from_slice(&part);
    }
    None
}

/// Address and length of each buffer of a vector.
fn read_vector(memory: &mut dyn Memory, address: u64, count: u64) -> Option<Vec<(u64, u64)>> {
    if count > VECTOR_COUNT_MAX {
        return None;
    }
    let bytes = read(memory, address, count as usize * VECTOR_ENTRY_BYTES)?;
    let word = |bytes: &[u8]| bytes.first_chunk().map(|word| u64::from_le_bytes(*word));
    bytes.chunks_exact(VECTOR_ENTRY_BYTES).map(|entry| Some((word(entry)?, word(&entry[8..])?))).collect()
}

fn vector_bytes(vector: &[(u64, u64)]) -> Option<usize> {
    let total = vector.iter().try_fold(0_u64, |total, entry| total.checked_add(entry.1))?;
    usize::try_from(total).ok().filter(|&total| total <= INLINE_BYTES_MAX)
}

fn gather(memory: &mut dyn Memory, address: u64, count: u64) -> Option<Vec<u8>> {
    let vector = read_vector(memory, address, count)?;
    let mut bytes = vec![0; vector_bytes(&vector)?];
    let mut rest = &mut bytes[..];
    for (address, length) in vector {
        let (part, next) = rest.split_at_mut(length as usize);
        if !part.is_empty() && !memory.read(address, part) {
            return None;
        }
        rest = next;
    }
    Some(bytes)
}

fn scatter(memory: &mut dyn Memory, address: u64, count: u64, mut bytes: &[u8]) -> bool {
    let Some(vector) = read_vector(memory, address, count) else { return false };
    for (address, length) in vector {
        let here = bytes.len().min(usize::try_from(length).unwrap_or(usize::MAX));
        let (part, rest) = bytes.split_at(here);
        if !part.is_empty() && !memory.write(address, part) {
            return false;
        }
        bytes = rest;
    }
    bytes.is_empty()
}
