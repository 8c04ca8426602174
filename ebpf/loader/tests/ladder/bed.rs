//! Two network namespaces and a veth between them, for one test.
//!
//! Owns their making and removal, and what cannot be tested without. Must not judge.

use dsm_bpf::{Interface, Responder, Responding};
use dsm_fast::PROBE_PORT;
use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

/// Port of the bridge that leads here.
pub const PORT_HERE: &str = "p0";

/// Which of the namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Where programs are attached.
    Here,
    /// Where the bridge is, if there is one.
    Between,
    /// Where the responder is.
    There,
}

/// The namespaces; removed when dropped, with all that is in them.
#[derive(Debug)]
pub struct Bed {
    name: String,
    responding: Option<Responding>,
}

impl Bed {
    /// Makes them and starts a responder there; none, told on stderr, if this machine or user cannot.
    pub fn make(test: &str, mtu: u32) -> Option<Self> {
        Self::make_with_queues(test, mtu, 1)
    }

    /// The same with so many queues at each end.
    pub fn make_with_queues(test: &str, mtu: u32, queues: u32) -> Option<Self> {
        let mut bed = Self::claim(test)?;
        let (here, there) = (bed.namespace(Side::Here), bed.namespace(Side::There));
        let (mtu, queues) = (mtu.to_string(), queues.to_string());
        let end = ["mtu", &mtu, "numtxqueues", &queues, "numrxqueues", &queues];
        let (first, second) = (["-n", &here, "link", "add", "eth0"], ["type", "veth", "peer", "name", "eth0"]);
        ip(&[&first[..], &end, &second, &end, &["netns", &there]].concat());
        bed.finish();
        Some(bed)
    }

    /// Makes the first processor there send by this queue, and so the frames come here by the same.
    pub fn send_by_queue(&self, queue: u32) {
        let there = self.namespace(Side::There);
        // In a namespace of mounts of its own, where /sys is that of the network namespace.
        let clear = "cd /sys/class/net/eth0/queues && for file in tx-*/xps_cpus; do echo 0 > $file; done";
        ip(&["netns", "exec", &there, "sh", "-c", &format!("{clear}; echo 1 > tx-{queue}/xps_cpus")]);
        // It counts by queues.
        run("tc", &["-n", &there, "qdisc", "replace", "dev", "eth0", "root", "handle", "1:", "mq"]);
    }

    /// Whether frames were sent by this queue since [`Bed::send_by_queue`].
    pub fn has_sent_by(&self, queue: u32) -> bool {
        let told = run("tc", &["-n", &self.namespace(Side::There), "-s", "class", "show", "dev", "eth0"]);
        let of_queue = told.split("class mq ").find(|text| text.starts_with(&format!("1:{:x} ", queue + 1)));
        of_queue.is_some_and(|text| !text.contains("Sent 0 bytes"))
    }

    /// The same with a bridge between the two, as local hosts of the project have it.
    pub fn make_bridged(test: &str, mtu: u32) -> Option<Self> {
        let mut bed = Self::claim(test)?;
        let (switch, mtu) = (bed.namespace(Side::Between), mtu.to_string());
        ip(&["netns", "add", &switch]);
        ip(&["-n", &switch, "link", "add", "br0", "type", "bridge"]);
        ip(&["-n", &switch, "link", "set", "br0", "mtu", &mtu, "up"]);
        for (side, port) in [(Side::Here, PORT_HERE), (Side::There, "p1")] {
            let peer = ["peer", "name", "eth0", "mtu", &mtu, "netns", &bed.namespace(side)];
            ip(&[&["-n", &switch, "link", "add", port, "mtu", &mtu, "type", "veth"][..], &peer].concat());
            ip(&["-n", &switch, "link", "set", port, "master", "br0", "up"]);
        }
        bed.finish();
        Some(bed)
    }

    /// Names and namespaces.
    fn claim(test: &str) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if let Some(reason) = lack() {
            // Past the test harness, which would swallow it.
            std::io::stderr().write_all(format!("skipped: ladder::{test}: {reason}\n").as_bytes()).unwrap();
            return None;
        }
        let name = format!("dvm-bpf-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let bed = Self { name, responding: None };
        for side in [Side::Here, Side::There] {
            ip(&["netns", "add", &bed.namespace(side)]);
        }
        Some(bed)
    }

    /// Addresses, and a responder.
    fn finish(&mut self) {
        for side in [Side::Here, Side::There] {
            let namespace = self.namespace(side);
            ip(&["-n", &namespace, "addr", "add", &format!("{}/24", address(side)), "dev", "eth0"]);
            ip(&["-n", &namespace, "link", "set", "eth0", "up"]);
        }
        self.respond();
    }

    /// Name of a namespace.
    pub fn namespace(&self, side: Side) -> String {
        let letter = match side {
            Side::Here => "a",
            Side::Between => "switch",
            Side::There => "b",
        };
        format!("{}-{letter}", self.name)
    }

    /// Where the responder answers.
    pub fn peer(&self) -> SocketAddr {
        SocketAddr::new(address(Side::There), PROBE_PORT)
    }

    /// Starts the responder.
    pub fn respond(&mut self) {
        let peer = self.peer();
        self.responding = Some(self.on(Side::There, || Responder::bind(peer).unwrap().run_in_thread().unwrap()));
    }

    /// Ends the responder.
    pub fn fall_silent(&mut self) {
        self.responding = None;
    }

    /// Runs `work` in a namespace, on a thread of its own.
    pub fn on<T: Send>(&self, side: Side, work: impl FnOnce() -> T + Send) -> T {
        let namespace = self.namespace(side);
        thread::scope(|scope| {
            let worker = scope.spawn(|| {
                enter(&namespace);
                work()
            });
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// What `ip` says of the interface here: `prog/xdp` stands in it if there is an XDP program.
    pub fn link_text(&self) -> String {
        let output = Command::new("ip").args(["-n", &self.namespace(Side::Here), "link", "show", "eth0"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.responding = None;
        for side in [Side::Here, Side::Between, Side::There] {
            if !Path::new("/run/netns").join(self.namespace(side)).exists() {
                continue;
            }
            let done = Command::new("ip").args(["netns", "delete", &self.namespace(side)]).status();
            if !done.is_ok_and(|status| status.success()) {
                eprintln!("namespace {} not removed", self.namespace(side));
            }
        }
    }
}

/// Moves this thread into a namespace for good.
pub fn enter(namespace: &str) {
    setns(File::open(format!("/run/netns/{namespace}")).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
}

/// The interface of this thread's namespace.
pub fn interface() -> Interface {
    Interface::of(address(Side::Here)).or_else(|_| Interface::of(address(Side::There))).unwrap()
}

fn address(side: Side) -> IpAddr {
    IpAddr::from([10, 78, 0, if side == Side::Here { 1 } else { 2 }])
}

fn lack() -> Option<&'static str> {
    if dsm_bpf::object().is_none() {
        return Some("the object is not built in; run `cargo xtask ebpf` first");
    }
    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        return Some("network namespaces and programs in the kernel need root");
    }
    if Command::new("ip").arg("-V").output().is_err() {
        return Some("`ip` is missing (package iproute2)");
    }
    None
}

fn ip(arguments: &[&str]) {
    run("ip", arguments);
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
