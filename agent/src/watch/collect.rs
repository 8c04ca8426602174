//! The figures of many hosts, asked for through the agent of this one.
//!
//! Owns which hosts are asked and what stands for one that does not answer. Must not know what is done with the figures.

use crate::client::{self, Target};
use crate::exit::{Exit, Failure};
use crate::status::{FetchReport, HistogramReport, Status};
use anyhow::anyhow;
use dvm_api::local::Query;
use dvm_report::{Host, Missing, Report};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

/// Hosts asked at the same moment.
const ASKED_MAX: usize = 16;

/// Asks agents for their figures.
pub struct Collector {
    socket: PathBuf,
    /// Empty: all.
    wanted: Vec<String>,
}

/// The figures of many hosts at one time.
pub struct Collected {
    /// What they measured.
    pub report: Report,
    /// The state of those that answered, in the report's order.
    pub states: Vec<Status>,
}

impl Collector {
    /// Asks the agent of `target` for `hosts`, or for all if one is `all` or there is none.
    ///
    /// # Errors
    /// When it is not clear which agent is meant.
    pub fn new(target: &Target, hosts: &[String]) -> Result<Self, Failure> {
        let wanted = if hosts.iter().any(|host| host == "all") { Vec::new() } else { hosts.to_vec() };
        Ok(Self { socket: target.socket()?, wanted })
    }

    /// The figures now.
    ///
    /// # Errors
    /// When the local agent does not answer, or a host is not in the cluster.
    pub fn collect(&self) -> Result<Collected, Failure> {
        let own: Status = client::parse(&client::status_text(&self.socket)?)?;
        let mut known = vec![own.node.clone()];
        known.extend(own.peers.iter().map(|peer| peer.name.clone()));
        known.sort();
        if let Some(stranger) = self.wanted.iter().find(|host| !known.contains(host)) {
            let error = anyhow!("no host {stranger} in the cluster ({}); correct --hosts", known.join(", "));
            return Err(Failure::new(Exit::Usage, error));
        }
        let names = if self.wanted.is_empty() { known } else { self.wanted.clone() };
        let taken = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut report = Report {
            cluster: own.cluster,
            taken_unix_ms: u64::try_from(taken.as_millis()).unwrap_or(u64::MAX),
            ..Report::default()
        };
        let mut states = Vec::new();
        for names in names.chunks(ASKED_MAX) {
            let answers = thread::scope(|scope| {
                let asking: Vec<_> = names.iter().map(|name| scope.spawn(|| one(&self.socket, name))).collect();
                asking.into_iter().map(|asked| asked.join().expect("asking does not panic")).collect::<Vec<_>>()
            });
            for (name, answer) in names.iter().zip(answers) {
                match answer? {
                    Ok((host, state)) => {
                        report.hosts.push(host);
                        states.push(state);
                    }
                    Err(reason) => report.missing.push(Missing { name: name.clone(), reason }),
                }
            }
        }
        Ok(Collected { report, states })
    }
}

/// What the agent of `name` answers; in it, why it does not.
fn one(socket: &Path, name: &str) -> Result<Result<(Host, Status), String>, Failure> {
    let mut texts = Vec::with_capacity(3);
    for query in [Query::Status, Query::Histograms, Query::Fetches] {
        match client::ask_of(socket, name, query)? {
            Ok(text) => texts.push(text),
            Err(reason) => return Ok(Err(reason)),
        }
    }
    let state: Status = client::parse(&texts[0])?;
    let told: HistogramReport = client::parse(&texts[1])?;
    let fetched: FetchReport = client::parse(&texts[2])?;
    let rows = told.histograms.iter().map(|row| Ok((row.name.clone(), row.histogram()?)));
    let histograms = rows.collect::<Result<_, dvm_report::RowError>>().map_err(|error| Failure::new(Exit::BadAnswer, error))?;
    let FetchReport { incarnation, sources, pages, .. } = fetched;
    Ok(Ok((Host { name: name.to_owned(), incarnation, histograms, sources, pages }, state)))
}
