//! Keys, their versions and the recent history. No I/O and no clock.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use etcd_client::proto::PbKeyValue;

use crate::key_range::KeyRange;

/// One stored version of a key, shared by the key, the history and the answers under way.
pub(crate) type Kv = Arc<PbKeyValue>;

/// What a reader sees: the newest revision and the oldest one it may still ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) revision: i64,
    /// Revisions below it are gone; -1 when nothing was ever compacted.
    pub(crate) compacted: i64,
}

/// How much history is kept in memory; whatever is over either limit is compacted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HistoryLimits {
    pub(crate) revisions: usize,
    pub(crate) bytes: usize,
}

impl Default for HistoryLimits {
    fn default() -> Self {
        Self {
            revisions: 100_000,
            bytes: 256 << 20,
        }
    }
}

/// Newest revisions whose changes stay although they are compacted: a watch that is up to date must not be cut off by
/// a compaction that comes before it has looked.
const WATCH_SLACK: i64 = 128;

#[derive(Clone, Debug)]
pub(crate) enum Change {
    Put(Kv),
    Delete(Vec<u8>),
}

impl Change {
    pub(crate) fn key(&self) -> &[u8] {
        match self {
            Change::Put(kv) => &kv.key,
            Change::Delete(key) => key,
        }
    }

    fn bytes(&self) -> usize {
        const OVERHEAD: usize = 128;
        match self {
            Change::Put(kv) => OVERHEAD + kv.key.len() + kv.value.len(),
            Change::Delete(key) => OVERHEAD + key.len(),
        }
    }
}

struct Version {
    revision: i64,
    /// None: deleted at this revision.
    kv: Option<Kv>,
}

struct Entry {
    changes: Vec<Change>,
    bytes: usize,
}

/// Every key with the versions that can still be read, and every change since the oldest such revision.
///
/// Writers work on the head; readers see what was [published](Mvcc::publish), which on disk means durable.
/// Compaction only moves a mark; versions below it are dropped a few at a time, by [`prune`](Mvcc::prune).
pub(crate) struct Mvcc {
    keys: BTreeMap<Vec<u8>, VecDeque<Version>>,
    /// `history[i]` holds the changes of revision `first + i`.
    history: VecDeque<Entry>,
    first: i64,
    /// Bytes of the entries that are not compacted.
    retained_bytes: usize,
    /// No superseded version at or below this revision is left.
    pruned: i64,
    head: View,
    visible: View,
    limits: HistoryLimits,
    live_bytes: usize,
}

impl Mvcc {
    /// An empty store, at revision 1 as etcd's.
    pub(crate) fn new(limits: HistoryLimits) -> Self {
        Self::at(
            View {
                revision: 1,
                compacted: -1,
            },
            limits,
        )
    }

    /// A store read back at `revision`, without any history; its keys follow by [`restore`](Mvcc::restore).
    pub(crate) fn restored(revision: i64, limits: HistoryLimits) -> Self {
        Self::at(
            View {
                revision,
                compacted: revision,
            },
            limits,
        )
    }

    fn at(view: View, limits: HistoryLimits) -> Self {
        Self {
            keys: BTreeMap::new(),
            history: VecDeque::new(),
            first: view.revision + 1,
            retained_bytes: 0,
            pruned: view.revision,
            head: view,
            visible: view,
            limits,
            live_bytes: 0,
        }
    }

    pub(crate) fn restore(&mut self, kv: PbKeyValue) {
        self.push(Change::Put(Arc::new(kv)));
    }

    /// What writers see, published or not.
    pub(crate) fn head(&self) -> View {
        self.head
    }

    /// What readers and watchers see.
    pub(crate) fn visible(&self) -> View {
        self.visible
    }

    /// Bytes of the keys and values that exist at the head.
    pub(crate) fn live_bytes(&self) -> usize {
        self.live_bytes
    }

    /// The version of `key` at `revision`, which must not be compacted.
    pub(crate) fn get(&self, key: &[u8], revision: i64) -> Option<&Kv> {
        version_at(self.keys.get(key)?, revision)
    }

    /// The keys of `range` that exist at `revision`, in order.
    pub(crate) fn scan<'a>(&'a self, range: KeyRange<'a>, revision: i64) -> impl Iterator<Item = &'a Kv> {
        let versions = (!range.is_empty()).then(|| self.keys.range::<[u8], _>(range.bounds()));
        versions
            .into_iter()
            .flatten()
            .filter_map(move |(_, versions)| version_at(versions, revision))
    }

    /// The oldest revision whose changes are still there; it may be compacted.
    pub(crate) fn oldest_changes(&self) -> i64 {
        self.first
    }

    /// The published changes from `revision` on, oldest first, each with its revision.
    ///
    /// They must still [be there](Mvcc::oldest_changes).
    pub(crate) fn changes_since(&self, revision: i64) -> impl Iterator<Item = (i64, &[Change])> {
        let from = revision.max(self.first);
        let skip = usize::try_from(from - self.first).unwrap_or(usize::MAX);
        (from..=self.visible.revision).zip(
            self.history
                .iter()
                .skip(skip)
                .map(|entry| entry.changes.as_slice()),
        )
    }

    /// Adds a version to its key, on top of the head. Not yet part of the history.
    pub(crate) fn push(&mut self, change: Change) {
        let (key, version) = match change {
            Change::Put(kv) => (
                kv.key.clone(),
                Version {
                    revision: kv.mod_revision,
                    kv: Some(kv),
                },
            ),
            Change::Delete(key) => (
                key,
                Version {
                    revision: self.head.revision + 1,
                    kv: None,
                },
            ),
        };
        let versions = self.keys.entry(key).or_default();
        self.live_bytes -= live_size(versions);
        versions.push_back(version);
        self.live_bytes += live_size(versions);
    }

    /// Takes back the newest version of `key`: the opposite of [`push`](Mvcc::push).
    pub(crate) fn pop(&mut self, key: &[u8]) {
        let Some(versions) = self.keys.get_mut(key) else {
            return;
        };
        self.live_bytes -= live_size(versions);
        versions.pop_back();
        self.live_bytes += live_size(versions);
        if versions.is_empty() {
            self.keys.remove(key);
        }
    }

    /// Makes changes that were [pushed](Mvcc::push) the next revision.
    pub(crate) fn append(&mut self, changes: Vec<Change>) {
        let bytes = changes.iter().map(Change::bytes).sum();
        self.retained_bytes += bytes;
        self.history.push_back(Entry { changes, bytes });
        self.head.revision += 1;
    }

    /// Compacts up to `revision`, which must lie between the compacted and the newest one.
    pub(crate) fn compact(&mut self, revision: i64) {
        self.head.compacted = revision;
    }

    /// Shows the head to readers, and compacts what is over the limits.
    pub(crate) fn publish(&mut self) {
        let mut old = self.visible.compacted;
        self.visible = self.head;
        self.release(&mut old, self.head.compacted);
        let newest = self.visible.revision;
        let mut compacted = self.visible.compacted;
        let limit = i64::try_from(self.limits.revisions).unwrap_or(i64::MAX);
        let oldest = newest.saturating_sub(limit).saturating_add(1);
        // Revisions before `first` were never kept, so that there is nothing to compact in them.
        if oldest > self.first {
            compacted = compacted.max(oldest);
        }
        self.release(&mut old, compacted);
        while self.retained_bytes > self.limits.bytes && compacted < newest {
            compacted = (compacted + 1).max(self.first);
            self.release(&mut old, compacted);
        }
        self.visible.compacted = compacted;
        self.head.compacted = self.head.compacted.max(compacted);
    }

    /// Stops counting the entries in `[from, to)`.
    fn release(&mut self, from: &mut i64, to: i64) {
        let begin = (*from).max(self.first);
        for revision in begin..to {
            let index = usize::try_from(revision - self.first).unwrap_or(usize::MAX);
            if let Some(entry) = self.history.get(index) {
                self.retained_bytes -= entry.bytes;
            }
        }
        *from = to.max(*from);
    }

    /// Drops what compaction made unreadable, up to about `budget` changes of it.
    pub(crate) fn prune(&mut self, mut budget: usize) {
        let bound = self.visible.compacted;
        while self.pruned < bound && budget > 0 {
            let revision = self.pruned + 1;
            let index = usize::try_from(revision - self.first).unwrap_or(usize::MAX);
            if let Some(entry) = self.history.get(index) {
                for change in &entry.changes {
                    prune_key(&mut self.keys, change.key(), bound);
                }
                budget = budget.saturating_sub(entry.changes.len().max(1));
            }
            self.pruned = revision;
        }
        // The changes of the compacted revision itself can still be watched.
        let bound = bound.min(self.visible.revision - WATCH_SLACK);
        while self.first < bound && self.first <= self.pruned && !self.history.is_empty() {
            self.history.pop_front();
            self.first += 1;
        }
    }
}

fn version_at(versions: &VecDeque<Version>, revision: i64) -> Option<&Kv> {
    let above = versions.partition_point(|version| version.revision <= revision);
    versions.get(above.checked_sub(1)?)?.kv.as_ref()
}

fn live_size(versions: &VecDeque<Version>) -> usize {
    versions
        .back()
        .and_then(|version| version.kv.as_ref())
        .map_or(0, |kv| kv.key.len() + kv.value.len())
}

fn prune_key(keys: &mut BTreeMap<Vec<u8>, VecDeque<Version>>, key: &[u8], bound: i64) {
    let Some(versions) = keys.get_mut(key) else {
        return;
    };
    loop {
        let superseded = versions.get(1).is_some_and(|next| next.revision <= bound);
        let deleted = versions
            .front()
            .is_some_and(|front| front.kv.is_none() && front.revision <= bound);
        if !superseded && !deleted {
            break;
        }
        versions.pop_front();
    }
    if versions.is_empty() {
        keys.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Model {
        mvcc: Mvcc,
    }

    impl Model {
        fn new(revisions: usize, bytes: usize) -> Self {
            Self {
                mvcc: Mvcc::new(HistoryLimits { revisions, bytes }),
            }
        }

        fn put(&mut self, key: &str, value: &str) {
            let revision = self.mvcc.head().revision + 1;
            self.write(Change::Put(Arc::new(PbKeyValue {
                key: key.into(),
                value: value.into(),
                mod_revision: revision,
                ..PbKeyValue::default()
            })));
        }

        fn delete(&mut self, key: &str) {
            self.write(Change::Delete(key.into()));
        }

        fn write(&mut self, change: Change) {
            self.mvcc.push(change.clone());
            self.mvcc.append(vec![change]);
            self.mvcc.publish();
            self.mvcc.prune(2);
        }

        fn compact(&mut self, revision: i64) {
            self.mvcc.compact(revision);
            self.mvcc.publish();
            self.mvcc.prune(usize::MAX);
        }

        fn value(&self, key: &str, revision: i64) -> Option<String> {
            let kv = self.mvcc.get(key.as_bytes(), revision)?;
            Some(String::from_utf8_lossy(&kv.value).into_owned())
        }

        fn versions(&self) -> usize {
            self.mvcc.keys.values().map(VecDeque::len).sum()
        }
    }

    #[test]
    fn what_can_be_read_survives_a_compaction_and_nothing_else_does() {
        let mut model = Model::new(1_000, 1 << 20);
        model.put("a", "2");
        model.put("a", "3");
        model.put("b", "4");
        model.delete("b");
        model.put("a", "6");
        model.put("b", "7");
        model.compact(5);
        assert_eq!(model.value("a", 5).as_deref(), Some("3"));
        assert_eq!(model.value("b", 5), None);
        assert_eq!(model.value("a", 6).as_deref(), Some("6"));
        assert_eq!(model.value("b", 7).as_deref(), Some("7"));
        assert_eq!(model.versions(), 3);
        model.delete("a");
        model.delete("b");
        model.compact(9);
        assert_eq!(model.versions(), 0);
        assert_eq!(model.mvcc.live_bytes(), 0);
    }

    #[test]
    fn history_is_bounded_in_revisions() {
        let mut model = Model::new(200, 1 << 30);
        for value in 0..5_000 {
            model.put("a", &value.to_string());
        }
        let view = model.mvcc.visible();
        assert_eq!(view.revision - view.compacted, 199);
        assert!(model.versions() < 210, "{} versions", model.versions());
        assert!(model.mvcc.history.len() < 210);
        assert_eq!(model.value("a", view.compacted).as_deref(), Some("4800"));
        let seen: Vec<i64> = model.mvcc.changes_since(view.compacted).map(|(r, _)| r).collect();
        assert_eq!(seen, (view.compacted..=view.revision).collect::<Vec<_>>());
    }

    #[test]
    fn history_is_bounded_in_bytes() {
        let mut model = Model::new(100_000, 100_000);
        let value = "v".repeat(1_000);
        for _ in 0..2_000 {
            model.put("a", &value);
        }
        assert!(model.mvcc.retained_bytes <= 100_000);
        let kept = model.mvcc.history.len();
        assert!(
            (80..=usize::try_from(WATCH_SLACK).unwrap_or(0) + 10).contains(&kept),
            "{kept}"
        );
        // A single revision may be larger than the bound; it is kept nevertheless.
        model.put("a", &"v".repeat(200_000));
        let view = model.mvcc.visible();
        assert_eq!(view.compacted, view.revision);
        assert_eq!(model.mvcc.changes_since(view.revision).count(), 1);
    }

    #[test]
    fn readers_see_what_is_published_and_a_pop_undoes_a_push() {
        let mut model = Model::new(10, 1 << 20);
        model.put("a", "2");
        let bytes = model.mvcc.live_bytes();
        model.mvcc.push(Change::Delete(b"a".to_vec()));
        assert_eq!(model.mvcc.visible().revision, 2);
        assert_eq!(model.value("a", 3), None);
        model.mvcc.pop(b"a");
        assert_eq!(model.value("a", 3).as_deref(), Some("2"));
        assert_eq!(model.mvcc.live_bytes(), bytes);
    }
}
