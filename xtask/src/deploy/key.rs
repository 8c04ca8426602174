//! The cluster key: made once, kept beside the hosts file, the same on all hosts.
//!
//! Owns its file here. Must not print it.

use anyhow::{Context, Result, ensure};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const KEY_BYTES: usize = 32;

/// Where the key of this hosts file is kept: beside it, with the ending `key`.
#[must_use]
pub fn path(hosts: &Path) -> PathBuf {
    hosts.with_extension("key")
}

/// Checks a key that is there; false if there is none.
///
/// # Errors
/// It is open to others or no key.
pub fn is_there(path: &Path) -> Result<bool> {
    if !path.exists() {
        return Ok(false);
    }
    let mode = fs::metadata(path).with_context(|| format!("cannot examine {}", path.display()))?.mode() & 0o777;
    let shown = path.display();
    ensure!(mode & 0o077 == 0, "{shown} has mode {mode:04o}, open to others: run chmod 0600 on it and consider the key known");
    let text = fs::read(path).with_context(|| format!("cannot read {shown}"))?;
    ensure!(is_key(&text), "{shown} holds no key: write 32 random bytes, raw or as 64 hexadecimal digits, or remove it");
    Ok(true)
}

/// Whether this is a key: 32 bytes, raw or as 64 hexadecimal digits.
#[must_use]
pub fn is_key(text: &[u8]) -> bool {
    let digits = text.trim_ascii();
    text.len() == KEY_BYTES || digits.len() == 2 * KEY_BYTES && digits.iter().all(u8::is_ascii_hexdigit)
}

/// A new key, as digits.
///
/// # Errors
/// No randomness.
pub fn new() -> Result<String> {
    let mut bytes = [0_u8; KEY_BYTES];
    fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)).context("cannot read /dev/urandom")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n")
}

/// Keeps a key, readable by its owner alone; one that is there is not replaced.
///
/// # Errors
/// It cannot be written.
pub fn keep(path: &Path, key: &str) -> Result<()> {
    let made = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    made.and_then(|mut file| file.write_all(key.as_bytes())).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_keys_are_keys() {
        let (a, b) = (new().unwrap(), new().unwrap());
        assert!(is_key(a.as_bytes()) && a != b);
        assert!(!is_key(b"secret") && !is_key(&[b'g'; 64]) && is_key(&[0; 32]));
        assert_eq!(path(Path::new("/x/hosts.toml")), Path::new("/x/hosts.key"));
    }
}
