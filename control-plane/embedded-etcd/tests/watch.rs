//! Watches: order, resumption, compaction, fragments, progress, cancellation.

use std::time::Duration;

use etcd_client::proto::PbWatchResponse;
use etcd_client::{
    Client, DeleteOptions, EventType, PutOptions, Txn, TxnOp, WatchFilterType, WatchOptions, WatchStream,
};
use gantry_embedded_etcd::Store;

const WITHIN: Duration = Duration::from_secs(30);

async fn client() -> Client {
    Store::in_memory().client().await.expect("a client")
}

async fn message(stream: &mut WatchStream) -> PbWatchResponse {
    tokio::time::timeout(WITHIN, stream.message())
        .await
        .expect("a message in time")
        .expect("no error")
        .expect("the stream goes on")
        .0
}

fn revision(message: &PbWatchResponse) -> i64 {
    message.header.as_ref().expect("a header").revision
}

/// Keys and values, `-` for a delete, of one message.
fn seen(message: &PbWatchResponse) -> Vec<String> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    message
        .events
        .iter()
        .map(|event| {
            let kv = event.kv.as_ref().expect("a key");
            let value = if event.r#type == EventType::Delete as i32 {
                "-".to_owned()
            } else {
                text(&kv.value)
            };
            let before = event.prev_kv.as_ref().map(|kv| text(&kv.value));
            format!("{}={value} {}", text(&kv.key), before.unwrap_or_default())
        })
        .collect()
}

fn from(start: i64) -> WatchOptions {
    WatchOptions::new().with_prefix().with_start_revision(start)
}

#[tokio::test]
async fn events_come_in_order_with_previous_values_and_without_what_is_filtered() {
    let mut client = client().await;
    client.put("a/1", "x", None).await.expect("put");
    client.put("b/1", "y", None).await.expect("put");
    let ops = [TxnOp::put("a/2", "z", None), TxnOp::put("a/1", "w", None)];
    client.txn(Txn::new().and_then(ops)).await.expect("txn");
    client.delete("a/2", None).await.expect("deleted");

    let options = from(2).with_prev_key();
    let mut all = client.watch("a/", Some(options.clone())).await.expect("a watch");
    let created = message(&mut all).await;
    assert!(created.created && !created.canceled);
    assert_eq!(revision(&created), 5);
    let events = message(&mut all).await;
    assert_eq!(seen(&events), ["a/1=x ", "a/2=z ", "a/1=w x", "a/2=- z"]);

    let options = options.with_filters([WatchFilterType::NoPut]);
    let mut deletes = client.watch("a/", Some(options)).await.expect("a watch");
    message(&mut deletes).await;
    assert_eq!(seen(&message(&mut deletes).await), ["a/2=- z"]);

    client.put("a/3", "new", None).await.expect("put");
    let events = message(&mut all).await;
    assert_eq!(seen(&events), ["a/3=new "]);
    assert_eq!(revision(&events), 6);
}

#[tokio::test]
async fn a_watch_resumes_where_another_ended() {
    let mut client = client().await;
    let mut first = client.watch("k", Some(from(0))).await.expect("a watch");
    message(&mut first).await;
    client.put("k", "1", None).await.expect("put");
    let last = revision(&message(&mut first).await);
    drop(first);
    client.put("k", "2", None).await.expect("put");
    client.put("k", "3", None).await.expect("put");
    let mut second = client.watch("k", Some(from(last + 1))).await.expect("a watch");
    message(&mut second).await;
    assert_eq!(seen(&message(&mut second).await), ["k=2 ", "k=3 "]);
}

#[tokio::test]
async fn a_watch_below_the_compacted_revision_is_created_and_then_canceled() {
    let mut client = client().await;
    for value in 0..10 {
        client.put("k", value.to_string(), None).await.expect("put");
    }
    client.compact(8, None).await.expect("compacted");
    let mut late = client.watch("k", Some(from(7))).await.expect("a watch");
    let created = message(&mut late).await;
    assert!(created.created && !created.canceled);
    let canceled = message(&mut late).await;
    assert!(canceled.canceled && !canceled.created);
    assert_eq!(canceled.compact_revision, 8);
    assert_eq!(canceled.cancel_reason, "");
    assert_eq!(canceled.watch_id, created.watch_id);

    // The stream stays, and the revision named is one to start at.
    let options = from(canceled.compact_revision).with_prev_key();
    late.watch("k", Some(options)).await.expect("sent");
    message(&mut late).await;
    let events = message(&mut late).await;
    assert_eq!(seen(&events), ["k=6 ", "k=7 6", "k=8 7", "k=9 8"]);
}

#[tokio::test]
async fn a_watch_that_is_up_to_date_survives_any_compaction() {
    let mut client = client().await;
    let mut stream = client.watch("k", Some(from(0))).await.expect("a watch");
    message(&mut stream).await;
    for value in 0..50 {
        let put = client.put("k", value.to_string(), None).await.expect("put");
        let newest = put.header().expect("a header").revision();
        client.compact(newest, None).await.expect("compacted");
    }
    let mut events = Vec::new();
    while events.len() < 50 {
        let message = message(&mut stream).await;
        assert!(!message.canceled);
        events.extend(seen(&message));
    }
    assert_eq!(events[49], "k=49 ");
}

#[tokio::test]
async fn a_large_revision_is_split_only_for_those_who_asked() {
    let mut client = client().await;
    for number in 0..4 {
        let key = format!("big/{number}");
        client.put(key, vec![b'v'; 1 << 20], None).await.expect("put");
    }
    let all = DeleteOptions::new().with_prefix();
    client.delete("big/", Some(all)).await.expect("deleted");

    let options = from(6).with_prev_key();
    let split = client.watch("big/", Some(options.clone().with_fragment()));
    let mut split = split.await.expect("a watch");
    message(&mut split).await;
    let mut parts = Vec::new();
    loop {
        let part = message(&mut split).await;
        let more = part.fragment;
        parts.push(part.events.len());
        if !more {
            break;
        }
    }
    assert_eq!(parts, [1, 1, 1, 1]);

    let mut large = client.watch_client().max_decoding_message_size(64 << 20);
    let mut whole = large.watch("big/", Some(options)).await.expect("a watch");
    message(&mut whole).await;
    let whole = message(&mut whole).await;
    assert_eq!((whole.events.len(), whole.fragment), (4, false));
}

#[tokio::test]
async fn a_long_history_comes_in_messages_of_bounded_size() {
    let mut client = client().await;
    for number in 0..20 {
        let value = vec![b'0' + number % 10; 1 << 20];
        client.put("big", value, None).await.expect("put");
    }
    let mut stream = client.watch("big", Some(from(2))).await.expect("a watch");
    message(&mut stream).await;
    let mut next = 2;
    while next < 22 {
        let message = message(&mut stream).await;
        for event in &message.events {
            assert_eq!(event.kv.as_ref().expect("a key").mod_revision, next);
            next += 1;
        }
        assert_eq!(revision(&message), next - 1, "a cursor may be taken from it");
    }
}

#[tokio::test]
async fn progress_names_the_newest_revision_when_all_watches_have_started() {
    let mut client = client().await;
    let mut stream = client.watch("quiet", Some(from(0))).await.expect("a watch");
    message(&mut stream).await;
    client.put("other", "1", None).await.expect("put");
    stream.request_progress().await.expect("sent");
    let progress = message(&mut stream).await;
    assert_eq!((progress.watch_id, revision(&progress)), (-1, 2));
    assert!(progress.events.is_empty());

    // As etcd, none while a watch waits for a revision to come.
    stream.watch("later", Some(from(4))).await.expect("sent");
    assert!(message(&mut stream).await.created);
    stream.request_progress().await.expect("sent");
    client.put("quiet", "1", None).await.expect("put");
    assert_eq!(seen(&message(&mut stream).await), ["quiet=1 "]);
    client.put("later", "1", None).await.expect("put");
    assert_eq!(seen(&message(&mut stream).await), ["later=1 "]);
    stream.request_progress().await.expect("sent");
    assert_eq!(revision(&message(&mut stream).await), 4);
}

#[tokio::test(start_paused = true)]
async fn a_quiet_watch_is_told_the_progress_when_it_asked_for_it() {
    let mut client = client().await;
    let options = from(0).with_progress_notify();
    let mut stream = client.watch("quiet", Some(options)).await.expect("a watch");
    message(&mut stream).await;
    client.put("other", "1", None).await.expect("put");
    let wait = Duration::from_secs(61);
    let progress = tokio::time::timeout(wait, stream.message()).await;
    let progress = progress.expect("in time").expect("no error").expect("one").0;
    assert_eq!((progress.watch_id, revision(&progress)), (0, 2));
}

#[tokio::test]
async fn watches_are_refused_and_canceled_as_in_etcd() {
    let mut client = client().await;
    let mut stream = client.watch("k", Some(from(0))).await.expect("a watch");
    assert_eq!(message(&mut stream).await.watch_id, 0);

    let named = WatchOptions::new().with_watch_id(7);
    stream.watch("k", Some(named.clone())).await.expect("sent");
    assert_eq!(message(&mut stream).await.watch_id, 7);
    stream.watch("k", Some(named)).await.expect("sent");
    let refused = message(&mut stream).await;
    assert!(refused.created && refused.canceled);
    assert_eq!(refused.watch_id, -1);
    assert_eq!(
        refused.cancel_reason,
        "mvcc: duplicate watch ID provided on the WatchStream"
    );
    let empty = WatchOptions::new().with_range("a");
    stream.watch("b", Some(empty)).await.expect("sent");
    let refused = message(&mut stream).await;
    assert_eq!(refused.cancel_reason, "mvcc: watcher range is empty");

    stream.cancel(7).await.expect("sent");
    let canceled = message(&mut stream).await;
    assert!(canceled.canceled && canceled.watch_id == 7 && canceled.cancel_reason.is_empty());
    client.put("k", "1", None).await.expect("put");
    assert_eq!(message(&mut stream).await.watch_id, 0);
}

#[tokio::test]
async fn a_thousand_watches_share_a_stream() {
    let mut client = client().await;
    let mut stream = client.watch("k/0", None).await.expect("a watch");
    message(&mut stream).await;
    for number in 1..1_000 {
        stream.watch(format!("k/{number}"), None).await.expect("sent");
        assert_eq!(message(&mut stream).await.watch_id, number);
    }
    client.put("k/777", "1", None).await.expect("put");
    assert_eq!(message(&mut stream).await.watch_id, 777);
}

#[tokio::test]
async fn a_shutdown_ends_watches() {
    let store = Store::in_memory();
    let mut client = store.client().await.expect("a client");
    let mut stream = client.watch("k", None).await.expect("a watch");
    message(&mut stream).await;
    store.shutdown().await;
    let end = tokio::time::timeout(WITHIN, stream.message()).await;
    let error = end.expect("in time").expect_err("an end with its cause");
    assert!(error.to_string().contains("server stopped"), "{error}");
}

#[tokio::test]
async fn leased_keys_go_with_their_lease() {
    let mut client = client().await;
    let lease = client.lease_grant(60, None).await.expect("a lease").id();
    let leased = || Some(PutOptions::new().with_lease(lease));
    let mut stream = client.watch("k", Some(from(0))).await.expect("a watch");
    message(&mut stream).await;
    for key in ["k2", "k1", "k3"] {
        client.put(key, "v", leased()).await.expect("put");
        message(&mut stream).await;
    }
    client.put("k3", "no lease", None).await.expect("put");
    message(&mut stream).await;
    client.lease_revoke(lease).await.expect("revoked");
    let gone = message(&mut stream).await;
    assert_eq!(seen(&gone), ["k1=- ", "k2=- "]);
    assert_eq!(revision(&gone), 6);
}
