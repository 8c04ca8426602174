//! Questions to guests without processors, and directories that are not to be trusted.

use super::super::boot::Shape;
use super::*;
use std::thread;

const LATEST: Duration = Duration::from_secs(20);

fn place_for(test: &str) -> PathBuf {
    let directory = std::env::temp_dir().join(format!("dvm-control-{}-{test}", process::id()));
    fs::remove_dir_all(&directory).unwrap_or(());
    directory
}

fn guest(name: &str) -> Guest {
    let shape = Shape {
        hosts: Vec::new(),
        here: 0,
        bytes: 16 << 20,
        tsc_khz: 1_000_000,
        clock_tsc: 0,
        began_ns: 0,
        has_ends: true,
        command_line: String::new(),
        image_end: 0,
    };
    let description = Description {
        name: name.to_owned(),
        pid: process::id(),
        stage: String::new(),
        cpus: 0,
        hosts: vec!["here".to_owned()],
        memory_bytes: shape.bytes,
        uptime_s: 0,
        image: "none".to_owned(),
    };
    Guest { machine: Arc::new(Machine::new(&shape, None, None)), members: None, description, started: Instant::now() }
}

#[test]
fn a_guest_is_held_and_goes_on() {
    let directory = place_for("life");
    let control = Control::open_in(&directory, Some("one")).expect("as it should be");
    let guest = guest("one");
    let machine = Arc::clone(&guest.machine);
    control.serve(guest).expect("as it should be");
    let asked = |question| ask(&path_of(&directory, "one"), question, LATEST).expect("as it should be");
    assert!(matches!(asked(Question::Pause), Answer::Refused(_)), "it does not run yet");
    machine.life.run();
    for (question, stage) in [(Question::Pause, "paused"), (Question::Pause, "paused"), (Question::Resume, "running")] {
        assert_eq!(asked(question), Answer::Done);
        assert!(matches!(asked(Question::Describe), Answer::Description(found) if found.stage == stage));
    }
    assert!(matches!(asked(Question::Figures), Answer::Figures { stage, rows, .. } if stage == "running" && rows.is_empty()));
    machine.stop(0);
    assert!(matches!(asked(Question::Resume), Answer::Refused(reason) if reason == "it is over"));
    drop(control);
    assert_eq!(names(&directory).expect("as it should be"), Vec::<String>::new());
    fs::remove_dir_all(directory).expect("as it should be");
}

#[test]
fn names_are_taken_once_and_the_dead_make_way() {
    let directory = place_for("names");
    let control = Control::open_in(&directory, Some("one")).expect("as it should be");
    let again = Control::open_in(&directory, Some("one"));
    assert!(matches!(again, Err(Failure::Settings(reason)) if reason.contains("runs already")));
    assert_eq!(names(&directory).expect("as it should be"), ["one"]);
    // As a guest that was killed leaves it: the file without a listener.
    let (path, other) = (control.path.clone(), path_of(&directory, "kept"));
    fs::hard_link(&path, &other).expect("as it should be");
    drop(control);
    fs::rename(&other, &path).expect("as it should be");
    assert_eq!(ask(&path, Question::Describe, LATEST).expect_err("as it should be").kind(), ErrorKind::ConnectionRefused);
    Control::open_in(&directory, Some("one")).expect("as it should be");
    for name in ["", ".hidden", "a/b", "a b", &"x".repeat(65)] {
        assert!(judge_name(name).is_err(), "{name}");
    }
    fs::remove_dir_all(directory).expect("as it should be");
}

#[test]
fn what_others_may_enter_is_refused() {
    let directory = place_for("rights");
    fs::create_dir(&directory).expect("as it should be");
    fs::set_permissions(&directory, Permissions::from_mode(0o755)).expect("as it should be");
    assert!(matches!(Control::open_in(&directory, None), Err(Failure::Host { .. })));
    fs::set_permissions(&directory, Permissions::from_mode(0o700)).expect("as it should be");
    let control = Control::open_in(&directory, None).expect("as it should be");
    assert_eq!(
        (control.name.clone(), control.path.metadata().expect("as it should be").mode() & 0o777),
        (process::id().to_string(), 0o600)
    );
    drop(control);
    fs::remove_dir_all(directory).expect("as it should be");
}

#[test]
fn no_words_are_too_bad() {
    let directory = place_for("words");
    let control = Control::open_in(&directory, Some("one")).expect("as it should be");
    control.serve(guest("one")).expect("as it should be");
    let path = path_of(&directory, "one");
    for words in [&b"\n"[..], b"{}\n", b"\xff\xff\n", &[b'['; 9000], b"{\"version\":9,\"question\":\"Pause\"}\n"] {
        let mut stream = UnixStream::connect(&path).expect("as it should be");
        // It may have turned away before all was said.
        stream.write_all(words).unwrap_or(());
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap_or(0);
        assert!(answer.is_empty() || answer.contains("another release"), "{answer}");
    }
    let asking = thread::spawn(move || ask(&path, Question::Describe, LATEST));
    assert!(matches!(asking.join().expect("as it should be"), Ok(Answer::Description(_))));
    drop(control);
    fs::remove_dir_all(directory).expect("as it should be");
}
