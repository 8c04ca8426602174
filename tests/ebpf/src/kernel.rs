//! The kernel's side: the object, loaded by libbpf, its maps, and its programs run on one frame at a time.
//!
//! Owns every call of libbpf. Must not judge.

use crate::host::{Program, Ran};
use crate::network::{Interface, Network};
use crate::state::{COUNTS, World, copy};
use crate::sys;
use anyhow::{Context, Result};
use dsm_fast::layout::{Map, PAGE_WORDS};
use dsm_fast::{Arrays, VERDICT_NAMES};
use libbpf_rs::{MapCore, MapFlags, MapHandle, Object, ObjectBuilder, ProgramInput};
use std::path::Path;
use std::sync::atomic::AtomicU64;

/// Longest packet a program can leave.
const LONGEST: usize = 16 << 10;
/// `struct __sk_buff`, and where in it are the number of the interface and the bytes of a piece.
const SKB_BYTES: usize = 192;
const SKB_INTERFACE: usize = 40;
const SKB_GSO_BYTES: usize = 176;
/// `struct xdp_md`, and where in it are the end of the frame and the number of the interface.
const XDP_BYTES: usize = 24;
const XDP_END: usize = 4;
const XDP_INTERFACE: usize = 12;
/// Bytes of a piece, of a frame that was joined from several.
const PIECE_BYTES: u32 = 1000;
const NAMES: [&str; Map::ALL.len()] = ["ENDPOINTS", "PEERS", "DIRECTORIES", "PLACES", "COPIES", "ACKS"];

/// One loaded object.
pub struct Kernel {
    object: Object,
    /// Its arrays.
    pub arrays: Arrays,
    ports: MapHandle,
    extents: MapHandle,
    verdicts: MapHandle,
    packet: Vec<u8>,
}

impl Kernel {
    /// Loads the object at `path`.
    ///
    /// # Errors
    /// libbpf or the kernel refuses it, or a map is not what it should be.
    pub fn load(path: &Path) -> Result<Self> {
        let mut open = ObjectBuilder::default().open_file(path).context("libbpf cannot read the object")?;
        let sizes: Vec<(&str, u32)> = NAMES.into_iter().zip(COUNTS).chain([("PAGES", COUNTS[Map::Copy as usize])]).collect();
        for mut map in open.maps_mut() {
            if let Some((_, count)) = sizes.iter().find(|(name, _)| map.name() == *name) {
                map.set_max_entries(*count)?;
            }
        }
        let object = open.load().context("the kernel refuses the object, loaded by libbpf")?;
        let handle = |name: &str| -> Result<MapHandle> {
            let map = object.maps().find(|map| map.name() == name).with_context(|| format!("the object has no map {name}"))?;
            Ok(MapHandle::try_from(&map)?)
        };
        let mut maps: [&'static [AtomicU64]; Map::ALL.len()] = [&[]; Map::ALL.len()];
        for ((slot, map), (name, count)) in maps.iter_mut().zip(Map::ALL).zip(&sizes) {
            *slot =
                sys::map_words(&handle(name)?, map.words() * *count as usize).with_context(|| format!("cannot map {name}"))?;
        }
        let pages =
            sys::map_words(&handle("PAGES")?, PAGE_WORDS * COUNTS[Map::Copy as usize] as usize).context("cannot map PAGES")?;
        let (ports, extents, verdicts) = (handle("PORTS")?, handle("EXTENTS")?, handle("VERDICTS")?);
        Ok(Self { object, arrays: Arrays { maps, pages }, ports, extents, verdicts, packet: vec![0; LONGEST] })
    }

    /// Takes over the state of `world`.
    ///
    /// # Errors
    /// The kernel refuses an entry.
    pub fn reset(&self, world: &World) -> Result<()> {
        copy(&world.arrays, &self.arrays);
        clear(&self.ports)?;
        clear(&self.extents)?;
        for (port, endpoint) in &world.ports {
            self.ports.update(&u32::from(*port).to_ne_bytes(), &endpoint.to_ne_bytes(), MapFlags::ANY)?;
        }
        for (key, value) in &world.extents {
            self.extents.update(&key.to_ne_bytes(), &value.to_ne_bytes(), MapFlags::ANY)?;
        }
        Ok(())
    }

    /// Runs `program` on a frame that came in by `interface`.
    ///
    /// # Errors
    /// The kernel does not run it on this frame.
    pub fn run(
        &mut self,
        program: Program,
        frame: &[u8],
        interface: &Interface,
        is_joined: bool,
        network: &Network,
    ) -> Result<Ran> {
        let name = match program {
            Program::Xdp => "dvm_xdp",
            Program::Tc => "dvm_tc",
        };
        let (mut skb, mut xdp) = ([0u8; SKB_BYTES], [0u8; XDP_BYTES]);
        put(&mut skb, SKB_INTERFACE, interface.index);
        put(&mut skb, SKB_GSO_BYTES, if is_joined { PIECE_BYTES } else { 0 });
        put(&mut xdp, XDP_END, frame.len() as u32);
        put(&mut xdp, XDP_INTERFACE, interface.index);
        let input = ProgramInput {
            context_in: Some(if program == Program::Xdp { &mut xdp } else { &mut skb }),
            data_in: Some(frame),
            data_out: Some(&mut self.packet),
            ..ProgramInput::default()
        };
        let found = self.object.progs_mut().find(|known| known.name() == name);
        let output = found.with_context(|| format!("the object has no program {name}"))?.test_run(input)?;
        let packet = output.data.context("the kernel gave no packet back")?.to_vec();
        let sent = if program == Program::Tc { network.sent()? } else { Vec::new() };
        Ok(Ran { action: output.return_value.cast_signed(), packet, sent })
    }

    /// How often a verdict came, since ever.
    ///
    /// # Errors
    /// The map does not say.
    pub fn verdicts(&self, number: u32) -> Result<u64> {
        let values = self.verdicts.lookup_percpu(&number.to_ne_bytes(), MapFlags::ANY)?.context("a verdict without a counter")?;
        let value = |bytes: &Vec<u8>| bytes.as_chunks::<8>().0.first().map_or(0, |bytes| u64::from_ne_bytes(*bytes));
        Ok(values.iter().map(value).sum())
    }

    /// All of them.
    ///
    /// # Errors
    /// As above.
    pub fn all_verdicts(&self) -> Result<Vec<u64>> {
        (0..VERDICT_NAMES.len() as u32).map(|number| self.verdicts(number)).collect()
    }
}

fn put(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_ne_bytes());
}

fn clear(map: &MapHandle) -> Result<()> {
    let keys: Vec<Vec<u8>> = map.keys().collect();
    keys.iter().try_for_each(|key| map.delete(key))?;
    Ok(())
}
