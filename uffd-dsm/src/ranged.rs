//! How a range of pages is worked off by ioctls that stop early, span mappings or meet a page that is there.
//!
//! Owns the position and the size of the next part. Does no input or output itself: the caller makes the call for
//! [`Walk::part`] and reports its result.

use dsm_wire::{PageNumber, PageRange};
use nix::errno::Errno;

use crate::error::PagerError;
use crate::limits::{BUSY_RETRIES_MAX, IOCTL_PAGES_MAX};

/// One range being worked off.
///
/// ```text
///            done n          all done
///   part ------------> part ----------> None
///    | ENOENT, > 1 page: half the part   (a fill must lie inside one mapping; mprotect splits them)
///    | ENOENT, 1 page:   Unmapped, skip
///    | EEXIST:           Present, skip
///    | EAGAIN:           again, at most BUSY_RETRIES_MAX times, then Busy
/// ```
#[derive(Debug)]
pub(crate) struct Walk {
    operation: &'static str,
    range: PageRange,
    done: u64,
    part_max: u64,
    retries: u32,
}

/// What the caller must do before the next part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing.
    Go,
    /// The page has bytes already: settle it; the walk goes on behind it.
    Present(PageNumber),
    /// The page is not watched: settle it; the walk goes on behind it.
    Unmapped(PageNumber),
}

impl Walk {
    pub(crate) const fn new(operation: &'static str, range: PageRange) -> Self {
        Self { operation, range, done: 0, part_max: IOCTL_PAGES_MAX, retries: 0 }
    }

    /// The pages to try next; `None` when the range is done.
    pub(crate) fn part(&self) -> Option<PageRange> {
        let count = self.part_max.min(self.range.count - self.done);
        (count > 0).then(|| PageRange::new(self.page(), count))
    }

    /// Takes the result of the call for [`Walk::part`].
    pub(crate) fn advance(&mut self, result: Result<u64, Errno>) -> Result<Step, PagerError> {
        let part_count = self.part_max.min(self.range.count - self.done);
        let page = self.page();
        match result {
            Ok(count) => {
                assert!(count > 0 && count <= part_count, "the kernel did {count} of {part_count} pages");
                self.pass(count);
                if count == part_count {
                    self.part_max = (self.part_max * 2).min(IOCTL_PAGES_MAX);
                }
                Ok(Step::Go)
            }
            Err(Errno::ENOENT) if part_count > 1 => {
                self.part_max = part_count / 2;
                Ok(Step::Go)
            }
            Err(Errno::ENOENT) => {
                self.pass(1);
                Ok(Step::Unmapped(page))
            }
            Err(Errno::EEXIST) => {
                self.pass(1);
                Ok(Step::Present(page))
            }
            Err(Errno::EAGAIN | Errno::EINTR) if self.retries < BUSY_RETRIES_MAX => {
                self.retries += 1;
                Ok(Step::Go)
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Err(PagerError::Busy { page, done: self.done }),
            Err(errno) => Err(PagerError::of(self.operation, page, errno)),
        }
    }

    const fn page(&self) -> PageNumber {
        self.range.first.offset(self.done)
    }

    const fn pass(&mut self, count: u64) {
        self.done += count;
        self.retries = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kernel with mappings split at `splits`, pages `present`, and `unmapped` ones.
    struct Kernel {
        splits: Vec<u64>,
        present: Vec<u64>,
        unmapped: Vec<u64>,
        calls: u32,
    }

    impl Kernel {
        fn fill(&mut self, part: PageRange) -> Result<u64, Errno> {
            self.calls += 1;
            let (first, end) = (part.first.0, part.end().0);
            let is_split = self.splits.iter().any(|split| first < *split && *split < end);
            if is_split || self.unmapped.iter().any(|page| part.contains(PageNumber(*page))) {
                return Err(Errno::ENOENT);
            }
            match self.present.iter().find(|page| part.contains(PageNumber(**page))) {
                Some(page) if *page == first => Err(Errno::EEXIST),
                Some(page) => Ok(page - first),
                None => Ok(part.count),
            }
        }
    }

    #[track_caller]
    fn check(range: (u64, u64), splits: &[u64], present: &[u64], unmapped: &[u64], calls_max: u32) {
        let mut kernel = Kernel { splits: splits.into(), present: present.into(), unmapped: unmapped.into(), calls: 0 };
        let mut walk = Walk::new("fill", PageRange::new(PageNumber(range.0), range.1));
        let mut seen = (Vec::new(), Vec::new());
        let mut next = range.0;
        while let Some(part) = walk.part() {
            assert_eq!(part.first.0, next, "no page twice, none left out");
            let result = kernel.fill(part);
            next += result.unwrap_or(0);
            match walk.advance(result).unwrap() {
                Step::Go => {}
                Step::Present(page) => {
                    seen.0.push(page.0);
                    next += 1;
                }
                Step::Unmapped(page) => {
                    seen.1.push(page.0);
                    next += 1;
                }
            }
        }
        assert_eq!(next, range.0 + range.1);
        assert_eq!(seen, (present.to_vec(), unmapped.to_vec()));
        assert!(kernel.calls <= calls_max, "{} calls", kernel.calls);
    }

    #[test]
    fn ranges() {
        check((100, 1), &[], &[], &[], 1);
        check((100, 512), &[], &[], &[], 1);
        check((100, 1500), &[], &[], &[], 3);
        check((100, 16), &[], &[100, 107, 115], &[], 6);
        check((100, 512), &[101], &[], &[], 20);
        check((100, 512), &[350], &[], &[], 40);
        check((100, 64), &(100..164).collect::<Vec<_>>(), &[], &[], 140);
        check((100, 8), &[], &[], &[103], 12);
        check((100, 8), &[104], &[105], &[100, 107], 20);
    }

    #[test]
    fn busy_is_bounded_and_says_what_is_done() {
        let mut walk = Walk::new("fill", PageRange::new(PageNumber(100), 8));
        assert_eq!(walk.advance(Ok(3)).unwrap(), Step::Go);
        for _ in 0..BUSY_RETRIES_MAX {
            assert_eq!(walk.advance(Err(Errno::EAGAIN)).unwrap(), Step::Go);
        }
        let busy = walk.advance(Err(Errno::EAGAIN));
        assert!(matches!(busy, Err(PagerError::Busy { page: PageNumber(103), done: 3 })), "{busy:?}");
    }

    #[test]
    fn a_dead_process_has_its_own_error() {
        let mut walk = Walk::new("fill", PageRange::new(PageNumber(100), 8));
        assert!(matches!(walk.advance(Err(Errno::ESRCH)), Err(PagerError::ViewGone)));
    }
}
