//! What is done to the store itself.

use std::time::Duration;

use anyhow::ensure;
use gantry_client::Step;
use gantry_client::v1::connector::State;
use gantry_tests::connectors::{definition, reaches, records_out};
use gantry_tests::lines::{self, ascii};
use gantry_tests::wait::eventually;
use gantry_tests::{Cluster, Ports, RocketMq, run};
use serde_json::json;

const TEST: Duration = Duration::from_secs(180);
const SOON: Duration = Duration::from_secs(60);

#[test]
fn after_a_restore_agents_and_watches_begin_anew() {
    run(TEST, async |work| {
        let rocketmq = RocketMq::start(work, "rocketmq").await?;
        rocketmq.create_topic("lines", 1).await?;
        let mut cluster = Cluster::start(work, &rocketmq.namesrv()).await?;
        cluster.start_agent("one").await?;
        let (client, cli) = (cluster.client()?, cluster.cli());
        let input = cluster.files().join("lines.txt");
        lines::append(&input, 0..10, ascii)?;
        let config = json!({ "paths": [input.display().to_string()] });
        let source = definition("lines-in", "file-source", "lines", &config, &json!({}))?;
        client.create(source, false).await?;
        reaches(&client, "lines-in", State::Running, SOON).await?;
        let committed = async |wanted: u64| {
            eventually(SOON, "the lines are committed", async || {
                let out = records_out(&client, "lines-in").await?;
                ensure!(out == wanted, "{out} of {wanted}");
                Ok(())
            })
            .await
        };
        committed(10).await?;
        let mut watch = client.watch(&[], "");
        while !matches!(watch.next().await?, Step::Synced) {}

        let etcd = cluster.etcd.endpoints().join(",");
        let wrong = ["admin", "restored", "--etcd", &etcd, "--cluster", "another"];
        cli.refused(3, &wrong, &["no cluster another"]).await?;
        let nobody = Ports::reserve(1)?;
        let nowhere = format!("http://{}", nobody.address(0));
        cli.refused(5, &["admin", "restored", "--etcd", &nowhere], &[&nowhere])
            .await?;
        let said = cli.ok(&["admin", "restored", "--etcd", &etcd]).await?;
        ensure!(said.contains("the store of cluster default was"), "{said}");

        let restarted = async {
            while !matches!(watch.next().await?, Step::Restarted) {}
            anyhow::Ok(())
        };
        tokio::time::timeout(SOON, restarted).await??;
        let agent = cluster.agent("one")?;
        eventually(SOON, "the agent has noticed", async || {
            let log = agent.tail();
            ensure!(log.contains("another store"), "{log}");
            Ok(())
        })
        .await?;
        // Nothing was lost, and what was committed counts once.
        lines::append(&input, 10..20, ascii)?;
        reaches(&client, "lines-in", State::Running, SOON).await?;
        committed(20).await
    });
}
