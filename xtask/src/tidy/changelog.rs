//! The form of CHANGELOG.md (Keep a Changelog).
//!
//! Owns which headings may stand where. Must not judge what they say.

const KINDS: [&str; 6] = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"];

/// All that is wrong with it.
#[must_use]
pub fn check(text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if !text.starts_with("# Changelog\n") {
        faults.push("CHANGELOG.md: does not start with `# Changelog`".into());
    }
    let mut versions = 0;
    let mut in_kind = false;
    for (index, line) in text.lines().enumerate() {
        let at = index + 1;
        if let Some(version) = line.strip_prefix("## ") {
            in_kind = false;
            if !(is_release(version) || version == "[Unreleased]" && versions == 0) {
                faults.push(format!("CHANGELOG.md:{at}: `{version}`: write [Unreleased] (first) or [1.2.3] - 2026-01-31"));
            }
            versions += 1;
        } else if let Some(kind) = line.strip_prefix("### ") {
            in_kind = true;
            if versions == 0 || !KINDS.contains(&kind) {
                faults.push(format!("CHANGELOG.md:{at}: `{kind}`: write one of {} below a version", KINDS.join(", ")));
            }
        } else if line.starts_with("- ") && !in_kind {
            faults.push(format!("CHANGELOG.md:{at}: an entry outside of Added, Changed, ..."));
        }
    }
    if versions == 0 {
        faults.push("CHANGELOG.md: no version".into());
    }
    faults
}

/// `[1.2.3] - 2026-01-31`
fn is_release(text: &str) -> bool {
    let Some((version, date)) = text.strip_prefix('[').and_then(|text| text.split_once("] - ")) else { return false };
    let is_numbers = |text: &str, separator: char| {
        text.split(separator).count() == 3
            && text.split(separator).all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
    };
    is_numbers(version, '.') && is_numbers(date, '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn form_is_checked() {
        let good = "# Changelog\n\n## [Unreleased]\n### Added\n- this\n## [0.1.0] - 2026-01-31\n### Fixed\n- that\n";
        assert_eq!(check(good), Vec::<String>::new());
        for (bad, count) in [
            ("", 2),
            ("# Changelog\n", 1),
            ("# Changelog\n## 0.1\n", 1),
            ("# Changelog\n## [0.1.0] - 2026-01-31\n## [Unreleased]\n", 1),
            ("# Changelog\n## [Unreleased]\n### News\n", 1),
            ("# Changelog\n## [Unreleased]\n- loose\n", 1),
        ] {
            assert_eq!(check(bad).len(), count, "{bad:?}");
        }
    }
}
