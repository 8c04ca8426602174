//! The synthetic vdso: one ELF image, the same bytes at the same address on every host, that jumps through a table page
//! of the host into that host's real vdso, and adds the host's clock correction.
//!
//! Owns the image, the table's layout and the reading of the real vdso's symbols. Must not map anything.

use std::mem::offset_of;
use std::ops::Range;
use thiserror::Error;

#[cfg(test)]
mod tests;

/// Where the image is mapped, read and execute, host-local. Above the program's space and below any PIE of the husk.
pub const IMAGE_ADDRESS: u64 = 0x5000_1000_0000;
/// Bytes reserved for the image.
pub const IMAGE_BYTES: u64 = 0x2000;
/// Where the table's page is mapped, read-only once written, host-local.
pub const TABLE_ADDRESS: u64 = IMAGE_ADDRESS + IMAGE_BYTES;

// The image's own system calls are the program's.
const _: () = assert!(TABLE_ADDRESS <= crate::sys::TRAP_END);

/// What the image calls and adds on this host.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Address of the host's `__vdso_clock_gettime`.
    pub clock_gettime: u64,
    /// Address of the host's `__vdso_gettimeofday`.
    pub gettimeofday: u64,
    /// Address of the host's `__vdso_time`.
    pub time: u64,
    /// Address of the host's `__vdso_clock_getres`.
    pub clock_getres: u64,
    /// Address of the host's `__vdso_getcpu`.
    pub getcpu: u64,
    /// 1 if a correction is to be added to clocks that count from the boot.
    pub correction_active: u64,
    /// Whole seconds of the correction, rounded down.
    pub correction_seconds: i64,
    /// The rest, 0..1_000_000_000.
    pub correction_nanoseconds: u64,
    /// First cluster-wide processor number of this host, added by getcpu.
    pub processor_first: u64,
    /// Processors of this host among the cluster's, 0 to leave getcpu alone: its answer is taken modulo this.
    pub processors: u64,
}

/// Why the real vdso cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum VdsoError {
    /// Not an ELF image as the kernel maps it.
    #[error("the kernel's vdso is malformed: {0}")]
    Malformed(&'static str),
    /// A function is missing.
    #[error("the kernel's vdso lacks {0}")]
    Missing(&'static str),
}

impl Table {
    /// The table for a host whose vdso, with these bytes, is mapped at `address` (AT_SYSINFO_EHDR).
    ///
    /// # Errors
    /// [`VdsoError`]; then the program gets no AT_SYSINFO_EHDR.
    pub fn for_host(vdso: &[u8], address: u64) -> Result<Self, VdsoError> {
        let symbols = Symbols::read(vdso)?;
        let find =
            |name: &'static str| symbols.find(name).map(|offset| address.wrapping_add(offset)).ok_or(VdsoError::Missing(name));
        Ok(Self {
            clock_gettime: find("__vdso_clock_gettime")?,
            gettimeofday: find("__vdso_gettimeofday")?,
            time: find("__vdso_time")?,
            clock_getres: find("__vdso_clock_getres")?,
            getcpu: find("__vdso_getcpu")?,
            ..Self::default()
        })
    }

    /// Lets clocks that count from the boot show `correction_ns` more than the host's own: on a member
    /// `-monotonic_offset_ns`, at the root 0.
    #[must_use]
    pub fn with_correction(self, correction_ns: i64) -> Self {
        Self {
            correction_active: u64::from(correction_ns != 0),
            correction_seconds: correction_ns.div_euclid(NANOSECONDS),
            correction_nanoseconds: correction_ns.rem_euclid(NANOSECONDS) as u64,
            ..self
        }
    }

    /// The bytes to write at [`TABLE_ADDRESS`].
    #[must_use]
    pub fn to_bytes(self) -> Vec<u8> {
        [
            self.clock_gettime,
            self.gettimeofday,
            self.time,
            self.clock_getres,
            self.getcpu,
            self.correction_active,
            self.correction_seconds as u64,
            self.correction_nanoseconds,
            self.processor_first,
            self.processors,
        ]
        .into_iter()
        .flat_map(u64::to_le_bytes)
        .collect()
    }
}

const NANOSECONDS: i64 = 1_000_000_000;

/// Whether the correction applies to this clock id (MONOTONIC, MONOTONIC_RAW, MONOTONIC_COARSE, BOOTTIME).
#[must_use]
pub fn is_corrected(clock: u64) -> bool {
    clock < 64 && CORRECTED_CLOCKS & (1 << clock) != 0
}

const CORRECTED_CLOCKS: u64 = 1 << 1 | 1 << 4 | 1 << 6 | 1 << 7;
/// Clocks the real vdso may be asked for: REALTIME, MONOTONIC, their RAW and COARSE kinds, BOOTTIME, TAI. It would ask the
/// kernel for any other one, past the husk: CPU time of the program is that of all hosts.
const HOST_CLOCKS: u32 = CORRECTED_CLOCKS as u32 | 1 | 1 << 5 | 1 << 11;

/// Finds the vdso in the text of `/proc/self/maps`.
#[must_use]
pub fn find_in_maps(maps: &str) -> Option<Range<u64>> {
    let line = maps.lines().find(|line| line.ends_with(" [vdso]"))?;
    let (start, end) = line.split_whitespace().next()?.split_once('-')?;
    Some(u64::from_str_radix(start, 16).ok()?..u64::from_str_radix(end, 16).ok()?)
}

/// The image to write at [`IMAGE_ADDRESS`]; the same on all hosts.
#[must_use]
pub fn image() -> Vec<u8> {
    // Symbols in the order of their GNU hash buckets, as that table wants them.
    let mut functions = FUNCTIONS;
    functions.sort_by_key(|(name, _)| gnu_hash(name) % GNU_BUCKETS);
    let names = Names::collect(&functions);
    let mut code = Code { offset: CODE_OFFSET, bytes: Vec::new() };
    let symbols: Vec<(u64, u64)> = functions
        .iter()
        .map(|(_, emit)| {
            code.align();
            let start = code.position();
            emit(&mut code);
            (start, code.position() - start)
        })
        .collect();
    let mut image = Image { bytes: vec![0; TABLES_OFFSET] };
    let hash = image.append(8, &sysv_hash_table(&functions));
    let gnu = image.append(8, &gnu_hash_table(&functions));
    let symtab = image.append(8, &symbol_table(&names, &symbols));
    let strtab = image.append(8, &names.bytes);
    let versym = image.append(8, &words16(&[&[0][..], &[VERSION_INDEX; FUNCTIONS.len()]].concat()));
    let verdef = image.append(8, &version_definitions(&names));
    let dynamic_entries = [
        (14, names.soname),
        (4, hash),
        (0x6fff_fef5, gnu),
        (5, strtab),
        (6, symtab),
        (10, names.bytes.len() as u64),
        (11, 24),
        (0x6fff_fffc, verdef),
        (0x6fff_fffd, 2),
        (0x6fff_fff0, versym),
        (0, 0),
    ];
    let dynamic_bytes: Vec<u8> = dynamic_entries.iter().flat_map(|&(tag, value)| words64(&[tag, value])).collect();
    let dynamic = image.append(8, &dynamic_bytes);
    assert!(image.bytes.len() as u64 <= CODE_OFFSET, "the tables end before the code");
    image.bytes.resize(CODE_OFFSET as usize, 0);
    image.bytes.extend_from_slice(&code.bytes);
    assert!(image.bytes.len() as u64 <= IMAGE_BYTES, "the image fits its place");
    image.write_headers(dynamic, dynamic_bytes.len() as u64);
    image.bytes
}

/// Where the code begins in the image.
const CODE_OFFSET: u64 = 0x600;
/// Where the tables begin: after the file header and two program headers.
const TABLES_OFFSET: usize = 64 + 2 * 56;
const GNU_BUCKETS: u32 = 3;
const GNU_BLOOM_SHIFT: u32 = 6;
/// Version 1 is the file itself, 2 is LINUX_2.6.
const VERSION_INDEX: u16 = 2;
const SONAME: &str = "linux-vdso.so.1";
const VERSION: &str = "LINUX_2.6";

type Emit = fn(&mut Code);
const FUNCTIONS: [(&str, Emit); 5] = [
    ("__vdso_clock_gettime", emit_clock_gettime),
    ("__vdso_gettimeofday", |code| code.jump_to(offset_of!(Table, gettimeofday))),
    ("__vdso_time", |code| code.jump_to(offset_of!(Table, time))),
    ("__vdso_clock_getres", |code| code.jump_to(offset_of!(Table, clock_getres))),
    ("__vdso_getcpu", emit_getcpu),
];

/// Machine code under construction.
struct Code {
    offset: u64,
    bytes: Vec<u8>,
}

impl Code {
    fn position(&self) -> u64 {
        self.offset + self.bytes.len() as u64
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(32), 0xcc);
    }

    fn emit(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// An instruction with a RIP-relative operand in the table, and immediate bytes after it.
    fn emit_table(&mut self, opcode: &[u8], field: usize, immediate: &[u8]) {
        self.emit(opcode);
        let next = self.position() + 4 + immediate.len() as u64;
        let distance = (TABLE_ADDRESS - IMAGE_ADDRESS) as i64 + field as i64 - next as i64;
        self.emit(&(distance as i32).to_le_bytes());
        self.emit(immediate);
    }

    /// `jmp [table field]`
    fn jump_to(&mut self, field: usize) {
        self.emit_table(&[0xff, 0x25], field, &[]);
    }

    /// A conditional jump to an earlier place in reach of one byte.
    fn jump_back(&mut self, opcode: u8, target: u64) {
        let distance = target as i64 - (self.position() as i64 + 2);
        self.emit(&[opcode, i8::try_from(distance).expect("the function is shorter than 128 bytes") as u8]);
    }
}

/// Tests a table word; zero goes straight to the host's function, else the code that follows runs. Returns where that jump stands.
fn emit_fast_path(code: &mut Code, word: usize, function: usize) -> u64 {
    code.emit_table(&[0x48, 0x83, 0x3d], word, &[0]); // cmp qword [word], 0
    code.emit(&[0x75, 0x06]); // jne over the jump
    let native = code.position();
    code.jump_to(function);
    native
}

fn emit_clock_gettime(code: &mut Code) {
    let function = offset_of!(Table, clock_gettime);
    code.emit(&[0x83, 0xff, 0x0b]); // cmp edi, 11
    code.emit(&[0x77, 0x0a]); // ja to the system call
    code.emit(&[0xb8]); // mov eax, HOST_CLOCKS
    code.emit(&HOST_CLOCKS.to_le_bytes());
    code.emit(&[0x0f, 0xa3, 0xf8]); // bt eax, edi
    code.emit(&[0x72, 0x08]); // jb over the system call
    code.emit(&[0xb8]); // mov eax, SYS_clock_gettime
    code.emit(&(libc::SYS_clock_gettime as u32).to_le_bytes());
    code.emit(&[0x0f, 0x05, 0xc3]); // syscall, ret
    let native = emit_fast_path(code, offset_of!(Table, correction_active), function);
    code.emit(&[0x83, 0xff, 0x07]); // cmp edi, 7
    code.jump_back(0x77, native); // ja
    code.emit(&[0xb8]); // mov eax, CORRECTED_CLOCKS
    code.emit(&(CORRECTED_CLOCKS as u32).to_le_bytes());
    code.emit(&[0x0f, 0xa3, 0xf8]); // bt eax, edi
    code.jump_back(0x73, native); // jae
    code.emit(&[0x56]); // push rsi, which also aligns the stack
    code.emit_table(&[0xff, 0x15], function, &[]); // call
    code.emit(&[0x5e]); // pop rsi
    code.emit(&[0x85, 0xc0]); // test eax, eax
    code.emit(&[0x75, 46]); // jne to the ret
    code.emit_table(&[0x48, 0x8b, 0x15], offset_of!(Table, correction_seconds), &[]); // mov rdx, seconds
    code.emit(&[0x48, 0x01, 0x16]); // add [rsi], rdx
    code.emit_table(&[0x48, 0x8b, 0x15], offset_of!(Table, correction_nanoseconds), &[]); // mov rdx, nanoseconds
    code.emit(&[0x48, 0x03, 0x56, 0x08]); // add rdx, [rsi+8]
    let second = (NANOSECONDS as u32).to_le_bytes();
    code.emit(&[0x48, 0x81, 0xfa]); // cmp rdx, 1e9
    code.emit(&second);
    code.emit(&[0x72, 0x0a]); // jb over the carry
    code.emit(&[0x48, 0x81, 0xea]); // sub rdx, 1e9
    code.emit(&second);
    code.emit(&[0x48, 0xff, 0x06]); // inc qword [rsi]
    code.emit(&[0x48, 0x89, 0x56, 0x08]); // mov [rsi+8], rdx
    code.emit(&[0xc3]); // ret
}

fn emit_getcpu(code: &mut Code) {
    let function = offset_of!(Table, getcpu);
    emit_fast_path(code, offset_of!(Table, processors), function);
    code.emit(&[0x57]); // push rdi
    code.emit_table(&[0xff, 0x15], function, &[]); // call
    code.emit(&[0x5f]); // pop rdi
    code.emit(&[0x48, 0x85, 0xff]); // test rdi, rdi
    code.emit(&[0x74, 0x14]); // je to the ret
    code.emit(&[0x8b, 0x07]); // mov eax, [rdi]
    code.emit(&[0x31, 0xd2]); // xor edx, edx
    code.emit_table(&[0xf7, 0x35], offset_of!(Table, processors), &[]); // div dword [processors]
    code.emit_table(&[0x03, 0x15], offset_of!(Table, processor_first), &[]); // add edx, first
    code.emit(&[0x89, 0x17]); // mov [rdi], edx
    code.emit(&[0x31, 0xc0]); // xor eax, eax
    code.emit(&[0xc3]); // ret
}

/// The string table and where its names stand.
struct Names {
    bytes: Vec<u8>,
    functions: Vec<u64>,
    soname: u64,
    version: u64,
}

impl Names {
    fn collect(functions: &[(&str, Emit)]) -> Self {
        let mut bytes = vec![0];
        let mut push = |name: &str| {
            let at = bytes.len() as u64;
            bytes.extend_from_slice(name.as_bytes());
            bytes.push(0);
            at
        };
        let functions = functions.iter().map(|(name, _)| push(name)).collect();
        let (soname, version) = (push(SONAME), push(VERSION));
        Self { bytes, functions, soname, version }
    }
}

struct Image {
    bytes: Vec<u8>,
}

impl Image {
    fn append(&mut self, alignment: usize, part: &[u8]) -> u64 {
        self.bytes.resize(self.bytes.len().next_multiple_of(alignment), 0);
        let at = self.bytes.len() as u64;
        self.bytes.extend_from_slice(part);
        at
    }

    fn write_headers(&mut self, dynamic: u64, dynamic_bytes: u64) {
        let total = self.bytes.len() as u64;
        let mut head = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
        head.extend(words16(&[3, 62])); // DYN, x86-64
        head.extend(words32(&[1]));
        head.extend(words64(&[CODE_OFFSET, 64, 0])); // entry (unused), program headers, no sections
        head.extend(words32(&[0]));
        head.extend(words16(&[64, 56, 2, 64, 0, 0]));
        head.extend(words32(&[1, 5])); // LOAD, R E
        head.extend(words64(&[0, 0, 0, total, total, 0x1000]));
        // DYNAMIC, read-only: else ld.so relocates it in place, on one host only.
        head.extend(words32(&[2, 4]));
        head.extend(words64(&[dynamic, dynamic, dynamic, dynamic_bytes, dynamic_bytes, 8]));
        self.bytes[..head.len()].copy_from_slice(&head);
    }
}

fn symbol_table(names: &Names, symbols: &[(u64, u64)]) -> Vec<u8> {
    let mut table = vec![0; 24];
    for (&name, &(address, bytes)) in names.functions.iter().zip(symbols) {
        table.extend(words32(&[name as u32]));
        table.extend([0x12, 0]); // GLOBAL FUNC, DEFAULT
        table.extend(words16(&[1])); // some section: defined, and relative to the image
        table.extend(words64(&[address, bytes]));
    }
    table
}

fn sysv_hash_table(functions: &[(&str, Emit)]) -> Vec<u8> {
    const BUCKETS: usize = 3;
    let mut buckets = [0; BUCKETS];
    let mut chains = vec![0; functions.len() + 1];
    for (index, (name, _)) in functions.iter().enumerate() {
        let bucket = &mut buckets[sysv_hash(name) as usize % BUCKETS];
        chains[index + 1] = *bucket;
        *bucket = index as u32 + 1;
    }
    [words32(&[BUCKETS as u32, chains.len() as u32]), words32(&buckets), words32(&chains)].concat()
}

/// `functions` are sorted by bucket.
fn gnu_hash_table(functions: &[(&str, Emit)]) -> Vec<u8> {
    let hashes: Vec<u32> = functions.iter().map(|(name, _)| gnu_hash(name)).collect();
    let bloom = hashes.iter().fold(0_u64, |bloom, hash| bloom | 1 << (hash % 64) | 1 << ((hash >> GNU_BLOOM_SHIFT) % 64));
    let first_in = |bucket| hashes.iter().position(|hash| hash % GNU_BUCKETS == bucket).map_or(0, |index| index as u32 + 1);
    let buckets: Vec<u32> = (0..GNU_BUCKETS).map(first_in).collect();
    let is_last = |index: usize| hashes.get(index + 1).is_none_or(|next| next % GNU_BUCKETS != hashes[index] % GNU_BUCKETS);
    let chains: Vec<u32> = hashes.iter().enumerate().map(|(index, hash)| hash & !1 | u32::from(is_last(index))).collect();
    [words32(&[GNU_BUCKETS, 1, 1, GNU_BLOOM_SHIFT]), words64(&[bloom]), words32(&buckets), words32(&chains)].concat()
}

/// Two definitions: the file's own (base) and LINUX_2.6.
fn version_definitions(names: &Names) -> Vec<u8> {
    let definition = |flags: u16, index: u16, name: &str, offset: u64, next: u32| {
        let entry = [words16(&[1, flags, index, 1]), words32(&[sysv_hash(name), 20, next])].concat();
        [entry, words32(&[offset as u32, 0])].concat()
    };
    let base = definition(1, 1, SONAME, names.soname, 28);
    [base, definition(0, VERSION_INDEX, VERSION, names.version, 0)].concat()
}

fn sysv_hash(name: &str) -> u32 {
    name.bytes().fold(0_u32, |hash, byte| {
        let hash = (hash << 4).wrapping_add(u32::from(byte));
        let high = hash & 0xf000_0000;
        (hash ^ high >> 24) & !high
    })
}

fn gnu_hash(name: &str) -> u32 {
    name.bytes().fold(5381_u32, |hash, byte| hash.wrapping_mul(33).wrapping_add(u32::from(byte)))
}

fn words16(words: &[u16]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn words32(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn words64(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Dynamic symbols of a vdso image, each read within bounds.
struct Symbols<'a> {
    image: &'a [u8],
    load: u64,
    strings: u64,
    symbols: u64,
    count: u64,
}

/// More symbols than any vdso has.
const SYMBOLS_MAX: u64 = 1024;

impl<'a> Symbols<'a> {
    fn read(image: &'a [u8]) -> Result<Self, VdsoError> {
        let word = |offset| word64(image, offset).ok_or(VdsoError::Malformed("a table ends outside the image"));
        if !image.starts_with(b"\x7fELF\x02\x01") {
            return Err(VdsoError::Malformed("no 64-bit ELF header"));
        }
        let headers = word(32)?;
        let count = word(56)? & 0xffff;
        let (mut load, mut dynamic) = (None, None);
        for index in 0..count.min(64) {
            let header = headers.saturating_add(index * 56);
            match word(header)? as u32 {
                // Addresses in the image are linked from here on.
                1 => load = load.or(Some(word(header + 16)?.wrapping_sub(word(header + 8)?))),
                2 => dynamic = Some(word(header + 8)?),
                _ => {}
            }
        }
        let load = load.ok_or(VdsoError::Malformed("no PT_LOAD"))?;
        let dynamic = dynamic.ok_or(VdsoError::Malformed("no PT_DYNAMIC"))?;
        let (mut strings, mut symbols, mut hash, mut gnu) = (None, None, None, None);
        for index in 0..64 {
            let entry = dynamic.saturating_add(index * 16);
            let target = word(entry + 8)?.wrapping_sub(load);
            match word(entry)? {
                0 => break,
                4 => hash = Some(target),
                5 => strings = Some(target),
                6 => symbols = Some(target),
                0x6fff_fef5 => gnu = Some(target),
                _ => {}
            }
        }
        let count = match (hash, gnu) {
            (Some(hash), _) => word(hash)? >> 32,
            (None, Some(gnu)) => gnu_count(image, gnu).ok_or(VdsoError::Malformed("bad DT_GNU_HASH"))?,
            (None, None) => return Err(VdsoError::Malformed("no symbol hash table")),
        };
        let strings = strings.ok_or(VdsoError::Malformed("no DT_STRTAB"))?;
        let symbols = symbols.ok_or(VdsoError::Malformed("no DT_SYMTAB"))?;
        Ok(Self { image, load, strings, symbols, count: count.min(SYMBOLS_MAX) })
    }

    /// Offset of a defined symbol from the image's first byte.
    fn find(&self, name: &str) -> Option<u64> {
        (1..self.count).find_map(|index| {
            let symbol = self.symbols.checked_add(index * 24)?;
            let head = word64(self.image, symbol)?;
            let defined = head >> 48 != 0;
            let at = usize::try_from(self.strings.checked_add(head & 0xffff_ffff)?).ok()?;
            let rest = self.image.get(at..)?.strip_prefix(name.as_bytes())?;
            (defined && rest.first() == Some(&0)).then_some(word64(self.image, symbol + 8)?.wrapping_sub(self.load))
        })
    }
}

/// Number of symbols that a GNU hash table covers.
fn gnu_count(image: &[u8], table: u64) -> Option<u64> {
    let word = |offset: u64| word32(image, table.checked_add(offset)?);
    let (buckets, first, bloom) = (u64::from(word(0)?), u64::from(word(4)?), u64::from(word(8)?));
    let bucket_at = 16 + bloom * 8;
    let mut last = 0;
    for bucket in 0..buckets.min(SYMBOLS_MAX) {
        last = last.max(u64::from(word(bucket_at + bucket * 4)?));
    }
    if last < first {
        return Some(0);
    }
    while word(bucket_at + (buckets + last - first) * 4)? & 1 == 0 {
        last += 1;
    }
    Some(last + 1)
}

fn word32(image: &[u8], offset: u64) -> Option<u32> {
    let bytes = image.get(usize::try_from(offset).ok()?..)?.first_chunk()?;
    Some(u32::from_le_bytes(*bytes))
}

fn word64(image: &[u8], offset: u64) -> Option<u64> {
    let bytes = image.get(usize::try_from(offset).ok()?..)?.first_chunk()?;
    Some(u64::from_le_bytes(*bytes))
}
