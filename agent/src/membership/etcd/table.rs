//! What stands in etcd, below `/dvm/CLUSTER/`.
//!
//! Owns keys and values, what a reading of them means and what an entry needs. Must not speak to etcd.
//!
//! | key | value | until |
//! |---|---|---|
//! | `hosts/NAME` | number and control address | the host was drained, or forgotten |
//! | `numbers/NNNN` | the name that has this number | as above |
//! | `live/NAME` | incarnation and address of the agent | its lease runs out |
//! | `drain/NAME` | nothing | the host has left, or may stay |
//! | `spaces/SSSSSSSS` | program and hosts of a job | it ends, or the lease of its root's agent does |
//! | `lost/SSSSSSSS/NNNN` | nothing: host NNNN is of that job no more | an hour later |
//!
//! What is `lost` goes with no agent's lease: who decided it may be lost next. It stays until every host has heard of it, or has lost
//! its own lease. The order of revisions is the order in which all hosts of the job hear of it.

use super::super::{Host, SpaceEntry, View};
use crate::config::NodeEntry;
use crate::limits::NODES_MAX;
use dsm_wire::NodeId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// A key's value and what transactions compare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub value: Vec<u8>,
    pub revision: i64,
    pub lease: i64,
}

/// Everything below the cluster's prefix at one revision of the store.
#[derive(Debug, Default)]
pub struct Reading {
    /// By key without the prefix.
    pub rows: BTreeMap<String, Row>,
    /// Of the store.
    pub revision: i64,
}

#[derive(Debug, Serialize, Deserialize)]
struct HostValue {
    number: u16,
    control: SocketAddr,
}

#[derive(Debug, Serialize, Deserialize)]
struct LiveValue {
    /// Hexadecimal, as in status.
    incarnation: String,
    control: SocketAddr,
}

/// A transaction: what must not have changed, and what is written then.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Keys and the revision they must still have; 0: they must not exist.
    pub unchanged: Vec<(String, i64)>,
    /// Keys, values, and whether they go with our lease.
    pub puts: Vec<(String, Vec<u8>, bool)>,
    /// Keys that go.
    pub deletes: Vec<String>,
}

impl Plan {
    fn keep(&mut self, reading: &Reading, key: &str) {
        self.unchanged.push((key.to_owned(), reading.revision_of(key)));
    }
}

impl Reading {
    fn revision_of(&self, key: &str) -> i64 {
        self.rows.get(key).map_or(0, |row| row.revision)
    }

    fn value<T: serde::de::DeserializeOwned>(&self, key: &str) -> Option<T> {
        self.rows.get(key).and_then(|row| serde_json::from_slice(&row.value).ok())
    }

    /// Names below `table`.
    fn below<'a>(&'a self, table: &'a str) -> impl Iterator<Item = &'a str> {
        self.rows.range(table.to_owned()..).map_while(move |(key, _)| key.strip_prefix(table))
    }

    /// The lease under which the host called `name` is entered; none: it is not.
    pub fn lease_of(&self, name: &str) -> Option<i64> {
        self.rows.get(&live(name)).map(|row| row.lease)
    }

    /// Keys of jobs entered under `lease`.
    pub fn spaces_under(&self, lease: i64) -> impl Iterator<Item = &str> {
        let ours = move |row: &&Row| row.lease == lease;
        let below = self.rows.range("spaces/".to_owned()..).take_while(|(key, _)| key.starts_with("spaces/"));
        below.filter(move |(_, row)| ours(row)).map(|(key, _)| key.as_str())
    }

    /// The hosts whose agents live, and the jobs.
    pub fn view(&self) -> View {
        let host = |name: &str| {
            let (HostValue { number, control }, LiveValue { incarnation, .. }) =
                (self.value(&self::host(name))?, self.value(&live(name))?);
            let entry = NodeEntry { name: name.to_owned(), control, cpus: None };
            let incarnation = u64::from_str_radix(&incarnation, 16).ok()?;
            let is_draining = self.rows.contains_key(&drain(name));
            (usize::from(number) < NODES_MAX).then_some((NodeId(number), Host { entry, incarnation, is_draining }))
        };
        let space = |number: &str| Some((u32::from_str_radix(number, 16).ok()?, self.value(&format!("spaces/{number}"))?));
        View {
            epoch: u64::try_from(self.revision).unwrap_or_default(),
            hosts: self.below("live/").filter_map(host).collect(),
            spaces: self.below("spaces/").filter_map(space).collect::<BTreeMap<u32, SpaceEntry>>(),
            given_up: self.given_up(),
        }
    }

    fn given_up(&self) -> BTreeMap<u32, Vec<NodeId>> {
        let mut rows: Vec<(i64, u32, NodeId)> = Vec::new();
        for key in self.below("lost/") {
            let numbers = key
                .split_once('/')
                .and_then(|(space, node)| Some((u32::from_str_radix(space, 16).ok()?, NodeId(node.parse().ok()?))));
            rows.extend(numbers.map(|(space, node)| (self.revision_of(&lost(space, node)), space, node)));
        }
        rows.sort_unstable();
        let mut given_up: BTreeMap<u32, Vec<NodeId>> = BTreeMap::new();
        rows.into_iter().for_each(|(_, space, node)| given_up.entry(space).or_default().push(node));
        given_up
    }

    /// What gives `node` up for a job, at the wish of the host with number `own`; nothing if one of them is given up already.
    #[must_use]
    pub fn give_up(&self, space: u32, own: NodeId, node: NodeId) -> Plan {
        let mut plan = Plan::default();
        let keys = [lost(space, own), lost(space, node)];
        if keys.iter().all(|key| !self.rows.contains_key(key)) {
            keys.iter().for_each(|key| plan.keep(self, key));
            plan.puts.push((lost(space, node), Vec::new(), true));
        }
        plan
    }

    /// What enters the agent of `own`, and the number it then has.
    ///
    /// # Errors
    /// When its name or address is another host's, or there are too many hosts.
    pub fn enter(&self, own: &NodeEntry, incarnation: u64) -> Result<(NodeId, Plan), String> {
        let name = own.name.as_str();
        if let Some(LiveValue { control, .. }) = self.value(&live(name)).filter(|other: &LiveValue| other.control != own.control)
        {
            return Err(format!("a host called {name} is at {control} already; stop its agent, or change `name` in node.toml"));
        }
        let has_our_address = |other: &&str| self.value(&live(other)).is_some_and(|live: LiveValue| live.control == own.control);
        if let Some(other) = self.below("live/").filter(|other| *other != name).find(has_our_address) {
            let control = own.control;
            return Err(format!("host {other} is at {control} already; correct `name` or `address` in node.toml"));
        }
        let mut plan = Plan::default();
        let known: Option<HostValue> = self.value(&host(name));
        let number = match &known {
            Some(known) => known.number,
            None => {
                let free = (0..NODES_MAX as u16).find(|number| !self.rows.contains_key(&self::number(*number)));
                free.ok_or_else(|| format!("the cluster has {NODES_MAX} hosts; have dead ones forgotten: dvm-agent drain NAME"))?
            }
        };
        for key in [host(name), live(name), self::number(number)] {
            plan.keep(self, &key);
        }
        plan.puts.push((host(name), json(&HostValue { number, control: own.control }), false));
        plan.puts.push((self::number(number), name.as_bytes().to_vec(), false));
        let value = LiveValue { incarnation: format!("{incarnation:016x}"), control: own.control };
        plan.puts.push((live(name), json(&value), true));
        Ok((NodeId(number), plan))
    }

    /// What has the host called `name` drained, or forgotten if its agent is dead; or, unless `is_wanted`, not drained any more.
    ///
    /// # Errors
    /// When there is no such host, or nothing to take back.
    pub fn drain(&self, name: &str, is_wanted: bool) -> Result<Plan, String> {
        if !self.rows.contains_key(&host(name)) {
            let known: Vec<&str> = self.below("hosts/").collect();
            return Err(format!("no host {name} in the cluster ({})", known.join(", ")));
        }
        let is_draining = self.rows.contains_key(&drain(name));
        let mut plan = Plan::default();
        for key in [host(name), live(name)] {
            plan.keep(self, &key);
        }
        match (is_wanted, self.rows.contains_key(&live(name))) {
            (true, true) => plan.puts.push((drain(name), Vec::new(), false)),
            (true, false) => plan.deletes = self.all_of(name),
            (false, _) if is_draining => plan.deletes.push(drain(name)),
            (false, _) => return Err(format!("host {name} is not being drained")),
        }
        Ok(plan)
    }

    /// What makes the host called `name`, which is entered under our lease, leave for good.
    pub fn leave(&self, name: &str) -> Plan {
        let mut plan = Plan::default();
        plan.keep(self, &live(name));
        plan.deletes = self.all_of(name);
        plan
    }

    fn all_of(&self, name: &str) -> Vec<String> {
        let known: Option<HostValue> = self.value(&host(name));
        let number = known.map(|known| self::number(known.number));
        [host(name), live(name), drain(name)].into_iter().chain(number).collect()
    }
}

fn host(name: &str) -> String {
    format!("hosts/{name}")
}

fn number(number: u16) -> String {
    format!("numbers/{number:04}")
}

fn live(name: &str) -> String {
    format!("live/{name}")
}

fn drain(name: &str) -> String {
    format!("drain/{name}")
}

fn lost(space: u32, node: NodeId) -> String {
    format!("lost/{space:08x}/{:04}", node.0)
}

/// Key of a job.
pub fn space(space: u32) -> String {
    format!("spaces/{space:08x}")
}

/// A value as it stands in etcd.
pub fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("numbers, names and addresses are JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, address: u8) -> NodeEntry {
        NodeEntry { name: name.to_owned(), control: SocketAddr::from(([10, 0, 0, address], 7400)), cpus: None }
    }

    /// Carries a plan out as etcd would; false if something had changed.
    fn carry_out(reading: &mut Reading, plan: &Plan, lease: i64) -> bool {
        if plan.unchanged.iter().any(|(key, revision)| reading.revision_of(key) != *revision) {
            return false;
        }
        reading.revision += 1;
        for (key, value, is_leased) in &plan.puts {
            let row = Row { value: value.clone(), revision: reading.revision, lease: if *is_leased { lease } else { 0 } };
            reading.rows.insert(key.clone(), row);
        }
        for key in &plan.deletes {
            reading.rows.remove(key);
        }
        true
    }

    fn enter(reading: &mut Reading, name: &str, address: u8, lease: i64) -> NodeId {
        let (node, plan) = reading.enter(&entry(name, address), 7).unwrap();
        assert!(carry_out(reading, &plan, lease));
        node
    }

    fn expire(reading: &mut Reading, lease: i64) {
        reading.revision += 1;
        reading.rows.retain(|_, row| row.lease != lease);
    }

    #[test]
    fn numbers_are_given_once_and_kept() {
        let mut reading = Reading::default();
        assert_eq!(enter(&mut reading, "a", 1, 11), NodeId(0));
        assert_eq!(enter(&mut reading, "b", 2, 12), NodeId(1));
        expire(&mut reading, 11);
        assert_eq!(reading.view().hosts.keys().copied().collect::<Vec<_>>(), [NodeId(1)]);
        assert_eq!(enter(&mut reading, "c", 3, 13), NodeId(2));
        assert_eq!(enter(&mut reading, "a", 9, 14), NodeId(0), "a comes back elsewhere");
        let view = reading.view();
        assert_eq!(view.hosts[&NodeId(0)].entry, entry("a", 9));
        assert_eq!((view.hosts[&NodeId(0)].incarnation, view.epoch), (7, reading.revision as u64));
        assert_eq!((reading.lease_of("a"), reading.lease_of("z")), (Some(14), None));
    }

    #[test]
    fn of_two_that_enter_at_once_one_tries_again() {
        let mut reading = Reading::default();
        let (_, first) = reading.enter(&entry("a", 1), 7).unwrap();
        let (_, second) = reading.enter(&entry("b", 2), 7).unwrap();
        assert!(carry_out(&mut reading, &first, 11));
        assert!(!carry_out(&mut reading, &second, 12), "both would have number 0");
        assert_eq!(enter(&mut reading, "b", 2, 12), NodeId(1));
    }

    #[test]
    fn names_and_addresses_are_one_hosts() {
        let mut reading = Reading::default();
        enter(&mut reading, "a", 1, 11);
        let error = reading.enter(&entry("a", 2), 7).unwrap_err();
        assert!(error.contains("10.0.0.1:7400 already"), "{error}");
        let error = reading.enter(&entry("b", 1), 7).unwrap_err();
        assert!(error.contains("host a is at"), "{error}");
        assert_eq!(enter(&mut reading, "a", 1, 12), NodeId(0), "its agent was killed and started again");
        assert_eq!(reading.lease_of("a"), Some(12));
    }

    #[test]
    fn who_is_drained_leaves_no_trace() {
        let mut reading = Reading::default();
        enter(&mut reading, "a", 1, 11);
        enter(&mut reading, "b", 2, 12);
        let plan = reading.drain("b", true).unwrap();
        assert!(carry_out(&mut reading, &plan, 0));
        assert!(reading.view().hosts[&NodeId(1)].is_draining && !reading.view().hosts[&NodeId(0)].is_draining);
        let undo = reading.drain("b", false).unwrap();
        assert!(carry_out(&mut reading, &undo, 0));
        assert!(reading.drain("b", false).unwrap_err().contains("not being drained"));
        assert!(reading.drain("z", true).unwrap_err().contains("(a, b)"));
        let plan = reading.leave("b");
        assert!(carry_out(&mut reading, &plan, 0));
        assert_eq!(reading.rows.len(), 3);
        // A dead one is forgotten at once.
        expire(&mut reading, 11);
        let plan = reading.drain("a", true).unwrap();
        assert!(carry_out(&mut reading, &plan, 0));
        assert!(reading.rows.is_empty(), "{:?}", reading.rows);
    }

    #[test]
    fn who_is_given_up_gives_up_nobody() {
        let mut reading = Reading::default();
        let [a, b, c] = [NodeId(0), NodeId(1), NodeId(2)];
        let wish = |reading: &mut Reading, own, node| {
            let plan = reading.give_up(7, own, node);
            !plan.puts.is_empty() && carry_out(reading, &plan, 3600)
        };
        assert!(wish(&mut reading, c, a));
        assert!(!wish(&mut reading, a, b), "a is of the job no more, whatever it thinks of b");
        assert!(!wish(&mut reading, b, a), "that was decided");
        // Two that give each other up at a time: one is too late.
        let [one, two] = [reading.give_up(7, b, c), reading.give_up(7, c, b)];
        assert!(carry_out(&mut reading, &one, 3600) && !carry_out(&mut reading, &two, 3600));
        assert!(wish(&mut reading, b, b), "a host may leave");
        assert_eq!(reading.view().given_up, BTreeMap::from([(7, vec![a, c, b])]));
        reading.rows.insert("lost/x/y".into(), Row { value: vec![], revision: 1, lease: 0 });
        assert_eq!(reading.view().given_up.len(), 1);
    }

    #[test]
    fn jobs_are_read_and_nonsense_is_not() {
        let mut reading = Reading::default();
        enter(&mut reading, "a", 1, 11);
        let job = SpaceEntry { program: "pigz".into(), hosts: vec!["a".into()] };
        for (key, value) in [(space(0x40_0007), json(&job)), ("spaces/x".into(), vec![]), ("live/q".into(), b"{".to_vec())] {
            reading.rows.insert(key, Row { value, revision: 1, lease: 11 });
        }
        let view = reading.view();
        assert_eq!((view.hosts.len(), view.spaces.len(), &view.spaces[&0x40_0007]), (1, 1, &job));
        assert_eq!(reading.spaces_under(11).collect::<Vec<_>>(), ["spaces/00400007", "spaces/x"]);
        assert_eq!(reading.spaces_under(12).count(), 0);
    }
}
