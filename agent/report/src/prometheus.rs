//! Figures in the text format of Prometheus.
//!
//! Owns the format and the buckets of histograms. Must not know which figures there are.

use hdrhistogram::Histogram;
use std::fmt::Write;

/// Content type of the format.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Upper bounds of the buckets, in nanoseconds: 1, 2 and 5 of each decade from 1 us to 10 s. They never change.
const BOUNDS_NS: [(u64, &str); 22] = [
    (1_000, "1e-06"),
    (2_000, "2e-06"),
    (5_000, "5e-06"),
    (10_000, "1e-05"),
    (20_000, "2e-05"),
    (50_000, "5e-05"),
    (100_000, "0.0001"),
    (200_000, "0.0002"),
    (500_000, "0.0005"),
    (1_000_000, "0.001"),
    (2_000_000, "0.002"),
    (5_000_000, "0.005"),
    (10_000_000, "0.01"),
    (20_000_000, "0.02"),
    (50_000_000, "0.05"),
    (100_000_000, "0.1"),
    (200_000_000, "0.2"),
    (500_000_000, "0.5"),
    (1_000_000_000, "1"),
    (2_000_000_000, "2"),
    (5_000_000_000, "5"),
    (10_000_000_000, "10"),
];

/// A text being written, family by family.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
}

impl Exposition {
    /// Writes one number without labels.
    pub fn single(&mut self, name: &str, kind: &str, help: &str, value: f64) {
        self.begin(name, kind, help);
        self.put(format_args!("{name} {value}\n"));
    }

    /// Writes a number for each value of one label.
    pub fn labelled<'a>(&mut self, family: [&str; 4], values: impl Iterator<Item = (&'a str, u64)>) {
        let [name, kind, help, label] = family;
        self.begin(name, kind, help);
        for (of, value) in values {
            self.put(format_args!("{name}{{{label}=\"{}\"}} {value}\n", escape(of)));
        }
    }

    /// Writes a constant 1 with labels that say what is measured.
    pub fn about(&mut self, name: &str, help: &str, labels: &[(&str, &str)]) {
        self.begin(name, "gauge", help);
        let labels: Vec<String> = labels.iter().map(|(label, value)| format!("{label}=\"{}\"", escape(value))).collect();
        self.put(format_args!("{name}{{{}}} 1\n", labels.join(",")));
    }

    /// Writes histograms of nanoseconds as seconds in buckets, one for each value of a label.
    pub fn histograms<'a>(
        &mut self,
        [name, help, label]: [&str; 3],
        values: impl Iterator<Item = (&'a str, &'a Histogram<u64>)>,
    ) {
        self.begin(name, "histogram", help);
        for (of, histogram) in values {
            let of = escape(of);
            let mut steps = histogram.iter_recorded().peekable();
            let (mut count, mut sum_ns) = (0_u64, 0_f64);
            for (bound, text) in BOUNDS_NS {
                // A bucket of ours that holds the bound counts as below it, since the samples at the bound are.
                while let Some(step) = steps.next_if(|step| histogram.lowest_equivalent(step.value_iterated_to()) <= bound) {
                    count += step.count_at_value();
                    sum_ns += histogram.median_equivalent(step.value_iterated_to()) as f64 * step.count_at_value() as f64;
                }
                self.put(format_args!("{name}_bucket{{{label}=\"{of}\",le=\"{text}\"}} {count}\n"));
            }
            for step in steps {
                count += step.count_at_value();
                sum_ns += histogram.median_equivalent(step.value_iterated_to()) as f64 * step.count_at_value() as f64;
            }
            self.put(format_args!("{name}_bucket{{{label}=\"{of}\",le=\"+Inf\"}} {count}\n"));
            self.put(format_args!("{name}_sum{{{label}=\"{of}\"}} {}\n{name}_count{{{label}=\"{of}\"}} {count}\n", sum_ns / 1e9));
        }
    }

    /// The whole text.
    #[must_use]
    pub fn finish(self) -> String {
        self.text
    }

    fn begin(&mut self, name: &str, kind: &str, help: &str) {
        self.put(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    fn put(&mut self, part: std::fmt::Arguments<'_>) {
        self.text.write_fmt(part).expect("writing to a String cannot fail");
    }
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::histogram;

    #[test]
    fn families_have_their_form() {
        let mut text = Exposition::default();
        text.single("dvm_jobs", "gauge", "Jobs.", 2.0);
        text.labelled(["dvm_peer_up", "gauge", "Peers.", "peer"], [("a\"b", 1)].into_iter());
        text.about("dvm_agent_info", "About.", &[("node", "a"), ("version", "1")]);
        let expected = "# HELP dvm_jobs Jobs.\n# TYPE dvm_jobs gauge\ndvm_jobs 2\n\
            # HELP dvm_peer_up Peers.\n# TYPE dvm_peer_up gauge\ndvm_peer_up{peer=\"a\\\"b\"} 1\n\
            # HELP dvm_agent_info About.\n# TYPE dvm_agent_info gauge\ndvm_agent_info{node=\"a\",version=\"1\"} 1\n";
        assert_eq!(text.finish(), expected);
    }

    #[test]
    fn buckets_count_every_sample_once() {
        let mut text = Exposition::default();
        let samples = histogram(&[900, 1_000, 1_500, 80_000, 59_000_000_000]);
        text.histograms(["t_seconds", "Times.", "span"], [("read", &samples)].into_iter());
        let text = text.finish();
        let at = |line: &str| {
            let found = text.lines().find_map(|found| found.strip_prefix(line)).unwrap_or_else(|| panic!("{line} in {text}"));
            found.trim().parse::<f64>().unwrap()
        };
        let counts = ["1e-06", "2e-06", "5e-05", "0.0001", "10", "+Inf"];
        let counts = counts.map(|le| at(&format!("t_seconds_bucket{{span=\"read\",le=\"{le}\"}}")));
        assert_eq!(counts, [2.0, 3.0, 3.0, 4.0, 4.0, 5.0]);
        assert_eq!(at("t_seconds_count{span=\"read\"}"), 5.0);
        assert!((at("t_seconds_sum{span=\"read\"}") - 59.0).abs() < 0.6);
        assert!(BOUNDS_NS.iter().all(|(ns, text)| (text.parse::<f64>().unwrap() * 1e9).round() as u64 == *ns));
    }
}
