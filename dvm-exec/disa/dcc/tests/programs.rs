//! The programs in dcc, small, and what they must print.
//!
//! Owns expected results, computed otherwise. Must not know the compiler's inside.

mod common;

use common::{printed, run};
use dvm_disa::machine::{File, Settings};

fn seeds(count: u64) -> impl Iterator<Item = Settings> {
    let slots = [1, 2, 4, 8];
    (0..count).map(move |seed| Settings {
        seed,
        slots: slots[seed as usize % 4],
        losses_percent: seed % 3 * 10,
        ..Settings::default()
    })
}

macro_rules! program {
    ($name:literal) => {
        include_str!(concat!("../../programs/", $name, ".dc"))
    };
}

/// The n-th number of splitmix64.
fn splitmix(seed: u64, n: u64) -> u64 {
    let z = seed.wrapping_add((n + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

#[test]
fn treesum() {
    assert_eq!(printed(program!("treesum"), &[], Settings::default()), "209725440\n");
    seeds(20).for_each(|settings| assert_eq!(printed(program!("treesum"), &[("N", 64)], settings), "2080\n"));
}

#[test]
fn primes() {
    let small = [("CHUNKS", 10), ("CHUNK", 1000)];
    seeds(4).for_each(|settings| assert_eq!(printed(program!("primes"), &small, settings), "1229\n"));
}

#[test]
fn money_is_conserved() {
    let mut conflicts = 0;
    for settings in seeds(20) {
        let report = run(program!("bank"), &[], settings);
        assert_eq!((String::from_utf8_lossy(&report.output).as_ref(), report.exit_status()), ("64000\n", 0));
        conflicts += report.statistics.conflicts;
    }
    assert!(conflicts > 1000, "the test needs conflicts: {conflicts}");
}

#[test]
fn write_skew() {
    let left = |source: &str| -> Vec<String> { seeds(20).map(|settings| printed(source, &[], settings)).collect() };
    let allowed = left(program!("write-skew"));
    assert!(allowed.iter().any(|sum| sum == "0\n") && allowed.iter().any(|sum| sum == "1\n"), "{allowed:?}");
    let refused = left(&format!("serializable;\n{}", program!("write-skew")));
    assert!(refused.iter().all(|sum| sum == "1\n"), "{refused:?}");
}

#[test]
fn storm() {
    assert_eq!(printed(program!("storm"), &[], Settings::default()), "10240\n");
    seeds(4).for_each(|settings| assert_eq!(printed(program!("storm"), &[("WATCHERS", 600)], settings), "600\n"));
}

/// As gen_kmeans makes them.
fn points(count: usize) -> Vec<[i64; 8]> {
    const SEED: u64 = 0xD15A_0001;
    let mut next = {
        let mut n = 0;
        move || {
            n += 1;
            splitmix(SEED, n - 1)
        }
    };
    let centres: Vec<[i64; 8]> = (0..16).map(|_| std::array::from_fn(|_| 8192 + (next() % 49152) as i64)).collect();
    let mut point = || {
        let centre = centres[(next() % 16) as usize];
        centre.map(|centre| {
            let random = next();
            let z: i64 = (0..4).map(|j| (random >> (16 * j) & 0xffff) as i64 - 32768).sum();
            (centre + z / 8).clamp(0, 65535)
        })
    };
    (0..count).map(|_| point()).collect()
}

fn kmeans(count: usize, rounds: usize) -> String {
    let points = points(count);
    let mut means = points[..16].to_vec();
    for _ in 0..rounds {
        let mut sums = [([0; 8], 0); 16];
        for point in &points {
            let distance = |mean: &[i64; 8]| mean.iter().zip(point).map(|(a, b)| (a - b).pow(2)).sum::<i64>();
            let (sum, count) = &mut sums[(0..16).min_by_key(|k| distance(&means[*k])).expect("there are 16")];
            sum.iter_mut().zip(point).for_each(|(sum, coordinate)| *sum += coordinate);
            *count += 1;
        }
        for (mean, (sum, count)) in means.iter_mut().zip(sums) {
            if count > 0 {
                *mean = sum.map(|sum| sum / count);
            }
        }
    }
    let bytes: Vec<u8> = means.as_flattened().iter().flat_map(|number| number.to_le_bytes()).collect();
    format!("{:016x}\n", fnv(&bytes))
}

#[test]
fn kmeans_as_in_plain_loops() {
    assert_eq!(kmeans(1_000_000, 10), "50bad9aa63f0251f\n", "the loops themselves, at full size");
    let expected = kmeans(400, 4);
    let small = [("PARTS", 4), ("POINTS", 100), ("ROUNDS", 4)];
    seeds(4).for_each(|settings| assert_eq!(printed(program!("kmeans"), &small, settings), expected));
    let bytes: Vec<u8> = points(400).as_flattened().iter().flat_map(|number| number.to_le_bytes()).collect();
    let given = |count: usize| Settings {
        files: vec![File { name: b"points".to_vec(), bytes: bytes[..64 * count].to_vec() }],
        arguments: vec![b"points".to_vec()],
        ..Settings::default()
    };
    assert_eq!(printed(program!("kmeans"), &small, given(400)), expected);
    let short = run(program!("kmeans"), &small, given(399));
    assert!(String::from_utf8_lossy(&short.log).contains("argument 0"), "{short:?}");
}

fn check_word_count(text: &[u8], settings: Settings) {
    let words: Vec<&[u8]> = text.split(|byte| *byte <= b' ').filter(|word| !word.is_empty()).collect();
    let sum = words.iter().fold(0u64, |sum, word| sum.wrapping_add(fnv(word)));
    let distinct = words.iter().collect::<std::collections::BTreeSet<_>>().len();
    let files = vec![File { name: b"text".to_vec(), bytes: text.to_vec() }];
    let settings = Settings { files, arguments: vec![b"text".to_vec()], ..settings };
    let printed = printed(program!("wordcount"), &[("PARTS", 5), ("SLOTS", 1024)], settings);
    assert_eq!(printed, format!("{sum:016x}/{}/{distinct}\n", words.len()), "{} bytes", text.len());
}

#[test]
fn word_count_of_a_text() {
    let vocabulary: Vec<Vec<u8>> = (0..300).map(|i| format!("{:x}", splitmix(1, i) >> (i % 50)).into_bytes()).collect();
    // Some differ in their first bytes only, some in their length only, and their last bytes are the least and the largest of words.
    let ends = [b'z', b'!', 0x7f, 0x80, 0xff];
    let tail = |i: u64| vec![ends[(i / 30 % 5) as usize]; (i % 30) as usize];
    let vocabulary: Vec<Vec<u8>> = vocabulary.into_iter().zip(0..).map(|(word, i)| [word, tail(i)].concat()).collect();
    let blanks: [&[u8]; 5] = [b"\n", b" ", b"\0", b"\r\n", b" \t  \0\x1f       "];
    let mut text = b" ".to_vec();
    for i in 0..3000 {
        text.extend(&vocabulary[(splitmix(2, i) % 300) as usize]);
        text.extend(blanks[(splitmix(3, i) % 5) as usize]);
    }
    text.extend(b"last");
    seeds(3).for_each(|settings| check_word_count(&text, settings));
    // Words up to the end of the text, of all lengths that are read differently.
    (1..40).for_each(|i| check_word_count(&[&b" "[..i % 2], &vec![b'y'; i]].concat(), Settings::default()));
    let missing = run(program!("wordcount"), &[], Settings::default());
    assert!(String::from_utf8_lossy(&missing.log).contains("argument 0"), "{missing:?}");
}

#[test]
fn matrices() {
    let n = 24u64;
    let element = |at: u64| (splitmix(0, at) % 2001) as i64 - 1000;
    let product = |i: u64, j: u64| (0..n).map(|k| element(i * n + k) * element(k * n + j + n * n)).sum::<i64>();
    let places = (0..n * n).map(|at| product(at / n, at % n).wrapping_mul(at as i64 + 1));
    let expected = format!("{}\n", places.fold(0, i64::wrapping_add));
    seeds(4).for_each(|settings| assert_eq!(printed(program!("matmul"), &[("N", 24), ("ROWS", 6)], settings), expected));
}

#[test]
fn sample_sort() {
    let mut keys: Vec<u64> = (0..8 * 512).map(|n| splitmix(0, n)).collect();
    keys.sort_unstable();
    let sum = (1..).zip(&keys).fold(0u64, |sum, (place, key)| sum.wrapping_add(key.wrapping_mul(place)));
    let small = [("PARTS", 8), ("KEYS", 512), ("SAMPLES", 16)];
    seeds(4).for_each(|settings| assert_eq!(printed(program!("sort"), &small, settings), format!("{}\n", sum as i64)));
}
