//! Watchers: cursors into the history. Pure; nothing is queued for a watcher that is not read.

use etcd_client::proto::{PbEvent, PbKeyValue, PbWatchResponse};
use etcd_client::{EventType, WatchFilterType};
use prost::Message;

use crate::key_range::KeyRange;
use crate::mvcc::{Change, Mvcc};

/// Revisions looked at in one step, so that a late watcher does not keep writers waiting.
const REVISIONS_PER_STEP: usize = 1000;
/// Events of one step in bytes, but never less than one revision.
const BYTES_PER_STEP: usize = 1 << 20;

/// What a client asked to watch.
#[derive(Debug, Default)]
pub(crate) struct Spec {
    pub(crate) key: Vec<u8>,
    pub(crate) range_end: Vec<u8>,
    /// 0: from now on.
    pub(crate) start_revision: i64,
    pub(crate) filters: Vec<i32>,
    pub(crate) prev_kv: bool,
    pub(crate) fragment: bool,
    pub(crate) progress_notify: bool,
}

impl Spec {
    /// True if the range can hold no key, which etcd refuses.
    pub(crate) fn is_empty(&self) -> bool {
        KeyRange::new(&self.key, &self.range_end).is_empty()
    }
}

#[derive(Debug)]
pub(crate) struct Watcher {
    spec: Spec,
    /// The first revision not looked at yet.
    cursor: i64,
    /// Once it has, a compaction does not concern it as long as the changes are still there.
    has_started: bool,
    /// False while events make a progress notification superfluous.
    pub(crate) wants_progress: bool,
}

/// What a step of a watcher found.
#[derive(Debug)]
pub(crate) enum Step {
    /// It has seen everything there is.
    Idle,
    /// The history it needs is gone; the first revision it could start at instead.
    Compacted(i64),
    /// It moved on, perhaps without finding anything; `revision` is where it is now.
    Moved { events: Vec<PbEvent>, revision: i64 },
}

impl Watcher {
    pub(crate) fn new(spec: Spec, mvcc: &Mvcc) -> Self {
        let cursor = if spec.start_revision > 0 {
            spec.start_revision
        } else {
            mvcc.visible().revision + 1
        };
        Self {
            wants_progress: spec.progress_notify,
            has_started: spec.start_revision <= 0,
            cursor,
            spec,
        }
    }

    pub(crate) fn fragment(&self) -> bool {
        self.spec.fragment
    }

    pub(crate) fn progress_notify(&self) -> bool {
        self.spec.progress_notify
    }

    /// The newest revision this watcher has seen everything of; None before the revision it starts at is reached.
    pub(crate) fn progress(&self) -> Option<i64> {
        let seen = self.cursor - 1;
        (seen >= self.spec.start_revision).then_some(seen)
    }

    pub(crate) fn step(&mut self, mvcc: &Mvcc) -> Step {
        let view = mvcc.visible();
        if self.cursor > view.revision {
            return Step::Idle;
        }
        let oldest = if self.has_started {
            mvcc.oldest_changes()
        } else {
            view.compacted
        };
        if self.cursor < oldest {
            return Step::Compacted(view.compacted);
        }
        self.has_started = true;
        let mut events = Vec::new();
        let mut bytes = 0;
        let mut last = view.revision;
        for (looked_at, (revision, changes)) in mvcc.changes_since(self.cursor).enumerate() {
            if looked_at == REVISIONS_PER_STEP || bytes >= BYTES_PER_STEP {
                last = revision - 1;
                break;
            }
            for change in changes {
                if let Some(event) = self.event(mvcc, revision, change) {
                    bytes += event.encoded_len();
                    events.push(event);
                }
            }
        }
        self.cursor = last + 1;
        if !events.is_empty() {
            self.wants_progress = false;
        }
        Step::Moved {
            events,
            revision: last,
        }
    }

    fn event(&self, mvcc: &Mvcc, revision: i64, change: &Change) -> Option<PbEvent> {
        let key = change.key();
        if !KeyRange::new(&self.spec.key, &self.spec.range_end).contains(key) {
            return None;
        }
        let (kind, filter) = match change {
            Change::Put(_) => (EventType::Put, WatchFilterType::NoPut),
            Change::Delete(_) => (EventType::Delete, WatchFilterType::NoDelete),
        };
        if self.spec.filters.contains(&(filter as i32)) {
            return None;
        }
        let kv = match change {
            Change::Put(kv) => PbKeyValue::clone(kv),
            Change::Delete(key) => PbKeyValue {
                key: key.clone(),
                mod_revision: revision,
                ..PbKeyValue::default()
            },
        };
        let created = kind == EventType::Put && kv.create_revision == kv.mod_revision;
        let before = revision - 1;
        let readable = before >= mvcc.visible().compacted;
        let prev_kv = (self.spec.prev_kv && !created && readable)
            .then(|| mvcc.get(key, before))
            .flatten()
            .map(|kv| PbKeyValue::clone(kv));
        Some(PbEvent {
            r#type: kind as i32,
            kv: Some(kv),
            prev_kv,
        })
    }
}

/// Splits a response that is larger than `limit` bytes; all parts but the last are marked as fragments.
///
/// A single event is never split.
pub(crate) fn fragments(response: PbWatchResponse, limit: usize) -> Vec<PbWatchResponse> {
    /// Tag and length of an event within a response.
    const EVENT_OVERHEAD: usize = 6;
    if response.events.len() < 2 || response.encoded_len() < limit {
        return vec![response];
    }
    let part = |events: Vec<PbEvent>, fragment: bool| PbWatchResponse {
        events,
        fragment,
        header: response.header,
        watch_id: response.watch_id,
        ..PbWatchResponse::default()
    };
    let empty = part(Vec::new(), true).encoded_len();
    let mut parts = Vec::new();
    let mut events = Vec::new();
    let mut bytes = empty;
    for event in response.events {
        let size = event.encoded_len() + EVENT_OVERHEAD;
        if !events.is_empty() && bytes + size >= limit {
            parts.push(part(std::mem::take(&mut events), true));
            bytes = empty;
        }
        bytes += size;
        events.push(event);
    }
    parts.push(part(events, false));
    parts
}
