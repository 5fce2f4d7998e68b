use std::{collections::VecDeque, sync::Arc, time::Duration};

use parking_lot::{Mutex, RwLock};
use tokio::{
    sync::{Notify, broadcast, watch},
    time::{Instant, sleep, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{Key, Raw, Store, StoreError, watch as follow};
use crate::domain::Snapshot;

mod apply;

/// Changes that a reader of a feed may be behind before it has to read everything anew.
const FEED: usize = 1024;
/// Changed keys that are remembered for feeds that resume.
const HISTORY: usize = 1 << 16;

/// The connection of a mirror to etcd.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Connection {
    /// Raised each time the mirror was cut off from etcd for some seconds, could not learn of every single
    /// change, or found another store. A stream that broke and was opened again at once is no cut.
    pub cuts: u64,
    /// When the mirror first was known to be up to date after the last cut; None: it is cut off. What is
    /// measured on this process's own clock (absence, say) begins no earlier.
    pub since: Option<Instant>,
    /// The mirror holds everything that was written before this moment; None: not known since the last cut.
    /// Absence of something during a span is sure only if the span ended before it. At most about a second
    /// old while connected.
    pub fresh_at: Option<Instant>,
}

/// Everything but offsets, requests, revisions and events, in memory, as it was at one revision.
///
/// Clones are handles to the same mirror. It follows etcd over broken streams, compaction and restores: after
/// a cut it goes on where it was, or lists everything anew and finds out what has changed. Each transaction
/// is seen as a whole.
#[derive(Clone)]
pub struct Mirror {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    snapshot: RwLock<Arc<Snapshot>>,
    revision: watch::Sender<i64>,
    connection: watch::Sender<Connection>,
    log: Mutex<Log>,
    changes: broadcast::Sender<Change>,
    /// Wakes the task that follows, to ask etcd how far it is.
    pub(crate) ask: Notify,
}

/// What changed, for feeds.
struct Log {
    keys: VecDeque<(i64, Key)>,
    /// Every change after this revision is in `keys`.
    complete_after: i64,
}

/// What a feed says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// These keys were written or removed, the last of them at `revision`. Read the mirror for what they hold
    /// now: it is at this revision or a later one.
    Keys {
        /// Everything up to it has been seen.
        revision: i64,
        /// The keys.
        keys: Arc<[Key]>,
    },
    /// The reader was too slow, and changes were left out: read everything anew.
    Lagged,
    /// etcd now holds another store (it was restored): nothing that was read before counts any more.
    Replaced,
}

/// Changes in order, none left out and none said twice.
pub struct ChangeFeed {
    backlog: Option<Change>,
    changes: broadcast::Receiver<Change>,
}

/// The changes after that revision are no longer remembered: read everything anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("changes are remembered only after revision {oldest}")]
pub struct HistoryGone {
    /// The lowest revision from which a feed may start.
    pub oldest: i64,
}

impl Mirror {
    /// Starts to follow the store, until `stop` is cancelled. Empty until [`ready`](Self::ready).
    pub fn spawn(store: Store, stop: CancellationToken) -> Self {
        Self::spawn_with_feed(store, FEED, stop)
    }

    /// As [`spawn`](Self::spawn), with another length of feeds.
    pub(crate) fn spawn_with_feed(store: Store, feed: usize, stop: CancellationToken) -> Self {
        let shared = Arc::new(Shared {
            snapshot: RwLock::default(),
            revision: watch::Sender::new(0),
            connection: watch::Sender::new(Connection::default()),
            log: Mutex::new(Log {
                keys: VecDeque::new(),
                complete_after: 0,
            }),
            changes: broadcast::Sender::new(feed),
            ask: Notify::new(),
        });
        let mirror = Self { shared };
        let following = follow::follow(store, mirror.clone());
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = following => {}
            }
        });
        mirror
    }

    /// Waits until everything was listed once.
    pub async fn ready(&self) {
        // The sender lives as long as this handle.
        let _ = self.subscribe().wait_for(|revision| *revision > 0).await;
    }

    /// Looks at the present state. Do not await or write inside.
    pub fn read<T>(&self, look: impl FnOnce(&Snapshot) -> T) -> T {
        look(&self.shared.snapshot.read())
    }

    /// The present state, to keep. Costs nothing now; the next change copies the state if this is still held.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.shared.snapshot.read().clone()
    }

    /// Everything up to this revision has been seen.
    pub fn revision(&self) -> i64 {
        *self.shared.revision.borrow()
    }

    /// The revision as it rises (it falls only when the store is replaced). It rises at least every second or
    /// so even if nothing changes that the mirror holds, as long as etcd is written to.
    pub fn subscribe(&self) -> watch::Receiver<i64> {
        self.shared.revision.subscribe()
    }

    /// The connection to etcd.
    pub fn connection(&self) -> Connection {
        *self.shared.connection.borrow()
    }

    /// Every change of the connection; `fresh_at` changes about once a second.
    pub fn watch_connection(&self) -> watch::Receiver<Connection> {
        self.shared.connection.subscribe()
    }

    /// What changes from now on.
    pub fn changes(&self) -> ChangeFeed {
        let _log = self.shared.log.lock();
        ChangeFeed {
            backlog: None,
            changes: self.shared.changes.subscribe(),
        }
    }

    /// What changed after `revision`, and what changes from now on.
    ///
    /// # Errors
    /// [`HistoryGone`]. A `revision` that the mirror has not reached yet is no error: wait for it first.
    pub fn changes_after(&self, revision: i64) -> Result<ChangeFeed, HistoryGone> {
        let log = self.shared.log.lock();
        if revision < log.complete_after {
            return Err(HistoryGone {
                oldest: log.complete_after,
            });
        }
        let keys: Arc<[Key]> = log
            .keys
            .iter()
            .filter(|(at, _)| *at > revision)
            .map(|(_, key)| key.clone())
            .collect();
        let now = self.revision();
        let backlog = (!keys.is_empty()).then_some(Change::Keys { revision: now, keys });
        Ok(ChangeFeed {
            backlog,
            changes: self.shared.changes.subscribe(),
        })
    }

    /// Waits until everything up to `revision` has been seen.
    ///
    /// # Errors
    /// [`StoreError::NotSent`] if that is not so by `deadline`.
    pub async fn wait_revision(&self, revision: i64, deadline: Instant) -> Result<(), StoreError> {
        let mut seen = self.subscribe();
        let mut pause = Duration::from_millis(10);
        let arrives = async {
            while *seen.borrow_and_update() < revision {
                self.shared.ask.notify_one();
                tokio::select! {
                    biased;
                    _ = seen.changed() => {}
                    // The member that answered may itself have been behind.
                    () = sleep(pause) => pause = (pause * 2).min(Duration::from_millis(200)),
                }
            }
        };
        timeout_at(deadline, arrives)
            .await
            .map_err(|_| StoreError::NotSent {
                message: format!(
                    "revision {revision} was not seen in time, only {}",
                    self.revision()
                ),
            })
    }

    /// Carries changes out and tells everybody. `revision` is the one up to which all is now seen.
    pub(crate) fn advance(&self, revision: i64, changes: Vec<(i64, Key, Option<Raw>)>) {
        if revision <= self.revision() {
            return;
        }
        {
            let mut guard = self.shared.snapshot.write();
            let snapshot = Arc::make_mut(&mut guard);
            for (_, key, raw) in &changes {
                apply::set(snapshot, key, raw.as_ref());
            }
            snapshot.revision = revision;
        }
        self.publish(
            revision,
            changes.into_iter().map(|(at, key, _)| (at, key)).collect(),
        );
    }

    /// Replaces everything by what was listed at `revision`, which was asked for at `sent`; `another_store`:
    /// it is known not to be the store that was followed so far.
    pub(crate) fn replace(&self, revision: i64, values: &[Raw], another_store: bool, sent: Instant) {
        let mut listed = Snapshot {
            revision,
            ..Snapshot::default()
        };
        for raw in values {
            if let Some(key) = &raw.key {
                apply::set(&mut listed, key, Some(raw));
            }
        }
        let before = self.snapshot();
        let id = |snapshot: &Snapshot| snapshot.store_id.as_ref().map(|id| id.id.clone());
        let renamed = id(&before).is_some() && id(&before) != id(&listed);
        let replaced = another_store || renamed || revision < before.revision;
        let first = before.revision == 0;
        if !first && !replaced {
            let changed = apply::difference(&before, &listed);
            *self.shared.snapshot.write() = Arc::new(listed);
            self.fresh(sent);
            // Which of the revisions since the last one changed a key does not matter to anybody who resumes.
            return self.publish(revision, changed.into_iter().map(|key| (revision, key)).collect());
        }
        *self.shared.snapshot.write() = Arc::new(listed);
        self.fresh(sent);
        let mut log = self.shared.log.lock();
        log.keys.clear();
        log.complete_after = revision;
        self.shared.revision.send_replace(revision);
        if !first {
            let _ = self.shared.changes.send(Change::Replaced);
        }
    }

    fn publish(&self, revision: i64, changed: Vec<(i64, Key)>) {
        // Held to the end, so that a new feed sees either the change in the log or the message.
        let mut log = self.shared.log.lock();
        if !changed.is_empty() {
            let keys: Arc<[Key]> = changed.iter().map(|(_, key)| key.clone()).collect();
            log.keys.extend(changed);
            while log.keys.len() > HISTORY {
                if let Some((at, _)) = log.keys.pop_front() {
                    log.complete_after = at;
                }
            }
            // Nobody may be listening.
            let _ = self.shared.changes.send(Change::Keys { revision, keys });
        }
        self.shared.revision.send_replace(revision);
    }

    /// The connection was lost, or nothing is known of it.
    pub(crate) fn cut(&self) {
        self.shared.connection.send_modify(|connection| {
            if connection.since.is_some() {
                *connection = Connection {
                    cuts: connection.cuts + 1,
                    since: None,
                    fresh_at: None,
                };
            }
        });
    }

    /// The mirror holds all that was written before `at`.
    pub(crate) fn fresh(&self, at: Instant) {
        self.shared.connection.send_modify(|connection| {
            connection.since.get_or_insert_with(Instant::now);
            connection.fresh_at = connection.fresh_at.max(Some(at));
        });
    }
}

impl std::fmt::Debug for Mirror {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mirror")
            .field("revision", &self.revision())
            .finish_non_exhaustive()
    }
}

impl ChangeFeed {
    /// The next change; None: the mirror is gone.
    pub async fn next(&mut self) -> Option<Change> {
        if let Some(backlog) = self.backlog.take() {
            return Some(backlog);
        }
        match self.changes.recv().await {
            Ok(change) => Some(change),
            Err(broadcast::error::RecvError::Lagged(_)) => {
                // What is still queued is older than what the reader now reads anew.
                self.changes = self.changes.resubscribe();
                Some(Change::Lagged)
            }
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}
