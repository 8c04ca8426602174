//! The programs of `dvm-agent trace`: loaded, attached, and their records read.
//!
//! Owns where they are attached. Must not know what records mean.

use crate::error::{Error, errno};
use crate::load::undisturbed;
use aya::maps::{MapData, PerCpuArray, RingBuf};
use aya::programs::uprobe::UProbeScope;
use aya::programs::{Program, ProgramError, RawTracePoint, UProbe};
use aya::{Ebpf, EbpfLoader};
use dsm_fast::{TRACE_LOST, TRACE_MARKS, TRACE_POINTS, TRACE_RECORDS, TraceRecord};
use std::num::NonZeroU32;
use std::path::PathBuf;
use zerocopy::FromBytes;

/// The programs, attached. They go when this value goes.
pub struct Trace {
    ebpf: Ebpf,
    records: RingBuf<MapData>,
}

/// What could not be attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotAttached {
    /// The tracepoint or function.
    pub place: &'static str,
    /// Why.
    pub reason: String,
}

impl Trace {
    /// Loads the programs and attaches them to the kernel's tracepoints and to the functions of process `agent`. Tells what could not
    /// be attached.
    ///
    /// # Errors
    /// No object was embedded, or the kernel refuses it.
    pub fn attach(agent: u32) -> Result<(Self, Vec<NotAttached>), Error> {
        let mut ebpf = object()?;
        let ring = ebpf.take_map(TRACE_RECORDS).ok_or_else(|| missing("map", TRACE_RECORDS))?;
        let records =
            RingBuf::try_from(ring).map_err(|source| Error::Map { name: TRACE_RECORDS.into(), source: Box::new(source) })?;
        let mut trace = Self { ebpf, records };
        let mut lacking = Vec::new();
        let mut note = |place, result: Result<(), Error>| match result {
            // Without the right to load one of them there is none to any.
            Err(error @ (Error::Missing { .. } | Error::Program { .. })) => Err(error),
            Err(error) => {
                lacking.push(NotAttached { place, reason: error.told() });
                Ok(())
            }
            Ok(()) => Ok(()),
        };
        for (program, point) in TRACE_POINTS {
            note(point, trace.attach_point(program, point))?;
        }
        let process = NonZeroU32::new(agent);
        for (program, mark) in TRACE_MARKS {
            note(mark, trace.attach_mark(program, mark, process))?;
        }
        Ok((trace, lacking))
    }

    fn attach_point(&mut self, name: &'static str, point: &'static str) -> Result<(), Error> {
        load_point(&mut self.ebpf, name)?.attach(point).map(drop).map_err(|source| not_attached(name, source))
    }

    fn attach_mark(&mut self, name: &'static str, mark: &str, process: Option<NonZeroU32>) -> Result<(), Error> {
        let program = load_mark(&mut self.ebpf, name)?;
        let scope = process.map_or(UProbeScope::CallingProcess, UProbeScope::OneProcess);
        let file = process.map_or_else(|| PathBuf::from("/proc/self/exe"), |process| format!("/proc/{process}/exe").into());
        program.attach(mark, file, scope).map(drop).map_err(|source| not_attached(name, source))
    }

    /// Takes all records out of the ring and tells each to `keep`, those of one processor in the order of time.
    pub fn read(&mut self, mut keep: impl FnMut(TraceRecord)) {
        while let Some(item) = self.records.next() {
            if let Ok((record, _)) = TraceRecord::read_from_prefix(&item) {
                keep(record);
            }
        }
    }

    /// Records that found the ring full.
    ///
    /// # Errors
    /// The map of counts cannot be read.
    pub fn lost(&self) -> Result<u64, Error> {
        let map = self.ebpf.map(TRACE_LOST).ok_or_else(|| missing("map", TRACE_LOST))?;
        let failed = |source| Error::Map { name: TRACE_LOST.into(), source: Box::new(source) };
        let array = PerCpuArray::<_, u64>::try_from(map).map_err(failed)?;
        Ok(array.get(&0, 0).map_err(failed)?.iter().sum())
    }
}

/// Loads all programs and attaches none.
pub(crate) fn verified() -> Result<Ebpf, Error> {
    let mut ebpf = object()?;
    for (program, _) in TRACE_POINTS {
        load_point(&mut ebpf, program)?;
    }
    for (program, _) in TRACE_MARKS {
        load_mark(&mut ebpf, program)?;
    }
    Ok(ebpf)
}

fn object() -> Result<Ebpf, Error> {
    let object = crate::trace_object().ok_or(Error::NotBuiltIn)?;
    EbpfLoader::new().load(object).map_err(|source| Error::Object { source: source.into() })
}

fn load_point<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut RawTracePoint, Error> {
    let program: &mut RawTracePoint = program(ebpf, name)?.try_into().map_err(refused(name))?;
    undisturbed(|| loaded(program.load()).map_err(refused(name)))?;
    Ok(program)
}

fn load_mark<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut UProbe, Error> {
    let program: &mut UProbe = program(ebpf, name)?.try_into().map_err(refused(name))?;
    undisturbed(|| loaded(program.load()).map_err(refused(name)))?;
    Ok(program)
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Program, Error> {
    ebpf.program_mut(name).ok_or_else(|| missing("program", name))
}

/// A program that is loaded already is attached to a second place.
fn loaded(result: Result<(), ProgramError>) -> Result<(), ProgramError> {
    match result {
        Err(ProgramError::AlreadyLoaded) => Ok(()),
        result => result,
    }
}

fn missing(what: &'static str, name: &str) -> Error {
    Error::Missing { what, name: name.into() }
}

fn refused(program: &'static str) -> impl Fn(ProgramError) -> Error {
    move |source| Error::Program { program, source: source.into() }
}

fn not_attached(program: &'static str, source: ProgramError) -> Error {
    let system = errno(&source).map(std::io::Error::from_raw_os_error);
    let source = system.unwrap_or_else(|| std::io::Error::other(crate::error::chain(&source)));
    Error::Attach { program, source }
}
