//! Transactions: compares, branches and nested transactions. Pure.

use std::cmp::Ordering;

use etcd_client::CompareOp;
use etcd_client::proto::{
    PbCompare, PbCompareTarget, PbKeyValue, PbRangeRequest, PbResponseOp, PbTargetUnion, PbTxnOpRequest,
    PbTxnOpResponse, PbTxnRequest, PbTxnRequestOp, PbTxnResponse,
};
use tonic::Status;

use crate::apply::Draft;
use crate::header;
use crate::key_range::KeyRange;
use crate::mvcc::{Mvcc, View};
use crate::{range, status};

/// Which branch runs, for a transaction and for those nested in that branch, in order.
///
/// All of it is decided before anything is written: a nested compare does not see its parent's writes.
struct Path {
    succeeded: bool,
    nested: Vec<Path>,
}

/// True if no branch can write. A nested transaction counts as a write, as in etcd.
pub(crate) fn is_read_only(request: &PbTxnRequest) -> bool {
    request
        .success
        .iter()
        .chain(&request.failure)
        .all(|op| matches!(op.request, Some(PbTxnOpRequest::RequestRange(_))))
}

/// Runs a checked transaction that [only reads](is_read_only).
pub(crate) fn read(mvcc: &Mvcc, view: View, request: &PbTxnRequest) -> Result<PbTxnResponse, Status> {
    let path = decide(mvcc, view.revision, request);
    let mut responses = Vec::new();
    for op in branch(request, &path) {
        if let Some(PbTxnOpRequest::RequestRange(request)) = &op.request {
            check_range(view, request)?;
            let response = range::select(mvcc, view, request)?.into_response();
            responses.push(PbResponseOp {
                response: Some(PbTxnOpResponse::ResponseRange(response)),
            });
        }
    }
    Ok(PbTxnResponse {
        header: header(view.revision),
        succeeded: path.succeeded,
        responses,
    })
}

/// Runs a checked transaction.
pub(crate) fn run(draft: &mut Draft<'_>, request: PbTxnRequest) -> Result<PbTxnResponse, Status> {
    let path = decide(draft.mvcc(), draft.base().revision, &request);
    check(draft, &request, &path)?;
    let mut response = execute(draft, request, &path)?;
    response.header = header(draft.view().revision);
    Ok(response)
}

fn branch<'a>(request: &'a PbTxnRequest, path: &Path) -> &'a [PbTxnRequestOp] {
    if path.succeeded {
        &request.success
    } else {
        &request.failure
    }
}

fn decide(mvcc: &Mvcc, revision: i64, request: &PbTxnRequest) -> Path {
    let mut path = Path {
        succeeded: request
            .compare
            .iter()
            .all(|compare| holds(mvcc, revision, compare)),
        nested: Vec::new(),
    };
    path.nested = branch(request, &path)
        .iter()
        .filter_map(|op| match &op.request {
            Some(PbTxnOpRequest::RequestTxn(txn)) => Some(decide(mvcc, revision, txn)),
            _ => None,
        })
        .collect();
    path
}

/// Refuses, before anything is written, what could only fail half way.
fn check(draft: &Draft<'_>, request: &PbTxnRequest, path: &Path) -> Result<(), Status> {
    let mut nested = path.nested.iter();
    for op in branch(request, path) {
        match &op.request {
            Some(PbTxnOpRequest::RequestRange(request)) => check_range(draft.base(), request)?,
            Some(PbTxnOpRequest::RequestPut(request)) => {
                draft.check_previous(request)?;
                draft.check_lease(request)?;
            }
            Some(PbTxnOpRequest::RequestTxn(request)) => {
                if let Some(path) = nested.next() {
                    check(draft, request, path)?;
                }
            }
            Some(PbTxnOpRequest::RequestDeleteRange(_)) | None => {}
        }
    }
    Ok(())
}

fn check_range(view: View, request: &PbRangeRequest) -> Result<(), Status> {
    if request.revision > view.revision {
        return Err(status::future_revision());
    }
    if request.revision != 0 && request.revision < view.compacted {
        return Err(status::compacted());
    }
    Ok(())
}

fn execute(draft: &mut Draft<'_>, request: PbTxnRequest, path: &Path) -> Result<PbTxnResponse, Status> {
    let ops = if path.succeeded {
        request.success
    } else {
        request.failure
    };
    let mut nested = path.nested.iter();
    let mut responses = Vec::with_capacity(ops.len());
    for op in ops {
        let response = match op.request {
            Some(PbTxnOpRequest::RequestRange(request)) => {
                let selection = range::select(draft.mvcc(), draft.view(), &request)?;
                PbTxnOpResponse::ResponseRange(selection.into_response())
            }
            Some(PbTxnOpRequest::RequestPut(request)) => PbTxnOpResponse::ResponsePut(draft.put(request)?),
            Some(PbTxnOpRequest::RequestDeleteRange(request)) => {
                PbTxnOpResponse::ResponseDeleteRange(draft.delete(&request))
            }
            Some(PbTxnOpRequest::RequestTxn(request)) => match nested.next() {
                Some(path) => PbTxnOpResponse::ResponseTxn(execute(draft, request, path)?),
                None => continue,
            },
            None => continue,
        };
        responses.push(PbResponseOp {
            response: Some(response),
        });
    }
    Ok(PbTxnResponse {
        // Only the outermost answer carries a revision.
        header: header(0),
        succeeded: path.succeeded,
        responses,
    })
}

/// Every key of the range must satisfy the compare; if there is none, a key of zeros stands in, except for values.
fn holds(mvcc: &Mvcc, revision: i64, compare: &PbCompare) -> bool {
    let target = PbCompareTarget::try_from(compare.target);
    let range = KeyRange::new(&compare.key, &compare.range_end);
    let mut keys = mvcc.scan(range, revision).peekable();
    if keys.peek().is_none() {
        return target != Ok(PbCompareTarget::Value)
            && holds_for(compare, target.ok(), &PbKeyValue::default());
    }
    keys.all(|kv| holds_for(compare, target.ok(), kv))
}

fn holds_for(compare: &PbCompare, target: Option<PbCompareTarget>, kv: &PbKeyValue) -> bool {
    use PbTargetUnion as Union;
    // A target without its value compares with zero; an unknown target or result is equal, as in etcd.
    let number = |value: i64, given: Option<i64>| value.cmp(&given.unwrap_or(0));
    let given = compare.target_union.as_ref();
    let ordering = match target {
        Some(PbCompareTarget::Version) => number(
            kv.version,
            given.and_then(|g| match g {
                Union::Version(value) => Some(*value),
                _ => None,
            }),
        ),
        Some(PbCompareTarget::Create) => number(
            kv.create_revision,
            given.and_then(|g| match g {
                Union::CreateRevision(value) => Some(*value),
                _ => None,
            }),
        ),
        Some(PbCompareTarget::Mod) => number(
            kv.mod_revision,
            given.and_then(|g| match g {
                Union::ModRevision(value) => Some(*value),
                _ => None,
            }),
        ),
        Some(PbCompareTarget::Lease) => number(
            kv.lease,
            given.and_then(|g| match g {
                Union::Lease(value) => Some(*value),
                _ => None,
            }),
        ),
        Some(PbCompareTarget::Value) => kv.value.as_slice().cmp(match given {
            Some(Union::Value(value)) => value.as_slice(),
            _ => &[],
        }),
        None => Ordering::Equal,
    };
    match CompareOp::try_from(compare.result) {
        Ok(CompareOp::Equal) => ordering.is_eq(),
        Ok(CompareOp::NotEqual) => ordering.is_ne(),
        Ok(CompareOp::Greater) => ordering.is_gt(),
        Ok(CompareOp::Less) => ordering.is_lt(),
        Err(_) => true,
    }
}
