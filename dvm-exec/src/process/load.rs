//! Brings a program file into an empty space: segments, interpreter, heap, stack.
//!
//! Owns the order of loading and where things are put. Must not judge files ([`super::elf`]) or lay out stacks
//! ([`super::stack`]).

use super::elf::{ElfError, Executable, FileBytes, LoadPlan, ProgramFile};
use super::features::Masking;
use super::memory::Space;
use super::sigframe::ThreadState;
use super::stack::{self, Auxiliary, StackContents};
use super::vma::{Area, AreaKind, FileIdentity, PAGE_BYTES, Protection};
use crate::exit::Failure;
use crate::sys::{call, cpu, user};
use std::fs::{File, Metadata};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Scripts may be run by scripts, as in the kernel.
const SCRIPT_DEPTH_MAX: usize = 4;
/// Where position-independent programs go, with their heap behind.
const PROGRAM_BASE: u64 = 0x0800_0000_0000;
/// How far a heap may grow.
const HEAP_BYTES_MAX: u64 = 1 << 40;
/// Bytes of the first thread's stack.
pub const STACK_BYTES: u64 = 8 << 20;
/// Bytes below the stack that stay unmapped.
const STACK_GAP_BYTES: u64 = 1 << 20;
const STRINGS_BYTES_MAX: usize = (STACK_BYTES / 4) as usize;

/// A program found and judged, before anything of the job exists.
pub struct Program {
    file: File,
    executable: Executable,
    /// Absolute path, links resolved.
    pub path: PathBuf,
    /// argv.
    pub arguments: Vec<Vec<u8>>,
}

struct Image<'a>(&'a File, u64);

impl FileBytes for Image<'_> {
    fn bytes(&self) -> u64 {
        self.1
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> bool {
        self.0.read_exact_at(out, offset).is_ok()
    }
}

impl Program {
    /// Finds `name` as a shell does, follows `#!`, and judges the file.
    ///
    /// # Errors
    /// With the exit code shells use: 127 not found, 126 not runnable; own codes for files that are no 64-bit ELF.
    pub fn find(name: &[u8], arguments: Vec<Vec<u8>>) -> Result<Self, Failure> {
        Self::at(search(name)?, arguments)
    }

    /// As [`Program::find`], for a path that is known.
    ///
    /// # Errors
    /// As [`Program::find`].
    pub fn at(path: PathBuf, arguments: Vec<Vec<u8>>) -> Result<Self, Failure> {
        let (mut path, mut arguments) = (path, arguments);
        for _ in 0..SCRIPT_DEPTH_MAX {
            let (file, metadata) = open(&path)?;
            match ProgramFile::read(&Image(&file, metadata.len())).map_err(|error| refuse(&path, &error))? {
                ProgramFile::Elf(executable) => {
                    let path = path.canonicalize().unwrap_or(path);
                    return Ok(Self { file, executable, path, arguments });
                }
                ProgramFile::Script { interpreter, argument } => {
                    let script = path.as_os_str().as_bytes().to_vec();
                    let rest = arguments.into_iter().skip(1);
                    arguments = [interpreter.clone()].into_iter().chain(argument).chain([script]).chain(rest).collect();
                    path = PathBuf::from(std::ffi::OsString::from_vec(interpreter));
                }
            }
        }
        Err(Failure::NotRunnable(format!("{}: scripts are nested more than {SCRIPT_DEPTH_MAX} deep", path.display())))
    }

    fn base(&self) -> u64 {
        if self.executable.is_relocatable() { PROGRAM_BASE.next_multiple_of(self.executable.alignment()) } else { 0 }
    }

    /// Whether it runs without an interpreter, which would load libraries.
    pub fn is_static(&self) -> bool {
        self.executable.plan(self.base()).is_ok_and(|plan| plan.interpreter.is_none())
    }

    /// Loads the program and returns the first thread's state and the program's name for `ps`.
    ///
    /// # Errors
    /// When the interpreter is missing or memory is refused.
    pub fn load(&self, space: &Space, environment: &[Vec<u8>], vdso: u64, masking: &Masking) -> Result<ThreadState, Failure> {
        let plan = self.executable.plan(self.base()).map_err(|error| refuse(&self.path, &error))?;
        place(space, &self.file, &self.path, &plan)?;
        let heap = plan.span.end.next_multiple_of(PAGE_BYTES);
        space.map().set_heap(heap, heap + HEAP_BYTES_MAX);
        let interpreter = plan.interpreter.as_ref().map(|name| load_interpreter(space, name)).transpose()?;
        let mut auxiliary = self.auxiliary(&plan, interpreter.as_ref().map_or(0, |plan| plan.bias), vdso);
        auxiliary.signal_stack_bytes_min += masking.frame_bytes_more;
        if !masking.names.is_empty() {
            // AT_HWCAP is EDX of leaf 1.
            auxiliary.hwcap &= u64::from(masking.common.leaf1[1]);
        }
        let entry = interpreter.as_ref().map_or(plan.entry, |plan| plan.entry);
        let stack_pointer = self.build_stack(space, environment, auxiliary, plan.executable_stack)?;
        let mut state = ThreadState::default();
        state.registers.rip = entry;
        state.registers.rcx = entry;
        state.registers.rsp = stack_pointer;
        state.registers.flags = 0x202;
        Ok(state)
    }

    fn auxiliary(&self, plan: &LoadPlan, interpreter_base: u64, vdso: u64) -> Auxiliary {
        let identity = |kind| cpu::auxiliary(kind) as u32;
        Auxiliary {
            vdso,
            headers: plan.headers,
            header_count: plan.header_count,
            interpreter_base,
            entry: plan.entry,
            uid: identity(libc::AT_UID),
            effective_uid: identity(libc::AT_EUID),
            gid: identity(libc::AT_GID),
            effective_gid: identity(libc::AT_EGID),
            hwcap: cpu::auxiliary(libc::AT_HWCAP),
            hwcap2: cpu::auxiliary(libc::AT_HWCAP2),
            clock_ticks: cpu::auxiliary(libc::AT_CLKTCK),
            signal_stack_bytes_min: cpu::auxiliary(libc::AT_MINSIGSTKSZ),
        }
    }

    fn build_stack(
        &self,
        space: &Space,
        environment: &[Vec<u8>],
        auxiliary: Auxiliary,
        is_executable: bool,
    ) -> Result<u64, Failure> {
        let base = space
            .find_free(STACK_BYTES + STACK_GAP_BYTES, PAGE_BYTES)
            .map_err(|error| Failure::Internal(format!("no place for the stack: {error}")))?;
        let (first, top) = (base + STACK_GAP_BYTES, base + STACK_GAP_BYTES + STACK_BYTES);
        let execute = if is_executable { Protection::EXECUTE } else { Protection::NONE };
        put(space, Area { range: first..top, protection: Protection::READ_WRITE.union(execute), kind: AreaKind::Stack })?;
        let mut random = [0; 16];
        call::raw(libc::SYS_getrandom, &[random.as_mut_ptr() as u64, 16, 0, 0, 0, 0]);
        let contents = StackContents {
            arguments: &self.arguments,
            environment,
            executable: self.path.as_os_str().as_bytes(),
            auxiliary,
            random,
        };
        let image = stack::build(top, STRINGS_BYTES_MAX, &contents).map_err(|error| Failure::NotRunnable(error.to_string()))?;
        user::write(image.stack_pointer, &image.bytes)
            .map_err(|_| Failure::Internal("the new stack cannot be written".to_owned()))?;
        Ok(image.stack_pointer)
    }
}

/// Whether a program at `path` would run here: all that a husk loads is readable, for this processor and without rights of
/// its own. Anything else is for the kernel to run, or to refuse.
pub fn is_loadable(path: &Path) -> bool {
    let mut path = path.to_owned();
    for _ in 0..=SCRIPT_DEPTH_MAX {
        let Ok((file, metadata)) = open(&path) else { return false };
        if !cpu::may_execute(&path) || has_rights(&path, &metadata) {
            return false;
        }
        match ProgramFile::read(&Image(&file, metadata.len())) {
            Ok(ProgramFile::Script { interpreter, .. }) => path = PathBuf::from(std::ffi::OsString::from_vec(interpreter)),
            Ok(ProgramFile::Elf(executable)) => {
                let base = if executable.is_relocatable() { PROGRAM_BASE } else { 0 };
                let interpreter = executable.plan(base).map(|plan| plan.interpreter);
                return interpreter.is_ok_and(|name| name.is_none_or(|name| cpu::may_execute(Path::new(&name))));
            }
            Err(_) => return false,
        }
    }
    false
}

/// Whether a program starts with more rights than its caller.
fn has_rights(path: &Path, metadata: &Metadata) -> bool {
    const SET_ID: u32 = 0o6000;
    metadata.permissions().mode() & SET_ID != 0 || cpu::has_capabilities(path)
}

fn search(name: &[u8]) -> Result<PathBuf, Failure> {
    let given = PathBuf::from(std::ffi::OsStr::from_bytes(name));
    if name.contains(&b'/') {
        return Ok(given);
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    let mut denied = None;
    for directory in std::env::split_paths(&path) {
        let candidate = directory.join(&given);
        let Ok(metadata) = candidate.metadata() else { continue };
        if metadata.is_file() && metadata.permissions().mode() & 0o111 != 0 {
            return Ok(candidate);
        }
        denied = Some(candidate);
    }
    denied.ok_or_else(|| Failure::NotFound(format!("{}: not found in PATH", given.display())))
}

fn open(path: &Path) -> Result<(File, Metadata), Failure> {
    let shown = path.display();
    let file = File::open(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Failure::NotFound(format!("{shown}: no such file")),
        _ => Failure::NotRunnable(format!("{shown}: {error}")),
    })?;
    let metadata = file.metadata().map_err(|error| Failure::NotRunnable(format!("{shown}: {error}")))?;
    if metadata.is_dir() {
        return Err(Failure::NotRunnable(format!("{shown}: is a directory")));
    }
    if !metadata.is_file() {
        return Err(Failure::NotRunnable(format!("{shown}: is not a regular file")));
    }
    if metadata.permissions().mode() & 0o111 == 0 {
        return Err(Failure::NotRunnable(format!("{shown}: is not executable (chmod +x)")));
    }
    Ok((file, metadata))
}

fn refuse(path: &Path, error: &ElfError) -> Failure {
    let text = format!("{}: {error}", path.display());
    match error {
        ElfError::ThirtyTwoBit => Failure::ThirtyTwoBit(text),
        ElfError::NotElf => Failure::NotElf(text),
        _ => Failure::NotRunnable(text),
    }
}

fn load_interpreter(space: &Space, name: &str) -> Result<LoadPlan, Failure> {
    let path = Path::new(name);
    let (file, metadata) = open(path)?;
    let ProgramFile::Elf(executable) = ProgramFile::read(&Image(&file, metadata.len())).map_err(|error| refuse(path, &error))?
    else {
        return Err(Failure::NotRunnable(format!("{name}: the program's interpreter is a script")));
    };
    let base = space
        .find_free(executable.span_bytes(), executable.alignment())
        .map_err(|error| Failure::Internal(format!("no place for {name}: {error}")))?;
    let plan = executable.plan(base).map_err(|error| refuse(path, &error))?;
    place(space, &file, path, &plan)?;
    Ok(plan)
}

fn put(space: &Space, area: Area) -> Result<(), Failure> {
    let shown = format!("{:#x}..{:#x}", area.range.start, area.range.end);
    space.place(area).map_err(|error| Failure::Internal(format!("cannot map {shown}: {error}")))
}

fn place(space: &Space, file: &File, path: &Path, plan: &LoadPlan) -> Result<(), Failure> {
    let metadata = file.metadata().map_err(|error| Failure::NotRunnable(format!("{}: {error}", path.display())))?;
    let device = metadata.dev();
    let identity = FileIdentity {
        name: path.to_string_lossy().into(),
        device: (libc::major(device), libc::minor(device)),
        inode: metadata.ino(),
    };
    let pages = plan.pages();
    for part in &pages {
        let kind = match part.file_offset {
            Some(offset) => AreaKind::File { file: identity.clone(), offset, shared: false, end: u64::MAX },
            None => AreaKind::Anonymous { shared: false },
        };
        put(space, Area { range: part.range.clone(), protection: Protection::READ_WRITE, kind })?;
    }
    for segment in &plan.segments {
        let mut done = 0;
        while done < segment.file_bytes {
            let (to, bytes) = (segment.address + done, segment.file_bytes - done);
            let arguments = [file.as_raw_fd() as u64, to, bytes, segment.file_offset + done, 0, 0];
            match call::checked(libc::SYS_pread64, &arguments) {
                Ok(0) => return Err(Failure::NotRunnable(format!("{}: truncated while loading", path.display()))),
                Ok(read) => done += read,
                Err(error) => return Err(Failure::Internal(format!("{}: reading into {to:#x}: {error}", path.display()))),
            }
        }
    }
    for part in &pages {
        let (start, bytes) = (part.range.start, part.range.end - part.range.start);
        let result = space.call(libc::SYS_mprotect, &[start, bytes, part.protection.bits() as u64, 0, 0, 0]);
        if result < 0 {
            return Err(Failure::Internal(format!("cannot protect {start:#x}: error {}", -result)));
        }
    }
    Ok(())
}
