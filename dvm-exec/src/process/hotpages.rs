//! `--hot-pages`: the pages that travel most, what they are, who wants them, and what would help.
//!
//! Owns the choice and the text. Must not count: the agents do.

use super::agent::Agent;
use super::husk::Root;
use super::sharing::{self, User};
use super::sites::Sites;
use super::symbols::SymbolTable;
use super::vma::PAGE_BYTES;
use crate::sys::user;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::ops::Range;
use std::path::Path;

const LINE_BYTES: u64 = 64;
/// Users named per page.
const USERS_SHOWN_MAX: usize = 4;
/// Variables named per page.
const SYMBOLS_SHOWN_MAX: usize = 3;
/// glibc maps the arenas of further threads at multiples of this.
const ARENA_BYTES: u64 = 64 << 20;
/// Where the first heap of an arena names it, and how far from its own start that may be.
const ARENA_POINTER: Range<u64> = 0..0x100;

/// What a page holds.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    /// Variables of a file.
    Variables { file: String, names: Vec<String> },
    /// brk, which the first malloc arena uses.
    Heap,
    /// A malloc arena of its own.
    Arena(u64),
    /// Stack of a thread; the first has none named.
    Stack(Option<i32>),
    /// Other anonymous memory.
    Anonymous { bytes: u64, maker: Option<i32> },
    /// Nothing any more.
    Unmapped,
}

/// How a page's users disturb each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quarrel {
    /// They want different lines.
    FalseSharing,
    /// They want the same lines.
    TrueSharing,
    /// One writes what others read.
    OneWriter,
}

/// One line of `/proc/self/maps`, as far as it matters.
struct Area<'a> {
    range: Range<u64>,
    name: &'a str,
}

/// The text about the `most` pages that were fetched most.
pub fn report(root: &Root, agent: &Agent, most: usize) -> String {
    let statistics = match agent.statistics() {
        Ok(statistics) => statistics,
        Err(error) => return format!("-- dvm-exec: no hot pages: {error}\n"),
    };
    let mut pages: Vec<(u64, Vec<User>)> = sharing::join(root, &statistics).into_iter().collect();
    pages.sort_by_key(|(_, users)| std::cmp::Reverse(total(users)));
    pages.retain(|(_, users)| !users.is_empty());
    let mut text = format!("-- dvm-exec: pages that travelled most, {} of {} counted\n", most.min(pages.len()), pages.len());
    let maps = root.space.map().maps_text();
    let areas: Vec<Area<'_>> = maps.lines().filter_map(parse_area).collect();
    let mut files = Files::default();
    for (page, mut users) in pages.into_iter().take(most) {
        users.sort_by_key(|user| std::cmp::Reverse(user.used.count()));
        let address = page * PAGE_BYTES;
        let lines = users.iter().fold(0, |lines, user| lines | user.used.lines);
        let word = |address| user::read_u64(address).ok();
        let kind = kind_of((address, lines), &areas, &root.sites, &mut files, word);
        let quarrel = quarrel(&users);
        // Writing to a String does not fail.
        writeln!(text, "page {address:#x}: fetched {} times; {}", total(&users), describe(&kind)).unwrap_or(());
        for user in users.iter().take(USERS_SHOWN_MAX) {
            writeln!(text, "     {}", describe_user(root, user)).unwrap_or(());
        }
        writeln!(text, "     {}: {}", say_quarrel(quarrel), advice(&kind, quarrel)).unwrap_or(());
    }
    text
}

fn total(users: &[User]) -> u64 {
    users.iter().map(|user| user.used.count()).sum()
}

fn parse_area(line: &str) -> Option<Area<'_>> {
    let (range, rest) = line.split_once(' ')?;
    let (start, end) = range.split_once('-')?;
    let parse = |text| u64::from_str_radix(text, 16).ok();
    let mut name = rest;
    // Rights, offset, device and inode.
    for _ in 0..4 {
        name = name.split_once(' ')?.1;
    }
    Some(Area { range: parse(start)?..parse(end)?, name: name.trim() })
}

/// Symbol tables read so far, by path.
#[derive(Default)]
struct Files(BTreeMap<String, Option<SymbolTable>>);

impl Files {
    fn table(&mut self, path: &str) -> Option<&SymbolTable> {
        let read = || SymbolTable::of_file(Path::new(path));
        self.0.entry(path.to_owned()).or_insert_with(read).as_ref()
    }
}

/// What is at the wanted lines of the page at an address; `word` reads the program's memory.
fn kind_of(
    (address, lines): (u64, u64),
    areas: &[Area<'_>],
    sites: &Sites,
    files: &mut Files,
    word: impl Fn(u64) -> Option<u64>,
) -> Kind {
    if let Some(kind) = variables(address, lines, areas, files) {
        return kind;
    }
    let Some(area) = areas.iter().find(|area| area.range.contains(&address)) else { return Kind::Unmapped };
    match area.name {
        "[heap]" => return Kind::Heap,
        "[stack]" => return Kind::Stack(None),
        _ => {}
    }
    let mapping = sites.mapping(address);
    if let Some(tid) = mapping.and_then(|mapping| sites.thread_with_stack(&mapping)) {
        return Kind::Stack(Some(tid));
    }
    let heap = address & !(ARENA_BYTES - 1);
    // The first word of such a heap points to its arena, which lies just behind it or in an earlier heap.
    let is_mapped = areas.iter().any(|area| area.range.contains(&heap));
    let arena = Some(heap).filter(|_| is_mapped).and_then(word).filter(|arena| *arena != 0);
    if let Some(arena) = arena.filter(|arena| ARENA_POINTER.contains(&(arena % ARENA_BYTES))) {
        return Kind::Arena(arena);
    }
    let range = mapping.map_or(area.range.clone(), |mapping| mapping.start..mapping.start + mapping.bytes);
    Kind::Anonymous { bytes: range.end - range.start, maker: mapping.map(|mapping| mapping.tid) }
}

/// The variables of the file whose segments cover `address`, at the lines wanted.
fn variables(address: u64, lines: u64, areas: &[Area<'_>], files: &mut Files) -> Option<Kind> {
    let mut bases: BTreeMap<&str, u64> = BTreeMap::new();
    for area in areas.iter().filter(|area| area.name.starts_with('/') && area.range.start <= address) {
        let base = bases.entry(area.name).or_insert(area.range.start);
        *base = (*base).min(area.range.start);
    }
    let (path, base) = bases.into_iter().max_by_key(|(_, base)| *base)?;
    let table = files.table(path)?;
    let page = address.checked_sub(base)?.checked_add(table.span.start)?;
    if page >= table.span.end {
        return None;
    }
    let wanted = |start: u64, bytes: u64| {
        (0..64).any(|line| {
            let from = page + line * LINE_BYTES;
            lines & (1 << line) != 0 && start < from + LINE_BYTES && start + bytes > from
        })
    };
    let mut names = Vec::new();
    for symbol in table.between(page..page + PAGE_BYTES).filter(|symbol| wanted(symbol.address, symbol.bytes)) {
        names.push(match page.checked_sub(symbol.address) {
            None | Some(0) => symbol.name.clone(),
            Some(offset) => format!("{}+{offset:#x}", symbol.name),
        });
    }
    Some(Kind::Variables { file: path.rsplit('/').next().unwrap_or(path).to_owned(), names })
}

fn describe(kind: &Kind) -> String {
    match kind {
        Kind::Variables { file, names } if names.is_empty() => format!("data of {file}, no symbol there"),
        Kind::Variables { file, names } => {
            let shown = names.iter().take(SYMBOLS_SHOWN_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
            let more = names.len().saturating_sub(SYMBOLS_SHOWN_MAX);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            format!("{shown}{more} in {file}")
        }
        Kind::Heap => "heap (brk: malloc's main arena)".to_owned(),
        Kind::Arena(at) => format!("heap (malloc's thread arena at {at:#x})"),
        Kind::Stack(Some(tid)) => format!("stack of thread {tid}"),
        Kind::Stack(None) => "stack of the first thread".to_owned(),
        Kind::Anonymous { bytes, maker: Some(tid) } => format!("anonymous mapping of {bytes} bytes made by thread {tid}"),
        Kind::Anonymous { bytes, maker: None } => format!("anonymous memory of {bytes} bytes"),
        Kind::Unmapped => "no longer mapped".to_owned(),
    }
}

fn describe_user(root: &Root, user: &User) -> String {
    let host = root.hosts.get(user.host).map_or("?", |host| host.name.as_str());
    let lines: Vec<String> =
        (0..64).filter(|line| user.used.lines & (1 << line) != 0).map(|line: u32| line.to_string()).collect();
    let lines = if lines.len() > 8 { format!("{} lines", lines.len()) } else { format!("line {}", lines.join(",")) };
    let who = match user.tid {
        0 => "an ended thread".to_owned(),
        tid if user.host == 0 && root.sites.host_of(tid) != 0 => format!("calls of thread {tid}"),
        tid => format!("thread {tid}"),
    };
    format!("to {host} for {who}: {} reads, {} writes, {lines}", user.used.reads, user.used.writes)
}

/// Judges by the two users that fetched most on different hosts.
fn quarrel(users: &[User]) -> Quarrel {
    let Some(first) = users.first() else { return Quarrel::TrueSharing };
    let Some(second) = users.iter().find(|user| user.host != first.host) else { return Quarrel::OneWriter };
    let few = |user: &User| u64::from(user.used.writes) * 10 <= user.used.count();
    if first.used.lines & second.used.lines == 0 {
        Quarrel::FalseSharing
    } else if few(first) || few(second) {
        Quarrel::OneWriter
    } else {
        Quarrel::TrueSharing
    }
}

fn say_quarrel(quarrel: Quarrel) -> &'static str {
    match quarrel {
        Quarrel::FalseSharing => "false sharing (different lines of one page)",
        Quarrel::TrueSharing => "true sharing (the same lines)",
        Quarrel::OneWriter => "written by one host, read by others",
    }
}

fn advice(kind: &Kind, quarrel: Quarrel) -> &'static str {
    match (kind, quarrel) {
        (Kind::Variables { .. }, Quarrel::FalseSharing) => {
            "put what different threads write on pages of their own, alignas(4096)"
        }
        (Kind::Heap | Kind::Arena(_), Quarrel::FalseSharing) => {
            "--page-allocator gives each thread's blocks pages of their own; or MALLOC_ARENA_MAX as many as threads"
        }
        (Kind::Anonymous { .. }, Quarrel::FalseSharing) => "divide the block between threads at multiples of 4096 bytes",
        (Kind::Stack(_), Quarrel::FalseSharing | Quarrel::TrueSharing) => "give threads copies instead of pointers to a stack",
        (Kind::Stack(_), Quarrel::OneWriter) => "have threads read it once into their own memory",
        (Kind::Variables { .. } | Kind::Heap | Kind::Arena(_) | Kind::Anonymous { .. }, Quarrel::OneWriter) => {
            "separate what is written often from what is read often, or write less often"
        }
        (Kind::Variables { .. } | Kind::Heap | Kind::Arena(_) | Kind::Anonymous { .. }, Quarrel::TrueSharing) => {
            "--place auto puts threads that share on one host; or share less often: partial results per thread"
        }
        (Kind::Unmapped, _) => "nothing to advise",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dvm_api::local::ThreadUse;

    fn user(host: usize, reads: u32, writes: u32, lines: u64) -> User {
        User { host, tid: 1, used: ThreadUse { thread: 1, reads, writes, lines } }
    }

    #[test]
    fn quarrels_are_told_apart() {
        let check = |users: &[User], expected| assert_eq!(quarrel(users), expected, "{users:?}");
        check(&[user(0, 0, 9, 1), user(1, 0, 9, 2)], Quarrel::FalseSharing);
        check(&[user(0, 0, 9, 3), user(1, 0, 9, 2)], Quarrel::TrueSharing);
        check(&[user(0, 0, 9, 3), user(0, 0, 8, 4), user(1, 9, 0, 2)], Quarrel::OneWriter);
        check(&[user(1, 9, 0, 3)], Quarrel::OneWriter);
    }

    #[test]
    fn areas_and_what_they_are() {
        let maps = "08000000-08003000 r-xp 00000000 fe:01 12 /usr/bin/a b\n10000000-10005000 rw-p 00000000 00:00 0 \n\
                    20000000-20001000 rw-p 00000000 00:00 0                          [heap]\n";
        let areas: Vec<Area<'_>> = maps.lines().filter_map(parse_area).collect();
        let names: Vec<&str> = areas.iter().map(|area| area.name).collect();
        assert_eq!(names, ["/usr/bin/a b", "", "[heap]"]);
        let sites = Sites::new(true);
        let mut files = Files::default();
        let mut kind = |address| kind_of((address, 1), &areas, &sites, &mut files, |_| None);
        assert_eq!(kind(0x2000_0000), Kind::Heap);
        assert_eq!(kind(0x3000_0000), Kind::Unmapped);
        assert_eq!(kind(0x1000_1000), Kind::Anonymous { bytes: 0x5000, maker: None });
    }

    #[test]
    fn variables_are_named() {
        let path = std::env::current_exe().unwrap();
        let path = path.to_str().unwrap();
        let mut files = Files::default();
        let table = files.table(path).unwrap().clone();
        let base = 0x5555_0000_0000_u64;
        let areas = [Area { range: base..base + 0x1000, name: path }];
        let symbol =
            table.between(table.span.clone()).find(|symbol| symbol.name.contains("DVM_SYMBOL_OF_A_TEST")).unwrap().clone();
        let address = base + symbol.address - table.span.start;
        let lines = 1 << (address % PAGE_BYTES / LINE_BYTES);
        let found = variables(address & !(PAGE_BYTES - 1), lines, &areas, &mut files);
        let Some(Kind::Variables { names, .. }) = found else { panic!("{found:?}") };
        assert!(names.iter().any(|name| name.contains("DVM_SYMBOL_OF_A_TEST")), "{names:?}");
    }
}
