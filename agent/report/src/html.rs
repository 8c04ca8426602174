//! A report as one HTML page that needs nothing else: no script, no network, light and dark.
//!
//! Owns the page's parts and their order. Must not know how curves and bars are drawn.

use crate::merge::MergeError;
use crate::report::{Report, STAGES, Summary};
use crate::svg::{self, Bar, Curve, escape};
use crate::table::ratio;
use crate::units::{count, duration};
use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::fmt::Write;

const STYLE: &str = include_str!("style.css");
/// What the first chart shows, in the order of its colours.
const FAULTS: [(&str, &str); 3] =
    [("fault_remote_read_ns", "remote read"), ("fault_remote_write_ns", "remote write"), ("fault_local_ns", "local")];
/// Most hosts of the matrix; of more, those that fetch most.
const MATRIX_MAX: usize = 64;
/// Change of a time below which it is not marked.
const NOTABLE: f64 = 0.05;

type Merged = BTreeMap<String, Histogram<u64>>;

/// `report` as a page; beside `before` if there is one.
///
/// # Errors
/// When the hosts of one of them cannot be merged.
pub fn write(report: &Report, before: Option<&Report>) -> Result<String, (String, MergeError)> {
    let merged = report.merged()?;
    let earlier = before.map(Report::merged).transpose()?;
    let earlier = earlier.as_ref();
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>{0}: latency</title>\n<style>\n{STYLE}</style></head>\n<body><main>\n<h1>{0}</h1>\n<p>{1}</p>\n",
        escape(&report.cluster),
        escape(&about(report, before))
    );
    for missing in &report.missing {
        put(
            &mut page,
            format_args!("<p class=\"worse\">missing: {}</p>\n", escape(&format!("{}: {}", missing.name, missing.reason))),
        );
    }
    curves(&mut page, &merged, earlier);
    stages(&mut page, &merged, earlier);
    matrix(&mut page, report);
    pages(&mut page, report);
    all(&mut page, &merged, earlier);
    Ok(page + "</main></body></html>\n")
}

fn about(report: &Report, before: Option<&Report>) -> String {
    let hosts: Vec<&str> = report.hosts.iter().map(|host| host.name.as_str()).collect();
    let time = |report: &Report| match report.interval_ms {
        Some(length) => format!("{:.1} s until {}", length as f64 / 1000.0, utc(report.taken_unix_ms)),
        None => format!("since the agents started, until {}", utc(report.taken_unix_ms)),
    };
    let compared = before.map(|before| format!("; compared with {}", time(before))).unwrap_or_default();
    format!("{} hosts ({}), {}{compared}", hosts.len(), hosts.join(", "), time(report))
}

fn curves(page: &mut String, merged: &Merged, earlier: Option<&Merged>) {
    let mut curves = Vec::new();
    let mut legend = String::new();
    for (colour, (name, label)) in FAULTS.into_iter().enumerate() {
        let sides = [(earlier.and_then(|earlier| earlier.get(name)), true), (merged.get(name), false)];
        let own = sides
            .into_iter()
            .filter_map(|(histogram, is_before)| Some(Curve { label, colour, is_before, histogram: histogram? }));
        let known = curves.len();
        curves.extend(own);
        if curves.len() > known {
            put(&mut legend, format_args!("<span><i class=\"c{colour}\"></i>{label}</span>"));
        }
    }
    let dashed = if earlier.is_some() { "; before, dashed" } else { "" };
    section(page, "Faults", &format!("How long threads waited for a page, all hosts together{dashed}."));
    put(
        page,
        format_args!(
            "<div class=\"legend\">{legend}</div>\n{}</section>\n",
            svg::percentiles("latency of faults by percentile", &curves)
        ),
    );
}

fn stages(page: &mut String, merged: &Merged, earlier: Option<&Merged>) {
    let known: Vec<&str> = STAGES.into_iter().filter(|name| merged.contains_key(*name)).collect();
    section(page, "Stages of a remote fault", "Where that time goes, in the order of the stages.");
    if known.is_empty() {
        *page += "<p>No page came from another host.</p></section>\n";
        return;
    }
    for (title, quantile) in [("p50", 0.5), ("p99", 0.99)] {
        let bar = |name: &&'static str| Bar {
            label: name.trim_start_matches("stage_").trim_end_matches("_ns"),
            value_ns: merged.get(*name).map_or(0, |histogram| histogram.value_at_quantile(quantile)),
            before_ns: earlier.and_then(|earlier| earlier.get(*name)).map(|histogram| histogram.value_at_quantile(quantile)),
        };
        let bars: Vec<Bar<'_>> = known.iter().map(bar).collect();
        put(page, format_args!("<h3>{title}</h3>\n{}", svg::bars(&format!("{title} of each stage"), &bars)));
    }
    *page += "</section>\n";
}

fn matrix(page: &mut String, report: &Report) {
    let mut names = report.matrix_names();
    let number = |from: &str, to: &str| {
        report.hosts.iter().find(|host| host.name == from).and_then(|host| host.sources.get(to)).copied().unwrap_or(0)
    };
    let mut note = "Answers to requests for pages: each row fetched from the hosts of the columns.".to_owned();
    if names.len() > MATRIX_MAX {
        names.sort_by_key(|from| {
            std::cmp::Reverse(
                report.hosts.iter().find(|host| host.name == *from).map_or(0, |host| host.sources.values().sum::<u64>()),
            )
        });
        put(&mut note, format_args!(" The {MATRIX_MAX} that fetched most, of {}.", names.len()));
        names.truncate(MATRIX_MAX);
    }
    let cells: Vec<Vec<u64>> = names.iter().map(|from| names.iter().map(|to| number(from, to)).collect()).collect();
    section(page, "Who fetched from whom", &note);
    put(page, format_args!("{}</section>\n", svg::matrix("fetches from host to host", &names, &cells)));
}

fn pages(page: &mut String, report: &Report) {
    let hot = report.hot_pages();
    section(page, "Hottest pages", "Fetched most from other hosts, of jobs run with --hot-pages or --place auto.");
    if hot.is_empty() {
        *page += "<p>None were counted.</p></section>\n";
        return;
    }
    *page += "<div class=\"scroll\"><table><tr><th>page</th><th>program</th><th>space</th><th>reads</th><th>writes</th><th>lines</th><th>hosts</th></tr>\n";
    for one in hot {
        let hosts: Vec<String> = one.hosts.iter().map(|(host, fetches)| format!("{host} {}", count(*fetches))).collect();
        let known = &one.page;
        put(
            page,
            format_args!(
                "<tr><td><code>{:#x}</code></td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{} of 64</td><td>{}</td></tr>\n",
                known.address,
                escape(&known.program),
                known.space,
                count(known.reads),
                count(known.writes),
                known.lines.count_ones(),
                escape(&hosts.join(", "))
            ),
        );
    }
    *page += "</table></div></section>\n";
}

fn all(page: &mut String, merged: &Merged, earlier: Option<&Merged>) {
    section(
        page,
        "All figures",
        if earlier.is_some() { "Below each time, how many times the earlier one it is." } else { "All hosts together." },
    );
    *page += "<div class=\"scroll\"><table id=\"figures\"><tr><th>histogram</th><th>count</th><th>p50</th><th>p90</th><th>p99</th><th>p99.9</th><th>max</th></tr>\n";
    for (name, histogram) in merged {
        let summary = Summary::of(histogram);
        let old = earlier.and_then(|earlier| earlier.get(name)).map(|histogram| Summary::of(histogram).times());
        put(
            page,
            format_args!(
                "<tr data-name=\"{0}\"><td>{0}</td><td data-count=\"{1}\">{2}</td>",
                escape(name),
                summary.count,
                count(summary.count)
            ),
        );
        for (place, (_, ns)) in summary.times().into_iter().enumerate() {
            let change = old.map(|old| change(old[place].1, ns)).unwrap_or_default();
            put(page, format_args!("<td data-ns=\"{ns}\">{}{change}</td>", duration(ns)));
        }
        *page += "</tr>\n";
    }
    *page += "</table></div></section>\n";
}

fn change(was: u64, is: u64) -> String {
    let ratio = ratio(was, is);
    let class = if ratio > 1.0 + NOTABLE {
        "worse"
    } else if ratio < 1.0 - NOTABLE {
        "better"
    } else {
        ""
    };
    format!("<br><small class=\"{class}\">\u{d7} {ratio:.2}</small>")
}

fn section(page: &mut String, title: &str, note: &str) {
    put(page, format_args!("<section><h2>{title}</h2>\n<p>{}</p>\n", escape(note)));
}

/// Unix time in milliseconds as date and time of day.
fn utc(unix_ms: u64) -> String {
    let seconds = unix_ms / 1000;
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    // Days from 1 March of year 0, in eras of 400 years: a leap day is then a year's last.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

fn put(page: &mut String, part: std::fmt::Arguments<'_>) {
    page.write_fmt(part).expect("writing to a String cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Host;
    use crate::sample::sample;

    #[test]
    fn a_page_has_all_parts_and_needs_nothing_else() {
        let report = sample();
        for before in [None, Some(&report)] {
            let page = write(&report, before).unwrap();
            for part in
                ["Faults", "Stages of a remote fault", "Who fetched from whom", "Hottest pages", "All figures", "missing: d"]
            {
                assert!(page.contains(part), "{part}");
            }
            for outside in ["http", "<script", "@import", "url(", "src="] {
                assert!(!page.contains(outside), "{outside}");
            }
            assert_eq!(page.matches("<section>").count(), page.matches("</section>").count());
            assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
        }
        assert!(write(&Report::default(), None).is_ok());
    }

    #[test]
    fn changes_are_marked() {
        assert!(change(100, 200).contains("worse") && change(200, 100).contains("better"));
        assert!(!change(100, 104).contains("worse"));
    }

    #[test]
    fn large_clusters_are_cut_to_who_fetches_most() {
        let host =
            |number: u64| Host { name: format!("h{number}"), sources: [("h0".to_owned(), number)].into(), ..Host::default() };
        let report = Report { hosts: (0..100).map(host).collect(), ..Report::default() };
        let page = write(&report, None).unwrap();
        assert!(page.contains("of 100.") && page.contains("h99 from ") && !page.contains("h5 from "));
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(utc(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(utc(951_782_400_000), "2000-02-29 00:00:00 UTC");
        assert_eq!(utc(1_763_760_000_123), "2025-11-21 21:20:00 UTC");
    }
}
