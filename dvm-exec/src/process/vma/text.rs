//! `/proc/self/maps` of the program.
//!
//! Owns the format. Must not know how areas come about.

use super::super::vdso;
use super::{Area, AreaKind, Protection};
use std::fmt::Write;

/// Column at which the kernel puts names.
const NAME_COLUMN: usize = 73;

pub(super) fn maps<'a>(areas: impl Iterator<Item = &'a Area>) -> String {
    let mut text = String::new();
    for area in areas {
        push_line(&mut text, area);
    }
    let vdso = Area {
        range: vdso::IMAGE_ADDRESS..vdso::IMAGE_ADDRESS + vdso::IMAGE_BYTES,
        protection: Protection::READ.union(Protection::EXECUTE),
        kind: AreaKind::Anonymous { shared: false },
    };
    push_line(&mut text, &vdso);
    text.pop();
    push_name(&mut text, "[vdso]");
    text.push('\n');
    text
}

fn push_line(text: &mut String, area: &Area) {
    let right = |right, letter| if area.protection.contains(right) { letter } else { '-' };
    let (offset, device, inode, shared, name) = match &area.kind {
        AreaKind::File { file, offset, shared, .. } => (*offset, file.device, file.inode, *shared, Some(&*file.name)),
        AreaKind::Anonymous { shared } => (0, (0, 0), 0, *shared, None),
        AreaKind::Stack => (0, (0, 0), 0, false, Some("[stack]")),
        AreaKind::Heap => (0, (0, 0), 0, false, Some("[heap]")),
    };
    let line = format!(
        "{:08x}-{:08x} {}{}{}{} {:08x} {:02x}:{:02x} {} ",
        area.range.start,
        area.range.end,
        right(Protection::READ, 'r'),
        right(Protection::WRITE, 'w'),
        right(Protection::EXECUTE, 'x'),
        if shared { 's' } else { 'p' },
        offset,
        device.0,
        device.1,
        inode
    );
    text.push_str(&line);
    if let Some(name) = name {
        push_name(text, name);
    }
    text.push('\n');
}

fn push_name(text: &mut String, name: &str) {
    let column = text.len() - text.rfind('\n').map_or(0, |at| at + 1);
    let width = NAME_COLUMN.saturating_sub(column) + name.len();
    // A newline in a name would make two lines of one; the kernel writes it so, too.
    write!(text, "{:>width$}", name.replace('\n', "\\012")).expect("writing to a String does not fail");
}
