//! Links the libLLVM of the Rust toolchain itself, so that no other LLVM need be installed and both read the same bitcode.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-env-changed=RUSTC");
    let rustc = env::var_os("RUSTC").expect("cargo sets RUSTC for build scripts");
    let output = Command::new(&rustc).args(["--print", "sysroot"]).output().expect("rustc runs: it is building this");
    let lib = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()).join("lib");
    let Some(llvm) = shared_llvm(&lib) else {
        println!("cargo::error=no libLLVM.so.* in {}: use a toolchain of rustup, whose LLVM is a shared library", lib.display());
        return;
    };
    println!("cargo::rustc-link-arg-bins={}", llvm.display());
    println!("cargo::rustc-link-arg-bins=-Wl,-rpath,{}", lib.display());
}

fn shared_llvm(directory: &Path) -> Option<PathBuf> {
    let is_llvm = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libLLVM.so."));
    fs::read_dir(directory).ok()?.filter_map(|entry| Some(entry.ok()?.path())).find(is_llvm)
}
