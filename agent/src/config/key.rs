//! The cluster key's file: 32 bytes, raw or as 64 hexadecimal digits, readable by its owner alone.
//!
//! Owns the format and the rights. Must not keep or print the key.

use super::ConfigError;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

const KEY_BYTES: usize = 32;
const FILE_BYTES_MAX: u64 = 128;
const FORMAT: &str = "write 32 random bytes, raw or as 64 hexadecimal digits (head -c 32 /dev/urandom)";

/// Reads the key at `path`.
///
/// # Errors
/// When the file is missing, open to others, of another owner, or no key.
pub(super) fn read(path: &Path) -> Result<[u8; KEY_BYTES], ConfigError> {
    let wrong = |what: String| ConfigError::Key { path: path.to_path_buf(), what };
    let file = File::open(path).map_err(|error| wrong(format!("cannot be opened ({error}); {FORMAT} to it, mode 0600")))?;
    check_private(&file).map_err(wrong)?;
    let mut bytes = Vec::new();
    let read = file.take(FILE_BYTES_MAX).read_to_end(&mut bytes);
    read.map_err(|error| wrong(format!("cannot be read ({error})")))?;
    parse(&bytes).ok_or_else(|| wrong(format!("holds {} bytes that are no key; {FORMAT}", bytes.len())))
}

/// Checks that `file` is its owner's alone; says what is wrong with it.
pub(super) fn check_private(file: &File) -> Result<(), String> {
    let metadata = file.metadata().map_err(|error| format!("cannot be examined ({error})"))?;
    if !metadata.is_file() {
        return Err("is no regular file; name the file that holds the secret".to_owned());
    }
    let (mode, owner, me) = (metadata.mode() & 0o7777, metadata.uid(), nix::unistd::geteuid().as_raw());
    if mode & 0o077 != 0 {
        return Err(format!("has mode {mode:04o}, open to others; run chmod 0600 on it and consider the secret known"));
    }
    if owner != me && owner != 0 {
        return Err(format!("belongs to user {owner}, the agent runs as {me}; run chown {me} on it"));
    }
    Ok(())
}

fn parse(bytes: &[u8]) -> Option<[u8; KEY_BYTES]> {
    if let Ok(raw) = bytes.try_into() {
        return Some(raw);
    }
    let digits = bytes.trim_ascii();
    if digits.len() != 2 * KEY_BYTES {
        return None;
    }
    let mut key = [0; KEY_BYTES];
    for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |character: u8| char::from(character).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_and_hexadecimal_keys_are_equal() {
        let raw: Vec<u8> = (0..32).map(|byte| byte * 7).collect();
        let digits: String = raw.iter().map(|byte| format!("{byte:02X}")).collect();
        assert_eq!(parse(&raw), parse(format!(" {digits}\n").as_bytes()));
        assert_eq!(parse(&raw).unwrap().as_slice(), raw);
        for bad in [&raw[1..], digits.as_bytes().get(..63).unwrap(), b"", &[b'g'; 64]] {
            assert_eq!(parse(bad), None);
        }
    }
}
