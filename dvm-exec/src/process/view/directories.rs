//! Lists of directories that show all processors, or the program's threads and open files without the husk's.
//!
//! Owns what getdents answers for them. Must not know what their files say.

use super::super::descriptors;
use super::super::husk::Root;
use super::files::{self, with_scene};
use super::give;
use super::paths::{Directory, numbered};
use crate::sys::call;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirEntryExt;

/// Most that is listed by one call.
const LIST_BYTES_MAX: u64 = 256 * 1024;

/// An entry of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Listed {
    inode: u64,
    /// Where the list goes on after it.
    next: u64,
    kind: u8,
    name: Vec<u8>,
}

/// Answers getdents and getdents64 on a directory of ours.
pub(super) fn list(root: &'static Root, number: i64, arguments: &[u64; 6]) -> Option<i64> {
    let [descriptor, address, bytes, ..] = *arguments;
    let path = files::path_of(descriptor)?;
    let directory = with_scene(root, None, |scene| scene.directory(&path))?;
    let bytes = bytes.min(LIST_BYTES_MAX) as usize;
    let listed = match directory {
        Directory::Processors => processors(root, descriptor, &path, number, bytes),
        Directory::Nodes => filtered(descriptor, number, bytes, |name| numbered(name, b"node").is_none_or(|node| node == 0)),
        Directory::Threads => {
            filtered(descriptor, number, bytes, |name| number_of(name).is_none_or(|tid| root.tasks.find(tid as i32).is_some()))
        }
        Directory::Descriptors => filtered(descriptor, number, bytes, |name| {
            number_of(name).is_none_or(|descriptor| !descriptors::is_hidden(descriptor))
        }),
    };
    Some(match listed {
        Ok(bytes) => give(address, &bytes, bytes.len() as i64),
        Err(error) => error,
    })
}

fn number_of(name: &[u8]) -> Option<u64> {
    std::str::from_utf8(name).ok()?.parse().ok()
}

/// The kernel's list without the names that are not wanted.
fn filtered(descriptor: u64, number: i64, bytes: usize, is_wanted: impl Fn(&[u8]) -> bool) -> Result<Vec<u8>, i64> {
    loop {
        let mut buffer = vec![0_u8; bytes];
        let count = call::raw(number, &[descriptor, buffer.as_mut_ptr() as u64, bytes as u64, 0, 0, 0]);
        if count <= 0 {
            return if count == 0 { Ok(Vec::new()) } else { Err(count) };
        }
        buffer.truncate(count as usize);
        let kept: Vec<u8> = decode(number, &buffer)
            .into_iter()
            .filter(|entry| is_wanted(&entry.name))
            .flat_map(|entry| entry.encode(number))
            .collect();
        // An empty list would be taken for the end.
        if !kept.is_empty() {
            return Ok(kept);
        }
    }
}

/// The host's list with an entry for each processor of all hosts; the descriptor's offset counts entries.
fn processors(root: &Root, descriptor: u64, path: &[u8], number: i64, bytes: usize) -> Result<Vec<u8>, i64> {
    let entries = std::fs::read_dir(std::ffi::OsStr::from_bytes(path));
    let entries = entries.map_err(|error| -i64::from(error.raw_os_error().unwrap_or(libc::EIO)))?;
    let mut names: Vec<(u64, u8, Vec<u8>)> = vec![(1, libc::DT_DIR, b".".to_vec()), (1, libc::DT_DIR, b"..".to_vec())];
    let mut kind = libc::DT_DIR;
    for entry in entries.flatten() {
        let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let own = if is_link {
            libc::DT_LNK
        } else if is_directory {
            libc::DT_DIR
        } else {
            libc::DT_REG
        };
        if numbered(entry.file_name().as_bytes(), b"cpu").is_some() {
            kind = own;
        } else {
            names.push((entry.ino(), own, entry.file_name().as_bytes().to_vec()));
        }
    }
    let all: u32 = super::processors(root).iter().sum();
    let inode_first = names.iter().map(|(inode, ..)| *inode).max().unwrap_or(1) + 1;
    names.extend((0..all).map(|cpu| (inode_first + u64::from(cpu), kind, format!("cpu{cpu}").into_bytes())));
    let at = call::raw(libc::SYS_lseek, &[descriptor, 0, libc::SEEK_CUR as u64, 0, 0, 0]);
    let mut list = Vec::new();
    let mut next = at.max(0) as u64;
    for (inode, kind, name) in names.into_iter().skip(next as usize) {
        let entry = Listed { inode, next: next + 1, kind, name }.encode(number);
        if list.len() + entry.len() > bytes {
            if list.is_empty() {
                return Err(-i64::from(libc::EINVAL));
            }
            break;
        }
        list.extend(entry);
        next += 1;
    }
    let moved = call::raw(libc::SYS_lseek, &[descriptor, next, libc::SEEK_SET as u64, 0, 0, 0]);
    if moved < 0 { Err(moved) } else { Ok(list) }
}

impl Listed {
    /// As struct linux_dirent64, or as struct linux_dirent of the old call.
    fn encode(&self, number: i64) -> Vec<u8> {
        let is_new = number == libc::SYS_getdents64;
        let head = if is_new { 19 } else { 18 };
        let bytes = (head + self.name.len() + 1 + usize::from(!is_new)).next_multiple_of(8);
        let mut record = Vec::with_capacity(bytes);
        record.extend(self.inode.to_le_bytes());
        record.extend(self.next.to_le_bytes());
        record.extend((bytes as u16).to_le_bytes());
        if is_new {
            record.push(self.kind);
        }
        record.extend(&self.name);
        record.resize(bytes, 0);
        if !is_new {
            record[bytes - 1] = self.kind;
        }
        record
    }
}

fn decode(number: i64, mut list: &[u8]) -> Vec<Listed> {
    let is_new = number == libc::SYS_getdents64;
    let head = if is_new { 19 } else { 18 };
    let mut entries = Vec::new();
    while let Some(bytes) = list.get(16..18) {
        let bytes = usize::from(u16::from_le_bytes([bytes[0], bytes[1]]));
        let Some(record) = list.get(..bytes).filter(|record| record.len() > head) else { break };
        let word = |at: usize| record[at..].first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
        let name = record[head..].split(|byte| *byte == 0).next().unwrap_or_default().to_vec();
        let kind = if is_new { record[18] } else { record[bytes - 1] };
        entries.push(Listed { inode: word(0), next: word(8), kind, name });
        list = &list[bytes..];
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn both_forms_are_read_as_written() {
        for number in [libc::SYS_getdents, libc::SYS_getdents64] {
            let entry = |name: &str, next| Listed { inode: 7 + next, next, kind: libc::DT_DIR, name: name.as_bytes().to_vec() };
            let entries = vec![entry("cpu0", 1), entry("abcdefghijkl", 2), entry("x", 3)];
            let bytes: Vec<u8> = entries.iter().flat_map(|entry| entry.encode(number)).collect();
            assert_eq!(decode(number, &bytes), entries);
            assert_eq!(decode(number, &bytes[..20]), []);
        }
    }

    #[test]
    fn the_kernel_s_list_is_filtered() {
        for number in [libc::SYS_getdents, libc::SYS_getdents64] {
            let directory = std::fs::File::open("/proc/self").unwrap();
            let descriptor = directory.as_raw_fd() as u64;
            let mut names = Vec::new();
            loop {
                let list = filtered(descriptor, number, 4096, |name| name != b"maps").unwrap();
                if list.is_empty() {
                    break;
                }
                names.extend(decode(number, &list).into_iter().map(|entry| entry.name));
            }
            assert!(names.contains(&b"status".to_vec()) && !names.contains(&b"maps".to_vec()));
        }
    }
}
