//! The real `dvm-agent` over loopback addresses, three agents on one machine.
//!
//! Owns the cases. What a machine cannot run is named on stderr as skipped: jobs need /dev/userfaultfd.

#[cfg(test)]
mod bed;
#[cfg(test)]
mod jobs;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod watching;
