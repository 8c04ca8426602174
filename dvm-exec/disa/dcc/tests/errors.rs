//! Every error of a source, with its line and column, and that no text brings the compiler down.
//!
//! Owns the texts users see. Must not know how they come about.

use dvm_dcc::{Define, compile};
use dvm_disa::asm::{Source, link};
use proptest::prelude::*;

fn error(source: &str) -> String {
    compile(source, "t.dc", &[]).map_or_else(|errors| errors.to_string(), |_| "accepted".into())
}

/// What is wrong with the body of a runner, without file and line.
fn in_main(body: &str) -> String {
    let text = error(&format!(
        "struct s {{ long x; }} ; long g[4]; private long p[2]; runner r(long a) {{ }} long f(long a) {{ return a; }}\nrunner main() {{ {body} }}"
    ));
    text.strip_prefix("t.dc:2:").unwrap_or(&text).to_owned()
}

#[test]
fn every_error_has_its_line_and_column() {
    let mut wrong = Vec::new();
    for (source, expected) in [
        ("long a @;", "t.dc:1:8: unexpected `@`"),
        ("/* x", "t.dc:1:1: comment without its end: write */"),
        ("long a = 'ab';", "t.dc:1:10: a character is one byte between single quotes"),
        ("char a[] = \"x\n\";", "t.dc:1:12: no closing quote on this line"),
        ("char a[] = \"\\q\";", "t.dc:1:12: the escapes are \\n \\t \\r \\0 \\\\ \\\" \\' \\xHH"),
        ("long a = 1x;", "t.dc:1:10: bad number `1x`: write 10, 0x1f, 'a' or 1.5"),
        ("\nlong a", "t.dc:2:7: expected `;`, found the end of the source"),
        (
            "foo a;",
            "t.dc:1:1: expected a declaration: a type, `runner`, `struct`, `enum`, `const`, `standalone`, `private`, `extern`, found `foo`",
        ),
        (
            "long long int short a;",
            "t.dc:1:1: there is no such type: write char, short, int, long, unsigned of them, float, double",
        ),
        ("long while;", "t.dc:1:6: expected a name, found `while`"),
        ("grain word;", "t.dc:1:1: write `grain page;`"),
        ("long a; long a;", "t.dc:1:14: `a` is declared twice: rename one of them"),
        ("long w3;", "t.dc:1:6: `w3` is a name of the assembler: rename it"),
        ("struct s { struct s x; };", "t.dc:1:21: a struct cannot contain itself: make the member a pointer"),
        ("struct s { long x, x; };", "t.dc:1:20: `x` is declared twice: rename one of them"),
        ("struct s { long x; }; struct s { long y; };", "t.dc:1:30: `struct s` is declared twice: rename one of them"),
        ("struct t a;", "t.dc:1:10: `struct t` is not declared"),
        ("long a[0];", "t.dc:1:8: an array has at least 1 element"),
        ("long a[];", "t.dc:1:6: an array needs its length: name[10], or an initialiser"),
        ("long n; long a[n];", "t.dc:1:16: the length of an array must be a constant: numbers, `const` names and operators"),
        ("long a[1 << 50];", "t.dc:1:6: an object of this size has no room: at most 32 TiB, and no arrays of void"),
        ("void a;", "t.dc:1:6: a variable cannot be void: write void * for an address of anything"),
        ("const long a;", "t.dc:1:12: what a `const` begins with must be a constant: numbers, `const` names and operators"),
        ("long a = {1};", "t.dc:1:10: { ... } is for arrays and structs"),
        ("long a[2] = 1;", "t.dc:1:13: an array or a struct begins with { ... }"),
        ("long a[2] = {1, 2, 3};", "t.dc:1:13: values in this { ... }: at most 2 are allowed"),
        ("char a[2] = \"abc\";", "t.dc:1:13: a string begins an array of char that has room for it"),
        ("char a[20000000] = {1};", "t.dc:1:20: bytes with contents: at most 16777216 are allowed"),
        ("private long a = 1;", "t.dc:1:14: a `private` variable is zero when a runner starts: assign in the runner"),
        ("extern long a = 1;", "t.dc:1:13: an `extern` variable begins with what its own source says"),
        ("private char a[4000000000];", "t.dc:1:14: bytes of private variables: at most 2147418112 are allowed"),
        (
            "struct s { long x; }; struct s f() { }",
            "t.dc:1:32: a function returns a number, a pointer or void: pass a pointer to the struct",
        ),
        (
            "struct s { long x; }; void f(struct s a) { }",
            "t.dc:1:39: a parameter is a number or a pointer: pass a pointer to the struct",
        ),
        ("void f(long) { }", "t.dc:1:12: expected a name, found a type alone"),
        (
            "void f(long a, long b, long c, long d, long e, long f, long g, long h, long i);",
            "t.dc:1:6: parameters: at most 8 are allowed",
        ),
        ("runner main(long a) { }", "t.dc:1:8: `runner main` has no parameters: ask for arguments with argument()"),
        ("long f(); double f();", "t.dc:1:18: `f` was declared with another type"),
        ("void f() { } void f() { }", "t.dc:1:19: `f` is declared twice: rename one of them"),
        ("void f() { return 1; }", "t.dc:1:12: a void function returns nothing: write `return;`"),
        ("long f() { return; }", "t.dc:1:12: the function returns a value: write `return value;`"),
        ("void f() { char a[2000000000]; }", "t.dc:1:17: bytes of a function's variables: at most 1073741824 are allowed"),
        ("void f() { a = 1;\n b = 2; }", "t.dc:1:12: `a` is not declared\nt.dc:2:2: `b` is not declared"),
    ] {
        let found = error(source);
        if found != expected {
            wrong.push(format!("{source}\n  found    {found}\n  expected {expected}\n"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.concat());
}

#[test]
fn errors_of_statements_and_expressions() {
    let mut wrong = Vec::new();
    for (body, expected) in [
        ("return;", "17: a runner does not return: it ends with `commit;` or `abort;`"),
        ("break;", "17: `break` and `continue` stand in a loop"),
        ("r(1);", "17: `r` is a runner: write `runner r(...) using ...;`"),
        ("runner f(1);", "17: `f` is a function: declare it as `runner f(...)`"),
        ("runner r();", "17: `r` takes 1 arguments, 0 are here"),
        ("runner q();", "17: `q` is not declared"),
        ("persistent runner r(1) using g;", "17: a persistent runner waits for something: add `watching`"),
        ("runner r(1) using p;", "35: `p` is private memory: ranges are of shared variables or of what pointers point to"),
        (
            "long l; runner r(1) using l;",
            "43: a variable of the function is private memory: ranges are of shared variables or of what pointers point to",
        ),
        ("runner r(1) using g[0,,f(1)];", "40: a bound of a range changes nothing: compute it before"),
        ("print(g[0,,1]);", "24: a range a[i,,j] stands only behind `using` and `watching`"),
        ("f(1, 2);", "17: `f` takes 1 arguments, 2 are here"),
        ("g = 1;", "19: an array is not assigned, and a struct only as a statement of its own"),
        ("1 = 2;", "17: an assignment needs a variable, an element, a member or *pointer"),
        ("long a = &1;", "27: `&` needs a variable, an element, a member or *pointer"),
        ("long *a = 5;", "27: this place needs long * (or a cast), this is long"),
        ("long a = *3;", "27: `*` needs a pointer, this is long"),
        ("g[1.5] = 1;", "19: an index needs an integer, this is double"),
        ("f[1] = 1;", "17: `f` is a function: call it as f(...)"),
        ("print(1.5 % 2);", "27: `%` needs integers, this is double"),
        ("print(1 / 0);", "25: division by zero"),
        ("struct s *a; a->y = 1;", "31: `struct s` has no member `y`"),
        ("print(g.x);", "23: `.` needs a struct, this is long[4]"),
        ("struct s a; print(a);", "35: a struct is no value: assign it whole, or use its members or address"),
        ("void *a; print(*a);", "32: void * points to nothing known: cast the pointer"),
        ("void *a; a++;", "26: void has no size: cast the pointer to the type it points to"),
        ("long a[2] = 1;", "29: an array or struct of a function is assigned, not initialised"),
        ("print((long)g + &g);", "31: this place needs long (or a cast), this is long[4] *"),
        ("long i; double d; g[i++] += d;", "42: the place would be computed twice: take its address first, or write a = a + b"),
    ] {
        let found = in_main(body);
        if found != expected {
            wrong.push(format!("{body}\n  found    {found}\n  expected {expected}\n"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.concat());
}

#[test]
fn depth_and_length_have_limits() {
    let deep = |open: &str, close: &str| error(&format!("long a = {}1{};", open.repeat(100_000), close.repeat(100_000)));
    for (open, close) in [("(", ")"), ("-", ""), ("1+", ""), ("!", ""), ("1?1:", "")] {
        assert!(deep(open, close).contains("nested too deep"), "{open}");
    }
    assert!(error(&format!("runner main() {{ {} }}", "if (1) ".repeat(100_000))).contains("nested too deep"));
    assert!(error(&format!("runner main() {{ {} }}", "{".repeat(100_000))).contains("nested too deep"));
    assert!(error(&format!("long {} a;", "*".repeat(100_000))).contains("nested too deep"));
    assert!(error(&" ".repeat(5 << 20)).contains("split it"));
}

#[test]
fn constants_are_given_on_the_command_line() {
    let compiled = |value| {
        compile("const char N = 3; long a[N]; runner main() { print(N); }", "t.dc", &[Define { name: "N".into(), value }])
    };
    let text = compiled(7).map(|compiled| compiled.text).unwrap_or_default();
    assert!(text.contains("sys $1, $7") && text.contains("a: .space 56"), "{text}");
    assert_eq!(compiled(300).map(|_| ()).map_err(|errors| errors.to_string()), Err("t.dc:1:12: 300 does not fit char".into()));
}

#[test]
fn several_sources_are_one_program() {
    let assembly = |name: &str, text: &str| Source {
        name: name.into(),
        text: compile(text, name, &[]).map(|unit| unit.text).unwrap_or_default(),
    };
    let joined = |sources: &[Source]| match link(sources) {
        Ok(_) => "linked".to_owned(),
        Err(all) => all.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
    };
    let main = assembly(
        "a.dc",
        "extern long x[2];\nlong f(long);\nprivate long mine;\nstatic long twice(long a) { return 2 * a; }\nrunner main() { mine = 1; print(f(twice(x[0]))); }",
    );
    let other = assembly(
        "b.dc",
        "long x[2] = {20};\nprivate long mine;\nstatic long twice(long a) { return a + a + 1; }\nlong f(long a) { mine = 2; return twice(a); }",
    );
    assert_eq!(joined(&[main.clone(), other.clone()]), "linked");
    let object = link(&[main.clone(), other.clone()]).expect("it was linked");
    let mut machine = dvm_disa::machine::Machine::new(&object, Default::default()).expect("verified");
    assert_eq!(machine.run().output, b"81\n");
    assert_eq!(joined(std::slice::from_ref(&main)), "a.dc:1:13: undefined symbol `x`\na.dc:2:6: undefined symbol `f`");
    assert_eq!(
        joined(&[main, other.clone(), Source { name: "c.dc".into(), ..other }]),
        "c.dc:1:6: duplicate symbol `x`\nc.dc:4:6: duplicate symbol `f`"
    );
}

const PROGRAMS: [&str; 4] = [
    include_str!("../../programs/kmeans.dc"),
    include_str!("../../programs/sort.dc"),
    include_str!("../../programs/wordcount.dc"),
    include_str!("../../programs/bank.dc"),
];

/// A text compiles to what the assembler takes, or is refused with a place.
fn survives(text: &str) {
    match compile(text, "t.dc", &[]) {
        Ok(compiled) => {
            let linked = link(&[Source { name: "t.dc".into(), text: compiled.text.clone() }]);
            let is_extern =
                |reason: &str| reason.contains("undefined symbol") || reason.contains("entry") || reason.contains("not in");
            if let Err(errors) = linked {
                assert!(errors.iter().all(|error| is_extern(&error.to_string())), "{errors:?}\n{text}\n{}", compiled.text);
            }
        }
        Err(errors) => assert!(errors.to_string().starts_with("t.dc:"), "{errors}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_text_is_survived(text in "[ -~\n]{0,200}") {
        survives(&text);
    }

    #[test]
    fn a_changed_program_is_survived(program in 0..4usize, changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..4u8), 1..4)) {
        let mut tokens: Vec<String> = Vec::new();
        for c in PROGRAMS[program].chars() {
            let is_word = |c: char| c.is_alphanumeric() || c == '_';
            match tokens.last_mut() {
                Some(last) if is_word(c) && last.chars().all(is_word) => last.push(c),
                _ => tokens.push(c.into()),
            }
        }
        for (at, from, kind) in changes {
            let (at, from) = (at.index(tokens.len()), from.index(tokens.len()));
            match kind {
                0 => { tokens.remove(at); }
                1 => { let token = tokens[from].clone(); tokens.insert(at, token); }
                2 => { tokens.swap(at, from); }
                _ => { let token = tokens[from].clone(); tokens[at] = token; }
            }
        }
        survives(&tokens.concat());
    }
}
