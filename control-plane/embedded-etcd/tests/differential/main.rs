//! The same random calls to a real etcd and to the embedded store get the same answers, the same watches see the same
//! events, and both end in the same state.

mod answers;
mod etcd;
mod generator;
mod ops;
mod watches;

use std::fmt::Debug;
use std::path::Path;

use etcd_client::{Client, LeaseGrantOptions, PutOptions, Txn, TxnOp, WatchFilterType, WatchOptions};
use gantry_embedded_etcd::Store;
use tokio::sync::watch;

use self::answers::{everything, revision, run};
use self::generator::{Generator, KEYS, LEASES};
use self::ops::Op;
use self::watches::{ANSWER_WITHIN, events, live_events};

const HISTORIES: u64 = 10;
const OPERATIONS: usize = 5_000;
/// These many of the histories run on a file, which costs a commit per write.
const HISTORIES_ON_DISK: u64 = 2;

struct Differences(Vec<String>);

impl Differences {
    fn compare(&mut self, what: &dyn Debug, etcd: &str, embedded: &str) {
        if etcd != embedded {
            self.0
                .push(format!("{what:?}\n  etcd     {etcd}\n  embedded {embedded}"));
        }
    }
}

/// Runs one history; returns how many operations were compared.
async fn history(seed: u64, file: Option<&Path>, differences: &mut Differences) -> usize {
    let etcd = etcd::Etcd::start().await;
    let mut real = etcd.client();
    let open = || match file {
        Some(path) => Store::open(path).expect("a store"),
        None => Store::in_memory(),
    };
    let store = open();
    let mut embedded = store.client().await.expect("a client");

    let live = || Some(WatchOptions::new().with_prefix().with_prev_key());
    let mut real_live = real.watch("a", live()).await.expect("a watch");
    let mut embedded_live = embedded.watch("a", live()).await.expect("a watch");
    real_live.message().await.expect("created");
    embedded_live.message().await.expect("created");
    let (last_revision, last) = watch::channel(i64::MAX);
    let real_live = tokio::spawn(live_events(real_live, last.clone()));
    let embedded_live = tokio::spawn(live_events(embedded_live, last));

    let mut generator = Generator::new(seed);
    let mut compacted = 1;
    let mut compared = 0;
    for step in 0..OPERATIONS {
        let op = generator.next();
        let theirs = run(&mut real, op.clone()).await;
        let ours = run(&mut embedded, op.clone()).await;
        compared += 1;
        differences.compare(&(seed, step, &op), &theirs, &ours);
        if let Op::Compact(revision) = op
            && theirs.starts_with("CompactionResponse")
        {
            compacted = revision;
        }
        if step % 8 == 0 {
            generator.revision = revision(&mut real).await;
        }
    }

    // The last revisions put and then delete every key, so that every watch below has an event to wait for.
    let all = |op: &dyn Fn(String) -> TxnOp| -> Txn {
        let ops: Vec<_> = (0..KEYS).map(Generator::key_number).map(op).collect();
        Txn::new().and_then(ops)
    };
    let puts = all(&|key| TxnOp::put(key, "last", None));
    let deletes = all(&|key| TxnOp::delete(key, None));
    for client in [&mut real, &mut embedded] {
        client.txn(puts.clone()).await.expect("an answer");
    }
    let last_put = revision(&mut real).await;
    let states = (everything(&mut real).await, everything(&mut embedded).await);
    differences.compare(&(seed, "state"), &states.0, &states.1);
    for client in [&mut real, &mut embedded] {
        client.txn(deletes.clone()).await.expect("an answer");
    }
    let last = revision(&mut real).await;

    last_revision.send_replace(last);
    let both = async { (real_live.await, embedded_live.await) };
    let (theirs, ours) = tokio::time::timeout(ANSWER_WITHIN, both)
        .await
        .expect("both watches reach the last revision");
    let (theirs, ours) = (theirs.expect("no panic"), ours.expect("no panic"));
    differences.compare(&(seed, "live watch"), &theirs, &ours);

    let ends = Ends {
        compacted,
        last_put,
        last,
    };
    for (theirs, ours, what) in replays(&mut real, &mut embedded, &ends).await {
        differences.compare(&(seed, "replay", what), &theirs, &ours);
    }

    for client in [&mut real, &mut embedded] {
        client.txn(puts.clone()).await.expect("an answer");
        client
            .lease_grant(5_000, Some(LeaseGrantOptions::new().with_id(LEASES)))
            .await
            .ok();
        let leased = PutOptions::new().with_lease(LEASES);
        client
            .put("a/0", "leased", Some(leased))
            .await
            .expect("an answer");
    }
    store.shutdown().await;
    if file.is_some() {
        let store = open();
        let mut reopened = store.client().await.expect("a client");
        let states = (everything(&mut real).await, everything(&mut reopened).await);
        differences.compare(&(seed, "state after a restart"), &states.0, &states.1);
        store.shutdown().await;
    }
    compared
}

/// Revisions at which histories are cut.
struct Ends {
    compacted: i64,
    /// At it every key was put.
    last_put: i64,
    /// At it every key was deleted.
    last: i64,
}

/// What watches from around the compacted revision and from near the end deliver: of etcd, of the embedded store, and which
/// watch it was.
async fn replays(real: &mut Client, embedded: &mut Client, ends: &Ends) -> Vec<(String, String, String)> {
    let mut delivered = Vec::new();
    for (key, prefix) in [("a", true), ("ab/", true), ("a/1", false), ("b", true)] {
        for start in [
            ends.compacted - 1,
            ends.compacted,
            ends.compacted + 1,
            ends.last - 20,
        ] {
            for filter in [
                None,
                Some(WatchFilterType::NoPut),
                Some(WatchFilterType::NoDelete),
            ] {
                let options = || {
                    let mut options = WatchOptions::new()
                        .with_start_revision(start.max(1))
                        .with_prev_key();
                    if prefix {
                        options = options.with_prefix();
                    }
                    if let Some(filter) = filter {
                        options = options.with_filters([filter]);
                    }
                    Some(options)
                };
                let until = match filter {
                    Some(WatchFilterType::NoDelete) => ends.last_put,
                    _ => ends.last,
                };
                let mut theirs = real.watch(key, options()).await.expect("a watch");
                let mut ours = embedded.watch(key, options()).await.expect("a watch");
                let theirs = events(&mut theirs, until).await;
                let ours = events(&mut ours, until).await;
                delivered.push((theirs, ours, format!("{key} from {start} {filter:?}")));
            }
        }
    }
    delivered
}

#[tokio::test]
async fn random_operations_get_the_answers_of_a_real_etcd() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut differences = Differences(Vec::new());
    let mut compared = 0;
    for seed in 0..HISTORIES {
        let path = directory.path().join(seed.to_string());
        let file = (seed < HISTORIES_ON_DISK).then_some(path.as_path());
        compared += Box::pin(history(seed, file, &mut differences)).await;
    }
    println!(
        "{compared} operations on {HISTORIES} histories, {} differences",
        differences.0.len()
    );
    let shown = differences.0.iter().take(10).cloned().collect::<Vec<_>>();
    assert!(shown.is_empty(), "{}", shown.join("\n"));
    assert_eq!(compared, OPERATIONS * usize::try_from(HISTORIES).expect("few"));
}
