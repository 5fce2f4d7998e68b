//! Leases by a clock that stands still unless everybody waits.

use std::time::Duration;

use etcd_client::{Client, Error, LeaseGrantOptions, PutOptions};
use gantry_embedded_etcd::Store;
use tokio::time::{Instant, sleep};

async fn client() -> Client {
    Store::in_memory().client().await.expect("a client")
}

async fn exists(client: &mut Client, key: &str) -> bool {
    client.get(key, None).await.expect("an answer").count() > 0
}

/// Seconds until the key is deleted.
async fn deleted_after(client: &mut Client, key: &str) -> u64 {
    let start = Instant::now();
    let mut stream = client.watch(key, None).await.expect("a watch");
    loop {
        let message = stream.message().await.expect("no error").expect("one");
        if !message.events().is_empty() {
            return start.elapsed().as_secs();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_ends_when_its_time_is_over() {
    let mut client = client().await;
    let lease = client.lease_grant(5, None).await.expect("a lease").id();
    let leased = PutOptions::new().with_lease(lease);
    client.put("k", "v", Some(leased.clone())).await.expect("put");
    sleep(Duration::from_millis(4_900)).await;
    assert!(exists(&mut client, "k").await);
    assert_eq!(deleted_after(&mut client, "k").await, 0);
    let state = client.lease_time_to_live(lease, None).await.expect("an answer");
    assert_eq!(state.ttl(), -1);
    let Err(Error::GRpcStatus(status)) = client.put("k", "v", Some(leased)).await else {
        panic!("the lease is over");
    };
    assert_eq!(status.code(), tonic::Code::NotFound);
    assert_eq!(status.message(), "etcdserver: requested lease not found");
}

#[tokio::test(start_paused = true)]
async fn a_shorter_lease_granted_later_ends_first() {
    let mut client = client().await;
    for (key, ttl) in [("long", 60), ("short", 2)] {
        let lease = client.lease_grant(ttl, None).await.expect("a lease").id();
        let leased = PutOptions::new().with_lease(lease);
        client.put(key, "v", Some(leased)).await.expect("put");
    }
    assert_eq!(deleted_after(&mut client, "short").await, 2);
    assert_eq!(deleted_after(&mut client, "long").await, 58);
}

#[tokio::test(start_paused = true)]
async fn a_lease_lives_while_it_is_kept_alive() {
    let mut client = client().await;
    let lease = client.lease_grant(3, None).await.expect("a lease").id();
    let leased = PutOptions::new().with_lease(lease);
    client.put("k", "v", Some(leased)).await.expect("put");
    let (mut keeper, mut answers) = client.lease_keep_alive(lease).await.expect("a stream");
    for _ in 0..20 {
        sleep(Duration::from_secs(2)).await;
        keeper.keep_alive().await.expect("sent");
        let answer = answers.message().await.expect("no error").expect("one");
        assert_eq!((answer.id(), answer.ttl()), (lease, 3));
    }
    let state = client.lease_time_to_live(lease, None).await.expect("an answer");
    assert_eq!((state.ttl(), state.granted_ttl()), (3, 3));
    assert!(exists(&mut client, "k").await);
    assert_eq!(deleted_after(&mut client, "k").await, 3);
    keeper.keep_alive().await.expect("sent");
    let answer = answers.message().await.expect("no error").expect("one");
    assert_eq!(answer.ttl(), 0, "a dead lease is not renewed");
    client
        .lease_keep_alive(lease)
        .await
        .expect_err("nor is there a stream for it");
}

#[tokio::test(start_paused = true)]
async fn a_thousand_leases_end_together_and_writes_go_on() {
    let mut client = client().await;
    for number in 0..1_000 {
        let lease = client.lease_grant(10, None).await.expect("a lease").id();
        let leased = PutOptions::new().with_lease(lease);
        client
            .put(format!("k/{number}"), "v", Some(leased))
            .await
            .expect("put");
    }
    assert_eq!(client.leases().await.expect("an answer").leases().len(), 1_000);
    sleep(Duration::from_millis(10_001)).await;
    client.put("other", "v", None).await.expect("put");
    while !client.leases().await.expect("an answer").leases().is_empty() {
        tokio::task::yield_now().await;
    }
    assert!(!exists(&mut client, "k/999").await);
}

#[tokio::test(start_paused = true)]
async fn ids_are_positive_chosen_once_and_kept() {
    let mut client = client().await;
    let chosen = client.lease_grant(10, None).await.expect("a lease").id();
    assert!(chosen > 0);
    let own = |id| Some(LeaseGrantOptions::new().with_id(id));
    assert_eq!(client.lease_grant(10, own(7)).await.expect("a lease").id(), 7);
    let Err(Error::GRpcStatus(status)) = client.lease_grant(10, own(7)).await else {
        panic!("the id is taken");
    };
    assert_eq!(status.message(), "etcdserver: lease already exists");
    assert_eq!(status.code(), tonic::Code::FailedPrecondition);
    let Err(Error::GRpcStatus(status)) = client.lease_revoke(8).await else {
        panic!("there is no such lease");
    };
    assert_eq!(status.message(), "etcdserver: requested lease not found");
}
