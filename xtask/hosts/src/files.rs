//! File operations that keep the path in the error.
//!
//! Owns nothing but the wording. Must not know which files these are.

use crate::{Error, Result};
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Turns an I/O error into ours.
pub(crate) fn on<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Error + 'a {
    move |source| Error::Io { what, path: path.to_path_buf(), source }
}

/// Writes a file that everybody may read.
pub(crate) fn write(path: &Path, content: &str) -> Result<()> {
    fs::write(path, content).map_err(on("write", path))
}

/// Writes a file that only root may read.
pub(crate) fn write_secret(path: &Path, content: &str) -> Result<()> {
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path).map_err(on("create", path))?;
    file.write_all(content.as_bytes()).map_err(on("write", path))
}

/// Makes a directory and its parents; everybody may enter it.
pub(crate) fn make_directory(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(on("create", path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).map_err(on("open to all", path))
}

/// Removes a tree; a missing one is fine.
pub(crate) fn remove_tree(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(on("remove", path)(error)),
    }
}

/// Removes a directory if it is empty; whether it was is of no interest.
pub(crate) fn remove_if_empty(path: &Path) {
    drop(fs::remove_dir(path));
}

/// 32 bytes of the kernel's randomness in hexadecimal.
pub(crate) fn random_key() -> Result<String> {
    let path = Path::new("/dev/urandom");
    let mut key = [0_u8; 32];
    fs::File::open(path).and_then(|mut file| file.read_exact(&mut key)).map_err(on("read", path))?;
    Ok(key.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The last `count` lines of a log, or why there are none.
pub(crate) fn tail(path: &Path, count: usize) -> String {
    match fs::read_to_string(path) {
        Ok(text) => {
            let lines: Vec<&str> = text.lines().collect();
            let first = lines.len().saturating_sub(count);
            lines.get(first..).unwrap_or_default().join("\n")
        }
        Err(error) => format!("(no log: {error})"),
    }
}
