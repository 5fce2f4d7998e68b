use std::net::TcpListener;

use gantry_embedded_rocketmq::{EmbeddedRocketmq, Options, StartError};
use tokio::{net::TcpStream, time::Instant};

async fn listens(address: &str) -> bool {
    TcpStream::connect(address).await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn starts_quickly_stops_and_starts_again_on_the_same_ports() {
    let dir = tempfile::tempdir().unwrap();
    let start = Instant::now();
    let first = EmbeddedRocketmq::start(dir.path(), Options::default())
        .await
        .unwrap();
    println!("started in {:?}", start.elapsed());
    let (namesrv, broker) = (first.namesrv_addr(), first.broker_addr());
    assert!(listens(&namesrv).await && listens(&broker).await);
    let stop = Instant::now();
    first.stop().await;
    println!("stopped in {:?}", stop.elapsed());
    assert!(!listens(&namesrv).await && !listens(&broker).await);
    let again = Instant::now();
    let second = EmbeddedRocketmq::start(dir.path(), Options::default())
        .await
        .unwrap();
    println!("started again in {:?}", again.elapsed());
    assert_eq!((second.namesrv_addr(), second.broker_addr()), (namesrv, broker));
    second.stop().await;
}

#[tokio::test]
async fn two_run_beside_each_other_but_not_on_one_directory() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = EmbeddedRocketmq::start(a.path(), Options::default())
        .await
        .unwrap();
    let error = EmbeddedRocketmq::start(a.path(), Options::default())
        .await
        .unwrap_err();
    assert!(matches!(error, StartError::DirectoryInUse { .. }), "{error}");
    let second = EmbeddedRocketmq::start(b.path(), Options::default())
        .await
        .unwrap();
    assert_ne!(first.namesrv_addr(), second.namesrv_addr());
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
async fn what_stands_in_the_way_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let taken = Options {
        namesrv_port: Some(port),
        ..Options::default()
    };
    let error = EmbeddedRocketmq::start(dir.path(), taken).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains(&format!("port {port} on 127.0.0.1 is taken")),
        "{error}"
    );

    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = EmbeddedRocketmq::start(&file, Options::default())
        .await
        .unwrap_err();
    assert!(matches!(error, StartError::Directory { .. }), "{error}");
}

#[tokio::test]
async fn dropping_it_stops_it_in_the_background() {
    let dir = tempfile::tempdir().unwrap();
    let running = EmbeddedRocketmq::start(dir.path(), Options::default())
        .await
        .unwrap();
    let address = running.broker_addr();
    drop(running);
    let start = Instant::now();
    while listens(&address).await {
        assert!(start.elapsed().as_secs() < 10, "still there");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}
