//! Host and kernel side by side: the same frame into both, and what came out compared.
//!
//! Owns what must be equal. Must not know what would be right.

use crate::frames::Frame;
use crate::host::{Host, Plant, Program, Ran, XDP_PASS};
use crate::kernel::Kernel;
use crate::network::Network;
use crate::state::{World, sizes};
use anyhow::{Context, Result};
use dsm_fast::VERDICT_NAMES;
use dsm_fast::layout::Map;
use std::fmt::Write;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;

/// Lengths of frames that the kernel runs a TC program on when asked to: shorter ones may lack part of an
/// IPv6 header, longer ones have no room.
const TC_BYTES_MIN: usize = 54;
const TC_BYTES_MAX: usize = 3712;

/// How closely words are compared after each frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Care {
    /// Those that the host looked at.
    Touched,
    /// All.
    Every,
}

/// An object of its own, and the programs that a frame goes through, as long as it is passed.
pub struct Lane {
    /// Name.
    pub name: &'static str,
    programs: &'static [Program],
    /// The host's side.
    pub host: Host,
    kernel: Kernel,
}

impl Lane {
    /// The three lanes: each program alone, and both as on a real interface.
    ///
    /// # Errors
    /// The object cannot be loaded.
    pub fn all(object: &Path, plant: Option<Plant>) -> Result<Vec<Self>> {
        let lanes: [(&str, &[Program]); 3] =
            [("xdp", &[Program::Xdp]), ("tc", &[Program::Tc]), ("xdp+tc", &[Program::Xdp, Program::Tc])];
        let (words, pages) = sizes();
        let lane =
            |(name, programs)| Ok(Self { name, programs, host: Host::new(words, pages, plant), kernel: Kernel::load(object)? });
        lanes.into_iter().map(lane).collect()
    }

    /// Lets both sides begin with `world`.
    ///
    /// # Errors
    /// The kernel refuses an entry.
    pub fn reset(&mut self, world: &World) -> Result<()> {
        self.host.reset(world);
        self.kernel.reset(world)?;
        // What an earlier disagreement has left.
        for (count, there) in self.host.verdicts.iter_mut().zip(self.kernel.all_verdicts()?) {
            *count = there;
        }
        Ok(())
    }

    /// Puts a frame through; gives the first difference.
    ///
    /// # Errors
    /// The kernel does not run a program on this frame.
    pub fn put(&mut self, frame: &Frame, network: &Network, care: Care) -> Result<Option<String>> {
        for program in self.programs {
            let Frame { interface, is_joined, bytes } = frame;
            let Some(bytes) = runnable(*program, bytes) else { continue };
            let ours = self.host.run(*program, bytes, *interface, *is_joined, network);
            let theirs = self.kernel.run(*program, bytes, &network.interfaces[*interface], *is_joined, network);
            let theirs = theirs.with_context(|| format!("{program:?} on {} bytes", bytes.len()))?;
            let difference = difference(&ours, &theirs).or(self.difference_of_counts(care)?);
            let difference = difference.or_else(|| self.difference_of_words(care));
            if let Some(difference) = difference {
                let verdict = self.host.last_verdict.map_or("none", |number| VERDICT_NAMES[number as usize]);
                return Ok(Some(format!("{}: {program:?}, verdict of the host {verdict}: {difference}", self.name)));
            }
            if ours.action != XDP_PASS {
                break;
            }
        }
        Ok(None)
    }

    /// Compares everything there is.
    ///
    /// # Errors
    /// A map cannot be read.
    pub fn difference_of_all(&self) -> Result<Option<String>> {
        Ok(self.difference_of_counts(Care::Every)?.or_else(|| self.difference_of_words(Care::Every)))
    }

    fn difference_of_counts(&self, care: Care) -> Result<Option<String>> {
        for (number, name) in (0..).zip(VERDICT_NAMES) {
            if care == Care::Every || self.host.last_verdict == Some(number) {
                let (ours, theirs) = (self.host.verdicts[number as usize], self.kernel.verdicts(number)?);
                if ours != theirs {
                    return Ok(Some(format!("verdict {name} came {ours} times here, {theirs} times there")));
                }
            }
        }
        Ok(None)
    }

    fn difference_of_words(&self, care: Care) -> Option<String> {
        let (ours, theirs) = (&self.host.tables.arrays, &self.kernel.arrays);
        let told = |map: Map, record: usize, word: usize, a: u64, b: u64| {
            format!("word {word} of record {record} of {map:?} is {a:#x} here, {b:#x} there")
        };
        for cell in self.host.tables.touched.borrow().iter() {
            if let (Some(a), Some(b)) = (ours.at(*cell), theirs.at(*cell)) {
                let (a, b) = (a.load(Relaxed), b.load(Relaxed));
                if a != b {
                    return Some(told(cell.map, cell.record as usize, cell.word, a, b));
                }
            }
        }
        if care == Care::Touched {
            return None;
        }
        for map in Map::ALL {
            let pairs = ours.maps[map as usize].iter().zip(theirs.maps[map as usize]);
            for (index, (a, b)) in pairs.enumerate() {
                let (a, b) = (a.load(Relaxed), b.load(Relaxed));
                if a != b {
                    return Some(told(map, index / map.words(), index % map.words(), a, b));
                }
            }
        }
        None
    }
}

/// What of a frame the kernel can be asked to run a program on: too long ones are cut, which no verdict depends on.
fn runnable(program: Program, bytes: &[u8]) -> Option<&[u8]> {
    match program {
        Program::Xdp => Some(bytes),
        Program::Tc => (bytes.len() >= TC_BYTES_MIN).then(|| &bytes[..bytes.len().min(TC_BYTES_MAX)]),
    }
}

fn difference(ours: &Ran, theirs: &Ran) -> Option<String> {
    if ours.action != theirs.action {
        return Some(format!("action {} here, {} there", ours.action, theirs.action));
    }
    if ours.packet != theirs.packet {
        return Some(format!("the packet: {}", difference_of_bytes(&ours.packet, &theirs.packet)));
    }
    if ours.sent.len() != theirs.sent.len() {
        return Some(format!("{} frames sent besides here, {} there", ours.sent.len(), theirs.sent.len()));
    }
    for (number, ((out, a), (out_there, b))) in ours.sent.iter().zip(&theirs.sent).enumerate() {
        if out != out_there || a != b {
            let bytes = difference_of_bytes(a, b);
            return Some(format!("frame {number} sent besides, out of {out} here, {out_there} there: {bytes}"));
        }
    }
    None
}

fn difference_of_bytes(ours: &[u8], theirs: &[u8]) -> String {
    let mut text = format!("{} bytes here, {} there", ours.len(), theirs.len());
    let wrong = ours.iter().zip(theirs).enumerate().filter(|(_, (a, b))| a != b).take(8);
    for (at, (a, b)) in wrong {
        // Writing to a string does not fail.
        write!(text, "; byte {at} {a:02x}, {b:02x}").unwrap_or_default();
    }
    text
}
