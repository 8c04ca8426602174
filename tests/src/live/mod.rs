//! Live tests: real programs over local hosts, with real kernels' faults, packets and signals.
//!
//! Owns the cases and the harness that runs them. Must not know how pages move: it judges from outputs, exit codes, /proc
//! and what `dvm-exec --stat-json` says.
//!
//! * [`case`]: what a case is and what it needs.
//! * [`bed`]: what a case is given: hosts, compiled programs, native results.
//! * [`runner`]: which cases run, their deadlines, what is printed, that nothing is left behind.
//! * the cases: a module for each theme, all of them in [`cases`].

pub mod adversity;
pub mod bed;
pub mod case;
pub mod children;
pub mod deploy;
pub mod doctor;
pub mod etcd;
pub mod failures;
pub mod fastpath;
pub mod histories;
pub mod kvm;
pub mod linearize;
pub mod links;
pub mod litmus;
pub mod loss;
pub mod memory;
pub mod memory_limit;
pub mod memory_model;
pub mod place;
pub mod process;
pub mod programs;
pub mod refusals;
pub mod runner;
pub mod runners;
pub mod signals;
pub mod stages;
pub mod trace;
pub mod users;
pub mod view;
pub mod words;

use case::Case;

/// Every case, those with equal numbers of hosts together.
#[must_use]
pub fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = [
        programs::cases(),
        memory::cases(),
        users::cases(),
        refusals::cases(),
        children::cases(),
        litmus::cases(),
        histories::cases(),
        failures::cases(),
        adversity::cases(),
        loss::cases(),
        stages::cases(),
        trace::cases(),
        doctor::cases(),
        deploy::cases(),
        etcd::cases(),
        fastpath::cases(),
        memory_limit::cases(),
        links::cases(),
        place::cases(),
        view::cases(),
        kvm::cases(),
        process::cases(),
        signals::cases(),
        runners::cases(),
    ]
    .into_iter()
    .flatten()
    .collect();
    cases.sort_by_key(|case| case.hosts);
    cases
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique() {
        let cases = super::cases();
        let names: BTreeSet<&str> = cases.iter().map(|case| case.name.as_str()).collect();
        assert_eq!(names.len(), cases.len());
    }
}
