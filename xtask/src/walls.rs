//! `cargo xtask walls`: which package may depend on which.
//!
//! Owns the table of allowed edges; a new edge is an architecture change and comes with the reason. Must not look at code.
//!
//! ```text
//!   dvm-agent -> dvm-api, uffd-dsm, dsm-proto, dsm-transport, dsm-bpf -> dsm-fast -> dsm-wire
//!   dvm-exec  -> dvm-api, dvm-apic, uffd-dsm, dvm-dcc, dvm-jit, dvm-runners -> dvm-disa
//!   dvm-exec  -> dsm-wire                                    dsm-proto -> dsm-fast -> dsm-wire
//!   dvm-agent -> dsm-bpf -> dsm-fast                         bpf-ld                (stands alone)
//!   dvm-agent -> dvm-report                                                        (stands alone)
//!   dsm-prog, dvm-test-ebpf -> dsm-fast -> dsm-wire          (workspaces of their own: another target, another loader)
//!   dvm-guests -> dvm-kit                                    (a workspace of its own: a machine without an operating system)
//!   xtask, dvm-tests, dvm-benches -> dvm-hosts               (below everything that is checked)
//! ```

use crate::cargo::{self, Package};
use crate::tally::Tally;
use anyhow::Result;
use std::process::ExitCode;

/// A package, the packages of this workspace it may use, and, where it matters, all others it may use.
struct Wall {
    package: &'static str,
    rooms: &'static [&'static str],
    /// `None`: any library. `Some`: these and no other, since the package must stay pure.
    libraries: Option<&'static [&'static str]>,
}

const fn open(package: &'static str, rooms: &'static [&'static str]) -> Wall {
    Wall { package, rooms, libraries: None }
}

const fn pure(package: &'static str, rooms: &'static [&'static str], libraries: &'static [&'static str]) -> Wall {
    Wall { package, rooms, libraries: Some(libraries) }
}

/// What is not in the workspace of the root, and why: `ebpf/prog` and the guests are for other targets, `tests/ebpf` needs a C compiler and libelf.
const WORKSPACES: [&str; 4] = ["Cargo.toml", "ebpf/prog/Cargo.toml", crate::ebpf::classify::MANIFEST, crate::guests::MANIFEST];

const WALLS: &[Wall] = &[
    pure("dsm-wire", &[], &["zerocopy"]),
    pure("dsm-fast", &["dsm-wire"], &["zerocopy"]),
    pure("dsm-proto", &["dsm-fast", "dsm-wire"], &[]),
    open("dsm-bpf", &["dsm-fast", "dsm-wire"]),
    open("bpf-ld", &[]),
    open("dsm-prog", &["dsm-fast", "dsm-wire"]),
    // Both sides of the comparison, and nothing of the loader that agents use: libbpf is the second opinion.
    open("dvm-test-ebpf", &["dsm-fast", "dsm-wire"]),
    open("uffd-dsm", &["dsm-wire"]),
    open("dsm-transport", &["dsm-fast", "dsm-wire"]),
    open("dvm-api", &["dsm-wire"]),
    // Data in, text out: what is drawn must not depend on how it was collected.
    pure("dvm-report", &[], &["hdrhistogram", "proptest", "serde", "serde_json", "thiserror"]),
    open("dvm-agent", &["dvm-api", "dvm-report", "uffd-dsm", "dsm-proto", "dsm-transport", "dsm-bpf", "dsm-fast", "dsm-wire"]),
    open("dvm-exec", &["dvm-api", "dvm-apic", "dvm-dcc", "dvm-disa", "dvm-jit", "dvm-runners", "uffd-dsm", "dsm-wire"]),
    // What programs mean: the simulator of runners and a translator stand on it, so it knows no host. zerocopy gives private memory
    // as zeros that nobody has touched yet.
    pure("dvm-disa", &[], &["serde", "thiserror", "zerocopy"]),
    // The only one that knows the code generator; what is behind memory it learns through dvm-disa's traits.
    open("dvm-jit", &["dvm-disa"]),
    // Text in, text out.
    pure("dvm-dcc", &["dvm-disa"], &["thiserror"]),
    // The protocol of runners over hosts: driven by the simulator as it is by a host.
    pure("dvm-runners", &["dvm-disa"], &["serde"]),
    // The interrupt machinery of a guest: fuzzed and simulated without a kernel, so it knows none.
    pure("dvm-apic", &[], &[]),
    // What guests stand on: nothing is below it.
    pure("dvm-kit", &[], &[]),
    pure("dvm-guests", &["dvm-kit"], &[]),
    // Loaded into programs, whose allocator it is: nothing but the kernel below it.
    pure("dvm-alloc", &[], &["libc"]),
    open("dvm-hosts", &[]),
    open("xtask", &["dvm-hosts"]),
    open("dvm-tests", &["dsm-fast", "dsm-proto", "dsm-wire", "dvm-disa", "dvm-hosts", "dvm-runners"]),
    open("dvm-benches", &["dvm-hosts", "uffd-dsm", "dsm-wire"]),
];

/// Checks all edges and prints the wrong ones.
///
/// # Errors
/// Cargo fails.
pub fn run() -> Result<ExitCode> {
    let mut tally = Tally::default();
    check(&mut tally)?;
    Ok(tally.finish())
}

/// Adds one result.
///
/// # Errors
/// Cargo fails.
pub fn check(tally: &mut Tally) -> Result<()> {
    let mut packages = Vec::new();
    for manifest in WORKSPACES {
        packages.extend(cargo::metadata_of(manifest)?.packages);
    }
    let wrong = wrong_edges(&packages);
    tally.add("walls", &wrong);
    Ok(())
}

fn wrong_edges(packages: &[Package]) -> Vec<String> {
    let members: Vec<&str> = packages.iter().map(|package| package.name.as_str()).collect();
    let mut wrong = Vec::new();
    for package in packages {
        let Some(wall) = WALLS.iter().find(|wall| wall.package == package.name) else {
            wrong.push(format!("{}: a package without a line in xtask/src/walls.rs", package.name));
            continue;
        };
        for dependency in &package.dependencies {
            let name = dependency.name.as_str();
            let is_room = members.contains(&name);
            // Tests may use any library, but the rooms stay apart in tests, too.
            let is_test = dependency.kind.as_deref() == Some("dev");
            let allowed = match (is_room, wall.libraries) {
                (true, _) => wall.rooms.contains(&name),
                (false, Some(libraries)) => is_test || libraries.contains(&name),
                (false, None) => true,
            };
            if !allowed {
                wrong.push(format!("{} -> {name}: this edge is not in xtask/src/walls.rs", package.name));
            }
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cargo::Dependency;

    fn package(name: &str, dependencies: &[(&str, Option<&str>)]) -> Package {
        let edge = |(name, kind): &(&str, Option<&str>)| Dependency { name: (*name).into(), kind: kind.map(Into::into) };
        Package { name: name.into(), dependencies: dependencies.iter().map(edge).collect() }
    }

    #[test]
    fn wrong_edges_are_named() {
        let good = [
            package("dsm-wire", &[("zerocopy", None), ("proptest", Some("dev"))]),
            package("dsm-fast", &[("dsm-wire", None)]),
            package("dsm-proto", &[("dsm-fast", None), ("dsm-wire", None)]),
            package("uffd-dsm", &[("libc", None), ("dsm-wire", None)]),
        ];
        assert_eq!(wrong_edges(&good), Vec::<String>::new());
        for (name, edge) in [
            ("dsm-proto", ("libc", None)),
            ("dsm-proto", ("uffd-dsm", None)),
            ("uffd-dsm", ("dsm-proto", Some("dev"))),
            ("dsm-wire", ("serde", None)),
            ("stranger", ("libc", None)),
        ] {
            let mut packages = good.to_vec();
            packages.retain(|package| package.name != name);
            packages.push(package(name, &[edge]));
            assert_eq!(wrong_edges(&packages).len(), 1, "{name} -> {edge:?}");
        }
    }
}
