//! Range requests: which keys, in which order. Pure.

use std::cmp::Ordering;

use etcd_client::proto::{PbKeyValue, PbRangeRequest, PbRangeResponse};
use etcd_client::{SortOrder, SortTarget};
use tonic::Status;

use crate::header;
use crate::key_range::KeyRange;
use crate::mvcc::{Kv, Mvcc, View};
use crate::status;

/// The answer to a range request, still sharing its values with the store: copying them out needs no lock.
#[derive(Debug)]
pub(crate) struct Selection {
    revision: i64,
    kvs: Vec<Kv>,
    count: i64,
    more: bool,
    keys_only: bool,
}

impl Selection {
    pub(crate) fn into_response(self) -> PbRangeResponse {
        let copy = |kv: Kv| PbKeyValue {
            value: if self.keys_only {
                Vec::new()
            } else {
                kv.value.clone()
            },
            key: kv.key.clone(),
            ..copy_numbers(&kv)
        };
        PbRangeResponse {
            header: header(self.revision),
            kvs: self.kvs.into_iter().map(copy).collect(),
            more: self.more,
            count: self.count,
        }
    }
}

fn copy_numbers(kv: &PbKeyValue) -> PbKeyValue {
    PbKeyValue {
        create_revision: kv.create_revision,
        mod_revision: kv.mod_revision,
        version: kv.version,
        lease: kv.lease,
        ..PbKeyValue::default()
    }
}

/// Checks what can be checked without the store.
pub(crate) fn check(request: &PbRangeRequest) -> Result<(), Status> {
    if request.key.is_empty() {
        return Err(status::empty_key());
    }
    if order_of(request).is_none() || target_of(request).is_none() {
        return Err(status::invalid_sort());
    }
    Ok(())
}

/// Runs a [checked](check) request for a reader that sees `view`.
pub(crate) fn select(mvcc: &Mvcc, view: View, request: &PbRangeRequest) -> Result<Selection, Status> {
    if request.revision > view.revision {
        return Err(status::future_revision());
    }
    let at = if request.revision <= 0 {
        view.revision
    } else {
        request.revision
    };
    if at < view.compacted {
        return Err(status::compacted());
    }

    let filtered = request.min_mod_revision != 0
        || request.max_mod_revision != 0
        || request.min_create_revision != 0
        || request.max_create_revision != 0;
    let order = order_of(request).ok_or_else(status::invalid_sort)?;
    let target = target_of(request).ok_or_else(status::invalid_sort)?;
    let limit = match usize::try_from(request.limit) {
        Ok(0) | Err(_) => usize::MAX,
        Ok(limit) => limit,
    };
    // As etcd: without an order only one key more than the limit is fetched, in key order, and these are then
    // sorted by the target.
    let fetch = if request.count_only {
        0
    } else if order == SortOrder::None && !filtered {
        limit.saturating_add(1)
    } else {
        usize::MAX
    };

    let mut kvs: Vec<Kv> = Vec::new();
    let mut count = 0;
    for kv in mvcc.scan(KeyRange::new(&request.key, &request.range_end), at) {
        count += 1;
        if kvs.len() < fetch && within(request, kv) {
            kvs.push(kv.clone());
        }
    }
    sort(&mut kvs, order, target);
    let more = kvs.len() > limit;
    kvs.truncate(limit);
    Ok(Selection {
        revision: view.revision,
        kvs,
        count,
        more,
        keys_only: request.keys_only,
    })
}

fn within(request: &PbRangeRequest, kv: &PbKeyValue) -> bool {
    let inside = |value: i64, min: i64, max: i64| (min == 0 || value >= min) && (max == 0 || value <= max);
    inside(
        kv.mod_revision,
        request.min_mod_revision,
        request.max_mod_revision,
    ) && inside(
        kv.create_revision,
        request.min_create_revision,
        request.max_create_revision,
    )
}

/// Sorts stably, so that equal keys stay in key order in both directions, as in etcd for short lists.
fn sort(kvs: &mut [Kv], order: SortOrder, target: SortTarget) {
    let compare = |a: &Kv, b: &Kv| -> Ordering {
        match target {
            SortTarget::Key => a.key.cmp(&b.key),
            SortTarget::Version => a.version.cmp(&b.version),
            SortTarget::Create => a.create_revision.cmp(&b.create_revision),
            SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
            SortTarget::Value => a.value.cmp(&b.value),
        }
    };
    match (order, target) {
        (SortOrder::Descend, _) => kvs.sort_by(|a, b| compare(b, a)),
        (SortOrder::None | SortOrder::Ascend, SortTarget::Key) => {}
        (SortOrder::None | SortOrder::Ascend, _) => kvs.sort_by(compare),
    }
}

fn order_of(request: &PbRangeRequest) -> Option<SortOrder> {
    SortOrder::try_from(request.sort_order).ok()
}

fn target_of(request: &PbRangeRequest) -> Option<SortTarget> {
    SortTarget::try_from(request.sort_target).ok()
}
