use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::SmallRng};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    suite,
    support::{Backend, caught_up, eventually},
    world::{AGENT, connector, delete, grant, leader, name, put, session, task, uid, want},
};
use crate::{
    domain::{Snapshot, stored},
    store::{Change, ChangeFeed, Key, Mirror, Prefix, Store},
};

fn mirror(store: &Store) -> Mirror {
    Mirror::spawn(store.clone(), CancellationToken::new())
}

/// Every mirrored key with the revision of its last write, from the mirror and from etcd.
fn mirrored(snapshot: &Snapshot) -> BTreeMap<Key, i64> {
    let mut keys = BTreeMap::new();
    keys.extend(
        snapshot
            .connectors
            .iter()
            .map(|(name, v)| (Key::Connector(name.clone()), v.mod_revision)),
    );
    keys.extend(
        snapshot
            .grants
            .iter()
            .map(|(task, v)| (Key::Grant(task.clone()), v.mod_revision)),
    );
    keys.extend(
        snapshot
            .wants
            .iter()
            .map(|(task, v)| (Key::Want(task.clone()), v.mod_revision)),
    );
    keys.extend(snapshot.leader.iter().map(|v| (Key::Leader, v.mod_revision)));
    keys
}

async fn stored(store: &Store) -> BTreeMap<Key, i64> {
    let mut keys = BTreeMap::new();
    for prefix in [Prefix::Connectors, Prefix::Grants(uid()), Prefix::Wants(uid())] {
        let page = store.list(&prefix).await.expect("a list");
        keys.extend(
            page.values
                .into_iter()
                .filter_map(|raw| Some((raw.key?, raw.mod_revision))),
        );
    }
    if let (Some(leader), _) = store.get_raw(&Key::Leader).await.expect("a read") {
        keys.insert(Key::Leader, leader.mod_revision);
    }
    keys
}

/// Grant and want of a task are always written together, here with the same number.
fn torn(snapshot: &Snapshot) -> Option<String> {
    let grants: Vec<_> = snapshot
        .grants
        .iter()
        .map(|(task, v)| (task, v.mod_revision))
        .collect();
    let wants: Vec<_> = snapshot
        .wants
        .iter()
        .map(|(task, v)| (task, v.mod_revision))
        .collect();
    (grants != wants).then(|| format!("{grants:?} and {wants:?}"))
}

/// Writes and removes keys, in single writes and transactions. Returns how many key changes there were.
async fn traffic(store: &Store, writes: u32, mut pause: impl AsyncFnMut()) -> usize {
    let mut random = SmallRng::seed_from_u64(7);
    let mut changes = 0;
    for _ in 0..writes {
        let n = random.random_range(0..8_u32);
        let (grant_key, want_key) = (Key::Grant(task(n)), Key::Want(task(n)));
        match random.random_range(0..10) {
            0..6 => {
                let txn = store
                    .guarded()
                    .put(&grant_key, &grant("i1"))
                    .put(&want_key, &want("n"));
                assert!(txn.run().await.expect("a write").applied);
                changes += 2;
            }
            6 => {
                let present = store.get_raw(&grant_key).await.expect("a read").0.is_some();
                let txn = store.guarded().delete(&grant_key).delete(&want_key);
                assert!(txn.run().await.expect("a write").applied);
                changes += if present { 2 } else { 0 };
            }
            7 => {
                let key = Key::Connector(name("c", random.random_range(0..4)));
                put(store, key, &connector()).await;
                changes += 1;
            }
            // What is not mirrored.
            _ => {
                let key = Key::Offset(uid(), 0, name("p", random.random_range(0..4)));
                put(store, key, &stored::OffsetRecord::default()).await;
            }
        }
        pause().await;
    }
    changes
}

/// Reads a feed until `stop`; checks every step; returns the number of key changes.
async fn follow(mirror: Mirror, mut feed: ChangeFeed, stop: Arc<AtomicBool>) -> usize {
    let (mut changes, mut last) = (0, 0);
    loop {
        match timeout(Duration::from_millis(200), feed.next()).await {
            Ok(Some(Change::Keys { revision, keys })) => {
                assert!(revision > last, "revision {revision} after {last}");
                last = revision;
                changes += keys.len();
            }
            Ok(other) => panic!("{other:?}"),
            Err(_) if stop.load(Ordering::Relaxed) => return changes,
            Err(_) => {}
        }
        assert_eq!(mirror.read(torn), None, "a transaction was seen in part");
    }
}

async fn no_change_is_lost_or_doubled_over_broken_streams(backend: Backend) {
    let store = backend.store("mirror").await;
    let (disturbed, faults) = backend.disturbed("mirror").await;
    let mirror = mirror(&disturbed);
    caught_up(&mirror, &store).await;
    let stop = Arc::new(AtomicBool::new(false));
    let following = tokio::spawn(follow(mirror.clone(), mirror.changes(), stop.clone()));
    let mut breaks = 0;
    let mut step = 0;
    let changes = traffic(&store, 1500, async || {
        step += 1;
        if step % 60 == 0 {
            faults.break_streams();
            breaks += 1;
        }
        sleep(Duration::from_millis(2)).await;
    })
    .await;
    caught_up(&mirror, &store).await;
    stop.store(true, Ordering::Relaxed);
    let seen = following.await.expect("the feed");
    assert_eq!(seen, changes, "after {breaks} broken streams");
    assert_eq!(mirror.read(mirrored), stored(&store).await);
    let opened = faults.calls("Watch");
    assert!(opened > 5, "{breaks} breaks, and only {opened} streams");
}

async fn what_happened_behind_a_compaction_is_found_out(backend: Backend) {
    let store = backend.store("mirror").await;
    let (disturbed, faults) = backend.disturbed("mirror").await;
    let mirror = mirror(&disturbed);
    for n in 0..5 {
        put(&store, Key::Connector(name("c", n)), &connector()).await;
    }
    caught_up(&mirror, &store).await;
    let (mut feed, before) = (mirror.changes(), mirror.revision());
    faults.cut();
    delete(&store, Key::Connector(name("c", 1))).await;
    put(&store, Key::Connector(name("c", 2)), &connector()).await;
    put(&store, Key::Connector(name("c", 7)), &connector()).await;
    put(&store, Key::Connector(name("gone-again", 1)), &connector()).await;
    delete(&store, Key::Connector(name("gone-again", 1))).await;
    backend.compact().await;
    faults.heal();
    caught_up(&mirror, &store).await;
    assert_eq!(mirror.read(mirrored), stored(&store).await);
    let Some(Change::Keys { keys, .. }) = feed.next().await else {
        panic!("no change")
    };
    let mut keys = keys.to_vec();
    keys.sort();
    assert_eq!(keys, [1, 2, 7].map(|n| Key::Connector(name("c", n))));
    // Whoever resumes from before the cut is told the same.
    let mut resumed = mirror.changes_after(before).expect("it is remembered");
    let Some(Change::Keys { keys, .. }) = resumed.next().await else {
        panic!("no change")
    };
    assert_eq!(keys.len(), 3);
    assert!(mirror.changes_after(0).is_err());
}

async fn the_mirror_goes_on_after_a_restart_of_etcd(backend: Backend) {
    if !backend.is_real() {
        return;
    }
    let store = backend.store("mirror").await;
    let mirror = mirror(&store);
    caught_up(&mirror, &store).await;
    let stop = Arc::new(AtomicBool::new(false));
    let following = tokio::spawn(follow(mirror.clone(), mirror.changes(), stop.clone()));
    let mut changes = 0;
    for _ in 0..3 {
        changes += traffic(&store, 100, async || ()).await;
        backend.restart().await;
    }
    caught_up(&mirror, &store).await;
    stop.store(true, Ordering::Relaxed);
    assert_eq!(following.await.expect("the feed"), changes);
    assert_eq!(mirror.read(mirrored), stored(&store).await);
}

async fn a_cut_is_known_and_ends_with_a_fresh_read(backend: Backend) {
    let store = backend.store("mirror").await;
    let (disturbed, faults) = backend.disturbed("mirror").await;
    let mirror = mirror(&disturbed);
    caught_up(&mirror, &store).await;
    let first = mirror.connection();
    assert!(first.since.is_some() && first.fresh_at.is_some());
    sleep(Duration::from_secs(3)).await;
    let later = mirror.connection();
    assert_eq!((later.cuts, later.since), (first.cuts, first.since));
    assert!(
        later.fresh_at > first.fresh_at,
        "it is compared with etcd again and again"
    );
    faults.cut();
    eventually("the cut shows", async || mirror.connection().since.is_none()).await;
    assert_eq!(mirror.connection().cuts, first.cuts + 1);
    assert_eq!(mirror.connection().fresh_at, None);
    let missed = put(&store, Key::Leader, &leader("a")).await;
    let healed = Instant::now();
    faults.heal();
    eventually("the mirror is back", async || mirror.connection().since.is_some()).await;
    assert!(mirror.connection().since.is_some_and(|since| since >= healed));
    assert!(
        mirror.revision() >= missed,
        "it counts as connected only when it has caught up"
    );
}

async fn a_revision_without_mirrored_changes_can_be_waited_for(backend: Backend) {
    let store = backend.store("mirror").await;
    let mirror = mirror(&store);
    caught_up(&mirror, &store).await;
    for n in 0..10 {
        let record = stored::OffsetRecord::default();
        let revision = put(&store, Key::Offset(uid(), n, "p".into()), &record).await;
        let asked = Instant::now();
        mirror
            .wait_revision(revision, asked + Duration::from_secs(5))
            .await
            .expect("it passes");
        assert!(
            asked.elapsed() < Duration::from_millis(900),
            "{:?}",
            asked.elapsed()
        );
    }
    let never = mirror.revision() + 1000;
    let deadline = Instant::now() + Duration::from_millis(300);
    assert!(mirror.wait_revision(never, deadline).await.is_err());
}

async fn another_store_is_noticed(backend: Backend) {
    let store = backend.store("mirror").await;
    let (disturbed, faults) = backend.disturbed("mirror").await;
    let id = |id: &str| stored::StoreId {
        format: 1,
        id: id.to_owned(),
    };
    put(&store, Key::StoreId, &id("one")).await;
    for n in 0..50 {
        put(&store, Key::Connector(name("c", n)), &connector()).await;
    }
    let mirror = mirror(&disturbed);
    caught_up(&mirror, &store).await;
    let mut feed = mirror.changes();
    // Renamed in place, as `gantry admin restored` does.
    assert!(store.rename("two").await.expect("a write"));
    assert_eq!(feed.next().await, Some(Change::Replaced));
    assert_eq!(
        mirror.read(|snapshot| snapshot.store_id.clone().map(|id| id.id.clone())),
        Some("two".to_owned())
    );
    assert!(
        mirror.changes_after(10).is_err(),
        "what a token of the old store names is gone"
    );
    // Restored from a backup: a lower revision.
    let restored = Backend::embedded();
    let other = restored.store("mirror").await;
    put(&other, Key::Connector("restored".into()), &connector()).await;
    faults.lead_to(restored.transport());
    assert_eq!(feed.next().await, Some(Change::Replaced));
    let names: Vec<_> = mirror.read(|snapshot| snapshot.connectors.keys().cloned().collect());
    assert_eq!(names, [Arc::from("restored")]);
    assert!(mirror.connection().cuts >= 2);
}

async fn a_slow_reader_is_told_to_start_over(backend: Backend) {
    let store = backend.store("mirror").await;
    let mirror = Mirror::spawn_with_feed(store.clone(), 8, CancellationToken::new());
    caught_up(&mirror, &store).await;
    let mut feed = mirror.changes();
    for _ in 0..20 {
        put(&store, Key::Leader, &leader("a")).await;
        caught_up(&mirror, &store).await;
    }
    assert_eq!(feed.next().await, Some(Change::Lagged));
    let revision = put(&store, Key::Session(AGENT.into()), &session(1)).await;
    assert_eq!(
        feed.next().await,
        Some(Change::Keys {
            revision,
            keys: [Key::Session(AGENT.into())].into()
        })
    );
}

/// Its own test, since a file needs a clock that runs.
#[tokio::test]
async fn the_mirror_goes_on_after_a_restart_of_the_embedded_etcd() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("store");
    let etcd = gantry_embedded_etcd::Store::open(&file).expect("a new file");
    let (transport, faults) = super::fault::Faults::around(etcd.transport());
    let channel = etcd_client::Channel::Custom(transport);
    let client = etcd_client::Client::from_channel(channel, None)
        .await
        .expect("a client");
    let store = Store::new(&client, "mirror");
    let mirror = mirror(&store);
    let mut last = etcd;
    for round in 0..5 {
        put(&store, Key::Connector(name("c", round)), &connector()).await;
        delete(&store, Key::Connector(name("c", round / 2))).await;
        caught_up(&mirror, &store).await;
        put(&store, Key::Connector("just-before".into()), &connector()).await;
        last.shutdown().await;
        last = gantry_embedded_etcd::Store::open(&file).expect("the same file");
        faults.lead_to(last.transport());
        caught_up(&mirror, &store).await;
        assert_eq!(mirror.read(mirrored), stored(&store).await);
    }
}

suite!(
    no_change_is_lost_or_doubled_over_broken_streams,
    what_happened_behind_a_compaction_is_found_out,
    the_mirror_goes_on_after_a_restart_of_etcd,
    a_cut_is_known_and_ends_with_a_fresh_read,
    a_revision_without_mirrored_changes_can_be_waited_for,
    another_store_is_noticed,
    a_slow_reader_is_told_to_start_over,
);
