//! The program that passes every frame, on the other end of a veth: without one there native XDP sends nothing back.
//!
//! Owns nothing: what it leaves belongs to the interface. Must not know agents.

use crate::exit::{Exit, Failure};
use anyhow::anyhow;
use dsm_bpf::{FastPath, SMALL_MAPS};

/// Puts it on each of these interfaces. It stays there when this process ends.
///
/// # Errors
/// The programs are not built in, an interface is missing, or the kernel refuses.
pub fn pass(interfaces: &[String]) -> Result<(), Failure> {
    let mut path = FastPath::load(&SMALL_MAPS).map_err(|error| Failure::new(Exit::Kernel, anyhow!(error.told())))?;
    for interface in interfaces {
        path.leave_pass(interface).map_err(|error| Failure::new(Exit::Kernel, anyhow!("{interface}: {}", error.told())))?;
    }
    Ok(())
}
