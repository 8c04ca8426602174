//! `/metrics` for Prometheus, where node.toml or `--metrics` asks for it.
//!
//! Owns the names, which are stable, and the little HTTP it takes. Must not know the text format.

use crate::agent::Agent;
use crate::buckets;
use crate::limits::{DIAL_PAUSE, METRICS_CONNECTIONS_MAX, METRICS_DEADLINE, METRICS_REQUEST_BYTES_MAX};
use crate::log::say;
use crate::status::{self, Totals};
use dvm_report::prometheus::{CONTENT_TYPE, Exposition};
use hdrhistogram::Histogram;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use tokio::time::{sleep, timeout};
use tokio_uring::net::{TcpListener, TcpStream};

/// Answers scrapes, for ever.
pub async fn keep_serving(agent: Rc<Agent>, listener: TcpListener) {
    let open = Rc::new(Cell::new(0_usize));
    loop {
        match listener.accept().await {
            // Closed at once: a scraper has one connection, and comes again.
            Ok((stream, _)) if open.get() >= METRICS_CONNECTIONS_MAX => drop(stream),
            Ok((stream, _)) => {
                open.set(open.get() + 1);
                let (agent, open) = (Rc::clone(&agent), Rc::clone(&open));
                tokio_uring::spawn(async move {
                    serve(&agent, stream).await;
                    open.set(open.get() - 1);
                });
            }
            Err(error) => {
                say(&agent.counters, format_args!("cannot accept a scrape: {error}"));
                sleep(DIAL_PAUSE.0).await;
            }
        }
    }
}

async fn serve(agent: &Agent, stream: TcpStream) {
    let guard = crate::sys::duplicate(&stream).map(std::net::TcpStream::from);
    let answered = timeout(METRICS_DEADLINE, async {
        let answer = match request(&stream).await {
            Some(Ok(())) => response("200 OK", CONTENT_TYPE, &exposition(agent).await),
            Some(Err(refusal)) => response(refusal, "text/plain", "ask for GET /metrics\n"),
            None => return,
        };
        // A scraper that has gone needs no answer.
        drop(stream.write_all(answer.into_bytes()).await.0);
    });
    // Late or done: both end the connection, and with it a read that io_uring still holds.
    drop(answered.await);
    if let Ok(guard) = guard {
        drop(guard.shutdown(std::net::Shutdown::Both));
    }
}

/// Whether a scrape is asked for; if not, the status it is refused with. None: nothing whole came.
async fn request(stream: &TcpStream) -> Option<Result<(), &'static str>> {
    let mut text = Vec::new();
    loop {
        let (read, buffer) = stream.read(vec![0; METRICS_REQUEST_BYTES_MAX]).await;
        let count = read.ok().filter(|count| *count > 0)?;
        text.extend_from_slice(&buffer[..count]);
        let verdict = judge(&text);
        if verdict.is_some() || text.len() >= METRICS_REQUEST_BYTES_MAX {
            return Some(verdict.unwrap_or(Err("431 Request Header Fields Too Large")));
        }
    }
}

/// What `text` asks for; none while it is not whole.
fn judge(text: &[u8]) -> Option<Result<(), &'static str>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(text) {
        Ok(httparse::Status::Partial) => None,
        Err(_) => Some(Err("400 Bad Request")),
        Ok(httparse::Status::Complete(_)) if request.method != Some("GET") => Some(Err("405 Method Not Allowed")),
        Ok(httparse::Status::Complete(_)) => {
            let path = request.path.and_then(|path| path.split('?').next());
            Some(if path == Some("/metrics") { Ok(()) } else { Err("404 Not Found") })
        }
    }
}

fn response(status: &str, kind: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

async fn exposition(agent: &Agent) -> String {
    let totals = status::totals(agent).await;
    let mut text = Exposition::default();
    let version = ("version", env!("CARGO_PKG_VERSION"));
    text.about("dvm_agent_info", "The agent.", &[("cluster", &agent.cluster.name), ("node", agent.name()), version]);
    text.single("dvm_uptime_seconds", "gauge", "Since the agent's start.", agent.started.elapsed().as_secs_f64());
    text.single("dvm_jobs", "gauge", "Jobs this host takes part in.", totals.jobs as f64);
    text.single("dvm_memory_limit_bytes", "gauge", "Most that pages may take here.", agent.memory.limit_bytes() as f64);
    text.single("dvm_memory_used_bytes", "gauge", "What pages take here.", agent.memory.used_bytes() as f64);
    let partial = "Whether a job was too busy to be asked: its figures are then left out.";
    text.single("dvm_figures_partial", "gauge", partial, f64::from(u8::from(totals.is_partial)));
    let peers: Vec<_> = agent.members.others().map(|node| (agent.members.name_of(node), is_up(agent, node))).collect();
    let peers = peers.iter().map(|(name, up)| (name.as_str(), *up));
    text.labelled(["dvm_peer_up", "gauge", "Whether another host's agent answers.", "peer"], peers);
    let counters = agent.counters.list().into_iter();
    text.labelled(["dvm_agent_events_total", "counter", "What the control plane counts.", "event"], counters);
    let verdicts = agent.fast.verdicts();
    let verdicts = verdicts.iter().map(|(name, count)| (name.as_str(), *count));
    text.labelled(["dvm_fast_path_frames_total", "counter", "Frames the kernel programs judged.", "verdict"], verdicts);
    if !totals.is_partial {
        jobs(agent, &mut text, &totals);
    }
    text.finish()
}

/// What shards count. A sum without one of them would look like a restart.
fn jobs(agent: &Agent, text: &mut Exposition, totals: &Totals) {
    let counters = totals.figures.counters().iter().map(|(name, value)| (name.as_str(), *value));
    text.labelled(["dvm_events_total", "counter", "What the jobs' parts here count.", "event"], counters);
    let sources = status::sources(agent, &totals.figures);
    let fetches = sources.iter().map(|(name, count)| (name.as_str(), *count));
    text.labelled(["dvm_fetches_total", "counter", "Answers to requests for pages, by who gave them.", "source"], fetches);
    let rows = totals.figures.rows().into_iter().chain(buckets::rows(&agent.fast.latencies()));
    let known: BTreeMap<String, Histogram<u64>> = rows.filter_map(|row| Some((span(&row.name), row.histogram().ok()?))).collect();
    let latencies = known.iter().map(|(name, histogram)| (name.as_str(), histogram));
    text.histograms(["dvm_latency_seconds", "Latencies, as `dvm-agent histograms` names them.", "span"], latencies);
}

fn span(name: &str) -> String {
    name.strip_suffix("_ns").unwrap_or(name).to_owned()
}

fn is_up(agent: &Agent, node: dsm_wire::NodeId) -> u64 {
    u64::from(agent.peer(node).is_some_and(|peer| peer.link().is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_scrapes_are_answered() {
        for (text, expected) in [
            ("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n", Some(Ok(()))),
            ("GET /metrics?x=1 HTTP/1.0\r\n\r\n", Some(Ok(()))),
            ("GET /metrics HTTP/1.1\r\nHost", None),
            ("GET / HTTP/1.1\r\n\r\n", Some(Err("404 Not Found"))),
            ("POST /metrics HTTP/1.1\r\n\r\n", Some(Err("405 Method Not Allowed"))),
            ("\u{1}\u{2}\r\n\r\n", Some(Err("400 Bad Request"))),
        ] {
            assert_eq!(judge(text.as_bytes()), expected, "{text:?}");
        }
    }
}
