//! Messages as bytes: one kind byte, then fields in order, little-endian, lists with a u32 count before them.
//!
//! Owns the layout. Must not know keys, tags or lengths of frames.

use super::super::moving::Luggage;
use super::super::sigframe::{Action, AltStack, FXSAVE_BYTES, Fxsave, Registers, SIGINFO_BYTES, SignalInfo, ThreadState};
use super::super::vma::Protection;
use super::{
    BUFFERS_MAX, Buffer, Call, FIGURES_CALLS_MAX, FLOATING_BYTES_MAX, INLINE_BYTES_MAX, Message, Return, Room, SignalOrder,
    ThreadStart, WireError,
};

pub(super) fn encode(message: &Message, out: &mut Vec<u8>) {
    let mut writer = Writer(out);
    match message {
        Message::Start(start) => writer.kind(1).start(start),
        Message::Call(call) => writer.kind(2).call(call),
        Message::Clone { call, state, mask } => writer.kind(3).call(call).state(state).u64(*mask),
        Message::Return(answer) => writer.kind(4).answer(answer),
        Message::SetMask(mask) => writer.kind(5).u64(*mask),
        Message::Fault { info, ip } => writer.kind(6).bytes(&info.0).u64(*ip),
        Message::ExitThread { status } => writer.kind(7).u32(*status as u32),
        Message::MapQuery { address } => writer.kind(8).u64(*address),
        Message::MapAnswer { range, protection, mapped } => {
            writer.kind(9).range(range).protection(*protection).kind(u8::from(*mapped))
        }
        Message::Protect { tag, range, protection } => writer.kind(10).u64(*tag).range(range).protection(*protection),
        Message::ProtectDone { tag } => writer.kind(11).u64(*tag),
        Message::Kick { tid, signal } => writer.kind(12).u32(*tid as u32).signal(signal.as_ref()),
        Message::Exit { status } => writer.kind(13).u32(*status as u32),
        Message::ClockOffset { correction_ns } => writer.kind(14).u64(*correction_ns as u64),
        Message::Figures { user_ns, system_ns, threads, calls } => {
            writer.kind(15).u64(*user_ns).u64(*system_ns).u32(*threads).u32(calls.len() as u32);
            for &(number, count, ns) in calls {
                writer.u32(number).u64(count).u64(ns);
            }
            &mut writer
        }
        Message::Move { tid } => writer.kind(41).u32(*tid as u32),
        Message::Depart(start) => writer.kind(42).start(start),
        Message::Carrier { tid, carrier } => writer.kind(40).u32(*tid as u32).u32(*carrier as u32),
    };
}

pub(super) fn decode(body: &[u8]) -> Result<Message, WireError> {
    let mut reader = Reader(body);
    let message = read(&mut reader)?;
    if !reader.0.is_empty() {
        return Err(WireError::Malformed("bytes after the message"));
    }
    Ok(message)
}

fn read(reader: &mut Reader<'_>) -> Result<Message, WireError> {
    Ok(match reader.u8()? {
        1 => Message::Start(Box::new(reader.start()?)),
        2 => Message::Call(reader.call()?),
        3 => Message::Clone { call: reader.call()?, state: Box::new(reader.state()?), mask: reader.u64()? },
        4 => Message::Return(reader.answer()?),
        5 => Message::SetMask(reader.u64()?),
        6 => Message::Fault { info: reader.info()?, ip: reader.u64()? },
        7 => Message::ExitThread { status: reader.u32()? as i32 },
        8 => Message::MapQuery { address: reader.u64()? },
        9 => Message::MapAnswer { range: reader.range()?, protection: reader.protection()?, mapped: reader.flag()? },
        10 => Message::Protect { tag: reader.u64()?, range: reader.range()?, protection: reader.protection()? },
        11 => Message::ProtectDone { tag: reader.u64()? },
        12 => Message::Kick { tid: reader.u32()? as i32, signal: reader.signal()? },
        13 => Message::Exit { status: reader.u32()? as i32 },
        14 => Message::ClockOffset { correction_ns: reader.u64()? as i64 },
        15 => reader.figures()?,
        41 => Message::Move { tid: reader.u32()? as i32 },
        42 => Message::Depart(Box::new(reader.start()?)),
        40 => Message::Carrier { tid: reader.u32()? as i32, carrier: reader.u32()? as i32 },
        _ => return Err(WireError::Malformed("unknown kind")),
    })
}

struct Writer<'a>(&'a mut Vec<u8>);

impl Writer<'_> {
    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn kind(&mut self, byte: u8) -> &mut Self {
        self.bytes(&[byte])
    }

    fn u32(&mut self, word: u32) -> &mut Self {
        self.bytes(&word.to_le_bytes())
    }

    fn u64(&mut self, word: u64) -> &mut Self {
        self.bytes(&word.to_le_bytes())
    }

    fn range(&mut self, range: &std::ops::Range<u64>) -> &mut Self {
        self.u64(range.start).u64(range.end)
    }

    fn protection(&mut self, protection: Protection) -> &mut Self {
        self.kind(protection.bits() as u8)
    }

    fn buffers(&mut self, buffers: &[Buffer]) -> &mut Self {
        self.u32(buffers.len() as u32);
        for buffer in buffers {
            self.kind(buffer.argument).u32(buffer.bytes.len() as u32).bytes(&buffer.bytes);
        }
        self
    }

    fn call(&mut self, call: &Call) -> &mut Self {
        self.u32(call.number);
        for &argument in &call.arguments {
            self.u64(argument);
        }
        self.buffers(&call.inputs).u32(call.outputs.len() as u32);
        for room in &call.outputs {
            self.kind(room.argument).u32(room.bytes);
        }
        self
    }

    fn signal(&mut self, signal: Option<&SignalOrder>) -> &mut Self {
        match signal {
            Some(order) => self.kind(1).bytes(&order.info.0).bytes(&order.action.to_bytes()),
            None => self.kind(0),
        }
    }

    fn answer(&mut self, answer: &Return) -> &mut Self {
        self.u64(answer.value as u64).buffers(&answer.outputs).signal(answer.signal.as_ref())
    }

    fn state(&mut self, state: &ThreadState) -> &mut Self {
        self.bytes(&state.fxsave.0).bytes(&state.registers.to_bytes()).u64(state.fs_base)
    }

    fn start(&mut self, start: &ThreadStart) -> &mut Self {
        self.state(&start.state).u64(start.mask).u32(start.tid as u32).u32(start.pid as u32).u64(start.clear_tid);
        let luggage = &start.luggage;
        self.bytes(&start.altstack.to_bytes()).bytes(&luggage.registers.to_bytes());
        self.u32(luggage.floating.len() as u32).bytes(&luggage.floating)
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, count: usize) -> Result<&'a [u8], WireError> {
        let (bytes, rest) = self.0.split_at_checked(count).ok_or(WireError::Malformed("it ends early"))?;
        self.0 = rest;
        Ok(bytes)
    }

    fn array<const COUNT: usize>(&mut self) -> Result<[u8; COUNT], WireError> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(WireError::Malformed("it ends early"))?;
        self.0 = rest;
        Ok(*bytes)
    }

    fn u8(&mut self) -> Result<u8, WireError> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, WireError> {
        self.array().map(u64::from_le_bytes)
    }

    fn flag(&mut self) -> Result<bool, WireError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(WireError::Malformed("a flag is neither 0 nor 1")),
        }
    }

    /// A list's length, bounded before anything is reserved.
    fn count(&mut self, max: usize) -> Result<usize, WireError> {
        let count = self.u32()? as usize;
        if count > max { Err(WireError::Malformed("a list is too long")) } else { Ok(count) }
    }

    fn argument(&mut self) -> Result<u8, WireError> {
        let argument = self.u8()?;
        if argument < 6 { Ok(argument) } else { Err(WireError::Malformed("no such argument")) }
    }

    fn range(&mut self) -> Result<std::ops::Range<u64>, WireError> {
        let range = self.u64()?..self.u64()?;
        if range.is_empty() { Err(WireError::Malformed("an empty range")) } else { Ok(range) }
    }

    fn protection(&mut self) -> Result<Protection, WireError> {
        let bits = self.u8()?;
        if bits < 8 { Ok(Protection::from_bits(u64::from(bits))) } else { Err(WireError::Malformed("unknown rights")) }
    }

    fn buffers(&mut self) -> Result<Vec<Buffer>, WireError> {
        let count = self.count(BUFFERS_MAX)?;
        let buffer = |reader: &mut Self| {
            let argument = reader.argument()?;
            let bytes = reader.count(INLINE_BYTES_MAX)?;
            Ok(Buffer { argument, bytes: reader.bytes(bytes)?.to_vec() })
        };
        (0..count).map(|_| buffer(self)).collect()
    }

    fn call(&mut self) -> Result<Call, WireError> {
        let number = self.u32()?;
        let mut arguments = [0; 6];
        for argument in &mut arguments {
            *argument = self.u64()?;
        }
        let inputs = self.buffers()?;
        let count = self.count(BUFFERS_MAX)?;
        let room = |reader: &mut Self| {
            let argument = reader.argument()?;
            Ok(Room { argument, bytes: reader.count(INLINE_BYTES_MAX)? as u32 })
        };
        let outputs = (0..count).map(|_| room(self)).collect::<Result<_, _>>()?;
        Ok(Call { number, arguments, inputs, outputs })
    }

    fn info(&mut self) -> Result<SignalInfo, WireError> {
        self.array::<SIGINFO_BYTES>().map(SignalInfo)
    }

    fn signal(&mut self) -> Result<Option<SignalOrder>, WireError> {
        if !self.flag()? {
            return Ok(None);
        }
        Ok(Some(SignalOrder { info: self.info()?, action: Action::from_bytes(&self.array()?) }))
    }

    fn answer(&mut self) -> Result<Return, WireError> {
        Ok(Return { value: self.u64()? as i64, outputs: self.buffers()?, signal: self.signal()? })
    }

    fn state(&mut self) -> Result<ThreadState, WireError> {
        let fxsave = Fxsave(self.array::<FXSAVE_BYTES>()?);
        Ok(ThreadState { fxsave, registers: Registers::from_bytes(&self.array()?), fs_base: self.u64()? })
    }

    fn start(&mut self) -> Result<ThreadStart, WireError> {
        Ok(ThreadStart {
            state: self.state()?,
            mask: self.u64()?,
            tid: self.u32()? as i32,
            pid: self.u32()? as i32,
            clear_tid: self.u64()?,
            altstack: AltStack::from_bytes(&self.array()?),
            luggage: self.luggage()?,
        })
    }

    fn luggage(&mut self) -> Result<Luggage, WireError> {
        let registers = Registers::from_bytes(&self.array()?);
        let count = self.count(FLOATING_BYTES_MAX)?;
        Ok(Luggage { registers, floating: self.bytes(count)?.to_vec() })
    }

    fn figures(&mut self) -> Result<Message, WireError> {
        let (user_ns, system_ns, threads) = (self.u64()?, self.u64()?, self.u32()?);
        let count = self.count(FIGURES_CALLS_MAX)?;
        let calls = (0..count).map(|_| Ok((self.u32()?, self.u64()?, self.u64()?))).collect::<Result<_, WireError>>()?;
        Ok(Message::Figures { user_ns, system_ns, threads, calls })
    }
}
