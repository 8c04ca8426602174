//! Which threads want which pages, from what the agents of all hosts counted.
//!
//! Owns the joining of the hosts' counts. Must not decide what follows.

use super::husk::Root;
use super::service;
use dvm_api::local::{HostStatistics, ThreadUse};
use std::collections::BTreeMap;

/// A thread's wish for a page, on the host where it fetched it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    /// Host, an index into the job's.
    pub host: usize,
    /// Thread id as the program sees it; on the root also of a thread elsewhere whose call the root executed. 0: the
    /// thread is no longer known.
    pub tid: i32,
    /// How often, and what of it.
    pub used: ThreadUse,
}

/// All users of each page, by page number.
pub type Pages = BTreeMap<u64, Vec<User>>;

/// Joins what the hosts counted.
pub fn join(root: &Root, hosts: &[HostStatistics]) -> Pages {
    let mut pages = Pages::new();
    for statistics in hosts {
        let Some(host) = root.hosts.iter().position(|host| host.name == statistics.host) else { continue };
        for page in &statistics.pages {
            let users = pages.entry(page.page).or_default();
            for used in &page.threads {
                let kernel = used.thread as i32;
                let tid = match service::of_host(root, host) {
                    Some(member) => member.thread_of(kernel).unwrap_or(0),
                    None => kernel,
                };
                users.push(User { host, tid, used: *used });
            }
        }
    }
    pages
}
