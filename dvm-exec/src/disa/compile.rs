//! `dvm-exec disa cc` and `link`: sources of dcc and of the assembler, and units that were compiled, into one program.
//!
//! Owns which file is read how. Must not know the languages.

use super::files;
use anyhow::{Context, anyhow, ensure};
use clap::Args;
use dvm_dcc::Define;
use dvm_disa::asm::{self, Source};
use dvm_disa::elf::unit;
use dvm_disa::object::Object;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// Names of files with sources of dcc end so.
const SOURCE: &str = "dc";

/// Several sources become one program.
#[derive(Args, Debug)]
pub struct Compile {
    /// Sources of dcc (.dc) and of the assembler (.disa), and units (.o).
    #[arg(required = true)]
    sources: Vec<PathBuf>,
    /// The file to write [default: the first source's name, ending in .elf, .o or .s].
    #[arg(short, long)]
    output: Option<PathBuf>,
    /// Write the assembly.
    #[arg(short = 'S', conflicts_with = "unit")]
    assembly: bool,
    /// Write a unit, to be linked later.
    #[arg(short = 'c')]
    unit: bool,
    /// Give a constant of the program another value.
    #[arg(short = 'D', value_name = "NAME=VALUE", value_parser = define)]
    defines: Vec<Define>,
}

/// Units and sources become one program.
#[derive(Args, Debug)]
pub struct Link {
    /// Units (.o) and sources.
    #[arg(required = true)]
    sources: Vec<PathBuf>,
    /// The file to write [default: the first one's name, ending in .elf].
    #[arg(short, long)]
    output: Option<PathBuf>,
}

/// A constant of the command line.
///
/// # Errors
/// It is no `NAME=VALUE`.
pub fn define(text: &str) -> Result<Define, String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    let value = value.parse().map_err(|_| format!("`{value}` is no integer"))?;
    Ok(Define { name: name.into(), value })
}

/// Compiles, and writes what is asked for.
pub fn compile(options: &Compile) -> anyhow::Result<u8> {
    let Compile { sources, output, assembly, unit: is_unit, defines } = options;
    let target = |extension: &str| output.clone().unwrap_or_else(|| sources[0].with_extension(extension));
    if !assembly && !is_unit {
        files::write(&target("elf"), &dvm_disa::elf::write(&program(sources, defines)?))?;
        return Ok(0);
    }
    ensure!(output.is_none() || sources.len() == 1, "-o with -S or -c is for one source: leave it out");
    for (source, assembled) in sources.iter().zip(read(sources, defines)?) {
        let path = output.clone().unwrap_or_else(|| source.with_extension(if *assembly { "s" } else { "o" }));
        let bytes = if *assembly { assembled.text.into_bytes() } else { unit::write(&assembled) };
        files::write(&path, &bytes)?;
    }
    Ok(0)
}

/// Links.
pub fn link(Link { sources, output }: &Link) -> anyhow::Result<u8> {
    let target = output.clone().unwrap_or_else(|| sources[0].with_extension("elf"));
    files::write(&target, &dvm_disa::elf::write(&program(sources, &[])?))?;
    Ok(0)
}

/// Whether a file is a source of dcc or a unit, by its name.
pub fn is_compiled(path: &Path) -> bool {
    matches!(path.extension().and_then(OsStr::to_str), Some(SOURCE | "o"))
}

/// The program that sources and units are.
pub fn program(paths: &[PathBuf], defines: &[Define]) -> anyhow::Result<Object> {
    let sources = read(paths, defines)?;
    let is_started = |source: &Source| source.text.lines().any(|line| line.starts_with(".entry"));
    let needs_main = paths.iter().any(|path| is_compiled(path));
    ensure!(!needs_main || sources.iter().any(is_started), "no source has `runner main()`: a program begins there");
    asm::link(&sources).map_err(|all| anyhow!("{}", all.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")))
}

/// The assembly of all of them.
fn read(paths: &[PathBuf], defines: &[Define]) -> anyhow::Result<Vec<Source>> {
    let (mut sources, mut constants, mut wrong) = (Vec::new(), Vec::new(), Vec::new());
    for path in paths {
        let name = path.display().to_string();
        let bytes = files::bytes(path)?;
        if bytes.starts_with(&dvm_disa::elf::MAGIC) {
            sources.push(unit::read(&bytes).with_context(|| name)?);
            continue;
        }
        let text = files::text(path)?;
        if path.extension() != Some(OsStr::new(SOURCE)) {
            sources.push(Source { name, text });
            continue;
        }
        match dvm_dcc::compile(&text, &name, defines) {
            Ok(compiled) => {
                constants.extend(compiled.constants);
                sources.push(Source { name, text: compiled.text });
            }
            Err(errors) => wrong.push(errors.to_string()),
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    let unknown = defines.iter().find(|define| !constants.contains(&define.name));
    ensure!(
        unknown.is_none(),
        "no source has a constant `{}`: -D is for `const long NAME = ...;`",
        unknown.map_or("", |d| &d.name)
    );
    Ok(sources)
}
