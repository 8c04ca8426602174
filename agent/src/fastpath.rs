//! The fast path of this host: its programs loaded once, attached when a peer can prove that they work.
//!
//! Owns them, and what is told of them. Must not know spaces: shards take seats in the tables themselves.

use crate::agent::Agent;
use crate::log::say;
use dsm_bpf::{Attached, FastPath, Interface, PROBE_PORT, Responder, Responding, Rung, Tables, VERDICT_NAMES, Wanted};
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::sleep;

/// Pages a host publishes at most: 32 MiB.
const PAGES_MAX: u32 = 8192;
/// Pause between looks for a peer to probe with.
const LOOK_PAUSE: Duration = Duration::from_millis(100);
/// Pause after probes that nobody answered.
const AGAIN_PAUSE: Duration = Duration::from_secs(5);

/// What shards need of it.
#[derive(Debug, Clone)]
pub struct Seats {
    /// The tables.
    pub tables: Arc<Tables>,
    /// Whether programs look at them.
    pub is_attached: Arc<AtomicBool>,
}

/// See the file's head.
#[derive(Debug)]
pub struct Host {
    wanted: Wanted,
    path: Option<Arc<Mutex<FastPath>>>,
    seats: Option<Seats>,
    attached: RefCell<Option<Attached>>,
    reasons: RefCell<Vec<String>>,
    _responding: Option<Responding>,
}

/// What `status` tells of it.
#[derive(Debug, Serialize, Deserialize)]
pub struct FastPathStatus {
    /// How the programs are attached: native XDP and TC, TC, generic XDP, or none.
    pub attached: String,
    /// Why it is not higher.
    pub reasons: Vec<String>,
    /// What the last probe took, in microseconds.
    pub probe_us: Option<f64>,
    /// How often each verdict came.
    pub verdicts: BTreeMap<String, u64>,
}

impl Host {
    /// Loads the programs, if `wanted`; answers peers' probes at `address` in any case.
    pub fn load(wanted: Wanted, address: IpAddr) -> Self {
        let mut reasons = Vec::new();
        let responding = Responder::bind(SocketAddr::new(address, PROBE_PORT)).and_then(Responder::run_in_thread);
        if let Err(error) = &responding {
            reasons.push(format!("peers' probes are not answered: port {PROBE_PORT} of {address}: {error}"));
        }
        let loaded = if wanted == Wanted::Off { Err("switched off in node.toml".to_owned()) } else { load() };
        let (path, seats) = match loaded {
            Ok((path, tables)) => {
                let seats = Seats { tables: Arc::new(tables), is_attached: Arc::default() };
                (Some(Arc::new(Mutex::new(path))), Some(seats))
            }
            Err(reason) => {
                reasons.push(reason);
                (None, None)
            }
        };
        let reasons = RefCell::new(reasons);
        Self { wanted, path, seats, attached: RefCell::default(), reasons, _responding: responding.ok() }
    }

    /// What shards need, if the programs are loaded.
    #[must_use]
    pub fn seats(&self) -> Option<Seats> {
        self.seats.clone()
    }

    /// What is to be told.
    #[must_use]
    pub fn status(&self) -> FastPathStatus {
        let attached = self.attached.borrow();
        let rung = attached.as_ref().map_or(Rung::None, Attached::rung);
        FastPathStatus {
            attached: rung.to_string(),
            reasons: self.reasons.borrow().clone(),
            probe_us: attached.as_ref().and_then(Attached::round_trip).map(|time| time.as_secs_f64() * 1e6),
            verdicts: self.verdicts(),
        }
    }

    /// How often each verdict came; nothing if the programs are not loaded.
    #[must_use]
    pub fn verdicts(&self) -> BTreeMap<String, u64> {
        VERDICT_NAMES.iter().map(ToString::to_string).zip(self.counts("VERDICTS")).collect()
    }

    /// How long each verdict took, in the buckets of [`crate::buckets`]; nothing if the programs are not loaded.
    #[must_use]
    pub fn latencies(&self) -> Vec<u64> {
        self.counts("LATENCIES")
    }

    /// Nothing either while programs are being attached, which takes seconds: whoever asks does not wait for that.
    fn counts(&self, map: &str) -> Vec<u64> {
        let free = self.path.as_ref().and_then(|path| path.try_lock().ok());
        free.and_then(|path| path.counts(map).ok()).unwrap_or_default()
    }
}

fn load() -> Result<(FastPath, Tables), String> {
    let sizes = [("COPIES", PAGES_MAX), ("PAGES", PAGES_MAX)];
    let mut path = FastPath::load(&sizes).map_err(|error| error.told())?;
    let tables = Tables::of(&mut path, PAGES_MAX).map_err(|error| error.told())?;
    Ok((path, tables))
}

fn lock(path: &Mutex<FastPath>) -> std::sync::MutexGuard<'_, FastPath> {
    path.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Attaches the programs as soon as a peer is there to probe with; tries again while none answers.
pub async fn keep_attaching(agent: Rc<Agent>) {
    let host = &agent.fast;
    let (Some(path), Some(seats)) = (host.path.clone(), host.seats()) else { return };
    loop {
        let peers: Vec<SocketAddr> =
            agent.up_addresses().into_iter().map(|address| SocketAddr::new(address, PROBE_PORT)).collect();
        if peers.is_empty() {
            sleep(LOOK_PAUSE).await;
            continue;
        }
        let (sender, receiver) = oneshot::channel();
        let (path, wanted, address) = (Arc::clone(&path), host.wanted, agent.address());
        let thread = std::thread::Builder::new().name("attach".into()).spawn(move || {
            let result = Interface::of(address).map(|interface| lock(&path).attach(&interface, wanted, &peers));
            // Without a receiver the agent is ending.
            drop(sender.send(result.map_err(|error| error.told())));
        });
        let result = match thread {
            Ok(_) => receiver.await.unwrap_or_else(|_| Err("the thread that attaches has ended".into())),
            Err(error) => Err(format!("no thread to attach: {error}")),
        };
        match result {
            Ok(attached) => {
                host.reasons.replace(attached.reasons().to_vec());
                let is_attached = attached.rung() != Rung::None;
                seats.is_attached.store(is_attached, Ordering::SeqCst);
                if is_attached {
                    say(&agent.counters, format_args!("fast path: {}", attached.rung()));
                    host.attached.replace(Some(attached));
                    return;
                }
            }
            Err(reason) => drop(host.reasons.replace(vec![reason])),
        }
        sleep(AGAIN_PAUSE).await;
    }
}
