//! What all hosts measure, asked for at one of them; and what the real Prometheus makes of it.
//!
//! Owns the commands' faces. Must not know how reports are drawn.

use super::bed::{AGENT, Bed, skip};
use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::Duration;

fn ask(bed: &Bed, arguments: &[&str]) -> Output {
    let (command, rest) = arguments.split_first().unwrap();
    Command::new(AGENT).arg(command).arg("--socket").arg(bed.socket("a")).args(rest).output().unwrap()
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn one_agent_tells_of_all() {
    let mut bed = Bed::new("watching");
    bed.start_all();
    let report = json(&ask(&bed, &["histograms", "--hosts", "all", "--json"]));
    let names: Vec<&str> = report["hosts"].as_array().unwrap().iter().map(|host| host["name"].as_str().unwrap()).collect();
    assert_eq!((report["cluster"].as_str(), names), (Some("lab"), vec!["a", "b", "c"]));

    let output = bed.directory.join("report");
    let written = ask(&bed, &["histograms", "--hosts", "b,c", "--seconds", "1", "--output", output.to_str().unwrap()]);
    assert!(written.status.success(), "{}", String::from_utf8_lossy(&written.stderr));
    for name in ["report.json", "report.hlog", "report.html"] {
        assert!(output.join(name).is_file(), "{name}");
    }
    let before = output.join("report.json");
    let compared = ask(&bed, &["histograms", "--hosts", "all", "--before", before.to_str().unwrap()]);
    assert!(String::from_utf8(compared.stdout).unwrap().contains("before -> after"));

    let top = json(&ask(&bed, &["top", "--once", "--json"]));
    assert_eq!(top["hosts"].as_array().unwrap().len(), 3);
    let screen = ask(&bed, &["top", "--once"]);
    assert!(String::from_utf8(screen.stdout).unwrap().starts_with("dvm lab   3 hosts"));
    for (code, wrong) in [
        (2, &["histograms", "--hosts", "nobody"][..]),
        (2, &["top"]),
        (25, &["histograms", "--hosts", "all", "--before", "/nowhere"]),
        (24, &["histograms", "--hosts", "all", "--output", "/dev/null/x"]),
    ] {
        assert_eq!(ask(&bed, wrong).status.code(), Some(code), "{wrong:?}");
    }

    bed.signal("c", "KILL");
    bed.until("c is missed", || bed.peers_up("a") == 1);
    let report = json(&ask(&bed, &["histograms", "--hosts", "all", "--json"]));
    assert_eq!((report["hosts"].as_array().unwrap().len(), report["missing"][0]["name"].as_str()), (2, Some("c")));
}

#[test]
fn the_real_prometheus_scrapes() {
    let mut bed = Bed::new("metrics");
    let (address, ours) = (format!("{}.1:9464", bed.prefix), format!("{}.1:9465", bed.prefix));
    let node = fs::read_to_string(bed.directory.join("a.toml")).unwrap();
    bed.write("a.toml", &format!("{node}metrics = \"{address}\"\n"));
    bed.start("a", "cluster.toml");
    let page = get(&address, "/metrics");
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n") && page.contains("\ndvm_agent_info{cluster=\"lab\",node=\"a\","), "{page}");
    assert!(get(&address, "/").starts_with("HTTP/1.1 404 "));

    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs");
    let config = format!(
        "global: {{scrape_interval: 1s}}\nrule_files: ['{docs}/alerts.yml']\n\
         scrape_configs:\n- job_name: dvm\n  static_configs: [{{targets: ['{address}']}}]\n"
    );
    let config = bed.write("prometheus.yml", &config);
    let checked = Command::new("promtool").args(["check", "config"]).arg(&config).output();
    let Ok(checked) = checked else {
        return skip("watching::the_real_prometheus_scrapes", "no promtool; install the package prometheus");
    };
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    let body = page.split_once("\r\n\r\n").unwrap().1;
    let mut lint =
        Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    lint.stdin.take().unwrap().write_all(body.as_bytes()).unwrap();
    let linted = lint.wait_with_output().unwrap();
    assert!(linted.status.success(), "{}", String::from_utf8_lossy(&linted.stderr));

    let mut prometheus = Command::new("prometheus");
    prometheus.arg(format!("--config.file={}", config.display())).arg(format!("--web.listen-address={ours}"));
    prometheus.arg(format!("--storage.tsdb.path={}", bed.directory.join("tsdb").display()));
    let mut running = prometheus.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut answer = String::new();
    for _ in 0..60 {
        sleep(Duration::from_millis(500));
        answer = try_get(&ours, "/api/v1/query?query=dvm_memory_limit_bytes").unwrap_or_default();
        if answer.contains("\"instance\":") {
            break;
        }
    }
    let rules = try_get(&ours, "/api/v1/rules").unwrap_or_default();
    running.kill().unwrap();
    running.wait().unwrap();
    assert!(answer.contains(&format!("\"instance\":\"{address}\"")), "{answer}");
    assert!(rules.contains("DvmAgentDown"), "{rules}");
}

fn get(address: &str, path: &str) -> String {
    try_get(address, path).unwrap()
}

fn try_get(address: &str, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}
