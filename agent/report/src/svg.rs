//! The drawings of a report, as SVG that takes its colours from the page around it.
//!
//! Owns scales, axes and marks. Must not know hosts or histograms' names beyond the labels it is given.

use crate::units::{count, duration};
use hdrhistogram::Histogram;
use std::fmt::Write;

const WIDTH: f64 = 720.0;
/// Room for labels on the left of every drawing.
const LEFT: f64 = 150.0;
/// Nines on the axis of percentiles: up to 99.999 %.
const NINES_MAX: f64 = 5.0;
/// Most hosts of a matrix that is drawn with its numbers.
const NUMBERED_MAX: usize = 12;

/// How far the fullest cell of a matrix hides the page: its number stays readable.
const FULLEST: f64 = 0.6;

/// A line of a chart of percentiles.
pub struct Curve<'a> {
    /// Its name.
    pub label: &'a str,
    /// Which of the page's colours it has.
    pub colour: usize,
    /// Of an earlier report: dashed.
    pub is_before: bool,
    /// What it shows.
    pub histogram: &'a Histogram<u64>,
}

/// A bar, with the earlier one if two reports are compared.
pub struct Bar<'a> {
    /// What it is of.
    pub label: &'a str,
    /// Its length.
    pub value_ns: u64,
    /// The earlier length.
    pub before_ns: Option<u64>,
}

/// Latency (logarithmic) over percentile (by nines).
#[must_use]
pub fn percentiles(title: &str, curves: &[Curve<'_>]) -> String {
    const LEFT: f64 = 70.0;
    const RIGHT: f64 = 16.0;
    const TOP: f64 = 14.0;
    const HEIGHT: f64 = 300.0;
    const BOTTOM: f64 = 44.0;
    let curves: Vec<&Curve<'_>> = curves.iter().filter(|curve| !curve.histogram.is_empty()).collect();
    let least = curves.iter().map(|curve| curve.histogram.min().max(1)).min().unwrap_or(1);
    let most = curves.iter().map(|curve| curve.histogram.max()).max().unwrap_or(10).max(least + 1);
    let (low, high) = ((least as f64).log10().floor(), (most as f64).log10().ceil());
    let x = |nines: f64| LEFT + nines.min(NINES_MAX) / NINES_MAX * (WIDTH - LEFT - RIGHT);
    let y = |ns: f64| TOP + (high - ns.max(1.0).log10()) / (high - low) * HEIGHT;
    let mut svg = open(title, TOP + HEIGHT + BOTTOM);
    for decade in low as i32..=high as i32 {
        let at = y(10_f64.powi(decade));
        put(
            &mut svg,
            format_args!("<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>", WIDTH - RIGHT),
        );
        let label = duration(10_u64.pow(decade.unsigned_abs()));
        text(&mut svg, LEFT - 8.0, at + 4.0, "end", &label.replace(".00", "").replace(".0", ""));
    }
    for (nines, label) in [(0.0, "0 %"), (1.0, "90 %"), (2.0, "99 %"), (3.0, "99.9 %"), (4.0, "99.99 %"), (5.0, "99.999 %")] {
        let at = x(nines);
        put(&mut svg, format_args!("<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{}\"/>", TOP + HEIGHT));
        let anchor = if nines == NINES_MAX { "end" } else { "middle" };
        text(&mut svg, at, TOP + HEIGHT + 18.0, anchor, label);
    }
    text(
        &mut svg,
        f64::midpoint(LEFT, WIDTH - RIGHT),
        TOP + HEIGHT + 38.0,
        "middle",
        "share of faults that took at most this long",
    );
    for curve in curves {
        let dash = if curve.is_before { " before" } else { "" };
        put(&mut svg, format_args!("<path class=\"curve c{}{dash}\" d=\"", curve.colour));
        for (step, (nines, ns)) in points(curve.histogram).into_iter().enumerate() {
            put(&mut svg, format_args!("{}{:.1} {:.1}", if step == 0 { "M" } else { "L" }, x(nines), y(ns as f64)));
        }
        put(&mut svg, format_args!("\"><title>{}</title></path>", escape(curve.label)));
    }
    svg + "</svg>\n"
}

/// Nines and latencies of a curve: it ends where the histogram has one sample left.
fn points(histogram: &Histogram<u64>) -> Vec<(f64, u64)> {
    const STEPS_PER_NINE: u32 = 24;
    let last = (histogram.len() as f64).log10().min(NINES_MAX);
    let steps = 0..=NINES_MAX as u32 * STEPS_PER_NINE;
    let nines = steps.map(|step| f64::from(step) / f64::from(STEPS_PER_NINE)).filter(|nines| *nines < last).chain([last]);
    nines.map(|nines| (nines, histogram.value_at_quantile(1.0 - 10_f64.powf(-nines)))).collect()
}

/// Horizontal bars from zero, with their values.
#[must_use]
pub fn bars(title: &str, bars: &[Bar<'_>]) -> String {
    const ROW: f64 = 34.0;
    const RIGHT: f64 = 150.0;
    let longest = bars.iter().map(|bar| bar.value_ns.max(bar.before_ns.unwrap_or(0))).max().unwrap_or(1).max(1);
    let width = |ns: u64| (ns as f64 / longest as f64 * (WIDTH - LEFT - RIGHT)).max(1.0);
    let mut svg = open(title, ROW * bars.len() as f64 + 8.0);
    for (row, bar) in bars.iter().enumerate() {
        let top = ROW * row as f64 + 6.0;
        text(&mut svg, LEFT - 10.0, top + 17.0, "end", bar.label);
        let (height, offset) = if bar.before_ns.is_some() { (11.0, 13.0) } else { (22.0, 0.0) };
        let mut value = duration(bar.value_ns);
        if let Some(before) = bar.before_ns {
            rectangle(&mut svg, [LEFT, top, width(before), height], "bar before");
            value = format!("{} \u{2192} {value}", duration(before));
        }
        rectangle(&mut svg, [LEFT, top + offset, width(bar.value_ns), height], "bar");
        let end = LEFT + width(bar.value_ns).max(bar.before_ns.map_or(0.0, width));
        text(&mut svg, end + 8.0, top + 17.0, "start", &value);
    }
    svg + "</svg>\n"
}

/// Who (rows) fetched from whom (columns): the fuller a cell, the more.
#[must_use]
pub fn matrix(title: &str, names: &[String], cells: &[Vec<u64>]) -> String {
    let side = ((WIDTH - LEFT) / names.len().max(1) as f64).clamp(6.0, 72.0);
    let height = side.min(40.0);
    let (has_names, top) = (side >= 14.0, 26.0);
    let has_numbers = names.len() <= NUMBERED_MAX;
    let most = cells.iter().flatten().copied().max().unwrap_or(0).max(1);
    let mut svg = open(title, top + height * names.len() as f64 + 6.0);
    for (place, name) in names.iter().enumerate().filter(|_| has_names) {
        let short: String = name.chars().take((side / 8.0) as usize).collect();
        text(&mut svg, LEFT + side * (place as f64 + 0.5), top - 9.0, "middle", &short);
        text(&mut svg, LEFT - 10.0, top + height * (place as f64 + 0.5) + 4.0, "end", name);
    }
    for (row, (from, numbers)) in names.iter().zip(cells).enumerate() {
        for (column, (to, number)) in names.iter().zip(numbers).enumerate() {
            let (x, y) = (LEFT + side * column as f64, top + height * row as f64);
            // The square root tells small numbers from none.
            let share = (*number as f64 / most as f64).sqrt() * FULLEST;
            let place =
                format!("x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\"", x + 1.0, y + 1.0, side - 2.0, height - 2.0);
            put(&mut svg, format_args!("<rect class=\"floor\" {place} rx=\"3\"/>"));
            put(
                &mut svg,
                format_args!(
                    "<rect class=\"cell\" {place} rx=\"3\" fill-opacity=\"{share:.3}\"><title>{} from {}: {number}</title></rect>",
                    escape(from),
                    escape(to)
                ),
            );
            if has_numbers && row != column {
                put(
                    &mut svg,
                    format_args!(
                        "<text class=\"number\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                        x + side / 2.0,
                        y + height / 2.0 + 4.0,
                        count(*number)
                    ),
                );
            }
        }
    }
    svg + "</svg>\n"
}

/// `text` as it may stand between tags and in attributes.
#[must_use]
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn open(title: &str, height: f64) -> String {
    format!("<svg viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\" aria-label=\"{}\">", escape(title))
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    put(svg, format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>", escape(text)));
}

fn rectangle(svg: &mut String, [x, y, width, height]: [f64; 4], class: &str) {
    put(
        svg,
        format_args!("<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"3\"/>"),
    );
}

fn put(svg: &mut String, part: std::fmt::Arguments<'_>) {
    svg.write_fmt(part).expect("writing to a String cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::histogram;

    #[test]
    fn curves_rise_and_end_with_their_samples() {
        let samples: Vec<u64> = (1..=1000).map(|value| value * 100).collect();
        let points = points(&histogram(&samples));
        assert!(points.is_sorted_by(|one, next| one.0 < next.0 && one.1 <= next.1));
        assert!((points.last().unwrap().0 - 3.0).abs() < 1e-9);
    }

    #[test]
    fn drawings_of_nothing_are_drawn() {
        assert!(percentiles("none", &[]).ends_with("</svg>\n"));
        assert!(bars("none", &[]).ends_with("</svg>\n"));
        assert!(matrix("none", &[], &[]).ends_with("</svg>\n"));
        let empty = histogram(&[]);
        assert!(!percentiles("x", &[Curve { label: "x", colour: 0, is_before: false, histogram: &empty }]).contains("path"));
    }

    #[test]
    fn names_cannot_leave_their_place() {
        let svg = matrix("m", &["<b>\"&".to_owned()], &[vec![1]]);
        assert!(svg.contains("&lt;b&gt;&quot;&amp;") && !svg.contains("<b>"));
    }
}
