//! The store on a port, and the calls by which tools look inside.

use std::time::Duration;

use etcd_client::{AlarmAction, AlarmType, Client};
use gantry_embedded_etcd::Store;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

const WITHIN: Duration = Duration::from_secs(30);

#[tokio::test]
async fn tools_find_one_healthy_member_and_open_streams_do_not_keep_a_server_from_ending() {
    let store = Store::in_memory();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (stop, stopped) = oneshot::channel::<()>();
    let served = store.clone();
    let server = tokio::spawn(async move {
        served
            .serve(listener, async { stopped.await.unwrap_or(()) })
            .await
    });

    let mut client = Client::connect([address.to_string()], None)
        .await
        .expect("a client");
    let mut near = store.client().await.expect("a client");
    near.put("k", "near", None).await.expect("put");
    let far = client.get("k", None).await.expect("an answer");
    assert_eq!(far.kvs()[0].value(), b"near");

    let status = client.status().await.expect("a status");
    assert!(status.version().starts_with("3.6"));
    assert_eq!(status.leader(), far.header().expect("a header").member_id());
    assert!(status.errors().is_empty() && status.db_size() > 0);
    let members = client.member_list().await.expect("a list");
    assert_eq!(members.members().len(), 1);
    let alarms = client.alarm(AlarmAction::Get, AlarmType::None, None).await;
    assert!(alarms.expect("a list").alarms().is_empty());
    client.defragment().await.expect("nothing to do");
    let snapshot = client.snapshot().await.expect_err("not embedded");
    assert!(snapshot.to_string().contains("Snapshot is not available"));

    let mut watch = client.watch("k", None).await.expect("a watch");
    watch.message().await.expect("no error").expect("created");
    let lease = client.lease_grant(60, None).await.expect("a lease").id();
    let (_keeper, mut answers) = client.lease_keep_alive(lease).await.expect("a stream");
    stop.send(()).expect("it runs");
    let ended = async {
        watch.message().await.expect_err("the watch ends");
        answers.message().await.expect_err("the keep-alive ends");
    };
    tokio::time::timeout(WITHIN, ended).await.expect("in time");
    drop(client);
    let server = tokio::time::timeout(WITHIN, server).await.expect("in time");
    server.expect("no panic").expect("no error");
    near.put("k", "on", None).await.expect("the store goes on");
}

/// Some life in a store, with leases that end, on a runtime of its own.
fn simulate() -> String {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let store = Store::in_memory();
        let mut client = store.client().await.expect("a client");
        let mut watch = client.watch("k", None).await.expect("a watch");
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..20u64 {
            let mut client = client.clone();
            tasks.spawn(async move {
                for step in 0..10u64 {
                    let wait = Duration::from_millis(100 * (1 + (number * 7 + step * 3) % 11));
                    tokio::time::sleep(wait).await;
                    let lease = client.lease_grant(1, None).await.expect("a lease").id();
                    let leased = etcd_client::PutOptions::new().with_lease(lease);
                    client
                        .put("k", number.to_string(), Some(leased))
                        .await
                        .expect("put");
                }
            });
        }
        tasks.join_all().await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        let last = client.put("k", "last", None).await.expect("put");
        let last = last.header().expect("a header").revision();
        let mut history = String::new();
        loop {
            let message = watch.message().await.expect("no error").expect("one").0;
            for event in &message.events {
                history += &format!("{event:?}\n");
                if event.kv.as_ref().is_some_and(|kv| kv.mod_revision == last) {
                    return history;
                }
            }
        }
    })
}

#[test]
fn in_memory_the_same_calls_give_the_same_history() {
    let history = simulate();
    assert!(history.lines().count() > 200, "leases ended in between");
    assert_eq!(history, simulate());
}
