//! What this host's processors can do.
//!
//! Owns the test's way of pretending that they can do less. Must not compare hosts.

use dvm_api::features::CpuFeatures;

/// Features, separated by commas, that tests have this agent deny; named as in /proc/cpuinfo.
const LACKS_VARIABLE: &str = "DVM_TEST_LACKS";

/// The features this agent tells of its host.
#[must_use]
pub fn features() -> CpuFeatures {
    let lacks = std::env::var(LACKS_VARIABLE).unwrap_or_default();
    let names: Vec<&str> = lacks.split(',').filter(|name| !name.is_empty()).collect();
    CpuFeatures::of_this_host().without(&names)
}
