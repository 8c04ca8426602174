//! A report as JSON, which can be read back and compared with another.
//!
//! Owns the form. Must not know where the text is kept.

use crate::merge::MergeError;
use crate::report::{Host, Missing, Page, Report, Summary};
use crate::row::{HistogramRow, RowError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Version of this form.
const VERSION: u32 = 1;

/// Why a text is no report.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// It is not of the form.
    #[error("not a report of `histograms`: {0}")]
    Form(#[from] serde_json::Error),
    /// It is of another release's form.
    #[error("a report of version {0}, this program reads {VERSION}; use the release that wrote it")]
    Version(u32),
    /// A histogram in it is damaged.
    #[error(transparent)]
    Row(#[from] RowError),
}

#[derive(Serialize, Deserialize)]
struct Document {
    version: u32,
    cluster: String,
    taken_unix_ms: u64,
    interval_ms: Option<u64>,
    /// Over all hosts; for readers, not read back.
    #[serde(skip_deserializing)]
    merged: BTreeMap<String, Summary>,
    hosts: Vec<HostDocument>,
    missing: Vec<Missing>,
}

#[derive(Serialize, Deserialize)]
struct HostDocument {
    name: String,
    incarnation: String,
    histograms: Vec<HistogramRow>,
    sources: BTreeMap<String, u64>,
    pages: Vec<Page>,
}

/// `report` as one JSON object.
///
/// # Errors
/// When its hosts cannot be merged.
pub fn write(report: &Report) -> Result<String, (String, MergeError)> {
    let merged = report.merged()?.iter().map(|(name, histogram)| (name.clone(), Summary::of(histogram))).collect();
    let host = |host: &Host| HostDocument {
        name: host.name.clone(),
        incarnation: host.incarnation.clone(),
        histograms: host.histograms.iter().map(|(name, histogram)| HistogramRow::new(name, histogram)).collect(),
        sources: host.sources.clone(),
        pages: host.pages.clone(),
    };
    let document = Document {
        version: VERSION,
        cluster: report.cluster.clone(),
        taken_unix_ms: report.taken_unix_ms,
        interval_ms: report.interval_ms,
        merged,
        hosts: report.hosts.iter().map(host).collect(),
        missing: report.missing.clone(),
    };
    Ok(serde_json::to_string(&document).expect("maps with text keys can be written") + "\n")
}

/// The report in `text`.
///
/// # Errors
/// When it is none, or of another release.
pub fn read(text: &str) -> Result<Report, JsonError> {
    let document: Document = serde_json::from_str(text)?;
    if document.version != VERSION {
        return Err(JsonError::Version(document.version));
    }
    let mut hosts = Vec::with_capacity(document.hosts.len());
    for host in document.hosts {
        let rows = host.histograms.iter().map(|row| Ok((row.name.clone(), row.histogram()?)));
        hosts.push(Host {
            histograms: rows.collect::<Result<_, RowError>>()?,
            name: host.name,
            incarnation: host.incarnation,
            sources: host.sources,
            pages: host.pages,
        });
    }
    let Document { cluster, taken_unix_ms, interval_ms, missing, .. } = document;
    Ok(Report { cluster, taken_unix_ms, interval_ms, hosts, missing })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::sample;

    #[test]
    fn a_report_is_read_back() {
        let report = sample();
        let text = write(&report).unwrap();
        assert_eq!(read(&text).unwrap(), report);
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["merged"]["fault_remote_read_ns"]["count"], 6000);
    }

    #[test]
    fn what_is_no_report_is_refused() {
        let text = write(&sample()).unwrap();
        assert!(matches!(read("{}"), Err(JsonError::Form(_))));
        assert!(matches!(read(&text.replacen("\"version\":1", "\"version\":9", 1)), Err(JsonError::Version(9))));
        assert!(matches!(read(&text.replacen("1c8493", "ffffff", 1)), Err(JsonError::Row(_))));
    }
}
