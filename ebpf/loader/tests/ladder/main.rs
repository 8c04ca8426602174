//! The ladder on a real veth: where it ends, what it says, and that nothing stays.
//!
//! Owns the cases. Each has namespaces of its own; what a machine cannot run is named on stderr as skipped.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod bed;

use aya::maps::PerCpuArray;
use aya::programs::{SchedClassifier, TcAttachType};
use bed::{Bed, PORT_HERE, Side, interface};
use dsm_bpf::{Attached, FastPath, Rung, SMALL_MAPS, Wanted, XDP_PROGRAM};
use dsm_fast::{PROBE_ELEMENTS, PROBE_NONCE, ProbeProgram};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::thread::sleep;
use std::time::{Duration, Instant};

const QUEUES: u32 = 4;
const MTUS: [u32; 2] = [1500, 9000];
const PATIENCE: Duration = Duration::from_secs(10);
/// Set for the process that is to be killed: its namespace.
const HOLD: &str = "DVM_BPF_HOLD";

/// Attaches on this thread's namespace and says where the ladder ended.
fn climb(path: &mut FastPath, wanted: Wanted, bed: &Bed) -> Attached {
    let attached = path.attach(&interface(), wanted, &[bed.peer()]);
    println!("{wanted:?}: {} {:?} {:?}", attached.rung(), attached.round_trip(), attached.reasons());
    attached
}

/// Keeps this thread, and those it starts, on a processor.
fn pin(processor: u32) -> bool {
    let mut set = CpuSet::new();
    set.set(processor as usize).unwrap();
    sched_setaffinity(Pid::from_raw(0), &set).is_ok()
}

fn tcx_programs() -> usize {
    SchedClassifier::query_tcx("eth0", TcAttachType::Ingress).unwrap().1.len()
}

fn assert_nothing_attached(bed: &Bed) {
    bed.on(Side::Here, || assert_eq!(tcx_programs(), 0));
    assert!(!bed.link_text().contains("xdp"), "{}", bed.link_text());
}

#[test]
fn native_xdp_fails_its_probe_where_the_peer_has_no_program() {
    for mtu in MTUS {
        let Some(bed) = Bed::make("native_xdp_fails_its_probe_where_the_peer_has_no_program", mtu) else { return };
        let mut path = FastPath::load(&[]).unwrap();
        bed.on(Side::Here, || {
            let attached = climb(&mut path, Wanted::Auto, &bed);
            assert_eq!(attached.rung(), Rung::Tc);
            let expected = format!(
                "native XDP: no answer to 3 probes in 300 ms: the program sent 3 back, and none reached {}; on veth the peer end \
                 needs an XDP program",
                bed.peer()
            );
            assert_eq!(attached.reasons(), [expected]);
            assert_eq!(tcx_programs(), 1);
            assert!(!bed.link_text().contains("xdp"), "{}", bed.link_text());
            drop(attached);
            let alone = climb(&mut path, Wanted::Native, &bed);
            assert_eq!((alone.rung(), alone.reasons().len(), alone.round_trip()), (Rung::None, 1, None));
            assert_eq!(tcx_programs(), 0);
        });
        assert_nothing_attached(&bed);
    }
}

#[test]
fn native_xdp_holds_where_the_peer_has_one() {
    for mtu in MTUS {
        let Some(bed) = Bed::make("native_xdp_holds_where_the_peer_has_one", mtu) else { return };
        let mut path = FastPath::load(&[]).unwrap();
        let passing = bed.on(Side::There, || FastPath::load(&[]).unwrap().attach_pass(interface().index, true).unwrap());
        bed.on(Side::Here, || {
            let attached = climb(&mut path, Wanted::Auto, &bed);
            assert_eq!((attached.rung(), attached.reasons().len()), (Rung::Native, 0));
            assert_eq!(tcx_programs(), 1);
        });
        assert_nothing_attached(&bed);
        drop(passing);
    }
}

#[test]
fn over_a_bridge_the_port_is_the_peer_end() {
    for mtu in MTUS {
        let Some(bed) = Bed::make_bridged("over_a_bridge_the_port_is_the_peer_end", mtu) else { return };
        let mut path = FastPath::load(&[]).unwrap();
        bed.on(Side::Here, || assert_eq!(climb(&mut path, Wanted::Auto, &bed).rung(), Rung::Tc));
        let port = || FastPath::load(&[]).unwrap().attach_pass(nix::net::if_::if_nametoindex(PORT_HERE).unwrap(), true).unwrap();
        let passing = bed.on(Side::Between, port);
        bed.on(Side::Here, || assert_eq!(climb(&mut path, Wanted::Auto, &bed).rung(), Rung::Native));
        drop(passing);
        assert_nothing_attached(&bed);
    }
}

#[test]
fn each_rung_by_itself() {
    for mtu in MTUS {
        let Some(bed) = Bed::make("each_rung_by_itself", mtu) else { return };
        let mut path = FastPath::load(&[]).unwrap();
        bed.on(Side::Here, || {
            for (wanted, rung) in [(Wanted::Generic, Rung::Generic), (Wanted::Tc, Rung::Tc), (Wanted::Off, Rung::None)] {
                let attached = climb(&mut path, wanted, &bed);
                assert_eq!(attached.rung(), rung);
                assert_eq!(attached.round_trip().is_some(), wanted != Wanted::Off);
                assert_eq!(tcx_programs(), usize::from(wanted == Wanted::Tc));
                assert_eq!(bed.link_text().contains("xdp"), wanted == Wanted::Generic, "{}", bed.link_text());
            }
        });
        assert_nothing_attached(&bed);
    }
}

#[test]
fn counts_of_all_processors_are_summed() {
    const EACH: u64 = 10;
    let Some(mut bed) = Bed::make("counts_of_all_processors_are_summed", 1500) else { return };
    let mut path = FastPath::load(&[]).unwrap();
    let attached = bed.on(Side::Here, || climb(&mut path, Wanted::Tc, &bed));
    assert_eq!(attached.rung(), Rung::Tc, "{:?}", attached.reasons());
    let before = path.count("PROBE_ANSWERS", ProbeProgram::Tc as u32).unwrap();
    let mut processors = 0;
    // Not all may be ours to use.
    for _ in aya::util::online_cpus().unwrap().into_iter().filter(|processor| pin(*processor)) {
        // On veth a program runs where the frame is sent: on the responder's processor, which is this thread's.
        bed.fall_silent();
        bed.respond();
        bed.on(Side::Here, || {
            for _ in 0..EACH {
                path.probe(interface().address, &[bed.peer()], ProbeProgram::Tc).unwrap();
            }
        });
        processors += 1;
    }
    assert_eq!(path.count("PROBE_ANSWERS", ProbeProgram::Tc as u32).unwrap(), before + EACH * processors);
    let map = PerCpuArray::<_, u64>::try_from(path.map_mut("PROBE_ANSWERS").unwrap()).unwrap();
    let each = map.get(&(ProbeProgram::Tc as u32), 0).unwrap();
    assert_eq!(each.iter().filter(|count| **count >= EACH).count() as u64, processors, "{each:?}");
    drop(attached);
    assert_nothing_attached(&bed);
}

#[test]
fn several_queues_are_one_interface() {
    for mtu in MTUS {
        let Some(mut bed) = Bed::make_with_queues("several_queues_are_one_interface", mtu, QUEUES) else { return };
        let mut path = FastPath::load(&[]).unwrap();
        let passing = bed.on(Side::There, || FastPath::load(&[]).unwrap().attach_pass(interface().index, true).unwrap());
        let attached = bed.on(Side::Here, || climb(&mut path, Wanted::Auto, &bed));
        assert_eq!(attached.rung(), Rung::Native, "{:?}", attached.reasons());
        assert!(pin(0));
        bed.fall_silent();
        bed.respond();
        for queue in 0..QUEUES {
            bed.send_by_queue(queue);
            bed.on(Side::Here, || {
                for program in [ProbeProgram::Xdp, ProbeProgram::Tc] {
                    path.probe(interface().address, &[bed.peer()], program).unwrap();
                }
            });
            assert!(bed.has_sent_by(queue), "queue {queue}");
        }
        drop((attached, passing));
        assert_nothing_attached(&bed);
    }
}

#[test]
fn a_program_may_be_left_on_an_interface() {
    let Some(bed) = Bed::make("a_program_may_be_left_on_an_interface", 9000) else { return };
    bed.on(Side::There, || FastPath::load(&SMALL_MAPS).unwrap().leave_pass("eth0").unwrap());
    let mut path = FastPath::load(&[]).unwrap();
    bed.on(Side::Here, || assert_eq!(climb(&mut path, Wanted::Auto, &bed).rung(), Rung::Native));
    bed.on(Side::There, || {
        let told = interface().strangers().unwrap();
        assert!(told.as_deref().is_some_and(|text| text.starts_with("name `dvm_pass`, id ")), "{told:?}");
        assert!(FastPath::load(&SMALL_MAPS).unwrap().leave_pass("eth1").is_err());
    });
}

#[test]
fn probes_are_counted_and_end() {
    let Some(bed) = Bed::make("probes_are_counted_and_end", 9000) else { return };
    let mut path = FastPath::load(&[]).unwrap();
    let passing = bed.on(Side::There, || FastPath::load(&[]).unwrap().attach_pass(interface().index, true).unwrap());
    bed.on(Side::Here, || {
        let attached = climb(&mut path, Wanted::Auto, &bed);
        assert_eq!(attached.rung(), Rung::Native, "{:?}", attached.reasons());
        let before = path.counts("PROBE_ANSWERS").unwrap();
        let mut times: Vec<Duration> = Vec::new();
        for program in [ProbeProgram::Xdp, ProbeProgram::Tc].into_iter().cycle().take(200) {
            times.push(path.probe(interface().address, &[bed.peer()], program).unwrap());
        }
        times.sort();
        println!("probe round trips: p50 {:?} p99 {:?} max {:?}", times[100], times[197], times[199]);
        let after = path.counts("PROBE_ANSWERS").unwrap();
        for program in [ProbeProgram::Xdp, ProbeProgram::Tc] {
            assert!(after[program as usize] >= before[program as usize] + 100, "{before:?} {after:?}");
        }
        let map = path.map_array("PROBE", 8, PROBE_ELEMENTS).unwrap();
        assert_eq!(map.word(PROBE_NONCE, 0).unwrap().load(Ordering::Relaxed), 0, "no probe is under way");
        assert!(path.map_array("PROBE", 16, PROBE_ELEMENTS).is_err());
        assert!(path.map_array("NO_SUCH_MAP", 8, 1).is_err());
        drop(attached);
        let reason = path.probe(interface().address, &[bed.peer()], ProbeProgram::Tc).unwrap_err();
        assert_eq!(reason, "no answer to 3 probes in 300 ms: 3 came, and the program let them pass");
    });
    drop(passing);
}

#[test]
fn a_silent_peer_proves_nothing() {
    let Some(mut bed) = Bed::make("a_silent_peer_proves_nothing", 1500) else { return };
    bed.fall_silent();
    let mut path = FastPath::load(&[]).unwrap();
    bed.on(Side::Here, || {
        let attached = climb(&mut path, Wanted::Auto, &bed);
        assert_eq!(attached.rung(), Rung::None);
        let expected =
            ["TC", "generic XDP"].map(|hook| format!("{hook}: no answer to 3 probes in 300 ms: none came from {}", bed.peer()));
        assert_eq!(attached.reasons(), expected);
        let alone = path.attach(&interface(), Wanted::Auto, &[]);
        assert_eq!((alone.rung(), alone.reasons()), (Rung::None, &["no peer to probe with".to_owned()][..]));
    });
    assert_nothing_attached(&bed);
    // One peer of two is enough.
    bed.respond();
    bed.on(Side::Here, || {
        let nobody = std::net::SocketAddr::new(bed.peer().ip(), bed.peer().port() + 1);
        let attached = path.attach(&interface(), Wanted::Tc, &[nobody, bed.peer()]);
        assert_eq!(attached.rung(), Rung::Tc, "{:?}", attached.reasons());
    });
}

#[test]
fn a_strangers_program_is_named_and_stays() {
    let Some(bed) = Bed::make("a_strangers_program_is_named_and_stays", 1500) else { return };
    let mut path = FastPath::load(&[]).unwrap();
    let mut stranger = FastPath::load(&[]).unwrap();
    bed.on(Side::Here, || {
        let passing = stranger.attach_pass(interface().index, true).unwrap();
        let attached = climb(&mut path, Wanted::Auto, &bed);
        assert_eq!(attached.rung(), Rung::Tc);
        let [native] = attached.reasons() else { panic!("{:?}", attached.reasons()) };
        assert!(native.starts_with("native XDP: EBUSY: another XDP program (name `dvm_pass`, id "), "{native}");
        drop(attached);
        let generic = climb(&mut path, Wanted::Generic, &bed);
        let [reason] = generic.reasons() else { panic!("{:?}", generic.reasons()) };
        assert!(reason.starts_with("generic XDP: E") && reason.contains("name `dvm_pass`, id "), "{reason}");
        assert_eq!(interface().strangers().unwrap().map(|text| text.starts_with("name `dvm_pass`, id ")), Some(true));
        assert_eq!(interface().has_native_xdp().unwrap(), Some(true));
        assert!(bed.link_text().contains("xdp"), "{}", bed.link_text());
        drop(passing);
    });
    assert_nothing_attached(&bed);
}

#[test]
fn behind_a_strangers_generic_program_frames_pass() {
    let Some(bed) = Bed::make("behind_a_strangers_generic_program_frames_pass", 1500) else { return };
    let (mut path, mut stranger) = (FastPath::load(&[]).unwrap(), FastPath::load(&[]).unwrap());
    bed.on(Side::Here, || {
        let passing = stranger.attach_pass(interface().index, false).unwrap();
        let attached = climb(&mut path, Wanted::Auto, &bed);
        assert_eq!(attached.rung(), Rung::None);
        let [tc, generic] = attached.reasons() else { panic!("{:?}", attached.reasons()) };
        let expected = "TC: no answer to 3 probes in 300 ms: 3 came, and the program let them pass; before it run generic XDP (name \
                        `dvm_pass`, id ";
        assert!(tc.starts_with(expected), "{tc}");
        assert!(generic.contains("name `dvm_pass`, id "), "{generic}");
        drop(passing);
        let again = climb(&mut path, Wanted::Auto, &bed);
        assert_eq!(again.rung(), Rung::Tc, "{:?}", again.reasons());
    });
    assert_nothing_attached(&bed);
}

#[test]
fn generic_xdp_stands_in_where_tc_does_not_answer() {
    // What the TC program grows a probe to does not fit.
    let Some(bed) = Bed::make("generic_xdp_stands_in_where_tc_does_not_answer", 1000) else { return };
    let mut path = FastPath::load(&[]).unwrap();
    bed.on(Side::Here, || {
        let attached = climb(&mut path, Wanted::Auto, &bed);
        assert_eq!(attached.rung(), Rung::Generic);
        let expected = format!("TC: no answer to 3 probes in 300 ms: the program sent 3 back, and none reached {}", bed.peer());
        assert_eq!(attached.reasons(), [expected]);
        assert_eq!(tcx_programs(), 0);
        assert!(bed.link_text().contains("xdpgeneric"), "{}", bed.link_text());
        drop(attached);
        for wanted in [Wanted::Native, Wanted::Tc] {
            assert_eq!(climb(&mut path, wanted, &bed).rung(), Rung::None);
        }
    });
    assert_nothing_attached(&bed);
}

#[test]
fn our_own_program_left_without_a_link_is_replaced() {
    let Some(bed) = Bed::make("our_own_program_left_without_a_link_is_replaced", 1500) else { return };
    let mut path = FastPath::load(&[]).unwrap();
    bed.on(Side::Here, || {
        FastPath::load(&[]).unwrap().leave_behind(interface().index).unwrap();
        assert!(bed.link_text().contains("xdp"), "{}", bed.link_text());
        let told = interface().strangers().unwrap();
        assert!(told.as_deref().is_some_and(|text| text.starts_with("name `dvm_xdp`, id ")), "{told:?}");
        let attached = climb(&mut path, Wanted::Generic, &bed);
        assert_eq!(attached.rung(), Rung::Generic);
        assert_eq!(attached.reasons(), [format!("took off `{XDP_PROGRAM}`, left behind without a link")]);
        assert_eq!(interface().strangers().unwrap(), None);
    });
    assert_nothing_attached(&bed);
}

#[test]
fn another_agents_program_is_left_alone() {
    let Some(bed) = Bed::make("another_agents_program_is_left_alone", 1500) else { return };
    let (mut first, mut second) = (FastPath::load(&[]).unwrap(), FastPath::load(&[]).unwrap());
    bed.on(Side::Here, || {
        let held = climb(&mut first, Wanted::Generic, &bed);
        assert_eq!(held.rung(), Rung::Generic);
        let attached = climb(&mut second, Wanted::Auto, &bed);
        assert_eq!(attached.rung(), Rung::None, "{:?}", attached.reasons());
        assert!(attached.reasons().iter().all(|reason| reason.contains("name `dvm_xdp`")), "{:?}", attached.reasons());
        drop(attached);
        first.probe(interface().address, &[bed.peer()], ProbeProgram::Xdp).unwrap();
    });
}

#[test]
fn a_killed_process_leaves_nothing_attached() {
    const TEST: &str = "a_killed_process_leaves_nothing_attached";
    if let Ok(namespace) = std::env::var(HOLD) {
        return hold(&namespace);
    }
    let Some(bed) = Bed::make(TEST, 1500) else { return };
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", TEST, "--nocapture"]).env(HOLD, format!("{} {}", bed.namespace(Side::Here), bed.peer()));
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let told = lines.into_iter().find(|line| line.contains("attached: "));
    let (programs, text) = (bed.on(Side::Here, tcx_programs), bed.link_text());
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(told.as_deref(), Some("attached: generic XDP"));
    assert!(programs == 0 && text.contains("xdp"), "{programs} {text}");
    let deadline = Instant::now() + PATIENCE;
    while (bed.on(Side::Here, tcx_programs) > 0 || bed.link_text().contains("xdp")) && Instant::now() < deadline {
        sleep(Duration::from_millis(10));
    }
    assert_nothing_attached(&bed);
}

/// What the process does that is to be killed.
fn hold(words: &str) {
    let (namespace, peer) = words.split_once(' ').unwrap();
    bed::enter(namespace);
    let mut path = FastPath::load(&[]).unwrap();
    let attached = path.attach(&interface(), Wanted::Generic, &[peer.parse().unwrap()]);
    println!("\nattached: {}", attached.rung());
    sleep(PATIENCE);
}
