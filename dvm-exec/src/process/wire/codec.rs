//! Messages as bytes: one kind byte, then fields in order, little-endian, lists with a u32 count before them.
//!
//! Owns the layout. Must not know keys, tags or lengths of frames.

use super::super::ask::ThreadUsage;
use super::super::moving::Luggage;
use super::super::sigframe::{Action, AltStack, FXSAVE_BYTES, Fxsave, Registers, SIGINFO_BYTES, SignalInfo, ThreadState};
use super::super::vma::{Found, Protection};
use super::{
    BUFFERS_MAX, Buffer, Call, FIGURES_CALLS_MAX, FLOATING_BYTES_MAX, INLINE_BYTES_MAX, Message, Question, RUNNERS_BYTES_MAX,
    Return, Room, SignalOrder, TOLD_BYTES_MAX, TRACE_BYTES_MAX, ThreadStart, WireError,
};
use crate::sys::cpu::Scheduling;

pub(super) fn encode(message: &Message, out: &mut Vec<u8>) {
    let mut writer = Writer(out);
    match message {
        Message::Start(start) => writer.kind(1).start(start),
        Message::Call(call) => writer.kind(2).call(call),
        Message::Clone { call, state, mask } => writer.kind(3).call(call).state(state).u64(*mask),
        Message::Return(answer) => writer.kind(4).answer(answer),
        Message::SetMask(mask) => writer.kind(5).u64(*mask),
        Message::Fault { info, ip, is_blocked } => writer.kind(6).bytes(&info.0).u64(*ip).kind(u8::from(*is_blocked)),
        Message::ExitThread { status } => writer.kind(7).u32(*status as u32),
        Message::MapQuery { address } => writer.kind(8).u64(*address),
        Message::MapAnswer { range, protection, found } => writer.kind(9).range(range).protection(*protection).kind(*found as u8),
        Message::Protect { tag, range, protection } => writer.kind(10).u64(*tag).range(range).protection(*protection),
        Message::ProtectDone { tag } => writer.kind(11).u64(*tag),
        Message::Kick { tid, signal } => writer.kind(12).u32(*tid as u32).signal(signal.as_ref()),
        Message::Exit { status } => writer.kind(13).u32(*status as u32),
        Message::ClockOffset { correction_ns } => writer.kind(14).u64(*correction_ns as u64),
        Message::Barrier { tag } => writer.kind(16).u64(*tag),
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
        Message::Ask { tag, question } => writer.kind(32).u64(*tag).question(*question),
        Message::Told { tag, answer } => writer.kind(33).u64(*tag).u32(answer.len() as u32).bytes(answer),
        Message::Guest(bytes) => writer.kind(50).u32(bytes.len() as u32).bytes(bytes),
        Message::Runners { bytes, is_last } => writer.kind(48).kind(u8::from(*is_last)).u32(bytes.len() as u32).bytes(bytes),
        Message::Traced { line } => writer.kind(34).u32(line.len() as u32).bytes(line),
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
        6 => Message::Fault { info: reader.info()?, ip: reader.u64()?, is_blocked: reader.flag()? },
        7 => Message::ExitThread { status: reader.u32()? as i32 },
        8 => Message::MapQuery { address: reader.u64()? },
        9 => Message::MapAnswer { range: reader.range()?, protection: reader.protection()?, found: reader.found()? },
        10 => Message::Protect { tag: reader.u64()?, range: reader.range()?, protection: reader.protection()? },
        11 => Message::ProtectDone { tag: reader.u64()? },
        12 => Message::Kick { tid: reader.u32()? as i32, signal: reader.signal()? },
        13 => Message::Exit { status: reader.u32()? as i32 },
        14 => Message::ClockOffset { correction_ns: reader.u64()? as i64 },
        15 => reader.figures()?,
        41 => Message::Move { tid: reader.u32()? as i32 },
        42 => Message::Depart(Box::new(reader.start()?)),
        40 => Message::Carrier { tid: reader.u32()? as i32, carrier: reader.u32()? as i32 },
        16 => Message::Barrier { tag: reader.u64()? },
        32 => Message::Ask { tag: reader.u64()?, question: reader.question()? },
        33 => Message::Told { tag: reader.u64()?, answer: reader.list(TOLD_BYTES_MAX)? },
        50 => Message::Guest(reader.list(TOLD_BYTES_MAX)?),
        48 => {
            let is_last = reader.flag()?;
            Message::Runners { bytes: reader.list(RUNNERS_BYTES_MAX)?, is_last }
        }
        34 => Message::Traced { line: reader.list(TRACE_BYTES_MAX)? },
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
        self.u64(answer.value as u64).buffers(&answer.outputs).signal(answer.signal.as_ref()).kind(u8::from(answer.is_signalled))
    }

    fn state(&mut self, state: &ThreadState) -> &mut Self {
        self.bytes(&state.fxsave.0).bytes(&state.registers.to_bytes()).u64(state.fs_base)
    }

    fn start(&mut self, start: &ThreadStart) -> &mut Self {
        self.state(&start.state).u64(start.mask).u32(start.tid as u32).u32(start.pid as u32).u64(start.clear_tid);
        let AltStack { address, flags, bytes } = start.altstack;
        self.u64(address).u32(flags).u64(bytes).kind(u8::from(start.is_traced));
        match start.scheduling {
            Some(scheduling) => self.kind(1).scheduling(scheduling),
            None => self.kind(0),
        };
        self.luggage(&start.luggage)
    }

    fn luggage(&mut self, luggage: &Luggage) -> &mut Self {
        let ThreadUsage { cpu_ns, user_ticks, system_ticks, processor } = luggage.used;
        self.bytes(&luggage.registers.to_bytes()).u32(luggage.floating.len() as u32).bytes(&luggage.floating);
        self.u64(cpu_ns).u64(user_ticks).u64(system_ticks).u64(processor)
    }

    fn scheduling(&mut self, scheduling: Scheduling) -> &mut Self {
        self.u32(scheduling.policy as u32).u32(scheduling.priority as u32).u32(scheduling.nice as u32)
    }

    fn question(&mut self, question: Question) -> &mut Self {
        match question {
            Question::Memory => self.kind(1),
            Question::Processor => self.kind(2),
            Question::Times => self.kind(3),
            Question::Usage => self.kind(4),
            Question::Thread(tid) => self.kind(5).u32(tid as u32),
            Question::Schedule(tid, scheduling) => self.kind(6).u32(tid as u32).scheduling(scheduling),
        }
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

    fn found(&mut self) -> Result<Found, WireError> {
        match self.u8()? {
            0 => Ok(Found::Hole),
            1 => Ok(Found::Area),
            2 => Ok(Found::BeyondFile),
            _ => Err(WireError::Malformed("what is at an address is unknown")),
        }
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
        Ok(Return { value: self.u64()? as i64, outputs: self.buffers()?, signal: self.signal()?, is_signalled: self.flag()? })
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
            altstack: AltStack { address: self.u64()?, flags: self.u32()?, bytes: self.u64()? },
            is_traced: self.flag()?,
            scheduling: if self.flag()? { Some(self.scheduling()?) } else { None },
            luggage: self.luggage()?,
        })
    }

    fn luggage(&mut self) -> Result<Luggage, WireError> {
        let registers = Registers::from_bytes(&self.array()?);
        let floating = self.list(FLOATING_BYTES_MAX)?;
        let (cpu_ns, user_ticks, system_ticks, processor) = (self.u64()?, self.u64()?, self.u64()?, self.u64()?);
        Ok(Luggage { registers, floating, used: ThreadUsage { cpu_ns, user_ticks, system_ticks, processor } })
    }

    fn question(&mut self) -> Result<Question, WireError> {
        Ok(match self.u8()? {
            1 => Question::Memory,
            2 => Question::Processor,
            3 => Question::Times,
            4 => Question::Usage,
            5 => Question::Thread(self.u32()? as i32),
            6 => Question::Schedule(self.u32()? as i32, self.scheduling()?),
            _ => return Err(WireError::Malformed("unknown question")),
        })
    }

    fn scheduling(&mut self) -> Result<Scheduling, WireError> {
        Ok(Scheduling { policy: self.u32()? as i32, priority: self.u32()? as i32, nice: self.u32()? as i32 })
    }

    fn list(&mut self, bytes_max: usize) -> Result<Vec<u8>, WireError> {
        let count = self.count(bytes_max)?;
        Ok(self.bytes(count)?.to_vec())
    }

    fn figures(&mut self) -> Result<Message, WireError> {
        let (user_ns, system_ns, threads) = (self.u64()?, self.u64()?, self.u32()?);
        let count = self.count(FIGURES_CALLS_MAX)?;
        let calls = (0..count).map(|_| Ok((self.u32()?, self.u64()?, self.u64()?))).collect::<Result<_, WireError>>()?;
        Ok(Message::Figures { user_ns, system_ns, threads, calls })
    }
}
