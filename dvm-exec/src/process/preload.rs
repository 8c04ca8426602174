//! The library of `--page-allocator` in LD_PRELOAD.
//!
//! Owns where the library is and the variable's value. Must not know what the library does.

use super::load::Program;
use crate::exit::Failure;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The variable that names libraries to be loaded first.
pub const VARIABLE: &str = "LD_PRELOAD";
const ALLOCATOR: &str = "libdvm_alloc.so";

/// The library, beside this program; refused where nothing would load it.
///
/// # Errors
/// When the program is linked statically or the library is missing.
pub fn allocator(program: &Program) -> Result<PathBuf, Failure> {
    if program.is_static() {
        let path = program.path.display();
        return Err(Failure::NotRunnable(format!(
            "{path} is linked statically, so that --page-allocator cannot replace its malloc: leave the option out"
        )));
    }
    let own = std::env::current_exe().map_err(|error| Failure::Internal(format!("cannot find this program's file: {error}")))?;
    let path = own.with_file_name(ALLOCATOR);
    if !path.exists() {
        return Err(Failure::NotRunnable(format!(
            "--page-allocator needs {}, which does not exist: install it there",
            path.display()
        )));
    }
    Ok(path)
}

/// The variable with `allocator` before `others`, which are the user's.
pub fn with(allocator: &Path, others: &[u8]) -> Vec<u8> {
    [VARIABLE.as_bytes(), b"=", allocator.as_os_str().as_bytes(), b" ", others].concat()
}

/// An environment in which the variable names the user's libraries alone, as this program itself is to be started.
pub fn without(environment: Vec<CString>) -> Vec<CString> {
    let assignment = format!("{VARIABLE}=");
    let own = |word: &[u8]| word.rsplit(|byte| *byte == b'/').next() == Some(ALLOCATOR.as_bytes());
    let change = |text: CString| {
        let Some(list) = text.as_bytes().strip_prefix(assignment.as_bytes()) else { return Some(text) };
        let words = list.split(|byte| matches!(byte, b' ' | b':'));
        let kept: Vec<&[u8]> = words.filter(|word| !word.is_empty() && !own(word)).collect();
        let value = [assignment.as_bytes(), &kept.join(&b' ')].concat();
        (!kept.is_empty()).then(|| CString::new(value).unwrap_or(text))
    };
    environment.into_iter().filter_map(change).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_libraries_stay() {
        let texts = |texts: &[&str]| texts.iter().map(|text| CString::new(*text).expect("no zero")).collect::<Vec<_>>();
        let preload = |others: &str| String::from_utf8(with(Path::new("/x/libdvm_alloc.so"), others.as_bytes())).expect("text");
        assert_eq!(preload("/a.so"), "LD_PRELOAD=/x/libdvm_alloc.so /a.so");
        let check = |variable: &str, kept: &[&str]| {
            assert_eq!(without(texts(&["A=/x/libdvm_alloc.so", variable])), texts(&[&["A=/x/libdvm_alloc.so"], kept].concat()));
        };
        check(&preload("/a.so:/b.so"), &["LD_PRELOAD=/a.so /b.so"]);
        check(&preload(""), &[]);
        check("LD_PRELOAD=/a.so", &["LD_PRELOAD=/a.so"]);
    }
}
