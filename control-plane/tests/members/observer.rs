//! A replica that watches and stands for election, and what must always hold of what it sees.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use gantry_control_plane::{
    domain::{Snapshot, TaskId, Versioned},
    store::{Candidate, Change, Election, Key, Lease, Mirror, Prefix, Store},
};
use parking_lot::Mutex;
use tokio::{task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{eventually, load::uid, members::Members};

/// From this number on the tasks' grants and wants are always written together.
pub(crate) const PAIRS: u32 = 1000;
const LEASE: Duration = Duration::from_secs(9);

/// Who led last, of all replicas, and whether that is over.
pub(crate) type Leader = Arc<Mutex<Option<(usize, CancellationToken)>>>;

pub(crate) struct Replica {
    mirror: Mirror,
    watching: JoinHandle<()>,
    stop: CancellationToken,
}

impl Replica {
    pub(crate) async fn start(members: &Members, number: usize, leader: &Leader) -> Self {
        let stop = CancellationToken::new();
        let store = members.store().await;
        let mirror = Mirror::spawn(store.clone(), stop.clone());
        let lease = Lease::spawn(store.clone(), LEASE, stop.clone());
        let candidate = Candidate {
            replica: format!("r{number}"),
            incarnation: format!("r{number}-1"),
            address: String::new(),
            new_store_id: format!("s{number}"),
        };
        let election = Election::spawn(store, mirror.clone(), lease, candidate, stop.clone());
        mirror.ready().await;
        let watching = tokio::spawn(watch(
            number,
            mirror.clone(),
            election,
            leader.clone(),
            stop.clone(),
        ));
        Self {
            mirror,
            watching,
            stop,
        }
    }

    /// Ends it; what it sees has to be what is stored.
    pub(crate) async fn finish(self, store: &Store) {
        eventually("the mirror holds what is stored", async || {
            let Ok(page) = store.list(&Prefix::Grants(uid())).await else {
                return false;
            };
            let until = Instant::now() + Duration::from_secs(5);
            if self.mirror.wait_revision(page.revision, until).await.is_err() {
                return false;
            }
            let stored = page.values.iter().filter_map(|raw| match &raw.key {
                Some(Key::Grant(task)) => Some((task.clone(), raw.mod_revision)),
                _ => None,
            });
            let seen = self.mirror.read(|s| revisions(&s.grants, 0));
            seen == stored.collect()
        })
        .await;
        self.stop.cancel();
        self.watching.await.expect("what was seen always held");
    }
}

async fn watch(number: usize, mirror: Mirror, election: Election, leader: Leader, stop: CancellationToken) {
    let mut feed = mirror.changes();
    let mut leadership = election.watch();
    let mut last = mirror.revision();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            change = feed.next() => match change {
                Some(Change::Keys { revision, .. }) => {
                    assert!(revision >= last, "the feed goes back from {last} to {revision}");
                    last = revision;
                    mirror.read(whole);
                }
                Some(Change::Lagged) => {}
                Some(Change::Replaced) => panic!("the store is the same all the time"),
                None => return,
            },
            changed = leadership.changed() => {
                if changed.is_err() {
                    return;
                }
                if let Some(now) = leadership.borrow_and_update().clone() {
                    println!("replica {number} leads in term {}", now.term);
                    if let Some((before, lost)) = leader.lock().replace((number, now.lost)) {
                        assert!(lost.is_cancelled(), "replica {before} still leads beside {number}");
                    }
                }
            }
        }
    }
}

/// No transaction is seen in part.
fn whole(snapshot: &Snapshot) {
    let (grants, wants) = (
        revisions(&snapshot.grants, PAIRS),
        revisions(&snapshot.wants, PAIRS),
    );
    assert_eq!(grants, wants, "torn at revision {}", snapshot.revision);
}

fn revisions<T>(values: &BTreeMap<TaskId, Versioned<T>>, from: u32) -> BTreeMap<TaskId, i64> {
    let wanted = values.iter().filter(|(task, _)| task.n >= from);
    wanted
        .map(|(task, value)| (task.clone(), value.mod_revision))
        .collect()
}
