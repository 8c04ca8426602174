//! What expressions and statements do.
//!
//! Owns small programs and what they print. Must not look at instructions.

mod common;

use common::{printed, run};
use dvm_disa::machine::Settings;

/// What the statements of a main print, with declarations before it.
#[track_caller]
fn check(declarations: &str, body: &str, expected: &str) {
    let source = format!("{declarations}\nrunner main() {{\n{body}\n}}\n");
    let text = printed(&source, &[], Settings::default());
    assert_eq!(text.split_whitespace().collect::<Vec<_>>().join(" "), expected, "{source}");
}

#[test]
fn integers() {
    check("", "long a = 7, b = -3; print(a + b * 2); print(a / b); print(a % b); print(a - b); print(-a);", "1 -2 1 10 -7");
    check(
        "",
        "long a = 12; print(a & 10); print(a | 3); print(a ^ 5); print(~a); print(a << 3); print(-a >> 1);",
        "8 15 9 -13 96 -6",
    );
    check(
        "",
        "unsigned long a = -1; print(a >> 60); print(a / 2 == 0x7fffffffffffffff); print(a % 10); print(a > 1);",
        "15 1 5 1",
    );
    check("", "long a = -1; print(a > 1); print(a >= -1); print(a != 0); print(!a); print(!!a);", "0 1 1 0 1");
    check(
        "",
        "char c = 300; short s = 40000; int i = 3000000000; unsigned int u = -1; unsigned short t = -1; print(c); print(s); print(i); print(u); print(t);",
        "44 -25536 -1294967296 4294967295 65535",
    );
    check(
        "",
        "long x = 5; print(x++); print(x); print(--x); x += 3; x *= 2; x -= 1; x /= 3; x %= 4; x <<= 5; x |= 1; x ^= 3; x &= 0xfe; x >>= 1; print(x);",
        "5 6 5 17",
    );
    check(
        "",
        "print(1 ? 2 : 3); long a = 0; print(a ? 2 : 3); print(a || 5); print(a && 5); print(1 + 2 * 3 - 4 / 2);",
        "2 3 1 0 5",
    );
    check("", "print(sizeof(long)); print(sizeof(char *)); long a[5]; print(sizeof a); print('A'); print(0x1F);", "8 8 40 65 31");
}

#[test]
fn reals() {
    check(
        "",
        "double a = 1.5, b = 2; print((long)(a * b * 100)); print(a < b); print((long)(-a)); print((long)(a / b * 1000));",
        "300 1 -1 750",
    );
    check("", "double n = 0.0 / (double)(sizeof(char) - 1 + (long)0.0); print(1);", "1");
    check(
        "double zero;",
        "double n = zero / zero; print(n == n); print(n != n); print(n < 1.0); print(!(n < 1.0)); if (n >= 1.0) print(7); else print(8);",
        "0 1 0 1 8",
    );
    check(
        "float f; float g[2];",
        "f = 0.1; g[1] = f; f += 1; print((long)(f * 1000000)); print(g[1] == 0.1); print(f > 1.09);",
        "1100000 0 1",
    );
    check(
        "",
        "print((long)sqrt(144.0)); print((long)fma(2.0, 3.0, 4.0)); long i = 7; i += 1.5; print(i); double d = 3; d++; print((long)d);",
        "12 10 8 4",
    );
}

#[test]
fn statements() {
    check("", "long s = 0; for (long i = 0; i < 10; i++) { if (i == 3) continue; if (i == 7) break; s += i; } print(s);", "18");
    check(
        "",
        "long i = 0; while (i < 5) i++; do { i += 10; } while (i < 30); print(i); for (;;) { if (i-- == 0) break; } print(i);",
        "35 -1",
    );
    check(
        "",
        "long a = 1; { long a = 2; print(a); } print(a); if (a == 1 && a < 2 || a > 5) print(3); else if (a) print(4); else print(5);",
        "2 1 3",
    );
    check(
        "",
        "long n = 0; for (long i = 0; i < 3; i++) for (long j = 0; j < 3; j++) { if (j > i) break; n += 10 * i + j; } print(n);",
        "84",
    );
}

#[test]
fn memory() {
    check(
        "long a[4] = {1, 2, 3}; long *p;",
        "p = &a[1]; print(*p); print(p[1]); *p++ = 9; print(*p); print(a[1]); print(p - a); print(*(p + 1)); print(p == &a[2]);",
        "2 3 3 9 2 0 1",
    );
    check(
        "struct point { char tag; long x, y; }; struct point s[3];",
        "s[1].x = 4; struct point *p = s + 1; p->y = 5; s[2] = *p; print(s[2].x + s[2].y); print(sizeof(struct point)); print((&s[2])->x); struct point l; l = s[1]; l.x++; print(l.x); print(s[1].x);",
        "9 24 4 5 4",
    );
    check(
        "struct node { struct node *next; long v; }; struct node n[3];",
        "for (long i = 0; i < 3; i++) { n[i].v = i * i; n[i].next = i < 2 ? &n[i + 1] : 0; } long s = 0; for (struct node *p = n; p; p = p->next) s += p->v; print(s);",
        "5",
    );
    check(
        "char text[] = \"hello\"; const char greeting[] = \"hi\";",
        "print(text[1]); print(sizeof text); char *s = \"a\\n\\x41\"; print(s[2]); print(greeting[1]); print(find('l', text, 5)); text[0] = 'j'; print(text[0]);",
        "101 6 65 105 2 106",
    );
    check(
        "short s[2] = {-5, 7}; int i[2] = {-6}; unsigned int u = 4000000000;",
        "print(s[0]); print(i[0]); print(u); s[1] -= 10; print(s[1]); i[1] = s[0] * i[0]; print(i[1]--); print(i[1]);",
        "-5 -6 4000000000 -3 30 29",
    );
    check(
        "private long big[1000]; standalone long alone = 5; static long m[2][3] = {{1, 2, 3}, {4, 5, 6}};",
        "big[999] = 3; print(big[999] + big[0]); print(alone); long t = 0; for (long i = 0; i < 2; i++) for (long j = 0; j < 3; j++) t = t * 10 + m[i][j]; print(t);",
        "3 5 123456",
    );
    check(
        "",
        "long a = 4; long *p = &a; *p += 3; print(a); long b[3]; b[0] = 1; b[2] = 5; long *q = b; print(*q + q[2]); char *c = (char *)&a; print(*c);",
        "7 6 7",
    );
}

#[test]
fn functions() {
    check(
        "long twice(long x) { return 2 * x; } long fib(long n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }",
        "print(twice(twice(3))); print(fib(15));",
        "12 610",
    );
    check(
        "long later(long); double half(double x); void nothing(long *p) { *p = later(4); return; } long later(long x) { return x * x; } double half(double x) { return x / 2; }",
        "long x; nothing(&x); print(x); print((long)half(9));",
        "16 4",
    );
    check(
        "long a8(long a, long b, long c, long d, long e, long f, long g, long h) { return a + 2*b + 3*c + 4*d + 5*e + 6*f + 7*g + 8*h; }",
        "print(a8(1,1,1,1,1,1,1,1)); print(a8(a8(1,0,0,0,0,0,0,0),2,0,0,0,0,0,1));",
        "36 13",
    );
    check(
        "long even(long n); long odd(long n) { return n == 0 ? 0 : even(n - 1); } long even(long n) { return n == 0 ? 1 : odd(n - 1); }",
        "print(even(10)); print(odd(7)); print(even(7));",
        "1 1 0",
    );
    check(
        "long buffer(long n) { long a[10]; for (long i = 0; i < 10; i++) a[i] = n; long s = n > 0 ? buffer(n - 1) : 0; for (long i = 0; i < 10; i++) s += a[i]; return s; }",
        "print(buffer(3));",
        "60",
    );
    check(
        "long hanoi(long n, long a, long b, long c) { if (n == 0) return 0; return hanoi(n - 1, a, c, b) + 1 + hanoi(n - 1, c, b, a); }",
        "print(hanoi(6, 1, 2, 3));",
        "63",
    );
}

#[test]
fn many_variables_are_spilled() {
    let count = 300;
    let declared: String = (0..count).map(|i| format!("long v{i} = x + {i};\n")).collect();
    let used: String = (0..count).map(|i| format!("s += v{i} * {};\n", i % 7)).collect();
    let expected: i64 = (0..count).map(|i| (5 + i) * (i % 7)).sum();
    check(
        "long x = 5; long same(long a) { return a; }",
        &format!("{declared} long s = 0; {used} print(s);"),
        &expected.to_string(),
    );
    let called: String = (0..count).map(|i| format!("s += same(v{i}) * {};\n", i % 7)).collect();
    check(
        "long x = 5; long same(long a) { return a; }",
        &format!("{declared} long s = 0; {called} print(s);"),
        &expected.to_string(),
    );
    let pointers: String = (0..count).map(|i| format!("long *p{i} = &a[{i}]; *p{i} = x;\n")).collect();
    let sums: String = (0..count).map(|i| format!("s += *p{i} + p{i}[0];\n")).collect();
    check("long x = 5; long a[300];", &format!("long s = 0; {pointers} {sums} print(s);"), "3000");
}

#[test]
fn order_of_evaluation() {
    check(
        "long g = 1; long bump() { g += 10; return g; }",
        "print(g + bump()); print(bump() + g); long x = 3; print(x + (x = 5)); print(x++ * 10 + x);",
        "12 42 8 56",
    );
    check(
        "long g[3] = {1, 2, 3};",
        "long *p = g; print(*p++ + *p++ * 10 + *p * 100); p = g; long i = 0; p[i++] = 7; print(g[0] * 10 + i); p[i] += i++; print(g[2]);",
        "321 71 4",
    );
}

#[test]
fn runners() {
    let source = "
long done[4]; standalone long total;
runner work(long i, long *out) { *out = i * i + 1; }
runner gather() {
    long sum = 0;
    for (long i = 0; i < 4; i++) { if (done[i] == 0) abort; sum += done[i]; }
    total = sum; print(total); commitd;
}
runner main() {
    for (long i = 0; i < 4; i++) runner work(i, &done[i]) using done[i,,i + 1];
    long id = persistent runner gather() using total watching done;
    print(id);
}";
    for seed in 0..10 {
        assert_eq!(printed(source, &[], Settings { seed, ..Settings::default() }), "5\n18\n");
    }
    let traps =
        run("long a[2]; runner bad() { a[1] = 1; } runner main() { runner bad() using a[0,,1]; }", &[], Settings::default());
    assert_eq!(
        traps.failures[0].to_string(),
        "TRAP runner 1 t.dc:1 (pc 0x50010000000d): RANGE 0x101000000008 (store outside the declared ranges, found at exit)"
    );
}

#[test]
fn builtins() {
    check(
        "char b[64]; long n;",
        "long *bytes = &n; print(argument(0, b, 64)); char *f = open(\"x\", 1, bytes); print(f == 0); print(n); char *m = alloc(100); m[99] = 3; print(m[99]); free(m); print(\"text\"); log(\"l\");",
        "-1 1 0 3 text",
    );
    check(
        "char a[8] = \"abcabd\"; char b[8];",
        "copy(a, 6, b); print(compare(a, b, 6)); b[5] = 'x'; print(compare(a, b, 6)); fill('z', 3, b); print(b[2]); print(hash(b, 0) == 0xcbf29ce484222325); touch(a, 8); breakpoint(); print(popcount(255)); print(clz(1)); print(ctz(8)); print(mulh(1 << 63, 4)); print(self()); print(parent()); print(instance());",
        "6 5 122 1 8 63 3 2 0 0 0",
    );
    check("", "*(exitcode(0) + 1) = 9; print(exitcode(0)[1]); print(random() == random()); print(time() >= 0);", "9 0 1");
}
