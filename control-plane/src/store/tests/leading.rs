use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    fault::Fault,
    suite,
    support::{Backend, caught_up, eventually},
    world::{NAME, connector, pointer, put, uid},
};
use crate::{
    domain::stored,
    store::{
        Candidate, Election, Key, LeaderStore, Leadership, Lease, Mirror, Store, Written, codec::FORMAT,
    },
};

/// Short for a real etcd, where time passes.
fn length(backend: &Backend) -> Duration {
    Duration::from_secs(if backend.is_real() { 3 } else { 9 })
}

/// A replica that stands for election.
struct Replica {
    store: Store,
    mirror: Mirror,
    lease: Lease,
    election: Election,
    stop: CancellationToken,
}

impl Replica {
    fn start(store: &Store, name: &str, length: Duration) -> Self {
        let stop = CancellationToken::new();
        let mirror = Mirror::spawn(store.clone(), stop.clone());
        let lease = Lease::spawn(store.clone(), length, stop.clone());
        let candidate = Candidate {
            replica: name.to_owned(),
            incarnation: format!("{name}-1"),
            address: String::new(),
            new_store_id: format!("store of {name}"),
        };
        let election = Election::spawn(
            store.clone(),
            mirror.clone(),
            lease.clone(),
            candidate,
            stop.clone(),
        );
        Self {
            store: store.clone(),
            mirror,
            lease,
            election,
            stop,
        }
    }

    async fn leads(&self) -> Leadership {
        let mut leadership = self.election.watch();
        let waiting = leadership.wait_for(Option::is_some);
        let leadership = timeout(Duration::from_secs(40), waiting)
            .await
            .expect("a leader in time");
        leadership.expect("the task lives").clone().expect("a leader")
    }

    async fn write(&self, term: i64) -> Written {
        let leader = LeaderStore::new(self.store.clone(), self.mirror.clone(), term);
        let key = Key::Connector(NAME.into());
        let spec = self
            .store
            .get_raw(&key)
            .await
            .expect("a read")
            .0
            .map_or(0, |raw| raw.mod_revision);
        let (raw, _) = self
            .store
            .get_raw(&Key::PlanPointer(uid()))
            .await
            .expect("a read");
        let revision = raw.map_or(0, |raw| raw.mod_revision);
        leader
            .set_pointer(NAME, &uid(), spec, revision, &pointer(1))
            .await
            .expect("etcd answers")
    }
}

async fn a_lost_lease_is_replaced_and_said_so(backend: Backend) {
    let (store, faults) = backend.disturbed("lease").await;
    let length = length(&backend);
    let stop = CancellationToken::new();
    let lease = Lease::spawn(store.clone(), length, stop.clone());
    let first = lease.granted().await.expect("a lease");
    assert!(lease.is_fresh());
    let txn = store
        .guarded()
        .put_leased(&Key::Replica("r1".into()), &stored::Replica::default(), first);
    assert!(txn.run().await.expect("a write").applied);
    sleep(length * 2).await;
    assert!(lease.is_fresh() && lease.id() == Some(first), "it is kept alive");
    assert!(lease.confirmed_at().is_some_and(|at| at.elapsed() < length / 3));
    faults.cut();
    sleep(length * 2 / 3).await;
    assert!(!lease.is_fresh(), "not confirmed for two thirds of its length");
    assert_eq!(lease.id(), Some(first), "it may still live");
    sleep(length * 2).await;
    faults.heal();
    let mut state = lease.watch();
    let other = state.wait_for(|state| state.id.is_some_and(|id| id != first));
    let second = timeout(length * 2, other)
        .await
        .expect("a new lease")
        .expect("the task lives")
        .id;
    let (left, _) = store.get_raw(&Key::Replica("r1".into())).await.expect("a read");
    assert_eq!(left, None, "what hung on the first lease is gone");
    let txn = store.guarded().put_leased(
        &Key::Replica("r1".into()),
        &stored::Replica::default(),
        second.expect("an id"),
    );
    assert!(txn.run().await.expect("a write").applied);
    stop.cancel();
    lease.ended().await;
    let (left, _) = store.get_raw(&Key::Replica("r1".into())).await.expect("a read");
    assert_eq!(left, None, "the lease was revoked");
}

async fn a_revoked_lease_is_noticed_when_it_is_used(backend: Backend) {
    let store = backend.store("lease").await;
    let lease = Lease::spawn(store.clone(), Duration::from_secs(60), CancellationToken::new());
    let first = lease.granted().await.expect("a lease");
    backend
        .client()
        .await
        .lease_revoke(first)
        .await
        .expect("a revocation");
    let txn = store
        .guarded()
        .put_leased(&Key::Replica("r1".into()), &stored::Replica::default(), first);
    assert_eq!(txn.run().await, Err(crate::store::StoreError::LeaseGone));
    lease.check();
    eventually("a new lease", async || lease.id().is_some_and(|id| id != first)).await;
}

async fn the_first_leader_founds_the_store_and_a_stopped_one_is_followed_at_once(backend: Backend) {
    let store = backend.store("election").await;
    let length = length(&backend);
    let one = Replica::start(&store, "one", length);
    let first = one.leads().await;
    let (id, _) = store.get::<stored::StoreId>(&Key::StoreId).await.expect("a read");
    assert_eq!(id.map(|id| id.id.clone()), Some("store of one".to_owned()));
    let (format, _) = store
        .get::<stored::ClusterFormat>(&Key::Format)
        .await
        .expect("a read");
    assert_eq!(format.map(|format| format.writes), Some(FORMAT));
    let (key, _) = store.get_raw(&Key::Leader).await.expect("a read");
    assert_eq!(
        key.map(|key| (key.create_revision, key.lease)),
        Some((first.term, one.lease.id().unwrap_or(0)))
    );
    let two = Replica::start(&store, "two", length);
    sleep(length).await;
    assert!(two.election.leadership().is_none() && one.election.leadership().is_some());
    let stopped = Instant::now();
    one.stop.cancel();
    let second = two.leads().await;
    assert!(
        stopped.elapsed() < Duration::from_millis(1500),
        "{:?}",
        stopped.elapsed()
    );
    assert!(second.term > first.term && first.lost.is_cancelled());
    let (id, _) = store.get::<stored::StoreId>(&Key::StoreId).await.expect("a read");
    assert_eq!(
        id.map(|id| id.id.clone()),
        Some("store of one".to_owned()),
        "it is founded once"
    );
}

async fn a_leader_that_is_cut_off_stops_before_another_is_elected(backend: Backend) {
    let (one_store, faults) = backend.disturbed("election").await;
    let store = backend.store("election").await;
    let length = length(&backend);
    put(&store, Key::Connector(NAME.into()), &connector()).await;
    let one = Replica::start(&one_store, "one", length);
    let first = one.leads().await;
    caught_up(&one.mirror, &store).await;
    assert!(matches!(one.write(first.term).await, Written::Applied(_)));
    let two = Replica::start(&store, "two", length);
    caught_up(&two.mirror, &store).await;
    faults.cut();
    let cut = Instant::now();
    first.lost.cancelled().await;
    let lost = cut.elapsed();
    assert!(lost <= length * 2 / 3 + Duration::from_millis(200), "{lost:?}");
    assert!(two.election.leadership().is_none());
    let second = two.leads().await;
    assert!(cut.elapsed() >= lost);
    assert!(
        cut.elapsed() <= length + Duration::from_secs(3),
        "{:?}",
        cut.elapsed()
    );
    faults.heal();
    assert_eq!(
        one.write(first.term).await,
        Written::Conflict,
        "a deposed leader is refused"
    );
    assert!(matches!(two.write(second.term).await, Written::Applied(_)));
    sleep(length).await;
    assert!(one.election.leadership().is_none(), "there is one leader");
}

async fn an_election_is_won_although_its_answer_is_lost(backend: Backend) {
    let (store, faults) = backend.disturbed("election").await;
    faults.next("Txn", Fault::LoseAnswer);
    let one = Replica::start(&store, "one", length(&backend));
    let leadership = one.leads().await;
    let (key, _) = store.get_raw(&Key::Leader).await.expect("a read");
    assert_eq!(key.map(|key| key.create_revision), Some(leadership.term));
    one.stop.cancel();
    one.election.ended().await;
    let (key, _) = store.get_raw(&Key::Leader).await.expect("a read");
    assert_eq!(key, None, "it is given back");
}

async fn an_election_that_is_won_late_is_taken_up(backend: Backend) {
    let (store, faults) = backend.disturbed("election").await;
    faults.next("Txn", Fault::Late(Duration::from_millis(500)));
    faults.after("Txn", 0, Fault::LoseRequest);
    faults.after("Txn", 0, Fault::LoseRequest);
    let one = Replica::start(&store, "one", length(&backend));
    let leadership = one.leads().await;
    let (key, _) = store.get_raw(&Key::Leader).await.expect("a read");
    assert_eq!(key.map(|key| key.create_revision), Some(leadership.term));
    sleep(Duration::from_secs(2)).await;
    assert!(!leadership.lost.is_cancelled());
}

suite!(
    a_lost_lease_is_replaced_and_said_so,
    a_revoked_lease_is_noticed_when_it_is_used,
    the_first_leader_founds_the_store_and_a_stopped_one_is_followed_at_once,
    a_leader_that_is_cut_off_stops_before_another_is_elected,
    an_election_is_won_although_its_answer_is_lost,
    an_election_that_is_won_late_is_taken_up,
);
