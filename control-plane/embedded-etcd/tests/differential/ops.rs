//! Operations, and the requests that they are.

use etcd_client::{Compare, DeleteOptions, GetOptions, PutOptions, SortOrder, SortTarget, Txn, TxnOp};

#[derive(Clone, Debug)]
pub(crate) enum Op {
    Put(Put),
    Get(Get),
    Delete(Delete),
    Txn(Transaction),
    Compact(i64),
    Grant { id: i64, ttl: i64 },
    Revoke(i64),
    TimeToLive(i64),
    Leases,
}

#[derive(Clone, Debug)]
pub(crate) struct Put {
    pub(crate) key: String,
    pub(crate) value: String,
    pub(crate) lease: i64,
    pub(crate) prev_key: bool,
    pub(crate) ignore_value: bool,
    pub(crate) ignore_lease: bool,
}

#[derive(Clone, Debug)]
pub(crate) enum Keys {
    One(String),
    Prefix(String),
    From(String),
    Between(String, String),
}

#[derive(Clone, Debug)]
pub(crate) struct Get {
    pub(crate) keys: Keys,
    pub(crate) revision: i64,
    pub(crate) limit: i64,
    pub(crate) sort: (SortTarget, SortOrder),
    pub(crate) keys_only: bool,
    pub(crate) count_only: bool,
    pub(crate) mod_revisions: (i64, i64),
    pub(crate) create_revisions: (i64, i64),
}

#[derive(Clone, Debug)]
pub(crate) struct Delete {
    pub(crate) keys: Keys,
    pub(crate) prev_key: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Transaction {
    pub(crate) compares: Vec<Compare>,
    pub(crate) success: Vec<Op>,
    pub(crate) failure: Vec<Op>,
}

/// The first key and the options for a range of keys.
macro_rules! ranged {
    ($keys:expr, $options:expr) => {
        match $keys {
            Keys::One(key) => (key, $options),
            Keys::Prefix(key) => (key, $options.with_prefix()),
            Keys::From(key) => (key, $options.with_from_key()),
            Keys::Between(key, end) => (key, $options.with_range(end)),
        }
    };
}

pub(crate) fn put_options(put: &Put) -> PutOptions {
    let mut options = PutOptions::new().with_lease(put.lease);
    if put.prev_key {
        options = options.with_prev_key();
    }
    if put.ignore_value {
        options = options.with_ignore_value();
    }
    if put.ignore_lease {
        options = options.with_ignore_lease();
    }
    options
}

pub(crate) fn get_request(get: &Get) -> (String, GetOptions) {
    let mut options = GetOptions::new()
        .with_revision(get.revision)
        .with_limit(get.limit)
        .with_sort(get.sort.0, get.sort.1)
        .with_min_mod_revision(get.mod_revisions.0)
        .with_max_mod_revision(get.mod_revisions.1)
        .with_min_create_revision(get.create_revisions.0)
        .with_max_create_revision(get.create_revisions.1);
    if get.keys_only {
        options = options.with_keys_only();
    }
    if get.count_only {
        options = options.with_count_only();
    }
    ranged!(get.keys.clone(), options)
}

pub(crate) fn delete_request(delete: &Delete) -> (String, DeleteOptions) {
    let mut options = DeleteOptions::new();
    if delete.prev_key {
        options = options.with_prev_key();
    }
    ranged!(delete.keys.clone(), options)
}

pub(crate) fn txn_request(txn: &Transaction) -> Txn {
    let ops = |ops: &[Op]| -> Vec<TxnOp> {
        ops.iter()
            .map(|op| match op {
                Op::Put(put) => TxnOp::put(put.key.clone(), put.value.clone(), Some(put_options(put))),
                Op::Get(get) => {
                    let (key, options) = get_request(get);
                    TxnOp::get(key, Some(options))
                }
                Op::Delete(delete) => {
                    let (key, options) = delete_request(delete);
                    TxnOp::delete(key, Some(options))
                }
                Op::Txn(txn) => TxnOp::txn(txn_request(txn)),
                other => unreachable!("{other:?} is no operation of a transaction"),
            })
            .collect()
    };
    Txn::new()
        .when(txn.compares.clone())
        .and_then(ops(&txn.success))
        .or_else(ops(&txn.failure))
}
