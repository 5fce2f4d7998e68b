//! What users see, kept for all of them together: rebuilt when the mirror moves, unchanged parts shared.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use gantry_proto::v1;
use parking_lot::RwLock;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    domain::{Reasons, Snapshot, Uid, view},
    plan::{Defaults, Facts, explain},
    store::Mirror,
};

/// Changes that come within this time are shown together.
const DEBOUNCE: Duration = Duration::from_millis(20);
/// Changes that are remembered for watchers that resume.
const REMEMBERED: usize = 50_000;

/// All resources at one revision.
#[derive(Default)]
pub(super) struct ViewSet {
    pub(super) revision: i64,
    pub(super) store_id: String,
    pub(super) connectors: BTreeMap<Arc<str>, Arc<v1::Connector>>,
    /// By connector and number.
    pub(super) tasks: BTreeMap<(Arc<str>, u32), Arc<v1::Task>>,
    pub(super) agents: BTreeMap<Arc<str>, Arc<v1::Agent>>,
    pub(super) reasons: Arc<Reasons>,
}

/// Names a resource in the history of changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Changed {
    Connector(Arc<str>),
    Task(Arc<str>, u32),
    Agent(Arc<str>),
}

#[derive(Default)]
struct History {
    /// Changes after this revision are in `changes`.
    floor: i64,
    changes: VecDeque<(i64, Changed)>,
}

/// Handle to the views. Clones share them.
#[derive(Clone)]
pub(crate) struct Views {
    current: watch::Receiver<Arc<ViewSet>>,
    history: Arc<RwLock<History>>,
}

impl ViewSet {
    /// It shows another store than `before`, or an earlier state of it: changes between the two mean nothing.
    pub(super) fn replaces(&self, before: &Self) -> bool {
        let renamed = !before.store_id.is_empty() && self.store_id != before.store_id;
        renamed || self.revision < before.revision
    }
}

impl Views {
    pub(super) fn start(
        mirror: Mirror,
        defaults: Defaults,
        clock: Arc<dyn Clock>,
        shutdown: CancellationToken,
    ) -> Self {
        let facts = Facts {
            defaults,
            ..Facts::default()
        };
        let history = Arc::new(RwLock::new(History::default()));
        let (sender, current) = watch::channel(Arc::new(ViewSet::default()));
        let views = Self {
            current,
            history: history.clone(),
        };
        tokio::spawn(async move {
            let mut moved = mirror.subscribe();
            loop {
                let snapshot = mirror.snapshot();
                let before = sender.borrow().clone();
                // It falls when the store is restored.
                if snapshot.revision != before.revision {
                    let now_ms = i64::try_from(clock.wall().as_millis()).unwrap_or(i64::MAX);
                    let (set, changes) = rebuild(&before, &snapshot, &facts, now_ms);
                    remember(&mut history.write(), &before, &set, changes);
                    sender.send_replace(Arc::new(set));
                }
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    more = moved.changed() => if more.is_err() { return },
                }
                tokio::time::sleep(DEBOUNCE).await;
            }
        });
        views
    }

    /// The newest views.
    pub(super) fn now(&self) -> Arc<ViewSet> {
        self.current.borrow().clone()
    }

    /// Tells of every newer set.
    pub(super) fn subscribe(&self) -> watch::Receiver<Arc<ViewSet>> {
        self.current.clone()
    }

    /// A connector as this snapshot has it; why its tasks wait may be older by a moment.
    pub(super) fn connector(&self, snapshot: &Snapshot, id: &str) -> Option<v1::Connector> {
        view::connector_view(snapshot, &self.now().reasons, id)
    }

    /// A connector's tasks as this snapshot has them.
    pub(super) fn tasks(&self, snapshot: &Snapshot, uid: &Uid) -> Vec<v1::Task> {
        view::task_views(snapshot, &self.now().reasons, uid)
    }

    /// What has changed after `revision`, oldest first. None: not remembered that far back.
    pub(super) fn changes_after(&self, revision: i64) -> Option<Vec<Changed>> {
        let history = self.history.read();
        if revision < history.floor {
            return None;
        }
        let from = history.changes.partition_point(|(r, _)| *r <= revision);
        Some(
            history
                .changes
                .iter()
                .skip(from)
                .map(|(_, c)| c.clone())
                .collect(),
        )
    }
}

fn remember(history: &mut History, before: &ViewSet, set: &ViewSet, changes: Vec<Changed>) {
    if before.revision == 0 || set.replaces(before) {
        history.changes.clear();
        history.floor = set.revision;
        return;
    }
    history
        .changes
        .extend(changes.into_iter().map(|c| (set.revision, c)));
    while history.changes.len() > REMEMBERED {
        if let Some((revision, _)) = history.changes.pop_front() {
            history.floor = revision;
        }
    }
}

fn rebuild(before: &ViewSet, snapshot: &Snapshot, facts: &Facts, now_ms: i64) -> (ViewSet, Vec<Changed>) {
    let reasons = explain(snapshot, facts, now_ms);
    let mut changes = Vec::new();
    let mut connectors = BTreeMap::new();
    let mut tasks = BTreeMap::new();
    for (name, stored) in &snapshot.connectors {
        if let Some(seen) = view::connector_view(snapshot, &reasons, name) {
            connectors.insert(name.clone(), seen);
        }
        let uid = Uid(stored.uid.as_str().into());
        for (n, task) in view::task_views(snapshot, &reasons, &uid).into_iter().enumerate() {
            let n = gantry_proto::name::TaskName::parse(&task.name).map_or(n as u32, |name| name.task);
            tasks.insert((name.clone(), n), task);
        }
    }
    let agents = view::agent_views(snapshot).into_iter().collect();
    let set = ViewSet {
        revision: snapshot.revision,
        store_id: snapshot
            .store_id
            .as_ref()
            .map(|s| s.id.clone())
            .unwrap_or_default(),
        connectors: share(
            &before.connectors,
            connectors,
            |k| Changed::Connector(k.clone()),
            &mut changes,
        ),
        tasks: share(
            &before.tasks,
            tasks,
            |(c, n)| Changed::Task(c.clone(), *n),
            &mut changes,
        ),
        agents: share(
            &before.agents,
            agents,
            |k| Changed::Agent(k.clone()),
            &mut changes,
        ),
        reasons: Arc::new(reasons),
    };
    (set, changes)
}

/// The new values; those that are equal to the old ones are the old ones. Names what differs.
fn share<K: Ord + Clone, V: PartialEq>(
    before: &BTreeMap<K, Arc<V>>,
    now: BTreeMap<K, V>,
    named: impl Fn(&K) -> Changed,
    changes: &mut Vec<Changed>,
) -> BTreeMap<K, Arc<V>> {
    changes.extend(before.keys().filter(|k| !now.contains_key(k)).map(&named));
    now.into_iter()
        .map(|(key, value)| match before.get(&key) {
            Some(old) if **old == value => (key, old.clone()),
            _ => {
                changes.push(named(&key));
                (key, Arc::new(value))
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_are_shared_and_the_rest_is_named() {
        let name = |k: &Arc<str>| Changed::Agent(k.clone());
        let before: BTreeMap<Arc<str>, Arc<u32>> = [("a", 1), ("b", 2), ("c", 3)]
            .map(|(k, v)| (k.into(), Arc::new(v)))
            .into();
        let now = [("a", 1), ("b", 5), ("d", 4)].map(|(k, v)| (k.into(), v)).into();
        let mut changes = Vec::new();
        let after = share(&before, now, name, &mut changes);
        assert!(Arc::ptr_eq(&before["a"], &after["a"]));
        assert_eq!(
            changes,
            [
                Changed::Agent("c".into()),
                Changed::Agent("b".into()),
                Changed::Agent("d".into())
            ]
        );
    }

    #[test]
    fn history_knows_how_far_back_it_reaches() {
        let mut history = History::default();
        let set = |revision, store_id: &str| ViewSet {
            revision,
            store_id: store_id.into(),
            ..ViewSet::default()
        };
        let mut step = |before: (i64, &str), after: (i64, &str)| {
            let (before, after) = (set(before.0, before.1), set(after.0, after.1));
            remember(&mut history, &before, &after, vec![Changed::Agent("a".into())]);
            (history.floor, history.changes.len())
        };
        assert_eq!(step((0, ""), (10, "s")), (10, 0));
        assert_eq!(step((10, "s"), (12, "s")), (10, 1));
        assert_eq!(
            step((12, "s"), (11, "s")),
            (11, 0),
            "an earlier state of the store"
        );
        assert_eq!(step((11, "s"), (13, "s")), (11, 1));
        assert_eq!(step((13, "s"), (99, "t")), (99, 0), "another store");
    }
}
