//! Embeds the objects that `cargo xtask ebpf` built into this crate, those there are.
//!
//! Owns finding them. Must not build them: that needs another compiler run, for another target.

use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    println!("cargo::rustc-check-cfg=cfg(has_object)");
    println!("cargo::rustc-check-cfg=cfg(has_trace_object)");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR for build scripts"));
    let triple = env::var_os("TARGET").expect("cargo sets TARGET for build scripts");
    let Some(target) = target_directory(&out, Path::new(&triple)) else {
        println!("cargo::warning=no target directory above {}: the fast path is not built in", out.display());
        return;
    };
    let directory = target.join("ebpf");
    // A directory that is not there counts as changed, and everything would be built anew each time.
    if let Err(error) = fs::create_dir_all(&directory) {
        println!("cargo::warning=cannot make {}: {error}", directory.display());
    }
    println!("cargo::rerun-if-changed={}", directory.display());
    println!("cargo::rerun-if-changed=build.rs");
    for (object, cfg) in [("dvm-fast.o", "has_object"), ("dvm-trace.o", "has_trace_object")] {
        if fs::copy(directory.join(object), out.join(object)).is_ok() {
            println!("cargo::rustc-cfg={cfg}");
        }
    }
}

/// `OUT_DIR` is TARGET_DIRECTORY/[TRIPLE/]PROFILE/build/PACKAGE-HASH/out.
fn target_directory(out: &Path, triple: &Path) -> Option<PathBuf> {
    let above_profile = out.ancestors().nth(4)?;
    let has_triple = above_profile.file_name() == triple.file_name();
    Some(if has_triple { above_profile.parent()? } else { above_profile }.to_path_buf())
}
