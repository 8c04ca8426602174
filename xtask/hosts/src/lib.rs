//! Local hosts and jobs on them: network namespaces on one bridge, an agent in each, on one machine.
//!
//! Owns their names, addresses, directories and processes, and that nothing of them is left behind. Must not know the
//! protocol, the executors or what is run on the hosts: `xtask`, the live tests and the benches stand on it.
//!
//! ```text
//!   dvm.<instance>.h0        dvm.<instance>.h1        ...
//!   eth0 10.77.0.1/24        eth0 10.77.0.2/24
//!        |                        |
//!   ----p0------------br0---------p1----   dvm.<instance>.switch
//! ```

mod agents;
mod command;
mod error;
mod files;
mod instance;
mod job;
mod net;
mod process;
mod sample;
mod statistics;

pub use agents::Binaries;
pub use command::{output_within, wait_within};
pub use error::{Error, Result};
pub use instance::{Config, Host, LocalHosts, User, leftovers};
pub use job::{Finished, Job, Running};
pub use net::Links;
pub use process::{Process, alive, cpu_time, descriptors, kill_process, memory_file_bytes};
pub use sample::write_sample;
pub use statistics::{HostFigures, Latency, Statistics};

/// Most hosts one instance may have; the sharer sets of the page layer are exact up to here.
pub const HOSTS_MAX: usize = 64;
/// Port every agent listens on; the namespaces keep them apart.
pub const AGENT_PORT: u16 = 7700;
