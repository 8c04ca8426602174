//! The linker that rustc calls for the BPF target: bitcode in, one BPF object out.
//!
//! Owns the translation of rustc's flags for bpf-linker, used as a library. Must not know what is linked.

use anyhow::{Context, Result, bail};
use bpf_linker::{Cpu, Linker, LinkerInput, LinkerOptions, OptLevel, OutputType};
use std::ffi::CString;
use std::path::PathBuf;
use std::process::ExitCode;
use tracing_subscriber::filter::LevelFilter;

/// What rustc's `bpf` linker flavour says.
#[derive(Debug)]
struct Order {
    inputs: Vec<PathBuf>,
    output: PathBuf,
    exports: Vec<String>,
    cpu: Cpu,
    optimize: OptLevel,
    btf: bool,
}

fn main() -> Result<ExitCode> {
    // What LLVM has to say comes out as tracing events only.
    tracing_subscriber::fmt().with_max_level(LevelFilter::WARN).with_writer(std::io::stderr).without_time().init();
    let order = Order::parse(std::env::args().skip(1))?;
    let linker = Linker::new(LinkerOptions {
        target: None,
        cpu: order.cpu,
        cpu_features: CString::default(),
        optimize: order.optimize,
        unroll_loops: false,
        ignore_inline_never: false,
        llvm_args: Vec::new(),
        disable_expand_memcpy_in_order: false,
        disable_memory_builtins: false,
        btf: order.btf,
        allow_bpf_trap: false,
    });
    let inputs = order.inputs.iter().map(|path| LinkerInput::new_from_file(path));
    linker
        .link_to_file(inputs, &order.output, OutputType::Object, order.exports.iter().map(String::as_str))
        .with_context(|| format!("linking {}", order.output.display()))?;
    Ok(if linker.has_errors() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

impl Order {
    fn parse(words: impl Iterator<Item = String>) -> Result<Self> {
        let mut order = Self {
            inputs: Vec::new(),
            output: PathBuf::new(),
            exports: Vec::new(),
            cpu: Cpu::V3,
            optimize: OptLevel::Default,
            btf: false,
        };
        let mut words = words;
        while let Some(word) = words.next() {
            let mut value = || words.next().with_context(|| format!("{word} needs a value"));
            match word.as_str() {
                "-o" | "--output" => order.output = value()?.into(),
                "--btf" => order.btf = true,
                "--debug" => {}
                "-L" => drop(value()?),
                "--cpu" => order.set_cpu(&value()?)?,
                "--export-symbols" => {
                    let path = value()?;
                    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
                    order.exports.extend(text.lines().map(str::to_owned));
                }
                "--export" => order.exports.extend(value()?.split(',').map(str::to_owned)),
                flag if flag.starts_with("-O") => order.optimize = level(&flag[2..])?,
                flag if flag.starts_with('-') => bail!("unknown flag {flag}: rustc has changed what it says to a BPF linker"),
                path => order.inputs.push(path.into()),
            }
        }
        if order.output.as_os_str().is_empty() || order.inputs.is_empty() {
            bail!("needs inputs and -o OUTPUT: rustc calls this, with -Clinker");
        }
        Ok(order)
    }

    /// rustc says `generic` unless it is told a processor; that one has no atomics that return a value.
    fn set_cpu(&mut self, name: &str) -> Result<()> {
        if name != "generic" {
            self.cpu = name.parse().ok().with_context(|| format!("unknown BPF processor {name}"))?;
        }
        Ok(())
    }
}

fn level(text: &str) -> Result<OptLevel> {
    Ok(match text {
        "0" => OptLevel::No,
        "1" => OptLevel::Less,
        "2" => OptLevel::Default,
        "3" => OptLevel::Aggressive,
        "s" => OptLevel::Size,
        "z" => OptLevel::SizeMin,
        other => bail!("unknown optimisation level {other}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Order> {
        Order::parse(words.iter().map(|word| (*word).to_owned()))
    }

    #[test]
    fn the_flags_of_rustc() {
        let order =
            parse(&["a.o", "--cpu", "generic", "-L", "dir", "-O3", "--btf", "--export", "x,y", "-o", "out", "b.rlib"]).unwrap();
        assert_eq!(order.inputs, [PathBuf::from("a.o"), "b.rlib".into()]);
        assert_eq!((order.output, order.exports, order.btf), ("out".into(), vec!["x".to_owned(), "y".to_owned()], true));
        for bad in [&["-o"][..], &["--strange", "a", "-o", "b"], &["a.o"], &["-O9", "a", "-o", "b"]] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
