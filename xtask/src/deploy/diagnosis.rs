//! What `dvm-agent doctor` says of a host.
//!
//! Owns reading it. Must not know the checks.

use serde::Deserialize;

#[derive(Deserialize)]
struct Report {
    checks: Vec<Check>,
}

#[derive(Deserialize)]
struct Check {
    name: String,
    ok: bool,
    required: bool,
    found: String,
    fix: String,
}

/// Everything required that a host lacks, with the fix; none if it is fit.
#[must_use]
pub fn lacks(said: &str) -> Vec<String> {
    let code = said.lines().last().and_then(|line| line.strip_prefix("exit ")).unwrap_or("unknown");
    let report = said.lines().find(|line| line.starts_with('{')).and_then(|line| serde_json::from_str::<Report>(line).ok());
    let missing = report.iter().flat_map(|report| &report.checks).filter(|check| check.required && !check.ok);
    let mut lacks: Vec<String> = missing.map(|check| format!("doctor: {}: {}; {}", check.name, check.found, check.fix)).collect();
    if lacks.is_empty() && code != "0" {
        let words: Vec<&str> = said.lines().filter(|line| !line.starts_with(['{']) && !line.starts_with("exit ")).collect();
        lacks.push(format!("doctor ended with exit code {code}: {}", words.join("; ")));
    }
    lacks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_required_makes_unfit() {
        let check = |required, ok| {
            format!(
                "{{\"healthy\":false,\"checks\":[{{\"name\":\"memfd\",\"ok\":{ok},\"required\":{required},\"found\":\"no\",\"fix\":\"do\"}}]}}\n"
            )
        };
        assert_eq!(lacks(&(check(false, false) + "exit 0\n")), Vec::<String>::new());
        assert_eq!(lacks(&(check(true, false) + "dvm-agent: something is missing\nexit 22\n")), ["doctor: memfd: no; do"]);
        assert_eq!(
            lacks("dvm-agent: key file /x: bad\nexit 12\n"),
            ["doctor ended with exit code 12: dvm-agent: key file /x: bad"]
        );
        assert_eq!(lacks("").len(), 1);
    }
}
