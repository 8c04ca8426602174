//! A genome and what a machine would have read of it; a family of proteins and where it hides.
//!
//! Owns one generator: letters by chance, copies with errors, the same in every run. Must not know who reads them.

use anyhow::{Context, Result};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

const LETTERS: &[u8] = b"ACGT";
const RESIDUES: &[u8] = b"ACDEFGHIKLMNPQRSTVWY";
const LINE_LETTERS: usize = 80;
const READ_LETTERS: usize = 150;
/// One letter of so many is read wrongly.
const ERROR_ONE_IN: usize = 40;
const FAMILY_RESIDUES: usize = 120;
const PROTEIN_RESIDUES: usize = 300;
/// One residue of so many differs within the family.
const CHANGE_ONE_IN: usize = 4;
/// One protein of so many is of the family.
const MEMBER_ONE_IN: usize = 20;

/// Writes `genome.fa` of that many letters and `reads.fq` with that many reads into the directory.
///
/// # Errors
/// They cannot be written.
pub fn write_genome(directory: &Path, letters: usize, reads: usize) -> Result<()> {
    let mut chance = Chance(0x2545_F491_4F6C_DD1D);
    let genome: Vec<u8> = (0..letters).map(|_| chance.of(LETTERS)).collect();
    let mut file = create(directory, "genome.fa")?;
    writeln!(file, ">chromosome")?;
    for line in genome.chunks(LINE_LETTERS) {
        file.write_all(line)?;
        writeln!(file)?;
    }
    file.flush()?;
    let mut file = create(directory, "reads.fq")?;
    for number in 0..reads {
        let start = chance.below(letters - READ_LETTERS);
        let mut read = genome.get(start..start + READ_LETTERS).context("a read beyond the genome")?.to_vec();
        if chance.below(2) == 1 {
            read = read.iter().rev().map(|letter| complement(*letter)).collect();
        }
        for letter in &mut read {
            if chance.below(ERROR_ONE_IN) == 0 {
                *letter = chance.of(LETTERS);
            }
        }
        writeln!(file, "@read{number}")?;
        file.write_all(&read)?;
        writeln!(file, "\n+\n{}", "I".repeat(READ_LETTERS))?;
    }
    Ok(file.flush()?)
}

/// Writes `family.sto`, eight aligned proteins, and `proteins.fa` with that many, some of which have a part like those.
///
/// # Errors
/// They cannot be written.
pub fn write_family(directory: &Path, proteins: usize) -> Result<()> {
    let mut chance = Chance(0x9E37_79B9_7F4A_7C15);
    let family: Vec<u8> = (0..FAMILY_RESIDUES).map(|_| chance.of(RESIDUES)).collect();
    let mut file = create(directory, "family.sto")?;
    writeln!(file, "# STOCKHOLM 1.0")?;
    for number in 0..8 {
        writeln!(file, "member{number} {}", String::from_utf8(chance.changed(&family))?)?;
    }
    writeln!(file, "//")?;
    file.flush()?;
    let mut file = create(directory, "proteins.fa")?;
    for number in 0..proteins {
        let mut protein: Vec<u8> = (0..PROTEIN_RESIDUES).map(|_| chance.of(RESIDUES)).collect();
        if number % MEMBER_ONE_IN == 0 {
            protein.splice(50..50 + FAMILY_RESIDUES, chance.changed(&family));
        }
        writeln!(file, ">protein{number}\n{}", String::from_utf8(protein)?)?;
    }
    Ok(file.flush()?)
}

fn create(directory: &Path, name: &str) -> Result<BufWriter<File>> {
    let path = directory.join(name);
    Ok(BufWriter::new(File::create(&path).with_context(|| format!("cannot create {}", path.display()))?))
}

const fn complement(letter: u8) -> u8 {
    match letter {
        b'A' => b'T',
        b'C' => b'G',
        b'G' => b'C',
        _ => b'A',
    }
}

/// Xorshift.
struct Chance(u64);

impl Chance {
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap_or(0) % most
    }

    fn of(&mut self, letters: &[u8]) -> u8 {
        let at = self.below(letters.len());
        letters.get(at).copied().unwrap_or(b'A')
    }

    /// A copy with one residue of so many changed.
    fn changed(&mut self, residues: &[u8]) -> Vec<u8> {
        let mut copy = residues.to_vec();
        for residue in &mut copy {
            if self.below(CHANGE_ONE_IN) == 0 {
                *residue = self.of(RESIDUES);
            }
        }
        copy
    }
}
