//! What root and members have in common: this host's shard and its figures.
//!
//! Owns the shard's face. Must not know the job's role.

use super::{Inbox, Job, JobNote, Tasks};
use crate::agent::Agent;
use crate::limits::{ORDERS_PENDING_MAX, REAP_DEADLINE, STATISTICS_DEADLINE};
use crate::log::say;
use crate::shard::{ShardCommand, ShardConfig, ShardEvent, ShardHandle, Watch};
use dsm_wire::{Epoch, NodeId, PAGE_BYTES, PageNumber, PageRange};
use dvm_api::local::{HostStatistics, PINS_MAX, PageSpan, ToAgent};
use dvm_api::peer::SpaceMember;
use std::collections::BTreeMap;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

/// Pages of a view: it ends at 0x5000_0000_0000.
const VIEW_PAGES: u64 = 0x5000_0000_0000 >> 12;
/// A static membership has one epoch.
const EPOCH: Epoch = Epoch(1);

/// A shard, as far as a job needs it.
pub trait Shard {
    /// Where it listens.
    fn listening(&self) -> SpaceMember;
    /// The space's memfd.
    fn backing(&self) -> BorrowedFd<'_>;
    /// Queues an order.
    fn send(&self, command: ShardCommand);
}

impl Shard for ShardHandle {
    fn listening(&self) -> SpaceMember {
        Self::listening(self)
    }

    fn backing(&self) -> BorrowedFd<'_> {
        Self::backing(self)
    }

    fn send(&self, command: ShardCommand) {
        Self::send(self, command);
    }
}

/// A started shard and what it reports.
pub type Started = (Box<dyn Shard>, mpsc::UnboundedReceiver<ShardEvent>);
/// Starts shards.
pub type ShardMaker = Rc<dyn Fn(ShardConfig) -> anyhow::Result<Started>>;

/// This host's part of a job.
pub struct Part {
    agent: Rc<Agent>,
    job: Rc<Job>,
    shard: Box<dyn Shard>,
    asked: BTreeMap<u64, oneshot::Sender<HostStatistics>>,
    next_tag: u64,
    orders_pending: usize,
    has_view: bool,
    has_ended: bool,
    _pump: Tasks,
}

/// What a shard's report means for the job.
#[derive(Debug, PartialEq, Eq)]
pub enum News {
    /// Nothing beyond what has been done.
    None,
    /// All data peers have answered.
    PeersReady,
    /// The husk's order with this tag is carried out.
    Completed(u32),
    /// The husk's order with this tag is refused.
    Refused(u32, String),
    /// A host is lost.
    Lost(NodeId, String),
}

impl Part {
    /// Starts the shard of `job`.
    ///
    /// # Errors
    /// The shard's own text.
    pub fn start(agent: &Rc<Agent>, job: &Rc<Job>) -> anyhow::Result<Self> {
        let config = ShardConfig {
            me: agent.me,
            host: agent.name().to_owned(),
            space: job.space,
            members: job.members.clone(),
            epoch: EPOCH,
            cluster: agent.cluster.fingerprint,
            cluster_key: agent.cluster.key,
            has_sketch: job.has_sketch,
            address: agent.address(),
            mtu: agent.mtu,
            fast: agent.fast.seats(),
            memory: Arc::clone(&agent.memory),
        };
        let (shard, mut events) = (agent.make_shard)(config)?;
        let notes = job.notes.clone();
        let mut pump = Tasks::default();
        pump.run(async move {
            while let Some(event) = events.recv().await {
                if notes.send(JobNote::Shard(event)).await.is_err() {
                    return;
                }
            }
            // Without a receiver the job has already ended.
            drop(notes.send(JobNote::ShardEnded).await);
        });
        Ok(Self {
            agent: Rc::clone(agent),
            job: Rc::clone(job),
            shard,
            asked: BTreeMap::new(),
            next_tag: 0,
            orders_pending: 0,
            has_view: false,
            has_ended: false,
            _pump: pump,
        })
    }

    /// Where the shard listens.
    #[must_use]
    pub fn listening(&self) -> SpaceMember {
        self.shard.listening()
    }

    /// The space's memfd here.
    #[must_use]
    pub fn backing(&self) -> BorrowedFd<'_> {
        self.shard.backing()
    }

    /// Tells the shard where all others listen.
    pub fn add_peers(&self, all: &[SpaceMember]) {
        let others = all.iter().filter(|member| member.node != self.agent.me.0).copied().collect();
        self.shard.send(ShardCommand::AddPeers(others));
    }

    /// Gives the husk's userfaultfd to the shard, and watches the faults of process `husk` if the job asked for it: now, while
    /// the husk waits for the answer and makes no threads.
    ///
    /// # Errors
    /// When there is not exactly one, or the view is attached already.
    pub fn attach(&mut self, descriptors: Vec<OwnedFd>, husk: i32) -> Result<(), String> {
        let [userfaultfd] = <[OwnedFd; 1]>::try_from(descriptors)
            .map_err(|all| format!("ViewReady came with {} descriptors instead of 1", all.len()))?;
        if std::mem::replace(&mut self.has_view, true) {
            return Err("ViewReady came twice".to_owned());
        }
        let watch = if self.job.has_stages { self.watch(husk) } else { Watch::Off };
        self.shard.send(ShardCommand::AttachView { userfaultfd, watch });
        Ok(())
    }

    fn watch(&self, husk: i32) -> Watch {
        Watch::open(husk).unwrap_or_else(|error| {
            let space = self.job.space;
            say(&self.agent.counters, format_args!("space {space}: runs without the stages delivered and resumed: {error}"));
            Watch::Refused
        })
    }

    /// Passes an order of the root's husk on. Returns its tag, and why, if it is not taken.
    pub fn order(&mut self, order: ToAgent, descriptors: Vec<OwnedFd>) -> Option<(u32, String)> {
        let (tag, taken) = match order {
            ToAgent::Discard { tag, range, keeps_source } => (tag, self.discard(tag, range, keeps_source)),
            ToAgent::Source { tag, range, offset } => (tag, self.source(tag, range, offset, descriptors)),
            ToAgent::AskHome { tag } => (tag, self.ask_home(tag)),
            ToAgent::Pin { tag, pages } => (tag, self.pin(tag, &pages)),
            ToAgent::StopWriters { tag } => (tag, self.stop_writers(tag)),
            ToAgent::Unpin => {
                self.shard.send(ShardCommand::Unpin);
                return None;
            }
            ToAgent::LetWrite => {
                self.shard.send(ShardCommand::LetWrite);
                return None;
            }
            _ => return None,
        };
        taken.err().map(|reason| (tag, reason))
    }

    /// Passes a husk's discard on.
    ///
    /// # Errors
    /// When the range is outside the view or too many are under way.
    pub fn discard(&mut self, tag: u32, span: PageSpan, keeps_source: bool) -> Result<(), String> {
        let range = self.begin("discard", span)?;
        self.shard.send(ShardCommand::Discard { tag: u64::from(tag), range, keeps_source });
        Ok(())
    }

    /// Passes the file behind pages on.
    ///
    /// # Errors
    /// When there is not exactly one, the range is outside the view or too many orders are under way.
    fn source(&mut self, tag: u32, span: PageSpan, offset: u64, descriptors: Vec<OwnedFd>) -> Result<(), String> {
        let [file] = <[OwnedFd; 1]>::try_from(descriptors)
            .map_err(|all| format!("a source came with {} descriptors instead of 1", all.len()))?;
        if span
            .count
            .checked_mul(PAGE_BYTES as u64)
            .and_then(|bytes| offset.checked_add(bytes))
            .is_none_or(|end| end > i64::MAX as u64)
        {
            return Err(format!("a file has no {} pages from {offset:#x} on", span.count));
        }
        let range = self.begin("source", span)?;
        self.shard.send(ShardCommand::Source { tag: u64::from(tag), range, file, offset });
        Ok(())
    }

    /// Asks whether all pages have always been here.
    ///
    /// # Errors
    /// When too many orders are under way.
    fn ask_home(&mut self, tag: u32) -> Result<(), String> {
        self.count_order()?;
        self.shard.send(ShardCommand::AskHome { tag: u64::from(tag) });
        Ok(())
    }

    /// Keeps pages here as they are.
    ///
    /// # Errors
    /// When one is outside the view, or there are none, too many or too many orders under way.
    fn pin(&mut self, tag: u32, pages: &[u64]) -> Result<(), String> {
        if pages.is_empty() || pages.len() > PINS_MAX {
            return Err(format!("{} pages cannot be pinned at once: 1 to {PINS_MAX}", pages.len()));
        }
        if let Some(page) = pages.iter().find(|page| **page >= VIEW_PAGES) {
            return Err(format!("page {page:#x}, to be pinned, is outside the view"));
        }
        self.count_order()?;
        let pages = pages.iter().copied().map(PageNumber).collect();
        self.shard.send(ShardCommand::Pin { tag: u64::from(tag), pages });
        Ok(())
    }

    /// Has the husk's threads wait when they write.
    ///
    /// # Errors
    /// When too many orders are under way.
    fn stop_writers(&mut self, tag: u32) -> Result<(), String> {
        self.count_order()?;
        self.shard.send(ShardCommand::StopWriters { tag: u64::from(tag) });
        Ok(())
    }

    /// Judges the range of an order and counts it.
    fn begin(&mut self, order: &str, span: PageSpan) -> Result<PageRange, String> {
        let end = span.first.checked_add(span.count).filter(|end| *end <= VIEW_PAGES && span.count > 0);
        if end.is_none() {
            return Err(format!("{order} of {} pages from page {:#x} is outside the view", span.count, span.first));
        }
        self.count_order()?;
        Ok(PageRange::new(PageNumber(span.first), span.count))
    }

    fn count_order(&mut self) -> Result<(), String> {
        if self.orders_pending >= ORDERS_PENDING_MAX {
            return Err(format!("{ORDERS_PENDING_MAX} orders are under way"));
        }
        self.orders_pending += 1;
        Ok(())
    }

    /// Asks the shard for its figures; the receiver ends without a value if the shard does.
    pub fn ask_figures(&mut self) -> oneshot::Receiver<HostStatistics> {
        let (sender, receiver) = oneshot::channel();
        self.tell_figures(sender);
        receiver
    }

    /// Asks the shard for its figures on behalf of `sender`.
    pub fn tell_figures(&mut self, sender: oneshot::Sender<HostStatistics>) {
        self.asked.retain(|_, sender| !sender.is_closed());
        self.next_tag += 1;
        self.asked.insert(self.next_tag, sender);
        self.shard.send(ShardCommand::Statistics { tag: self.next_tag });
    }

    /// Takes note of what the shard reports.
    pub fn on_shard(&mut self, event: ShardEvent) -> News {
        match event {
            ShardEvent::PeersReady => News::PeersReady,
            ShardEvent::Completed { tag } => {
                self.orders_pending = self.orders_pending.saturating_sub(1);
                u32::try_from(tag).map_or(News::None, News::Completed)
            }
            ShardEvent::Refused { tag, reason } => {
                self.orders_pending = self.orders_pending.saturating_sub(1);
                u32::try_from(tag).map_or(News::None, |tag| News::Refused(tag, reason))
            }
            ShardEvent::Statistics { tag, statistics } => {
                if let Some(sender) = self.asked.remove(&tag) {
                    // Whoever asked may have stopped waiting.
                    drop(sender.send(statistics));
                }
                News::None
            }
            ShardEvent::PeerLost { node, reason } => News::Lost(node, reason),
            ShardEvent::Failed { reason } | ShardEvent::MemoryExhausted { reason } => News::Lost(self.agent.me, reason),
        }
    }

    /// The shard's thread has ended by itself.
    pub fn on_ended(&mut self) -> News {
        self.has_ended = true;
        News::Lost(self.agent.me, "the shard has ended".to_owned())
    }

    /// Keeps the shard's figures, stops it and waits until it has ended.
    pub async fn close(mut self, inbox: &mut Inbox) {
        if !self.has_ended {
            let last = self.ask_figures();
            let figures = self.drain(inbox, Instant::now() + STATISTICS_DEADLINE / 2, last).await;
            if let Some(figures) = figures {
                self.agent.past.borrow_mut().add(&figures);
            }
        }
        self.shard.send(ShardCommand::Stop);
        let (_never, end) = oneshot::channel();
        if !self.has_ended {
            self.drain(inbox, Instant::now() + REAP_DEADLINE, end).await;
        }
        if !self.has_ended {
            say(&self.agent.counters, format_args!("space {}: the shard does not end", self.job.space));
        }
    }

    /// Looks at the shard's reports only, until `wanted` comes, the shard has ended or it is `until`.
    async fn drain(
        &mut self,
        inbox: &mut Inbox,
        until: Instant,
        mut wanted: oneshot::Receiver<HostStatistics>,
    ) -> Option<HostStatistics> {
        loop {
            if let Ok(figures) = wanted.try_recv() {
                return Some(figures);
            }
            match timeout_at(until, inbox.recv()).await {
                Ok(Some(JobNote::Shard(event))) => {
                    self.on_shard(event);
                }
                Ok(Some(JobNote::ShardEnded)) => {
                    self.has_ended = true;
                    return None;
                }
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return None,
            }
        }
    }
}
