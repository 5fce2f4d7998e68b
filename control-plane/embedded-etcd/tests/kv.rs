//! Keys and transactions: the cases that a random comparison meets rarely, with etcd's exact texts.

use std::fmt::Debug;

use etcd_client::{
    Client, Compare, CompareOp, DeleteOptions, Error, GetOptions, PutOptions, SortOrder, SortTarget, Txn,
    TxnOp, TxnOpResponse,
};
use gantry_embedded_etcd::Store;
use tonic::Code;

async fn client() -> Client {
    Store::in_memory().client().await.expect("a client")
}

fn refused<T: Debug>(result: Result<T, Error>, code: Code, message: &str) {
    match result {
        Err(Error::GRpcStatus(status)) => {
            assert_eq!((status.code(), status.message()), (code, message));
        }
        other => panic!("expected {message:?}, got {other:?}"),
    }
}

fn puts(count: usize) -> Vec<TxnOp> {
    (0..count)
        .map(|number| TxnOp::put(format!("k{number}"), "v", None))
        .collect()
}

#[tokio::test]
async fn a_new_store_is_at_revision_one_and_a_header_is_complete() {
    let mut client = client().await;
    let answer = client.get("k", None).await.expect("an answer");
    let header = answer.header().expect("a header");
    assert_eq!(header.revision(), 1);
    assert!(header.cluster_id() > 0 && header.member_id() > 0 && header.raft_term() > 0);
    let put = client.put("k", "v", None).await.expect("put");
    assert_eq!(put.header().expect("a header").revision(), 2);
}

#[tokio::test]
async fn each_list_of_a_transaction_may_have_128_operations() {
    let mut client = client().await;
    let compares = |count: usize| -> Vec<Compare> {
        (0..count)
            .map(|number| Compare::version(format!("k{number}"), CompareOp::Equal, 0))
            .collect()
    };
    let full = Txn::new()
        .when(compares(128))
        .and_then(puts(128))
        .or_else(puts(128));
    assert!(client.txn(full).await.expect("an answer").succeeded());
    let message = "etcdserver: too many operations in txn request";
    for over in [
        Txn::new().when(compares(129)),
        Txn::new().and_then(puts(129)),
        Txn::new().or_else(puts(129)),
        Txn::new().and_then([TxnOp::txn(Txn::new().and_then(puts(128)))]),
    ] {
        refused(client.txn(over).await, Code::InvalidArgument, message);
    }
}

#[tokio::test]
async fn a_key_is_written_once_per_transaction() {
    let mut client = client().await;
    let message = "etcdserver: duplicate key given in txn request";
    let put = || TxnOp::put("k", "v", None);
    let delete = || TxnOp::delete("", Some(DeleteOptions::new().with_all_keys()));
    let prefix = || TxnOp::delete("k", Some(DeleteOptions::new().with_prefix()));
    let nested = |op: TxnOp| TxnOp::txn(Txn::new().or_else([op]));
    for ops in [
        vec![put(), put()],
        vec![put(), prefix()],
        vec![prefix(), nested(put())],
        vec![nested(put()), nested(put())],
        vec![put(), nested(prefix())],
    ] {
        let txn = Txn::new().and_then(ops);
        refused(client.txn(txn).await, Code::InvalidArgument, message);
    }
    // Only one branch runs; and etcd takes a delete without an end for no overlap.
    let both = Txn::new().and_then([put()]).or_else([put()]);
    let either = TxnOp::txn(both);
    client
        .txn(Txn::new().and_then([either]))
        .await
        .expect("an answer");
    client
        .txn(Txn::new().and_then([delete(), put()]))
        .await
        .expect("an answer");
    let answer = client.get("k", None).await.expect("an answer");
    assert_eq!(answer.kvs()[0].version(), 1, "deleted and created again");
}

#[tokio::test]
async fn what_a_transaction_may_not_do_leaves_no_trace() {
    let mut client = client().await;
    client.put("kept", "v", None).await.expect("put");
    let lease = client.lease_grant(100, None).await.expect("a lease").id();
    let leased = || Some(PutOptions::new().with_lease(lease));
    let keep = || Some(PutOptions::new().with_ignore_value());
    let all = || TxnOp::delete("", Some(DeleteOptions::new().with_all_keys()));
    // The delete comes first, so that the value to keep is gone when the put runs.
    let ops = [
        TxnOp::put("new", "v", leased()),
        all(),
        TxnOp::put("kept", "", keep()),
    ];
    let result = client.txn(Txn::new().and_then(ops)).await;
    refused(result, Code::InvalidArgument, "etcdserver: key not found");
    let answer = client.get("", Some(GetOptions::new().with_all_keys())).await;
    let answer = answer.expect("an answer");
    assert_eq!(answer.header().expect("a header").revision(), 2);
    assert_eq!((answer.count(), answer.kvs()[0].key()), (1, b"kept".as_slice()));
    let state = client.lease_time_to_live(lease, None).await.expect("an answer");
    assert!(state.keys().is_empty());
}

#[tokio::test]
async fn a_nested_compare_sees_the_state_before_the_transaction() {
    let mut client = client().await;
    let inner = Txn::new()
        .when([Compare::version("k", CompareOp::Equal, 0)])
        .and_then([TxnOp::get("k", None)]);
    let outer = Txn::new().and_then([TxnOp::put("k", "v", None), TxnOp::txn(inner)]);
    let answer = client.txn(outer).await.expect("an answer");
    let TxnOpResponse::Txn(inner) = &answer.op_responses()[1] else {
        panic!("a nested answer");
    };
    assert!(inner.succeeded());
    let TxnOpResponse::Get(get) = &inner.op_responses()[0] else {
        panic!("a read");
    };
    assert_eq!(get.count(), 1, "its reads do see the writes");
}

#[tokio::test]
async fn a_compare_over_no_keys_compares_zeros_but_never_a_value() {
    let mut client = client().await;
    let holds = async |client: &mut Client, compare: Compare| {
        let answer = client.txn(Txn::new().when([compare])).await;
        answer.expect("an answer").succeeded()
    };
    let none = |compare: Compare| compare.with_prefix();
    assert!(holds(&mut client, none(Compare::version("t", CompareOp::Equal, 0))).await);
    assert!(!holds(&mut client, none(Compare::version("t", CompareOp::Greater, 0))).await);
    assert!(!holds(&mut client, none(Compare::value("t", CompareOp::NotEqual, "x"))).await);
    client.put("t1", "x", None).await.expect("put");
    client.put("t2", "y", None).await.expect("put");
    assert!(holds(&mut client, none(Compare::version("t", CompareOp::Greater, 0))).await);
    assert!(!holds(&mut client, none(Compare::value("t", CompareOp::Equal, "x"))).await);
}

#[tokio::test]
async fn requests_are_refused_with_the_texts_of_etcd() {
    let mut client = client().await;
    let invalid = Code::InvalidArgument;
    let no_key = "etcdserver: key is not provided";
    refused(client.put("", "v", None).await, invalid, no_key);
    refused(client.get("", None).await, invalid, no_key);
    refused(client.delete("", None).await, invalid, no_key);
    let compare = Compare::version("", CompareOp::Equal, 0);
    refused(client.txn(Txn::new().when([compare])).await, invalid, no_key);
    let keep = || PutOptions::new().with_ignore_value();
    let value = "etcdserver: value is provided";
    refused(client.put("k", "v", Some(keep())).await, invalid, value);
    let missing = "etcdserver: key not found";
    refused(client.put("k", "", Some(keep())).await, invalid, missing);
    let lease = PutOptions::new().with_ignore_lease().with_lease(1);
    let provided = "etcdserver: lease is provided";
    refused(client.put("k", "v", Some(lease)).await, invalid, provided);
    let lease = PutOptions::new().with_lease(1);
    let unknown = "etcdserver: requested lease not found";
    refused(client.put("k", "v", Some(lease)).await, Code::NotFound, unknown);
    let huge = client.lease_grant(9_000_000_001, None).await;
    refused(huge, Code::OutOfRange, "etcdserver: too large lease TTL");
}

#[tokio::test]
async fn a_request_of_one_and_a_half_mebibytes_is_too_large() {
    let mut client = client().await;
    client.put("k", vec![0; 1_500 << 10], None).await.expect("fits");
    let large = client.put("k", vec![0; 1_536 << 10], None).await;
    let message = "etcdserver: request is too large";
    refused(large, Code::InvalidArgument, message);
    let half = || vec![0; 768 << 10];
    let ops = [TxnOp::put("a", half(), None), TxnOp::put("b", half(), None)];
    let large = client.txn(Txn::new().and_then(ops)).await;
    refused(large, Code::InvalidArgument, message);
    let Err(Error::GRpcStatus(status)) = client.put("k", vec![0; 2 << 20], None).await else {
        panic!("larger than a message may be");
    };
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(
        status
            .message()
            .starts_with("grpc: received message larger than max (")
    );
}

#[tokio::test]
async fn compaction_bounds_what_can_be_read() {
    let mut client = client().await;
    for value in 0..5 {
        client.put("k", value.to_string(), None).await.expect("put");
    }
    let at = |revision| Some(GetOptions::new().with_revision(revision));
    let gone = "etcdserver: mvcc: required revision has been compacted";
    let future = "etcdserver: mvcc: required revision is a future revision";
    refused(client.compact(7, None).await, Code::OutOfRange, future);
    client.compact(4, None).await.expect("compacted");
    refused(client.compact(4, None).await, Code::OutOfRange, gone);
    refused(client.get("k", at(3)).await, Code::OutOfRange, gone);
    refused(client.get("k", at(7)).await, Code::OutOfRange, future);
    for (revision, value) in [(4, b"2"), (5, b"3"), (6, b"4")] {
        let answer = client.get("k", at(revision)).await.expect("an answer");
        assert_eq!(answer.kvs()[0].value(), value);
    }
    // In a transaction the bounds are those before it.
    let read = TxnOp::get("k", at(7));
    let txn = Txn::new().and_then([TxnOp::put("k", "5", None), read]);
    refused(client.txn(txn).await, Code::OutOfRange, future);
}

#[tokio::test]
async fn a_limit_without_an_order_cuts_before_it_sorts() {
    let mut client = client().await;
    for key in ["a", "b", "c"] {
        client.put(key, "v", None).await.expect("put");
    }
    client.put("a", "w", None).await.expect("put");
    let keys = async |client: &mut Client, order: SortOrder| -> Vec<String> {
        let options = GetOptions::new()
            .with_all_keys()
            .with_limit(1)
            .with_sort(SortTarget::Version, order);
        let answer = client.get("", Some(options)).await.expect("an answer");
        assert!(answer.more());
        assert_eq!(answer.count(), 3);
        let key = |kv: &etcd_client::KeyValue| kv.key_str().expect("text").to_owned();
        answer.kvs().iter().map(key).collect()
    };
    assert_eq!(keys(&mut client, SortOrder::None).await, ["b"]);
    assert_eq!(keys(&mut client, SortOrder::Ascend).await, ["b"]);
    assert_eq!(keys(&mut client, SortOrder::Descend).await, ["a"]);
}
