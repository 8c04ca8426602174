//! `dvm-exec disa` as users call it: what it prints, writes and refuses, with its exit status.
//!
//! Owns the cases. Needs no privilege.
#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that is not as it should be")]

use std::path::PathBuf;
use std::process::{Command, Output};

const PROGRAMS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/disa/programs");

fn directory(test: &str) -> PathBuf {
    let directory = std::env::temp_dir().join(format!("dvm-disa-{}-{test}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    directory
}

fn exec(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dvm-exec")).args(arguments).output().unwrap()
}

/// Exit status, stdout, stderr.
fn disa(arguments: &[&str]) -> (i32, String, String) {
    let output = exec(&[&["disa"], arguments].concat());
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_program_is_assembled_shown_and_run() {
    // rule: X1, X2, X3
    let directory = directory("run");
    let (source, file) = (format!("{PROGRAMS}/kmeans.disa"), directory.join("kmeans.elf").display().to_string());
    assert_eq!(disa(&["as", "-o", &file, &source]), (0, String::new(), String::new()));
    let (status, shown, _) = disa(&["objdump", &file]);
    assert_eq!((status, shown.starts_with("entry 0x500100000000\nmain:\n500100000000  ")), (0, true), "{shown}");
    let (status, printed, told) = disa(&["run", "--local", "--seed", "7", &file]);
    assert_eq!((status, told.as_str()), (0, ""));
    assert_eq!(disa(&["run", "--local", &source]).1, printed);
    let (_, _, counts) = disa(&["run", "--local", "--stat", &source]);
    assert!(counts.starts_with("starts ") && counts.contains(" committed "), "{counts}");
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn the_ends_have_exit_statuses() {
    // rule: X4, X13
    let directory = directory("ends");
    let file = |name: &str, text: &str| {
        let path = directory.join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let trap = file("trap", "trap $5\n");
    assert_eq!(
        disa(&["run", "--local", &trap]),
        (1, String::new(), format!("TRAP runner 0 {trap}:1 (pc 0x500100000000): USER 5\n"))
    );
    let wrong = file("wrong", "nop\nfoo\n");
    assert_eq!(disa(&["run", "--local", &wrong]), (2, String::new(), format!("{wrong}:2:1: unknown instruction `foo`\n")));
    let broken = file("broken", "\x7fELF");
    assert_eq!(disa(&["objdump", &broken]).0, 2);
    let waits = file(
        "waits",
        ".data\nv: .quad 0\n.rodata\nnone: .quad 0, 0\nwatch: .quad 1, v, 8\nfirst: .quad kid\n.text\nneww $none, $none, $watch, $first\nkid: exit:c\n",
    );
    let (status, _, told) = disa(&["run", "--local", &waits]);
    assert_eq!((status, told.as_str()), (3, "1 watchers never fired, the first of them runner 1\n"));
    let (status, _, told) = disa(&["run", "--local", "--starts", "0", &trap]);
    assert_eq!((status, told.as_str()), (1, "runners were left: the starts of runners are used up\n"));
    let nobody = directory.join("nobody").display().to_string();
    let (status, _, told) = disa(&["run", "--socket", &nobody, &trap]);
    assert!(status == 73 && told.starts_with(&format!("no agent answers at {nobody}: ")), "{status}: {told}");
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn private_memory_that_the_host_has_not_is_a_trap() {
    // rule: T12
    let directory = directory("narrow");
    let source = directory.join("wide").display().to_string();
    // A byte in each of 40 pieces of 64 MiB.
    let text = "mov $PR+0x2000, w0\nmore: mov:b $1, (w0)\nadd $0x4000000, w0, w0\nbr:lt w0, $PR+0xa0000000, $more\nexit:c\n";
    std::fs::write(&source, text).unwrap();
    for tier in ["0", "1"] {
        let run = ["run", "--local", "--tier", tier, &source];
        assert_eq!(disa(&run), (0, String::new(), String::new()), "tier {tier}");
        let mut narrow = Command::new("sh");
        narrow.args(["-c", "ulimit -v 1500000 && exec \"$@\"", "sh", env!("CARGO_BIN_EXE_dvm-exec"), "disa"]).args(run);
        let output = narrow.output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), told), (Some(1), format!("TRAP runner 0 {source}:2 (pc 0x50010000000d): MEM\n")));
    }
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn input_arguments_and_files_reach_the_program() {
    // rule: Y3, Y4, Y8
    let directory = directory("input");
    let path = |name: &str| directory.join(name).display().to_string();
    std::fs::write(path("data"), b"from a file").unwrap();
    let name = path("data");
    let source = format!(
        ".rodata\nname: .ascii \"{name}\"\n.text
mov $100, PR+0x2000\nmov $PR+0x3000, PR+0x2008\nmov $2, PR+0x2010\nsys $3, $PR+0x2000\nsys $2, $PR+0x2000
mov $1, PR+0x2000\nmov $100, PR+0x2010\nsys $8, $PR+0x2000\nsys $2, $PR+0x2000
mov ${}, PR+0x2000\nmov $name, PR+0x2008\nsys $4, $PR+0x2000\nmov PR+0x2000, w0\nmov PR+0x2008, PR+0x2000\nmov w0, PR+0x2008
sys $2, $PR+0x2000\nexit:c\n",
        name.len()
    );
    std::fs::write(path("program"), source).unwrap();
    let run = ["run", "--local", "--input", &name, "--file", &name, &path("program"), "one", "-two"];
    assert_eq!(disa(&run), (0, "om a file-twofrom a file".into(), String::new()));
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn sources_are_laid_out() {
    // rule: X5
    for program in ["treesum", "primes", "bank", "write-skew", "storm", "kmeans"] {
        let (status, ..) = disa(&["fmt", "--check", &format!("{PROGRAMS}/{program}.disa")]);
        assert_eq!(status, 0, "{program}");
    }
    let directory = directory("fmt");
    let source = directory.join("a.disa").display().to_string();
    std::fs::write(&source, "a: add   w0,w1 ,  w2#x\n").unwrap();
    assert_eq!(disa(&["fmt", "--check", &source]).0, 1);
    assert_eq!(disa(&["fmt", &source]).1, "a:      add w0, w1, w2          #x\n");
    assert_eq!(disa(&["fmt", "--write", &source]).0, 0);
    assert_eq!(disa(&["fmt", "--check", &source]).0, 0);
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn a_program_called_disa_is_still_a_program() {
    // rule: X6
    let output = exec(&["--", "disa"]);
    assert_eq!(output.status.code(), Some(127), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stderr).contains("disa"));
    assert_eq!(exec(&["--check", "disa", "fmt"]).status.code(), Some(127));
}
