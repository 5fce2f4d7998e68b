use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use gantry_client::Client;
use gantry_tests::connectors::holders;
use gantry_tests::run;
use gantry_tests::wait::eventually;
use serde_json::json;

use super::{SOON, Site, TEST};

#[test]
fn agents_are_cordoned_and_drained() {
    run(TEST, async |work| {
        let site = Site::start_with_broker(work, &["one", "two"]).await?;
        let client = &site.client;
        ensure!(
            client.cordon("one").await?.1 && !client.cordon("one").await?.1,
            "cordon twice"
        );
        site.create("placed", &json!({ "tasks_max": 4 })).await?;
        ensure!(
            on(client, "placed").await? == ["two"],
            "a cordoned agent got a task"
        );
        ensure!(client.uncordon("one").await?.1, "uncordon");
        // What runs stays where it is; what is new goes to the agent with less.
        ensure!(
            on(client, "placed").await? == ["two"],
            "a task was moved without need"
        );
        site.create("new", &json!({ "tasks_max": 4 })).await?;
        ensure!(
            on(client, "new").await?.contains(&"one".to_owned()),
            "nothing was placed on the empty agent"
        );

        let cli = site.cluster.cli();
        cli.ok(&["agents", "drain", "two", "--wait"]).await?;
        for name in ["placed", "new"] {
            eventually(SOON, "the tasks are on the other agent", async || {
                let on = on(client, name).await?;
                ensure!(on == ["one"], "{name} is on {on:?}");
                Ok(())
            })
            .await?;
        }
        let agent = client.agent("two").await?;
        ensure!(agent.draining && agent.tasks == 0, "{agent:?}");
        cli.ok(&["agents", "uncordon", "two"]).await?;
        let listed = cli.ok(&["agents", "list"]).await?;
        ensure!(
            listed.contains("READY") && !listed.contains("draining"),
            "{listed}"
        );
        cli.refused(3, &["agents", "drain", "nobody"], &["nobody"])
            .await?;
        Ok(())
    });
}

/// The agents that hold tasks of a connector, each once.
async fn on(client: &Client, name: &str) -> Result<Vec<String>> {
    let held: BTreeSet<String> = holders(client, name, SOON).await?.into_iter().collect();
    Ok(held.into_iter().collect())
}
