//! Real programs on three husks of this machine, under the lone agent; and what is refused, with its exit code.
//!
//! Owns the cases. Needs root (for /dev/userfaultfd) and gcc; without them the cases that need them say `skipped`.
#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that is not as it should be")]

mod lone_agent;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const EXEC: &str = env!("CARGO_BIN_EXE_dvm-exec");
const SIGTERM: i32 = 15;
const HOSTS: usize = 3;
const DEADLINE: Duration = Duration::from_secs(60);

/// Says past the test harness, which would swallow it, that `test` did not run.
fn skip(test: &str, reason: &str) {
    std::io::stderr().write_all(format!("skipped: {test}: {reason}\n").as_bytes()).unwrap();
}

struct Bench {
    socket: PathBuf,
    directory: PathBuf,
}

impl Bench {
    fn new(test: &str) -> Option<Self> {
        if let Err(error) = uffd_dsm::open_userfaultfd_device() {
            skip(test, &format!("/dev/userfaultfd: {error}: run as root"));
            return None;
        }
        let socket = lone_agent::socket_path(test);
        let served = socket.clone();
        std::thread::spawn(move || lone_agent::serve(&served, Path::new(EXEC), HOSTS));
        let started = Instant::now();
        while !socket.exists() {
            assert!(started.elapsed() < DEADLINE, "the lone agent does not come up");
            std::thread::yield_now();
        }
        let directory = std::env::temp_dir().join(format!("dvm-executor-{}-{test}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        Some(Self { socket, directory })
    }

    fn compile(&self, test: &str, source: &str, flags: &[&str]) -> Option<PathBuf> {
        let program = self.directory.join("program");
        let compiled = Command::new("gcc").args(["-O1", "-pthread", "-o"]).arg(&program).arg(source).args(flags).status();
        match compiled {
            Ok(status) => assert!(status.success(), "gcc {source}"),
            Err(error) => {
                skip(test, &format!("gcc: {error}"));
                return None;
            }
        }
        Some(program)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        run(Command::new(EXEC).arg("--socket").arg(&self.socket).args(arguments))
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        for path in [&self.socket, &self.directory] {
            if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }.unwrap();
        }
    }
}

/// Runs to the end, at most [`DEADLINE`].
fn run(command: &mut Command) -> Output {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let started = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if started.elapsed() > DEADLINE {
            child.kill().unwrap();
            panic!("{command:?} did not end");
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap()
}

fn stress(test: &str, flags: &[&str]) {
    let Some(bench) = Bench::new(test) else { return };
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/programs/stress.c");
    let Some(program) = bench.compile(test, source, flags) else { return };
    let program = program.to_str().unwrap();
    let native = run(&mut Command::new(program));
    let output = bench.run(&["--stat", "--", program]);
    let talk = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {talk}", output.status);
    assert_eq!(output.stdout, native.stdout);
    for host in ["one", "two", "three"] {
        let line = talk.lines().find(|line| line.split_whitespace().nth(1) == Some(host)).unwrap();
        let threads: u32 = line.split_whitespace().nth(3).unwrap().parse().unwrap();
        assert!(threads > 0, "no thread ran on {host}: {talk}");
    }
}

#[test]
fn stress_dynamic() {
    stress("stress_dynamic", &[]);
}

#[test]
fn stress_static() {
    stress("stress_static", &["-static"]);
}

#[test]
fn stress_static_pie() {
    stress("stress_static_pie", &["-static-pie"]);
}

#[test]
fn statuses_pass_through() {
    use std::os::unix::process::ExitStatusExt;
    let Some(bench) = Bench::new("statuses_pass_through") else { return };
    assert_eq!(bench.run(&["--", "sh", "-c", "exit 42"]).status.code(), Some(42));
    assert_eq!(bench.run(&["--", "sh", "-c", "kill -TERM $$"]).status.signal(), Some(SIGTERM));
    assert_eq!(bench.run(&["--", "echo", "one", "two"]).stdout, b"one two\n");
    let piped = bench.run(&["--", "sh", "-c", "echo three | cat"]);
    assert_eq!((piped.stdout.as_slice(), piped.stderr.as_slice()), (b"three\n".as_slice(), b"".as_slice()));
}

/// Each reason its own code and one line; `UPDATE=1` writes the golden file anew.
#[test]
fn refusals() {
    let directory = std::env::temp_dir().join(format!("dvm-refusals-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let file = |name: &str, bytes: &[u8], mode: u32| {
        use std::os::unix::fs::PermissionsExt;
        let path = directory.join(name);
        std::fs::write(&path, bytes).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let mut small = b"\x7fELF\x01\x01\x01".to_vec();
    small.resize(200, 0);
    let cases: [(&str, Vec<String>); 9] = [
        ("not found", vec![directory.join("nothing").to_str().unwrap().to_owned()]),
        ("not in PATH", vec!["no-such-program-anywhere".to_owned()]),
        ("directory", vec![directory.to_str().unwrap().to_owned()]),
        ("not executable", vec![file("plain", b"text", 0o644)]),
        ("not ELF", vec![file("text", b"text", 0o755)]),
        ("32-bit ELF", vec![file("small", &small, 0o755)]),
        ("truncated ELF", vec![file("cut", b"\x7fELF\x02\x01\x01", 0o755)]),
        ("script without interpreter", vec![file("script", b"#!\n", 0o755)]),
        ("no agent", vec!["/bin/true".to_owned()]),
    ];
    let mut found = String::new();
    for (name, command) in cases {
        let socket = directory.join("absent.sock");
        let output = run(Command::new(EXEC).arg("--socket").arg(&socket).arg("--").args(&command));
        let talk = String::from_utf8_lossy(&output.stderr).replace(directory.to_str().unwrap(), "DIR");
        assert_eq!(talk.lines().count(), 1, "{name}: {talk}");
        found += &format!("{name}: exit {}\n    {talk}", output.status.code().unwrap());
    }
    std::fs::remove_dir_all(&directory).unwrap();
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/refusals.txt");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::create_dir_all(Path::new(golden).parent().unwrap()).unwrap();
        std::fs::write(golden, &found).unwrap();
    }
    assert_eq!(found, std::fs::read_to_string(golden).unwrap(), "run with UPDATE=1 if this is meant");
}

/// The root's husk is killed at several moments of a run: who attaches to another host sees what there would have been to see.
#[test]
fn a_run_goes_on_without_its_root() {
    // rule: H9, X14
    let test = "a_run_goes_on_without_its_root";
    let Some(bench) = Bench::new(test) else { return };
    let program = bench.directory.join("rounds.dc");
    std::fs::write(&program, ROUNDS).unwrap();
    let expected = run(Command::new(EXEC).args(["disa", "run", "--local"]).arg(&program));
    assert!(expected.status.success(), "{}", String::from_utf8_lossy(&expected.stderr));
    for copies in ["1", "2", "3"] {
        let mut whole = Command::new(EXEC);
        let whole = run(whole.args(["disa", "run", "--copies", copies, "--socket"]).arg(&bench.socket).arg(&program));
        let said = String::from_utf8_lossy(&whole.stderr);
        assert_eq!((whole.status.code(), &whole.stdout), (Some(0), &expected.stdout), "{copies} copies: {said}");
    }
    for after_lines in [0, 1, 7] {
        let mut root = Command::new(EXEC);
        root.args(["disa", "run", "--copies", "2", "--socket"]).arg(&bench.socket).arg(&program);
        let mut root = root.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut shown = std::io::BufReader::new(root.stdout.take().unwrap());
        let mut seen = String::new();
        for _ in 0..=after_lines {
            assert!(std::io::BufRead::read_line(&mut shown, &mut seen).unwrap() > 0, "the run ended after {seen}");
        }
        root.kill().unwrap();
        root.wait().unwrap();
        std::io::Read::read_to_string(&mut shown, &mut seen).unwrap();
        let attached = |from: usize| {
            let mut attach = Command::new(EXEC);
            attach.args(["disa", "attach", "--from", &from.to_string(), "--socket"]).arg(&bench.socket).arg("7");
            run(&mut attach)
        };
        let started = Instant::now();
        // Until another host has taken over, nobody shows it.
        let all = loop {
            let all = attached(0);
            if all.status.code() != Some(127) || started.elapsed() > DEADLINE {
                break all;
            }
        };
        let said = String::from_utf8_lossy(&all.stderr).into_owned();
        assert_eq!((all.status.code(), &all.stdout), (Some(0), &expected.stdout), "after {after_lines} lines: {said}");
        assert!(all.stdout.starts_with(seen.as_bytes()), "what the root has shown is the beginning: {seen}");
    }
}

/// A chain of runners, each of which prints a line and has work of its own.
const ROUNDS: &str = include_str!("rounds.dc");
