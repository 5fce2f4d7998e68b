//! The harness itself: the real servers start, are killed, come back, and have kept what they acknowledged.

use std::time::Duration;

use anyhow::ensure;
use etcd_client::Client;
use gantry_tests::servers::remoting;
use gantry_tests::servers::rocketmq::Progress;
use gantry_tests::wait::eventually;
use gantry_tests::{Etcd, RocketMq, run};

const TEST: Duration = Duration::from_secs(180);
const SOON: Duration = Duration::from_secs(30);

#[test]
fn etcd_keeps_what_it_has_acknowledged() {
    run(TEST, async |work| {
        let mut etcd = Etcd::start(work, "etcd").await?;
        let put = etcd.client().await?.put("key", "value", None).await?;
        let revision = put.header().map(|header| header.revision());

        etcd.kill(0)?;
        etcd.restart(0).await?;

        let answer = etcd.client().await?.get("key", None).await?;
        assert_eq!(answer.kvs()[0].value_str()?, "value");
        assert_eq!(Some(answer.kvs()[0].mod_revision()), revision);
        Ok(())
    });
}

#[test]
fn two_members_of_three_go_on_without_their_leader() {
    run(TEST, async |work| {
        let mut etcd = Etcd::cluster(work, "etcd", 3).await?;

        // One that is killed, and one that no longer says anything.
        for (value, killed) in [("killed", true), ("paused", false)] {
            let leader = eventually(SOON, "there is a leader", async || etcd.leader().await).await?;
            let mut others = etcd.endpoints();
            let gone = others.remove(leader);
            if killed {
                etcd.kill(leader)?
            } else {
                etcd.pause(leader)?
            }
            eventually(SOON, "the others elect a leader and take a write", async || {
                let mut client = Client::connect(&others, None).await?;
                client.put("key", value, None).await
            })
            .await?;
            if killed {
                etcd.restart(leader).await?
            } else {
                etcd.resume(leader)?
            }
            eventually(SOON, "the member that came back has the write", async || {
                let answer = Client::connect([&gone], None).await?.get("key", None).await?;
                let found = answer
                    .kvs()
                    .first()
                    .map(|kv| String::from_utf8_lossy(kv.value()).into_owned());
                ensure!(found.as_deref() == Some(value), "it has {found:?}");
                Ok(())
            })
            .await?;
        }
        Ok(())
    });
}

#[test]
fn rocketmq_keeps_what_it_has_acknowledged() {
    run(TEST, async |work| {
        let mut rocketmq = RocketMq::start(work, "rocketmq").await?;
        rocketmq.create_topic("orders", 3).await?;
        for number in 0..10 {
            let offset = rocketmq
                .send(
                    "orders",
                    2,
                    &format!("key-{number}"),
                    format!("body {number}").as_bytes(),
                )
                .await?;
            assert_eq!(offset, number);
        }

        rocketmq.kill_broker()?;
        rocketmq.restart_broker().await?;

        assert_eq!(rocketmq.end_offset("orders", 0).await?, 0);
        assert_eq!(rocketmq.end_offset("orders", 2).await?, 10);
        assert_eq!(rocketmq.send("orders", 2, "key-10", b"body 10").await?, 10);
        let messages = rocketmq.read("orders", 2).await?;
        let bodies: Vec<_> = messages
            .iter()
            .map(|message| String::from_utf8_lossy(&message.body))
            .collect();
        assert_eq!(
            bodies,
            (0..=10)
                .map(|number| format!("body {number}"))
                .collect::<Vec<_>>()
        );
        assert_eq!(messages[7].properties["KEYS"], "key-7");
        assert_eq!(messages[7].offset, 7);

        // RocketMQ's own tools see the same.
        remoting::create_group(&rocketmq.broker(), "readers").await?;
        remoting::commit(&rocketmq.broker(), "readers", "orders", 2, 4).await?;
        let progress = rocketmq.consumer_progress("readers").await?;
        let expected = Progress {
            topic: "orders".to_owned(),
            queue: 2,
            end: 11,
            committed: 4,
        };
        assert!(progress.contains(&expected), "{progress:?}");
        eventually(SOON, "the message is found by its key", async || {
            let found = rocketmq.query_by_key("orders", "key-7").await?;
            ensure!(found == [(2, 7)], "found {found:?}");
            Ok(())
        })
        .await
    });
}

#[test]
fn rocketmq_goes_on_after_a_pause_and_without_a_name_server() {
    run(TEST, async |work| {
        let mut rocketmq = RocketMq::start(work, "rocketmq").await?;
        rocketmq.create_topic("orders", 1).await?;

        rocketmq.pause_broker()?;
        let sent =
            tokio::time::timeout(Duration::from_millis(300), rocketmq.send("orders", 0, "a", b"1")).await;
        assert!(sent.is_err(), "a broker that is suspended has answered");
        rocketmq.resume_broker()?;
        // Whether and when the first one is stored is not known; that is what a pause is for.
        let offset = rocketmq.send("orders", 0, "b", b"2").await?;

        rocketmq.kill_namesrv()?;
        assert!(rocketmq.send("orders", 0, "c", b"3").await? > offset);
        rocketmq.restart_namesrv().await?;
        // The broker tells the new one about its topics.
        rocketmq.create_topic("more", 1).await
    });
}
