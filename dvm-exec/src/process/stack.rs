//! The first contents of a program's stack: argument count, pointers, auxiliary vector, strings.
//!
//! Owns the layout. Must not know where the values come from or how bytes get into memory.

use thiserror::Error;

/// Longest single argument or environment string, as in the kernel.
pub const STRING_BYTES_MAX: usize = 128 * 1024;

/// What the program is told at its start.
#[derive(Clone, Debug, Default)]
pub struct StackContents<'a> {
    /// argv, without terminating zeros.
    pub arguments: &'a [Vec<u8>],
    /// envp, each `NAME=value`.
    pub environment: &'a [Vec<u8>],
    /// Path of the program (AT_EXECFN).
    pub executable: &'a [u8],
    /// Numbers of the auxiliary vector.
    pub auxiliary: Auxiliary,
    /// AT_RANDOM.
    pub random: [u8; 16],
}

/// The auxiliary vector but for its pointers into the stack. AT_RSEQ_* are left out: the kernel would write into the
/// program's memory at each preemption.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Auxiliary {
    /// AT_SYSINFO_EHDR, 0 for none.
    pub vdso: u64,
    /// AT_PHDR.
    pub headers: u64,
    /// AT_PHNUM.
    pub header_count: u16,
    /// AT_BASE: bias of the interpreter, 0 without one.
    pub interpreter_base: u64,
    /// AT_ENTRY: the program's, not the interpreter's.
    pub entry: u64,
    /// AT_UID.
    pub uid: u32,
    /// AT_EUID.
    pub effective_uid: u32,
    /// AT_GID.
    pub gid: u32,
    /// AT_EGID.
    pub effective_gid: u32,
    /// AT_HWCAP.
    pub hwcap: u64,
    /// AT_HWCAP2.
    pub hwcap2: u64,
    /// AT_CLKTCK.
    pub clock_ticks: u64,
    /// AT_MINSIGSTKSZ.
    pub signal_stack_bytes_min: u64,
}

/// Bytes for `[stack_pointer, stack_pointer + bytes.len())`, which ends at the top given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StackImage {
    /// The program's first stack pointer, a multiple of 16; argc stands there.
    pub stack_pointer: u64,
    /// What stands from there to the top.
    pub bytes: Vec<u8>,
}

/// Why a stack cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum StackError {
    /// More than a quarter of the stack, the kernel's rule.
    #[error("arguments and environment take {bytes} bytes, at most {bytes_max} fit: shorten them")]
    TooLarge {
        /// What they take.
        bytes: usize,
        /// What may be.
        bytes_max: usize,
    },
    /// One string is too long.
    #[error("an argument or environment string has {0} bytes, at most {STRING_BYTES_MAX} are allowed")]
    StringTooLong(usize),
    /// A string has a zero byte.
    #[error("an argument or environment string contains a zero byte")]
    ZeroByte,
    /// The top is not a multiple of 16.
    #[error("stack top {0:#x} is not a multiple of 16")]
    Unaligned(u64),
}

/// Lays out the stack below `top`; at most `bytes_max` bytes.
///
/// # Errors
/// [`StackError`].
pub fn build(top: u64, bytes_max: usize, contents: &StackContents<'_>) -> Result<StackImage, StackError> {
    if !top.is_multiple_of(16) {
        return Err(StackError::Unaligned(top));
    }
    let strings = Strings::collect(contents)?;
    let words = words_bytes(contents);
    let bytes = (strings.bytes.len() + 16 + words).next_multiple_of(16);
    if bytes > bytes_max || bytes as u64 > top {
        return Err(StackError::TooLarge { bytes, bytes_max });
    }
    let strings_address = top - strings.bytes.len() as u64;
    let random_address = (strings_address - 16) & !15;
    let stack_pointer = (random_address - words as u64) & !15;
    let mut image = Vec::with_capacity((top - stack_pointer) as usize);
    push_words(&mut image, contents, &strings, strings_address, random_address);
    image.resize((random_address - stack_pointer) as usize, 0);
    image.extend_from_slice(&contents.random);
    image.resize((strings_address - stack_pointer) as usize, 0);
    image.extend_from_slice(&strings.bytes);
    Ok(StackImage { stack_pointer, bytes: image })
}

const PLATFORM: &[u8] = b"x86_64";
const WORD_BYTES: usize = 8;

/// All strings in a row, in the kernel's order, and where each begins.
struct Strings {
    bytes: Vec<u8>,
    platform: usize,
    arguments: Vec<usize>,
    environment: Vec<usize>,
    executable: usize,
}

impl Strings {
    fn collect(contents: &StackContents<'_>) -> Result<Self, StackError> {
        let mut bytes = Vec::new();
        let mut push = |string: &[u8]| {
            if string.len() >= STRING_BYTES_MAX {
                return Err(StackError::StringTooLong(string.len()));
            }
            if string.contains(&0) {
                return Err(StackError::ZeroByte);
            }
            let at = bytes.len();
            bytes.extend_from_slice(string);
            bytes.push(0);
            Ok(at)
        };
        let platform = push(PLATFORM)?;
        let arguments = contents.arguments.iter().map(|string| push(string)).collect::<Result<_, _>>()?;
        let environment = contents.environment.iter().map(|string| push(string)).collect::<Result<_, _>>()?;
        let executable = push(contents.executable)?;
        // The kernel leaves one zero word at the very top; some programs look for it.
        bytes.extend_from_slice(&[0; WORD_BYTES]);
        Ok(Self { bytes, platform, arguments, environment, executable })
    }
}

/// Bytes of argc, both pointer lists and the auxiliary vector.
fn words_bytes(contents: &StackContents<'_>) -> usize {
    let auxiliary = auxiliary(contents, 0, 0, 0).len() * 2;
    (1 + contents.arguments.len() + 1 + contents.environment.len() + 1 + auxiliary) * WORD_BYTES
}

fn push_words(image: &mut Vec<u8>, contents: &StackContents<'_>, strings: &Strings, base: u64, random: u64) {
    let mut push = |word: u64| image.extend_from_slice(&word.to_le_bytes());
    let address = |offset: usize| base + offset as u64;
    push(contents.arguments.len() as u64);
    strings.arguments.iter().for_each(|&offset| push(address(offset)));
    push(0);
    strings.environment.iter().for_each(|&offset| push(address(offset)));
    push(0);
    for (key, value) in auxiliary(contents, random, address(strings.executable), address(strings.platform)) {
        push(key);
        push(value);
    }
}

/// The auxiliary vector with its end.
fn auxiliary(contents: &StackContents<'_>, random: u64, executable: u64, platform: u64) -> Vec<(u64, u64)> {
    let Auxiliary { vdso, headers, header_count, interpreter_base, entry, .. } = contents.auxiliary;
    let Auxiliary { uid, effective_uid, gid, effective_gid, hwcap, hwcap2, .. } = contents.auxiliary;
    let mut entries = Vec::with_capacity(24);
    if vdso != 0 {
        entries.push((libc::AT_SYSINFO_EHDR, vdso));
    }
    entries.extend([
        (libc::AT_HWCAP, hwcap),
        (libc::AT_PAGESZ, super::vma::PAGE_BYTES),
        (libc::AT_CLKTCK, contents.auxiliary.clock_ticks),
        (libc::AT_PHDR, headers),
        (libc::AT_PHENT, 56),
        (libc::AT_PHNUM, u64::from(header_count)),
        (libc::AT_BASE, interpreter_base),
        (libc::AT_FLAGS, 0),
        (libc::AT_ENTRY, entry),
        (libc::AT_UID, u64::from(uid)),
        (libc::AT_EUID, u64::from(effective_uid)),
        (libc::AT_GID, u64::from(gid)),
        (libc::AT_EGID, u64::from(effective_gid)),
        (libc::AT_SECURE, 0),
        (libc::AT_RANDOM, random),
        (libc::AT_HWCAP2, hwcap2),
        (libc::AT_EXECFN, executable),
        (libc::AT_PLATFORM, platform),
        (libc::AT_MINSIGSTKSZ, contents.auxiliary.signal_stack_bytes_min),
        (libc::AT_NULL, 0),
    ]);
    entries
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const TOP: u64 = 0x1000_0080_0000;

    fn word(image: &StackImage, address: u64) -> u64 {
        let at = (address - image.stack_pointer) as usize;
        u64::from_le_bytes(image.bytes[at..at + 8].try_into().expect("8 bytes"))
    }

    fn string(image: &StackImage, address: u64) -> &[u8] {
        let rest = &image.bytes[(address - image.stack_pointer) as usize..];
        &rest[..rest.iter().position(|&byte| byte == 0).expect("terminated")]
    }

    /// Reads a list of string pointers and returns the address after its zero.
    fn list(image: &StackImage, mut address: u64) -> (Vec<Vec<u8>>, u64) {
        let mut strings = Vec::new();
        while word(image, address) != 0 {
            strings.push(string(image, word(image, address)).to_vec());
            address += 8;
        }
        (strings, address + 8)
    }

    fn check(arguments: &[&str], environment: &[&str]) {
        let arguments: Vec<Vec<u8>> = arguments.iter().map(|text| text.as_bytes().to_vec()).collect();
        let environment: Vec<Vec<u8>> = environment.iter().map(|text| text.as_bytes().to_vec()).collect();
        let contents = StackContents {
            arguments: &arguments,
            environment: &environment,
            executable: b"/usr/bin/prog",
            auxiliary: Auxiliary { vdso: 0x77, entry: 0x1234, hwcap: 9, ..Auxiliary::default() },
            random: *b"0123456789abcdef",
        };
        let image = build(TOP, 1 << 20, &contents).expect("fits");
        assert_eq!(image.stack_pointer % 16, 0);
        assert_eq!(image.stack_pointer + image.bytes.len() as u64, TOP);
        assert_eq!(word(&image, image.stack_pointer), arguments.len() as u64);
        let (argv, next) = list(&image, image.stack_pointer + 8);
        let (envp, mut next) = list(&image, next);
        assert_eq!(argv, arguments);
        assert_eq!(envp, environment);
        let mut auxiliary = BTreeMap::new();
        while word(&image, next) != 0 {
            auxiliary.insert(word(&image, next), word(&image, next + 8));
            next += 16;
        }
        assert_eq!(auxiliary[&libc::AT_SYSINFO_EHDR], 0x77);
        assert_eq!(auxiliary[&libc::AT_ENTRY], 0x1234);
        assert_eq!(auxiliary[&libc::AT_HWCAP], 9);
        assert_eq!(string(&image, auxiliary[&libc::AT_EXECFN]), b"/usr/bin/prog");
        assert_eq!(string(&image, auxiliary[&libc::AT_PLATFORM]), b"x86_64");
        let random = (auxiliary[&libc::AT_RANDOM] - image.stack_pointer) as usize;
        assert_eq!(&image.bytes[random..random + 16], b"0123456789abcdef");
        assert!(!auxiliary.contains_key(&27) && !auxiliary.contains_key(&28), "AT_RSEQ_* must be absent");
    }

    #[test]
    fn a_program_finds_everything() {
        check(&["prog"], &[]);
        check(&["prog", "", "-x"], &["A=1", "PATH=/bin"]);
        check(&[], &[]);
        for length in 0..40 {
            check(&["p", &"y".repeat(length)], &["E=2"]);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let long = vec![vec![b'x'; STRING_BYTES_MAX]];
        let many = vec![vec![b'x'; 1000]; 100];
        let zero = vec![b"a\0b".to_vec()];
        let with = |arguments| build(TOP, 64 * 1024, &StackContents { arguments, ..StackContents::default() });
        assert_eq!(with(&long), Err(StackError::StringTooLong(STRING_BYTES_MAX)));
        assert!(matches!(with(&many), Err(StackError::TooLarge { bytes_max: 65536, .. })));
        assert_eq!(with(&zero), Err(StackError::ZeroByte));
        assert_eq!(build(8, 4096, &StackContents::default()), Err(StackError::Unaligned(8)));
    }
}
