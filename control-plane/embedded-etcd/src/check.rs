//! What is wrong with a write request whatever the store holds. Pure.

use std::collections::BTreeSet;

use etcd_client::proto::{PbDeleteRequest, PbPutRequest, PbTxnOpRequest, PbTxnRequest, PbTxnRequestOp};
use tonic::Status;

use crate::{range, status};

/// Most compares, most operations of the success branch and most of the failure branch, each.
pub(crate) const MAX_TXN_OPS: usize = 128;
/// Largest write request in bytes, as etcd encodes it.
pub(crate) const MAX_REQUEST_BYTES: usize = 1536 * 1024;
/// Largest message etcd's gRPC layer takes, in bytes.
const MAX_MESSAGE_BYTES: usize = MAX_REQUEST_BYTES + 512 * 1024;
/// What etcd's log wraps around a request.
const LOG_OVERHEAD_BYTES: usize = 24;

/// Checks the encoded size of a write request.
pub(crate) fn size(encoded: usize) -> Result<(), Status> {
    if encoded > MAX_MESSAGE_BYTES {
        return Err(status::message_too_large(encoded, MAX_MESSAGE_BYTES));
    }
    if encoded + LOG_OVERHEAD_BYTES > MAX_REQUEST_BYTES {
        return Err(status::request_too_large());
    }
    Ok(())
}

pub(crate) fn put(request: &PbPutRequest) -> Result<(), Status> {
    if request.key.is_empty() {
        return Err(status::empty_key());
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(status::value_provided());
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(status::lease_provided());
    }
    Ok(())
}

pub(crate) fn delete(request: &PbDeleteRequest) -> Result<(), Status> {
    if request.key.is_empty() {
        return Err(status::empty_key());
    }
    Ok(())
}

pub(crate) fn txn(request: &PbTxnRequest) -> Result<(), Status> {
    operations(request, MAX_TXN_OPS)?;
    writes(&request.success)?;
    writes(&request.failure)?;
    Ok(())
}

/// A nested transaction may have as many operations as its parent left.
fn operations(request: &PbTxnRequest, allowed: usize) -> Result<(), Status> {
    let most = request
        .compare
        .len()
        .max(request.success.len())
        .max(request.failure.len());
    let left = allowed
        .checked_sub(most)
        .ok_or_else(status::too_many_operations)?;
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(status::empty_key());
    }
    for op in request.success.iter().chain(&request.failure) {
        match &op.request {
            Some(PbTxnOpRequest::RequestRange(request)) => range::check(request)?,
            Some(PbTxnOpRequest::RequestPut(request)) => put(request)?,
            Some(PbTxnOpRequest::RequestDeleteRange(request)) => delete(request)?,
            Some(PbTxnOpRequest::RequestTxn(request)) => operations(request, left)?,
            None => return Err(status::key_not_found()),
        }
    }
    Ok(())
}

#[derive(Default)]
struct Writes<'a> {
    puts: BTreeSet<&'a [u8]>,
    deletes: Vec<&'a PbDeleteRequest>,
}

impl Writes<'_> {
    fn deletes(&self, key: &[u8]) -> bool {
        self.deletes.iter().any(|delete| {
            if delete.range_end.is_empty() {
                key == delete.key
            } else {
                // The zero byte for "everything from here on" is compared as it stands, as etcd does: such a
                // delete overlaps no put.
                key >= delete.key.as_slice() && key < delete.range_end.as_slice()
            }
        })
    }
}

/// Collects what the operations write; no key may be put twice, or put and deleted.
fn writes(ops: &[PbTxnRequestOp]) -> Result<Writes<'_>, Status> {
    let mut all = Writes::default();
    for op in ops {
        if let Some(PbTxnOpRequest::RequestDeleteRange(delete)) = &op.request {
            all.deletes.push(delete);
        }
    }
    for op in ops {
        let Some(PbTxnOpRequest::RequestTxn(txn)) = &op.request else {
            continue;
        };
        let success = writes(&txn.success)?;
        let failure = writes(&txn.failure)?;
        let before = all.puts.clone();
        for key in success.puts.iter().chain(&failure.puts) {
            // Both branches of one transaction may put the same key: only one of them runs.
            if before.contains(key) || all.deletes(key) {
                return Err(status::duplicate_key());
            }
            all.puts.insert(key);
        }
        all.deletes.extend(success.deletes);
        all.deletes.extend(failure.deletes);
    }
    for op in ops {
        let Some(PbTxnOpRequest::RequestPut(put)) = &op.request else {
            continue;
        };
        if all.deletes(&put.key) || !all.puts.insert(&put.key) {
            return Err(status::duplicate_key());
        }
    }
    Ok(all)
}
