//! Bad files, bad keys, bad peers, garbage: refused by name, counted, and nothing else happens.
//!
//! Owns the inputs. Must not need any privilege.

use crate::bed::{AGENT, Bed};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, send, socket};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

#[test]
fn configuration_errors_have_their_own_codes() {
    let bed = Bed::new("config");
    let good = bed.cluster("lab", "key");
    bed.write("unknown.toml", &good.replace("cpus = 1", "cores = 1"));
    bed.write("short.toml", &bed.cluster("lab", "short"));
    bed.write("short", "7777");
    fs::set_permissions(bed.directory.join("short"), fs::Permissions::from_mode(0o600)).unwrap();
    bed.write("open.toml", &bed.cluster("lab", "open"));
    bed.write_key("open", b'7');
    fs::set_permissions(bed.directory.join("open"), fs::Permissions::from_mode(0o640)).unwrap();
    bed.write("nokey.toml", &bed.cluster("lab", "nokey"));
    bed.write("stranger.toml", "name = \"z\"\nexec = \"/bin/true\"\n");
    bed.write("noexec.toml", "name = \"a\"\nexec = \"/nonexistent/dvm-exec\"\n");
    bed.write("elsewhere.toml", &good.replace(&bed.prefix, "203.0.113"));
    bed.write(
        "file.toml",
        &format!("name = \"a\"\nexec = \"/bin/true\"\nsocket = \"{}\"\n", bed.directory.join("key").display()),
    );
    for (cluster, node, code, text) in [
        ("missing.toml", "a.toml", 10, "missing.toml"),
        ("cluster.toml", "missing.toml", 10, "--node"),
        ("unknown.toml", "a.toml", 11, "unknown.toml:6: unknown field `cores`"),
        ("cluster.toml", "noexec.toml", 11, "/nonexistent/dvm-exec"),
        ("short.toml", "a.toml", 12, "32 random bytes"),
        ("open.toml", "a.toml", 12, "chmod 0600"),
        ("nokey.toml", "a.toml", 12, "nokey"),
        ("cluster.toml", "stranger.toml", 13, "`z` is not in the cluster (a, b, c)"),
        ("cluster.toml", "file.toml", 15, "is no socket"),
        ("elsewhere.toml", "a.toml", 16, "203.0.113.1"),
    ] {
        let output = bed.run(cluster, node);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{cluster} {node}: {error}");
        assert!(error.contains(text), "{cluster} {node}: {error:?} should contain {text:?}");
        assert!(error.starts_with("dvm-agent: ") && error.lines().count() == 1, "one line: {error:?}");
        assert!(output.stdout.is_empty());
    }
    assert_eq!(Command::new(AGENT).arg("dance").output().unwrap().status.code(), Some(2));
    let nobody = Command::new(AGENT).args(["status", "--socket", "/nonexistent.sock"]).output().unwrap();
    assert_eq!(nobody.status.code(), Some(20));
}

#[test]
fn a_second_agent_is_refused_and_a_stale_socket_replaced() {
    let mut bed = Bed::new("second");
    bed.start("a", "cluster.toml");
    let second = bed.run("cluster.toml", "a.toml");
    let error = String::from_utf8(second.stderr).unwrap();
    assert_eq!(second.status.code(), Some(14), "{error}");
    assert!(error.contains("a.sock"));
    let mode = fs::metadata(bed.socket("a")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o666);

    bed.signal("a", "KILL");
    bed.ended("a");
    assert!(bed.socket("a").exists());
    bed.start("a", "cluster.toml");
    bed.signal("a", "TERM");
    assert_eq!(bed.ended("a"), Some(0));
    assert!(!bed.socket("a").exists());
}

#[test]
fn another_key_or_cluster_is_refused_and_counted() {
    let mut bed = Bed::new("keys");
    bed.write_key("other", b'8');
    let other = bed.cluster("lab", "other");
    bed.write("other.toml", &other);
    let renamed = bed.cluster("barn", "key");
    bed.write("renamed.toml", &renamed);
    bed.start("a", "cluster.toml");
    bed.start("b", "other.toml");
    bed.start("c", "renamed.toml");
    bed.until("a counts b's key", || bed.counter("a", "handshakes_wrong_key") > 0);
    bed.until("a counts c's cluster", || bed.counter("a", "handshakes_wrong_cluster") > 0);
    bed.until("b counts a's key", || bed.counter("b", "handshakes_wrong_key") > 0);
    for name in ["a", "b", "c"] {
        assert_eq!(bed.peers_up(name), 0, "{name}");
        assert_eq!(bed.counter(name, "links_up"), 0, "{name}");
    }
    let trouble = bed.status("a")["peers"][0]["trouble"].to_string();
    assert!(trouble.contains("key"), "{trouble}");
}

#[test]
fn garbage_on_the_tcp_port_is_closed_and_counted() {
    let mut bed = Bed::new("tcp");
    bed.start("a", "cluster.toml");
    let mut junk = Vec::new();
    for length in [1_usize, 9, 10, 11, 58, 300, 70_000] {
        junk.push(vec![0x55; length]);
    }
    junk.push([b"dvmc\x01\x00".as_slice(), &[0; 100]].concat());
    junk.push([b"dvmc\x09\x00".as_slice(), &[0; 100]].concat());
    let count = junk.len() as u64;
    for bytes in junk {
        let mut stream = TcpStream::connect(bed.address("a")).unwrap();
        // The agent may hang up in the middle of it.
        drop(stream.write_all(&bytes));
        drop(stream.shutdown(std::net::Shutdown::Write));
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer));
        assert!(answer.is_empty(), "the agent answered {answer:?}");
    }
    bed.until("all are counted", || {
        bed.counter("a", "handshakes_garbage") + bed.counter("a", "handshakes_wrong_cluster") == count
    });
    let silent = TcpStream::connect(bed.address("a")).unwrap();
    bed.until("a silent one is closed", || bed.counter("a", "handshakes_late") == 1);
    drop(silent);
}

#[test]
fn garbage_on_the_unix_socket_is_closed_and_counted() {
    let mut bed = Bed::new("unix");
    bed.start("a", "cluster.toml");
    let before = bed.descriptors("a");
    let mut packets: Vec<Vec<u8>> = vec![vec![0xff], vec![0xff; 1000], vec![0; 100_000], vec![200, 1]];
    // A deterministic walk through short packets: tags of all kinds with torn contents.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for _ in 0..200 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let length = 1 + (state >> 32) as usize % 40;
        packets.push((0..length).map(|place| (state >> (place % 8 * 8)) as u8 ^ place as u8).collect());
    }
    for packet in &packets {
        let control = control(&bed.socket("a"));
        send(control.as_raw_fd(), packet, MsgFlags::MSG_NOSIGNAL).unwrap();
        let mut answer = [0; 4096];
        recv(control.as_raw_fd(), &mut answer, MsgFlags::empty()).unwrap_or(0);
    }
    bed.until("they are counted", || {
        bed.counter("a", "packets_malformed") + bed.counter("a", "packets_unexpected") >= packets.len() as u64 / 2
    });
    assert_eq!(bed.jobs("a"), 0);
    bed.until("no descriptor stays", || bed.descriptors("a") <= before + 1);
}

fn control(path: &Path) -> OwnedFd {
    let control = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
    connect(control.as_raw_fd(), &UnixAddr::new(path).unwrap()).unwrap();
    control
}

#[test]
fn doctor_and_tables_answer() {
    let mut bed = Bed::new("tables");
    bed.start("a", "cluster.toml");
    let doctor = Command::new(AGENT).args(["doctor", "--json"]).output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&doctor.stdout).unwrap();
    assert_eq!(doctor.status.code(), Some(if report["healthy"] == true { 0 } else { 22 }));
    for check in report["checks"].as_array().unwrap() {
        assert_eq!(check["fix"] == "", check["ok"] == true, "{check}");
    }
    let node = bed.directory.join("a.toml");
    for (command, text) in [("status", "node a (0) of cluster lab"), ("histograms", "p99 us")] {
        let output = Command::new(AGENT).arg(command).arg("--node").arg(&node).output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        assert!(String::from_utf8(output.stdout).unwrap().contains(text));
    }
    let json = Command::new(AGENT).args(["histograms", "--json", "--node"]).arg(&node).output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(report["node"], "a");
}
