//! What the parts of one guest say to each other, between its hosts.
//!
//! Owns the messages and their bytes; the connection that carries them keeps their order, and refuses strangers, repeats and gaps.
//! Must not know what is done about them. What comes from a peer is judged: malformed bytes are an error, never a panic.

use super::boot::Shape;
use super::figures::{NAMES, Row};
use dvm_apic::directory::Model;
use dvm_apic::limits::PROCESSORS_MAX;
use dvm_apic::{Identity, Signal};
use thiserror::Error;

/// A message between the root and a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Root, first: be a part of this guest. Answered by `Ready`.
    Setup(Shape),
    /// Member: the processors are there; whether its KVM shadows page tables.
    Ready(bool),
    /// Root: run.
    Run,
    /// Either: this reaches a processor of yours; the root passes it on.
    Signal(u32, Signal),
    /// Member: a level interrupt has ended.
    EndOfInterrupt(u8),
    /// Either: this processor is named so now. Answered by `Renamed` when every host knows.
    Rename(u64, u32, Identity),
    /// Answer with that tag.
    Renamed(u64),
    /// Member: a device is used. Answered by `Answer`.
    Access(u64, Access),
    /// Root: whether it is there, and what was read.
    Answer(u64, bool, Vec<u8>),
    /// Member: what time is it? Answered by `Clock` with the guest's time-stamp counter.
    AskClock(u64),
    /// Root.
    Clock(u64, u64),
    /// Root: what have your processors done? Answered by `Figures`.
    AskFigures,
    /// Member: what each of its processors has done, and how many nanoseconds its clock is from the root's at most.
    Figures(Vec<Row>, u64),
    /// Root: hold your processors, or let them go on. Answered by `Held` when it is so.
    Hold(u64, bool),
    /// Member: it is so.
    Held(u64),
    /// Member: it cannot go on: status and reason.
    Failed(u8, String),
}

/// A use of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reads so many bytes from a port.
    PortIn(u16, u8),
    /// Writes to a port.
    PortOut(u16, Vec<u8>),
    /// Reads so many bytes from an address.
    Read(u64, u8),
    /// Writes to an address.
    Write(u64, Vec<u8>),
}

/// Bytes that are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the other part of the guest sent what is no message")]
pub struct Malformed;

/// Longest text and longest transfer in a message.
const BYTES_MAX: usize = 8192;

impl Message {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer(Vec::new());
        match self {
            Self::Setup(shape) => {
                out.byte(1).list(&shape.hosts.iter().flat_map(|host| host.to_le_bytes()).collect::<Vec<_>>());
                out.word(u64::from(shape.here)).word(shape.bytes).word(shape.tsc_khz).word(shape.clock_tsc);
                out.word(shape.began_ns).byte(u8::from(shape.has_ends)).word(shape.image_end);
                out.list(shape.command_line.as_bytes())
            }
            Self::Ready(has_shadows) => out.byte(2).byte(u8::from(*has_shadows)),
            Self::Run => out.byte(3),
            Self::Signal(cpu, signal) => out.byte(5).word(u64::from(*cpu)).signal(*signal),
            Self::EndOfInterrupt(vector) => out.byte(6).byte(*vector),
            Self::Rename(tag, cpu, identity) => out.byte(7).word(*tag).word(u64::from(*cpu)).identity(*identity),
            Self::Renamed(tag) => out.byte(8).word(*tag),
            Self::Access(tag, access) => out.byte(9).word(*tag).access(access),
            Self::Answer(tag, is_there, data) => out.byte(10).word(*tag).byte(u8::from(*is_there)).list(data),
            Self::AskClock(tag) => out.byte(11).word(*tag),
            Self::Clock(tag, tsc) => out.byte(12).word(*tag).word(*tsc),
            Self::Figures(rows, clock_ns) => out.byte(13).rows(rows).word(*clock_ns),
            Self::AskFigures => out.byte(14),
            Self::Hold(tag, is_wanted) => out.byte(16).word(*tag).byte(u8::from(*is_wanted)),
            Self::Held(tag) => out.byte(17).word(*tag),
            Self::Failed(status, reason) => out.byte(15).byte(*status).list(reason.as_bytes()),
        };
        out.0
    }

    /// From bytes.
    ///
    /// # Errors
    /// They are no message.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut from = Reader(bytes);
        let message = match from.byte()? {
            1 => Self::Setup(from.shape()?),
            2 => Self::Ready(from.byte()? != 0),
            3 => Self::Run,
            5 => Self::Signal(from.word()? as u32, from.signal()?),
            6 => Self::EndOfInterrupt(from.byte()?),
            7 => Self::Rename(from.word()?, from.word()? as u32, from.identity()?),
            8 => Self::Renamed(from.word()?),
            9 => Self::Access(from.word()?, from.access()?),
            10 => Self::Answer(from.word()?, from.byte()? != 0, from.list()?),
            11 => Self::AskClock(from.word()?),
            12 => Self::Clock(from.word()?, from.word()?),
            13 => Self::Figures(from.rows()?, from.word()?),
            14 => Self::AskFigures,
            16 => Self::Hold(from.word()?, from.byte()? != 0),
            17 => Self::Held(from.word()?),
            15 => Self::Failed(from.byte()?, from.text()?),
            _ => return Err(Malformed),
        };
        if from.0.is_empty() { Ok(message) } else { Err(Malformed) }
    }
}

struct Writer(Vec<u8>);

impl Writer {
    fn byte(&mut self, byte: u8) -> &mut Self {
        self.0.push(byte);
        self
    }

    fn word(&mut self, word: u64) -> &mut Self {
        self.0.extend(word.to_le_bytes());
        self
    }

    fn list(&mut self, bytes: &[u8]) -> &mut Self {
        let bytes = bytes.get(..BYTES_MAX).unwrap_or(bytes);
        self.word(bytes.len() as u64).0.extend(bytes);
        self
    }

    fn rows(&mut self, rows: &[Row]) -> &mut Self {
        let rows = rows.get(..PROCESSORS_MAX).unwrap_or(rows);
        self.word(rows.len() as u64);
        for row in rows {
            self.word(u64::from(row.cpu)).word(u64::from(row.host));
            for count in row.counts {
                self.word(count);
            }
        }
        self
    }

    fn signal(&mut self, signal: Signal) -> &mut Self {
        match signal {
            Signal::Interrupt { vector, is_level } => self.byte(0).byte(vector).byte(u8::from(is_level)),
            Signal::Nmi => self.byte(1),
            Signal::Init => self.byte(2),
            Signal::Startup { page } => self.byte(3).byte(page),
        }
    }

    fn identity(&mut self, identity: Identity) -> &mut Self {
        let model = match identity.model {
            Model::Flat => 0,
            Model::Cluster => 1,
            Model::Wide => 2,
            Model::Off => 3,
        };
        self.word(u64::from(identity.id)).word(u64::from(identity.logical)).byte(model)
    }

    fn access(&mut self, access: &Access) -> &mut Self {
        match access {
            Access::PortIn(port, bytes) => self.byte(0).word(u64::from(*port)).byte(*bytes),
            Access::PortOut(port, data) => self.byte(1).word(u64::from(*port)).list(data),
            Access::Read(address, bytes) => self.byte(2).word(*address).byte(*bytes),
            Access::Write(address, data) => self.byte(3).word(*address).list(data),
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take(&mut self, count: usize) -> Result<&[u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn word(&mut self) -> Result<u64, Malformed> {
        let bytes = self.take(8)?;
        Ok(bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)))
    }

    fn list(&mut self) -> Result<Vec<u8>, Malformed> {
        let count = self.word()? as usize;
        if count > BYTES_MAX {
            return Err(Malformed);
        }
        self.take(count).map(<[u8]>::to_vec)
    }

    fn text(&mut self) -> Result<String, Malformed> {
        String::from_utf8(self.list()?).map_err(|_| Malformed)
    }

    fn rows(&mut self) -> Result<Vec<Row>, Malformed> {
        let count = self.word()?;
        if count > PROCESSORS_MAX as u64 {
            return Err(Malformed);
        }
        let row = |from: &mut Self| {
            let mut row = Row { cpu: from.word()? as u32, host: from.word()? as u16, counts: [0; NAMES.len()] };
            row.counts.iter_mut().try_for_each(|count| from.word().map(|word| *count = word))?;
            Ok(row)
        };
        (0..count).map(|_| row(self)).collect()
    }

    fn shape(&mut self) -> Result<Shape, Malformed> {
        let hosts = self.list()?;
        let (pairs, []) = hosts.as_chunks::<2>() else { return Err(Malformed) };
        Ok(Shape {
            hosts: pairs.iter().map(|pair| u16::from_le_bytes(*pair)).collect(),
            here: self.word()? as u16,
            bytes: self.word()?,
            tsc_khz: self.word()?,
            clock_tsc: self.word()?,
            began_ns: self.word()?,
            has_ends: self.byte()? != 0,
            image_end: self.word()?,
            command_line: self.text()?,
        })
    }

    fn signal(&mut self) -> Result<Signal, Malformed> {
        Ok(match self.byte()? {
            0 => Signal::Interrupt { vector: self.byte()?, is_level: self.byte()? != 0 },
            1 => Signal::Nmi,
            2 => Signal::Init,
            3 => Signal::Startup { page: self.byte()? },
            _ => return Err(Malformed),
        })
    }

    fn identity(&mut self) -> Result<Identity, Malformed> {
        let (id, logical) = (self.word()? as u32, self.word()? as u32);
        let model = match self.byte()? {
            0 => Model::Flat,
            1 => Model::Cluster,
            2 => Model::Wide,
            3 => Model::Off,
            _ => return Err(Malformed),
        };
        Ok(Identity { id, logical, model })
    }

    fn access(&mut self) -> Result<Access, Malformed> {
        Ok(match self.byte()? {
            0 => Access::PortIn(self.word()? as u16, self.byte()?),
            1 => Access::PortOut(self.word()? as u16, self.list()?),
            2 => Access::Read(self.word()?, self.byte()?),
            3 => Access::Write(self.word()?, self.list()?),
            _ => return Err(Malformed),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bytes_and_back() {
        let shape = Shape {
            hosts: vec![0, 1, 2, 0],
            here: 2,
            bytes: 64 << 20,
            tsc_khz: 2_596_120,
            clock_tsc: 1 << 40,
            began_ns: 1 << 60,
            has_ends: true,
            command_line: "x y".to_owned(),
            image_end: 0x10_4000,
        };
        let identity = Identity { id: 3, logical: 8, model: Model::Wide };
        for message in [
            Message::Setup(shape),
            Message::Ready(true),
            Message::Run,
            Message::Signal(3, Signal::Interrupt { vector: 0x40, is_level: true }),
            Message::Signal(3, Signal::Startup { page: 8 }),
            Message::EndOfInterrupt(9),
            Message::Rename(7, 3, identity),
            Message::Renamed(7),
            Message::Access(1, Access::PortIn(0x3f8, 1)),
            Message::Access(2, Access::PortOut(0x3f8, b"abc".to_vec())),
            Message::Access(3, Access::Read(0xfec0_0000, 4)),
            Message::Access(4, Access::Write(0xfec0_0000, vec![1, 2, 3, 4])),
            Message::Answer(4, true, vec![5]),
            Message::AskClock(1),
            Message::Clock(1, u64::MAX),
            Message::AskFigures,
            Message::Figures(vec![Row { cpu: 2, host: 1, counts: [1, 2, 3, 4, 5, 6, u64::MAX] }], 70),
            Message::Hold(8, true),
            Message::Held(8),
            Message::Failed(63, "why".to_owned()),
        ] {
            let bytes = message.encode();
            assert_eq!(Message::decode(&bytes), Ok(message));
            assert_eq!(Message::decode(&bytes[..bytes.len() - 1]), Err(Malformed), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_bad(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(message) = Message::decode(&bytes) {
                drop(message.encode());
            }
        }
    }
}
