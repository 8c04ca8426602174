//! The object in the kernel: its programs and maps.
//!
//! Owns loading, and finding programs and maps by name. Must not attach anything: [`crate::ladder`] does.

use crate::array::{MappedArray, Shape};
use crate::error::{Error, errno};
use aya::maps::{HashMap, Map, MapData, PerCpuArray};
use aya::programs::{Program, SchedClassifier, Xdp};
use aya::{Ebpf, EbpfLoader, Pod};

/// The XDP program, as the kernel names it.
pub const XDP_PROGRAM: &str = "dvm_xdp";
/// The TC program, as the kernel names it.
pub const TC_PROGRAM: &str = "dvm_tc";

/// The XDP program that passes everything.
pub const PASS_PROGRAM: &str = "dvm_pass";

/// The programs and maps of one agent, loaded. They go when this value goes.
#[derive(Debug)]
pub struct FastPath {
    ebpf: Ebpf,
}

/// What the verifier counted of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Its name.
    pub program: String,
    /// Instructions the verifier walked; none are told before Linux 5.16.
    pub walked: u32,
    /// Instructions after the verifier changed what it changes.
    pub loaded: u32,
}

/// Sizes of the large maps for those who serve no pages.
pub const SMALL_MAPS: [(&str, u32); 4] = [("DIRECTORIES", 1), ("PLACES", 1), ("COPIES", 1), ("PAGES", 1)];
const INSTRUCTION_BYTES: u32 = 8;
/// As many as libbpf makes.
const LOAD_TRIES: usize = 5;

impl FastPath {
    /// Loads the embedded object; nothing is attached yet. Once per agent.
    ///
    /// `entries` are the sizes of maps that are to have others than in the object, by their names.
    ///
    /// # Errors
    /// No object was embedded, or the kernel refuses it.
    pub fn load(entries: &[(&str, u32)]) -> Result<Self, Error> {
        let object = crate::object().ok_or(Error::NotBuiltIn)?;
        let mut loader = EbpfLoader::new();
        for (name, count) in entries {
            loader.map_max_entries(name, *count);
        }
        let ebpf = loader.load(object).map_err(|source| Error::Object { source: source.into() })?;
        let mut path = Self { ebpf };
        let (xdp, tc, pass) = (XDP_PROGRAM, TC_PROGRAM, PASS_PROGRAM);
        undisturbed(|| path.xdp()?.load().map_err(refused(xdp)))?;
        undisturbed(|| path.tc()?.load().map_err(refused(tc)))?;
        undisturbed(|| path.pass()?.load().map_err(refused(pass)))?;
        Ok(path)
    }

    pub(crate) fn xdp(&mut self) -> Result<&mut Xdp, Error> {
        self.program(XDP_PROGRAM)?.try_into().map_err(refused(XDP_PROGRAM))
    }

    pub(crate) fn tc(&mut self) -> Result<&mut SchedClassifier, Error> {
        self.program(TC_PROGRAM)?.try_into().map_err(refused(TC_PROGRAM))
    }

    pub(crate) fn pass(&mut self) -> Result<&mut Xdp, Error> {
        self.program(PASS_PROGRAM)?.try_into().map_err(refused(PASS_PROGRAM))
    }

    fn program(&mut self, name: &str) -> Result<&mut Program, Error> {
        self.ebpf.program_mut(name).ok_or_else(|| Error::Missing { what: "program", name: name.into() })
    }

    /// Maps an array map with BPF_F_MMAPABLE into this process.
    ///
    /// # Errors
    /// No such map, or one of another shape than the caller takes it for.
    pub fn map_array(&self, name: &str, value_bytes: usize, entries: u32) -> Result<MappedArray, Error> {
        let map = match self.ebpf.map(name) {
            Some(Map::Array(map)) => map,
            Some(_) => return Err(shape(name, "another type", "that of an array")),
            None => return Err(Error::Missing { what: "map", name: name.into() }),
        };
        let info = map.info().map_err(|source| Error::Map { name: name.into(), source: source.into() })?;
        let found = Shape { value_bytes: info.value_size() as usize, entries: info.max_entries() };
        let expected = Shape { value_bytes, entries };
        if found != expected {
            return Err(shape(name, found, expected));
        }
        MappedArray::map(name, map.fd(), expected)
    }

    /// Takes a hash map out, to be changed without the programs at hand.
    ///
    /// # Errors
    /// No such map, or one of other keys or values.
    pub fn take_hash<K: Pod, V: Pod>(&mut self, name: &str) -> Result<HashMap<MapData, K, V>, Error> {
        let map = self.ebpf.take_map(name).ok_or_else(|| Error::Missing { what: "map", name: name.into() })?;
        HashMap::try_from(map).map_err(|source| Error::Map { name: name.into(), source: Box::new(source) })
    }

    /// Any map, for the calls of aya that this crate has no words for.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn map_mut(&mut self, name: &str) -> Result<&mut Map, Error> {
        self.ebpf.map_mut(name).ok_or_else(|| Error::Missing { what: "map", name: name.into() })
    }

    /// Element `index` of a per-processor array of u64, summed over the processors.
    ///
    /// # Errors
    /// No such map or element.
    pub fn count(&self, name: &str, index: u32) -> Result<u64, Error> {
        Ok(self.counts(name)?.get(index as usize).copied().unwrap_or(0))
    }

    /// All elements of a per-processor array of u64, each summed over the processors.
    ///
    /// # Errors
    /// No such map.
    pub fn counts(&self, name: &str) -> Result<Vec<u64>, Error> {
        let map = self.ebpf.map(name).ok_or_else(|| Error::Missing { what: "map", name: name.into() })?;
        let failed = |source| Error::Map { name: name.into(), source: Box::new(source) };
        let array = PerCpuArray::<_, u64>::try_from(map).map_err(failed)?;
        array.iter().map(|values| Ok(values.map_err(failed)?.iter().sum())).collect()
    }
}

/// Loads the embedded objects and says what the verifier counted, program by program.
///
/// # Errors
/// As [`FastPath::load`] and [`crate::Trace::attach`].
pub fn verified() -> Result<Vec<Verified>, Error> {
    let (path, trace) = (FastPath::load(&[])?, crate::trace::verified()?);
    let mut counts = Vec::new();
    for (name, program) in path.ebpf.programs().chain(trace.programs()) {
        let info = program.info().map_err(|source| Error::Program { program: "of an object", source: source.into() })?;
        counts.push(Verified {
            program: name.into(),
            walked: info.verified_instruction_count().unwrap_or(0),
            loaded: info.size_translated().unwrap_or(0) / INSTRUCTION_BYTES,
        });
    }
    counts.sort_by(|a, b| a.program.cmp(&b.program));
    Ok(counts)
}

/// Loads, again if a signal of any kind came: it ends the verifier's work with EAGAIN.
pub(crate) fn undisturbed(mut load: impl FnMut() -> Result<(), Error>) -> Result<(), Error> {
    for _ in 1..LOAD_TRIES {
        match load() {
            Err(error) if errno(&error) == Some(libc::EAGAIN) => {}
            result => return result,
        }
    }
    load()
}

fn shape(name: &str, found: impl ToString, expected: impl ToString) -> Error {
    Error::Shape { name: name.into(), found: found.to_string(), expected: expected.to_string() }
}

fn refused(program: &'static str) -> impl Fn(aya::programs::ProgramError) -> Error {
    move |source| Error::Program { program, source: source.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_signal_ended_is_tried_again() {
        let failed = |number| Error::Attach { program: "p", source: std::io::Error::from_raw_os_error(number) };
        for (number, tries_expected) in [(libc::EAGAIN, LOAD_TRIES), (libc::EPERM, 1)] {
            let mut tries = 0;
            let result = undisturbed(|| {
                tries += 1;
                Err(failed(number))
            });
            assert!(result.is_err() && tries == tries_expected, "{number}: {tries} tries");
        }
        let mut tries = 0;
        let at_the_third = || {
            tries += 1;
            if tries < 3 { Err(failed(libc::EAGAIN)) } else { Ok(()) }
        };
        assert!(undisturbed(at_the_third).is_ok());
    }
}
