//! Unequal processors: what the program must not see because a host of the job lacks it.
//!
//! Owns the decision whether it can be hidden, and the answer to a CPUID instruction that traps. Must not know where the
//! hosts' features come from.

use super::view::masks_environment;
use crate::exit::Failure;
use crate::sys::cpu;
use crate::sys::signal::{Frame, Register};
use crate::sys::user;
use dvm_api::features::{CpuFeatures, missing};
use dvm_api::local::Member;
use std::sync::OnceLock;

/// Exit code of a job whose hosts' processors are too unequal.
pub const CODE: u8 = 82;
/// The CPUID instruction.
const CPUID: [u8; 2] = [0x0f, 0xa2];
/// Features without which a program only runs slower: their instructions run, or do nothing, everywhere.
const HARMLESS: [&str; 5] = ["erms", "fsrm", "3dnowprefetch", "prefetchwt1", "cldemote"];

/// What the program sees, where CPUID has to trap for that.
static SHOWN: OnceLock<CpuFeatures> = OnceLock::new();

/// What must be hidden.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Masking {
    /// Features that some host lacks, as /proc/cpuinfo names them.
    pub names: Vec<String>,
    /// Whether CPUID traps, so that nobody sees them.
    pub is_complete: bool,
    /// Features every host has.
    pub common: CpuFeatures,
    /// By how much a signal frame on some host is larger than on the first.
    pub frame_bytes_more: u64,
}

/// What must be hidden from a program on these hosts, the root first; `is_accepted`: the user takes the risk that a program
/// asks its processor itself.
///
/// # Errors
/// A host lacks features that cannot be hidden.
pub fn judge(members: &[Member], is_accepted: bool) -> Result<Masking, Failure> {
    let Some((root, others)) = members.split_first() else { return Ok(Masking::default()) };
    let common = others.iter().fold(root.cpu, |common, member| common.and(&member.cpu));
    let refuse = |reason: String| Err(Failure::Refused { code: CODE, reason });
    for member in others {
        let more = missing(&CpuFeatures { xcr0: member.cpu.xcr0, ..CpuFeatures::default() }, &root.cpu);
        if !more.is_empty() {
            return refuse(format!(
                "host {} has {} that host {} lacks, so that its threads would save more than the program has room for: start \
                 the job on {} or leave it out with --hosts",
                member.name,
                more.join(", "),
                root.name,
                member.name
            ));
        }
        let lacks: Vec<String> = missing(&root.cpu, &member.cpu);
        let harmful: Vec<String> = lacks.into_iter().filter(|name| !HARMLESS.contains(&name.as_str())).collect();
        if !harmful.is_empty() && !common.can_trap_cpuid && !is_accepted {
            return refuse(format!(
                "host {} lacks {}, and not all hosts can hide it from programs that ask the processor (cpuid faulting): leave \
                 {} out with --hosts, or accept with --unequal-cpus that such a program may die of SIGILL",
                member.name,
                harmful.join(", "),
                member.name
            ));
        }
    }
    let mut names: Vec<String> = members.iter().flat_map(|member| missing(&member.cpu, &common)).collect();
    names.sort_unstable();
    names.dedup();
    let frame_most = members.iter().map(|member| member.cpu.xsave_bytes).max().unwrap_or(0);
    let frame_bytes_more = u64::from(frame_most - root.cpu.xsave_bytes);
    Ok(Masking { is_complete: common.can_trap_cpuid, names, common, frame_bytes_more })
}

impl Masking {
    /// Has CPUID trap in threads of the program on this host, if it would say too much.
    pub fn arm(&self) {
        if self.is_complete && !missing(&CpuFeatures::of_this_host(), &self.common).is_empty() {
            SHOWN.get_or_init(|| self.common);
            // The husk's own libraries ask once; they must not do it in a thread whose CPUID traps.
            std::hint::black_box(std::arch::is_x86_feature_detected!("avx2"));
        }
    }

    /// The environment variable that keeps glibc from what cannot be hidden, after the user's own value.
    pub fn tunables(&self, own: Option<&str>) -> Option<String> {
        (!self.names.is_empty() && !self.is_complete).then(|| masks_environment(&self.names, own))
    }
}

/// Whether what a thread's registers are saved as on one of `members` can be restored on the others.
pub fn save_alike(members: &[Member]) -> bool {
    members.windows(2).all(|pair| pair[0].cpu.xcr0 == pair[1].cpu.xcr0)
}

/// Has CPUID trap from now on in the calling thread, which is about to run the program; or no longer.
pub fn trap(is_program: bool) {
    if SHOWN.get().is_some() {
        cpu::trap_cpuid(is_program);
    }
}

/// Answers the CPUID instruction at which `frame` stopped; false if it stopped for another reason.
pub fn answer(frame: Frame, is_program: bool) -> bool {
    let Some(shown) = SHOWN.get() else { return false };
    let mut instruction = [0; 2];
    if user::read(frame.rip(), &mut instruction).is_err() || instruction != CPUID {
        return false;
    }
    let (leaf, subleaf) = (frame.get(Register::Rax) as u32, frame.get(Register::Rcx) as u32);
    cpu::trap_cpuid(false);
    let said = cpu::ask(leaf, subleaf);
    cpu::trap_cpuid(true);
    let said = if is_program { shown.shown(leaf, subleaf, said) } else { said };
    for (register, value) in [Register::Rax, Register::Rbx, Register::Rcx, Register::Rdx].into_iter().zip(said) {
        frame.set(register, u64::from(value));
    }
    frame.set(Register::Rip, frame.rip() + CPUID.len() as u64);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, cpu: CpuFeatures) -> Member {
        Member { node: 0, name: name.to_owned(), cpus: 1, monotonic_offset_ns: 0, cpu }
    }

    #[test]
    fn what_can_be_hidden_is_and_the_rest_is_refused() {
        let all = CpuFeatures {
            leaf7: [1 << 16 | 1 << 9 | 1 << 5, 0, 0],
            xcr0: 0xe7,
            xsave_bytes: 2696,
            can_trap_cpuid: true,
            ..CpuFeatures::default()
        };
        let less = all.without(&["avx512f"]);
        let judged = |root: CpuFeatures, other, accepts| judge(&[member("h0", root), member("h1", other)], accepts);
        assert_eq!(judged(all, all, false), Ok(Masking { is_complete: true, common: all, ..Masking::default() }));
        let hidden = judged(all, less, false).unwrap();
        assert_eq!((hidden.names, hidden.is_complete), (vec!["avx512 registers".to_owned(), "avx512f".to_owned()], true));
        let cannot = |cpu: CpuFeatures| CpuFeatures { can_trap_cpuid: false, ..cpu };
        let Err(Failure::Refused { code: 82, reason }) = judged(cannot(all), less, false) else { panic!("not refused") };
        assert!(reason.starts_with("host h1 lacks avx512f, avx512 registers, and"), "{reason}");
        let accepted = judged(cannot(all), less, true).unwrap();
        assert_eq!(accepted.tunables(Some("a=1")).unwrap(), "a=1:glibc.cpu.hwcaps=-AVX512F");
        assert_eq!(accepted.tunables(None).unwrap(), "glibc.cpu.hwcaps=-AVX512F");
        assert!(judged(cannot(all), cannot(all.without(&["erms"])), false).is_ok());
        let Err(Failure::Refused { code: 82, reason }) = judged(less, all, true) else { panic!("not refused") };
        assert!(reason.starts_with("host h1 has avx512 registers that host h0 lacks"), "{reason}");
    }
}
