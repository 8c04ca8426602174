//! Compiler, linker and the tools that look at recordings, as users call them.
//!
//! Owns the cases. Needs no privilege.
#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that is not as it should be")]

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

const PROGRAMS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/disa/programs");

const SMALL: &str = "long total; long half[2];
long square(long x) {
    long y = x * x;
    return y;
}
runner work(long i) {
    half[i] = square(i + 3);
    total++;
}
runner sum() {
    if (!half[0] || !half[1]) abort;
    print(half[0] + half[1]);
}
runner main() {
    for (long i = 0; i < 2; i++) runner work(i) using half[i,,i + 1], total;
    runner sum() watching half;
}
";

fn directory(test: &str) -> PathBuf {
    let directory = std::env::temp_dir().join(format!("dvm-disa-tools-{}-{test}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    directory
}

/// Exit status, stdout, stderr.
fn disa(arguments: &[&str], input: &str) -> (i32, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_dvm-exec"))
        .arg("disa")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn sources_and_units_become_a_program() {
    // rule: X7
    let directory = directory("link");
    let file = |name: &str, text: &str| {
        let path = directory.join(name).display().to_string();
        std::fs::write(&path, text).unwrap();
        path
    };
    let main = file("main.dc", "const long N = 3; long f(long); extern long seen; runner main() { print(f(N)); print(seen); }");
    let other = file("other.dc", "long seen = 7; long g(long); long f(long x) { return g(x) + 1; }");
    let assembly = file("third.disa", ".global g\ng: mul w0, w0, w0\n   br:a w8\n");
    let path = |name: &str| directory.join(name).display().to_string();
    assert_eq!(disa(&["cc", "-c", &main, &other], ""), (0, String::new(), String::new()));
    assert_eq!(disa(&["link", "-o", &path("a.elf"), &path("main.o"), &path("other.o"), &assembly], "").0, 0);
    assert_eq!(disa(&["run", "--local", &path("a.elf")], "").1, "10\n7\n");
    assert_eq!(disa(&["cc", "-D", "N=5", "-o", &path("b.elf"), &main, &other, &assembly], "").0, 0);
    assert_eq!(disa(&["run", "--local", &path("b.elf")], "").1, "26\n7\n");
    assert_eq!(disa(&["cc", "-S", &main], "").0, 0);
    assert!(std::fs::read_to_string(path("main.s")).unwrap().contains(".extern f"));
    let (status, _, told) = disa(&["run", "--local", &main], "");
    assert_eq!((status, told), (2, format!("{main}:1:24: undefined symbol `f`\n{main}:1:45: undefined symbol `seen`\n")));
    let (status, _, told) = disa(&["link", &path("main.o"), &path("other.o"), &path("other.o"), &assembly], "");
    assert_eq!(status, 2);
    assert!(told.starts_with(&format!("{other}:1:6: duplicate symbol `seen`\n")), "{told}");
    let (_, _, told) = disa(&["cc", &other, &assembly], "");
    assert_eq!(told, "no source has `runner main()`: a program begins there\n");
    let (_, _, told) = disa(&["cc", "-D", "M=1", &main], "");
    assert_eq!(told, "no source has a constant `M`: -D is for `const long NAME = ...;`\n");
    let wrong = file("wrong.dc", "runner main() {\n    x = 1;\n}\n");
    assert_eq!(disa(&["run", "--local", &wrong], "").2, format!("{wrong}:2:5: `x` is not declared\n"));
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn a_recording_is_looked_at() {
    // rule: X8, X9, X10, X11
    let directory = directory("record");
    let path = |name: &str| directory.join(name).display().to_string();
    let (source, recording, trace) = (path("small.dc"), path("small.rec"), path("trace.json"));
    std::fs::write(&source, SMALL).unwrap();
    let run = ["run", "--local", "--progress", "--record", &recording, "--timeline", &trace, &source];
    assert_eq!(disa(&run, ""), (0, "25\n".into(), String::new()));
    let (_, why, _) = disa(&["why", &recording, "3"], "");
    assert!(
        why.starts_with(&format!("runner 3 begins at sum ({source}:11)\n  made by runner 0\n  watches half, 16 bytes\n")),
        "{why}"
    );
    assert!(why.contains("  woken by the commit of runner "), "{why}");
    let losers: String = ["1", "2"].iter().map(|id| disa(&["why", &recording, id], "").1).collect();
    assert!(losers.contains("  lost to ") && losers.contains(" at total\n"), "{losers}");
    for id in ["0", "1", "2", "3"] {
        let (status, text, _) = disa(&["replay", &recording, id, "--trace"], "");
        assert_eq!((status, text.ends_with("as recorded\n")), (0, true), "{text}");
    }
    assert_eq!(disa(&["replay", &recording, "9"], "").0, 2);
    let (_, profile, _) = disa(&["prof", &recording], "");
    assert!(profile.contains("  work\n") && profile.contains(&format!("  {source}:7\n")), "{profile}");
    let trace: serde_json::Value = serde_json::from_slice(&std::fs::read(trace).unwrap()).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    assert!(events.len() >= 5 && events.iter().all(|event| event["ph"] == "X" && event["dur"].as_u64() > Some(0)));
    let commands = "break square\ncontinue\nregs\nnext\nprint half 2\nprint w10\nlist\ncontinue\noutput\nbreak 999\nquit\n";
    let (status, shown, _) = disa(&["dbg", &recording, "1"], commands);
    assert_eq!(status, 0);
    for part in [
        "break at 0x500100000000, square",
        "     3      long y = x * x;\n",
        "w0    0x0000000000000003",
        "     4      return y;\n",
        "w10 = 0x9  9",
        "=> 0x5001",
        "the run has ended: exit:c",
        "line 999 has no instructions",
    ] {
        assert!(shown.contains(part), "{part}\n{shown}");
    }
    std::fs::write(&recording, b"DISAREC\x01").unwrap();
    assert_eq!(disa(&["why", &recording, "0"], "").0, 2);
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn programs_in_dcc_are_run() {
    // rule: P1
    for (program, defines, expected) in [
        ("treesum", &["N=64"][..], "2080\n"),
        ("primes", &["CHUNKS=10", "CHUNK=1000"], "1229\n"),
        ("bank", &[], "64000\n"),
        ("storm", &["WATCHERS=100"], "100\n"),
    ] {
        let source = format!("{PROGRAMS}/{program}.dc");
        let mut arguments = vec!["run", "--local"];
        defines.iter().for_each(|define| arguments.extend(["-D", define]));
        arguments.push(&source);
        assert_eq!(disa(&arguments, ""), (0, expected.into(), String::new()), "{program}");
    }
}
