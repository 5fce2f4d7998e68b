//! The writes: each takes the state from one revision to the next, or leaves it as it was. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use etcd_client::proto::{
    PbDeleteRequest, PbDeleteResponse, PbKeyValue, PbPutRequest, PbPutResponse, PbTxnRequest, PbTxnResponse,
};
use tokio::time::Instant;
use tonic::Status;

use crate::header;
use crate::key_range::KeyRange;
use crate::lease::Leases;
use crate::mvcc::{Change, Kv, Mvcc, View};
use crate::{status, txn};

/// Superseded changes dropped per write: more than a write adds, so that the backlog shrinks.
const PRUNED_PER_WRITE: usize = 256;

/// Everything the store holds in memory.
pub(crate) struct State {
    pub(crate) mvcc: Mvcc,
    pub(crate) leases: Leases,
}

/// What has to reach the disk, by key: only the last write of a batch counts.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    /// None: removed.
    pub(crate) keys: BTreeMap<Vec<u8>, Option<Kv>>,
    /// Ttl in seconds by id; None: removed.
    pub(crate) leases: BTreeMap<i64, Option<i64>>,
}

impl Effects {
    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.leases.is_empty()
    }
}

pub(crate) fn put(
    state: &mut State,
    effects: &mut Effects,
    request: PbPutRequest,
) -> Result<PbPutResponse, Status> {
    let mut draft = Draft::new(state);
    // Here etcd looks at the lease first, in a transaction at the key.
    let checked = draft
        .check_lease(&request)
        .and_then(|()| draft.check_previous(&request));
    match checked.and_then(|()| draft.put(request)) {
        Ok(response) => {
            draft.commit(effects);
            Ok(response)
        }
        Err(status) => {
            draft.undo();
            Err(status)
        }
    }
}

pub(crate) fn delete(
    state: &mut State,
    effects: &mut Effects,
    request: &PbDeleteRequest,
) -> PbDeleteResponse {
    let mut draft = Draft::new(state);
    let response = draft.delete(request);
    draft.commit(effects);
    response
}

pub(crate) fn txn(
    state: &mut State,
    effects: &mut Effects,
    request: PbTxnRequest,
) -> Result<PbTxnResponse, Status> {
    let mut draft = Draft::new(state);
    match txn::run(&mut draft, request) {
        Ok(response) => {
            draft.commit(effects);
            Ok(response)
        }
        Err(status) => {
            draft.undo();
            Err(status)
        }
    }
}

/// Forgets the history below `revision`. Returns the newest revision.
pub(crate) fn compact(state: &mut State, revision: i64) -> Result<i64, Status> {
    let head = state.mvcc.head();
    if revision <= head.compacted {
        return Err(status::compacted());
    }
    if revision > head.revision {
        return Err(status::future_revision());
    }
    state.mvcc.compact(revision);
    state.mvcc.prune(PRUNED_PER_WRITE);
    Ok(head.revision)
}

pub(crate) fn grant(
    state: &mut State,
    effects: &mut Effects,
    id: i64,
    ttl: i64,
    now: Instant,
) -> Result<(i64, i64), Status> {
    let (id, ttl) = state.leases.grant(id, ttl, now)?;
    effects.leases.insert(id, Some(ttl));
    Ok((id, ttl))
}

/// Ends a lease and deletes its keys in one revision. Returns the newest revision.
pub(crate) fn revoke(state: &mut State, effects: &mut Effects, id: i64) -> Result<i64, Status> {
    let keys = state.leases.remove(id).ok_or_else(status::lease_not_found)?;
    effects.leases.insert(id, None);
    let mut draft = Draft::new(state);
    for key in keys {
        draft.delete(&PbDeleteRequest {
            key,
            ..PbDeleteRequest::default()
        });
    }
    Ok(draft.commit(effects))
}

/// Ends the leases whose time is over, at most `limit`. Returns how many.
pub(crate) fn expire(state: &mut State, effects: &mut Effects, now: Instant, limit: usize) -> usize {
    let due = state.leases.due(now, limit);
    for id in &due {
        // `due` only names leases that exist.
        let _ = revoke(state, effects, *id);
    }
    due.len()
}

struct Written {
    change: Change,
    previous_lease: i64,
}

/// One write under way: its changes are seen by what follows in it, and by nobody else.
pub(crate) struct Draft<'a> {
    state: &'a mut State,
    written: Vec<Written>,
}

impl<'a> Draft<'a> {
    fn new(state: &'a mut State) -> Self {
        Self {
            state,
            written: Vec::new(),
        }
    }

    pub(crate) fn mvcc(&self) -> &Mvcc {
        &self.state.mvcc
    }

    /// The view before this write.
    pub(crate) fn base(&self) -> View {
        self.state.mvcc.head()
    }

    /// The view including what this write did so far.
    pub(crate) fn view(&self) -> View {
        let base = self.base();
        View {
            revision: base.revision + i64::from(!self.written.is_empty()),
            ..base
        }
    }

    /// The revision this write gets if it writes.
    fn next_revision(&self) -> i64 {
        self.base().revision + 1
    }

    /// Whether what the request wants to keep of the key is there to be kept.
    pub(crate) fn check_previous(&self, request: &PbPutRequest) -> Result<(), Status> {
        if request.ignore_value || request.ignore_lease {
            self.mvcc()
                .get(&request.key, self.base().revision)
                .ok_or_else(status::key_not_found)?;
        }
        Ok(())
    }

    pub(crate) fn check_lease(&self, request: &PbPutRequest) -> Result<(), Status> {
        if request.lease != 0 && self.state.leases.get(request.lease).is_none() {
            return Err(status::lease_not_found());
        }
        Ok(())
    }

    pub(crate) fn put(&mut self, request: PbPutRequest) -> Result<PbPutResponse, Status> {
        let revision = self.next_revision();
        let previous = self.mvcc().get(&request.key, revision).cloned();
        if (request.ignore_value || request.ignore_lease) && previous.is_none() {
            // An earlier operation of the same transaction deleted it.
            return Err(status::key_not_found());
        }
        let old = previous.as_deref();
        let kv = Arc::new(PbKeyValue {
            create_revision: old.map_or(revision, |old| old.create_revision),
            mod_revision: revision,
            version: old.map_or(1, |old| old.version + 1),
            value: match old {
                Some(old) if request.ignore_value => old.value.clone(),
                _ => request.value,
            },
            lease: match old {
                Some(old) if request.ignore_lease => old.lease,
                _ => request.lease,
            },
            key: request.key,
        });
        self.write(Change::Put(kv), old.map_or(0, |old| old.lease));
        Ok(PbPutResponse {
            header: header(revision),
            prev_kv: previous
                .filter(|_| request.prev_kv)
                .map(|kv| PbKeyValue::clone(&kv)),
        })
    }

    pub(crate) fn delete(&mut self, request: &PbDeleteRequest) -> PbDeleteResponse {
        let range = KeyRange::new(&request.key, &request.range_end);
        let gone: Vec<Kv> = self.mvcc().scan(range, self.next_revision()).cloned().collect();
        for kv in &gone {
            self.write(Change::Delete(kv.key.clone()), kv.lease);
        }
        PbDeleteResponse {
            header: header(self.view().revision),
            deleted: i64::try_from(gone.len()).unwrap_or(i64::MAX),
            prev_kvs: if request.prev_kv {
                gone.iter().map(|kv| PbKeyValue::clone(kv)).collect()
            } else {
                Vec::new()
            },
        }
    }

    fn write(&mut self, change: Change, previous_lease: i64) {
        self.state.mvcc.push(change.clone());
        self.written.push(Written {
            change,
            previous_lease,
        });
    }

    /// Makes the changes the next revision, if there are any. Returns the newest revision.
    fn commit(self, effects: &mut Effects) -> i64 {
        let State { mvcc, leases } = self.state;
        if !self.written.is_empty() {
            for written in &self.written {
                let key = written.change.key();
                let kv = match &written.change {
                    Change::Put(kv) => Some(kv.clone()),
                    Change::Delete(_) => None,
                };
                let lease = kv.as_ref().map_or(0, |kv| kv.lease);
                leases.attach(key, written.previous_lease, lease);
                effects.keys.insert(key.to_vec(), kv);
            }
            mvcc.append(self.written.into_iter().map(|w| w.change).collect());
        }
        mvcc.prune(PRUNED_PER_WRITE);
        mvcc.head().revision
    }

    fn undo(self) {
        for written in self.written.iter().rev() {
            self.state.mvcc.pop(written.change.key());
        }
    }
}
