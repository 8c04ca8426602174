//! The members as the agent's tasks ask for them: by number, by name, in the latest view.
//!
//! Owns the latest view and the names of those who left. Must not know links.

use super::{Host, View};
use crate::config::NodeEntry;
use dsm_wire::NodeId;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

/// Who takes part.
pub struct Members {
    me: NodeId,
    view: RefCell<Rc<View>>,
    /// Of all that ever took part, for messages: a job is taken down after its host has left.
    names: RefCell<BTreeMap<NodeId, String>>,
    trouble: RefCell<Option<String>>,
    is_leaving: Cell<bool>,
}

impl Members {
    /// The members of `view`, seen from `me`.
    #[must_use]
    pub fn new(me: NodeId, view: View) -> Self {
        let members = Self {
            me,
            view: RefCell::default(),
            names: RefCell::default(),
            trouble: RefCell::default(),
            is_leaving: Cell::default(),
        };
        members.replace(view);
        members
    }

    /// Puts `view` in the place of the one before, which is given back.
    pub fn replace(&self, view: View) -> Rc<View> {
        let names = view.hosts.iter().map(|(node, host)| (*node, host.entry.name.clone()));
        self.names.borrow_mut().extend(names);
        self.view.replace(Rc::new(view))
    }

    /// The latest view.
    #[must_use]
    pub fn view(&self) -> Rc<View> {
        Rc::clone(&self.view.borrow())
    }

    /// Where node `node` is; none if it takes no part.
    #[must_use]
    pub fn entry(&self, node: NodeId) -> Option<NodeEntry> {
        self.view.borrow().hosts.get(&node).map(|host| host.entry.clone())
    }

    /// The number of the host called `name`.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<NodeId> {
        let view = self.view.borrow();
        view.hosts.iter().find(|(_, host)| host.entry.name == name).map(|(node, _)| *node)
    }

    /// Name of node `node`, for messages, also after it has left.
    #[must_use]
    pub fn name_of(&self, node: NodeId) -> String {
        self.names.borrow().get(&node).cloned().unwrap_or_else(|| "(no such node)".to_owned())
    }

    /// All names, for messages.
    #[must_use]
    pub fn names(&self) -> String {
        let view = self.view.borrow();
        view.hosts.values().map(|host| host.entry.name.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// All other hosts.
    pub fn others(&self) -> impl Iterator<Item = NodeId> + use<> {
        let view = self.view();
        let others: Vec<NodeId> = view.hosts.keys().copied().filter(|node| *node != self.me).collect();
        others.into_iter()
    }

    /// Whether node `node` takes no new jobs.
    #[must_use]
    pub fn is_draining(&self, node: NodeId) -> bool {
        self.is_leaving.get() && node == self.me || self.view.borrow().hosts.get(&node).is_some_and(|host| host.is_draining)
    }

    /// From now on this host takes no new jobs, whatever views say.
    pub fn start_leaving(&self) {
        self.is_leaving.set(true);
    }

    /// Why the source of views does not answer; none: it does.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.trouble.borrow().clone()
    }

    /// Takes note of whether the source answers.
    pub fn set_trouble(&self, trouble: Option<String>) {
        self.trouble.replace(trouble);
    }
}

/// Nodes of `before` that are not, or not as they were, in `after`: gone, moved, or started again.
#[must_use]
pub fn gone(before: &View, after: &View) -> Vec<(NodeId, &'static str)> {
    let why = |(node, old): (&NodeId, &Host)| {
        let reason = match after.hosts.get(node) {
            None => "it left the cluster, or its lease ran out",
            Some(new) if new.entry.control != old.entry.control || new.entry.name != old.entry.name => {
                "another host has its number"
            }
            Some(new) if new.incarnation != old.incarnation => "its agent was started again",
            Some(_) => return None,
        };
        Some((*node, reason))
    };
    before.hosts.iter().filter_map(why).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(hosts: &[(u16, &str, u64)]) -> View {
        let host = |(node, name, incarnation): &(u16, &str, u64)| {
            let control = format!("10.0.0.{}:7400", node + 1).parse().unwrap();
            let entry = NodeEntry { name: (*name).to_owned(), control, cpus: None };
            (NodeId(*node), Host { entry, incarnation: *incarnation, is_draining: false })
        };
        View { epoch: 1, hosts: hosts.iter().map(host).collect(), ..View::default() }
    }

    #[test]
    fn names_outlive_their_hosts() {
        let members = Members::new(NodeId(0), view(&[(0, "a", 1), (1, "b", 1)]));
        assert_eq!(members.others().collect::<Vec<_>>(), [NodeId(1)]);
        members.replace(view(&[(0, "a", 1), (2, "c", 1)]));
        assert_eq!((members.node("b"), members.entry(NodeId(1))), (None, None));
        assert_eq!((members.name_of(NodeId(1)).as_str(), members.name_of(NodeId(7)).as_str()), ("b", "(no such node)"));
        assert_eq!(members.names(), "a, c");
        assert!(!members.is_draining(NodeId(0)));
        members.start_leaving();
        assert!(members.is_draining(NodeId(0)) && !members.is_draining(NodeId(2)));
    }

    #[test]
    fn who_is_gone_is_told_with_the_reason() {
        let before = view(&[(0, "a", 1), (1, "b", 1), (2, "c", 1), (3, "d", 1)]);
        let after = view(&[(0, "a", 1), (1, "b", 2), (2, "x", 1)]);
        let gone: Vec<_> = gone(&before, &after).into_iter().map(|(node, reason)| (node.0, reason)).collect();
        assert_eq!(gone.iter().map(|(node, _)| *node).collect::<Vec<_>>(), [1, 2, 3]);
        assert!(gone[0].1.contains("again") && gone[1].1.contains("number") && gone[2].1.contains("lease"));
    }
}
