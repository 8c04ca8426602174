//! The one big machine as a program sees it in /sys and /proc.
//!
//! Owns the texts and which paths have them. Must not read files: it is given the host's own text where it needs it.

/// A path that is not answered by the host's file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpecialPath {
    /// `/sys/devices/system/cpu/{online,possible,present}`: [`cpu_list`].
    CpuList,
    /// `/proc/cpuinfo`: [`cpu_info`].
    CpuInfo,
    /// `/proc/stat`: [`stat`].
    Stat,
    /// `/proc/meminfo`: [`memory_info`].
    MemoryInfo,
    /// `/proc/self/exe`: the program's real path.
    Executable,
    /// `/proc/self/maps`: the address space's text.
    Maps,
    /// `/proc/self/mem` and others that would show the husk: refuse with EACCES.
    Hidden,
}

/// Recognises an absolute path. `pid` is the program's process id: `/proc/<pid>/` and `/proc/thread-self/` are its own, too.
#[must_use]
pub fn recognise(_path: &[u8], _pid: u32) -> Option<SpecialPath> {
    todo!()
}

/// `0-N\n`.
#[must_use]
pub fn cpu_list(_processors: u32) -> String {
    todo!()
}

/// /proc/cpuinfo of the whole: the host's first block, renumbered.
#[must_use]
pub fn cpu_info(_host_text: &str, _processors: u32) -> String {
    todo!()
}

/// /proc/stat of the whole: the host's text with a line for each processor.
#[must_use]
pub fn stat(_host_text: &str, _processors: u32) -> String {
    todo!()
}

/// /proc/meminfo of the whole: sums of the host's text `hosts` times over.
#[must_use]
pub fn memory_info(_host_text: &str, _hosts: u32) -> String {
    todo!()
}

/// What sched_getaffinity writes for a buffer of `buffer_bytes`; its length is the call's result.
///
/// # Errors
/// EINVAL if the buffer is too small or no multiple of 8.
pub fn affinity_mask(_processors: u32, _buffer_bytes: u64) -> Result<Vec<u8>, i32> {
    todo!()
}
