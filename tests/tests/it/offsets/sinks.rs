use anyhow::{Context, Result, ensure};
use gantry_tests::wait::eventually;
use gantry_tests::{RocketMq, run};

use super::{SOON, Site, TEST, length_of};

/// The only partition of the sink, as commands take it.
async fn queue(site: &Site<'_>) -> Result<String> {
    let offsets = site.offsets("lines-out").await?;
    let partition = &offsets
        .partitions
        .first()
        .context("nothing is committed")?
        .partition;
    let text = |name: &str| -> Result<String> {
        let value = serde_json::to_value(partition.get(name).context("no such field")?)?;
        let (_, value) = value
            .as_object()
            .and_then(|o| o.iter().next())
            .context("no value")?;
        Ok(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
    };
    Ok(format!(
        "topic={},broker={},queue={}",
        text("topic")?,
        text("broker")?,
        text("queue")?
    ))
}

async fn starts_where_it_was_set(site: &Site<'_>) -> Result<()> {
    site.create(&site.source("lines-in", "RUNNING"), &["--wait"])
        .await?;
    site.read_to("lines-in", length_of(10)).await?;
    site.create(&site.sink("lines-out", "STOPPED"), &[]).await?;

    // Which queues there are the broker tells.
    let shown = site.connectors("offsets alter lines-out --to-earliest").await?;
    ensure!(shown.contains("offset=0"), "{shown}");
    let queue = queue(site).await?;
    let get = site.connectors("offsets get lines-out").await?;
    ensure!(get.contains("10 messages"), "the lag is not shown: {get}");
    let alter = format!("offsets alter lines-out --partition {queue} --to offset");
    site.refused(
        &format!("{alter}=11"),
        &["offset 11 is not in queue", "from 0 to 10"],
    )
    .await?;
    site.refused(
        "offsets alter lines-out --partition topic=lines,broker=nobody,queue=0 --to offset=1",
        &["have no queue"],
    )
    .await?;
    site.connectors(&format!("{alter}=5")).await?;
    site.connectors("resume lines-out --wait").await?;
    site.arrive(5..10).await?;

    // Everything again.
    site.refused("offsets reset lines-out", &["RUNNING", "stop it first"])
        .await?;
    site.connectors("stop lines-out --wait").await?;
    let shown = site
        .connectors(&format!("offsets reset lines-out --partition {queue}"))
        .await?;
    ensure!(shown.contains("offset=EARLIEST"), "{shown}");
    site.connectors("resume lines-out --wait").await?;
    site.arrive((5..10).chain(0..10)).await
}

#[test]
fn a_sink_starts_where_it_was_set() {
    run(TEST, async |work| {
        let site = Site::start(work).await?;
        starts_where_it_was_set(&site).await?;

        // Created again it starts from the beginning.
        site.connectors("delete lines-out --force --wait").await?;
        site.create(&site.sink("lines-out", "RUNNING"), &["--wait"])
            .await?;
        site.arrive((5..10).chain(0..10).chain(0..10)).await
    });
}

#[test]
fn a_sink_starts_where_it_was_set_on_apache_rocketmq() {
    run(TEST, async |work| {
        let rocketmq = RocketMq::start(work, "rocketmq").await?;
        let site = Site::start_with(work, &["--namesrv", &rocketmq.namesrv()]).await?;
        starts_where_it_was_set(&site).await
    });
}

#[test]
fn a_sink_goes_to_the_messages_of_a_time() {
    run(TEST, async |work| {
        let site = Site::start(work).await?;
        site.create(&site.source("lines-in", "RUNNING"), &["--wait"])
            .await?;
        site.read_to("lines-in", length_of(10)).await?;
        // What was stored before it was committed is older than a millisecond after the commit.
        let committed = site.offsets("lines-in").await?.partitions[0].commit_time;
        let mut between = committed.context("a commit has a time")?;
        between.nanos += 1_000_000;
        if between.nanos >= 1_000_000_000 {
            (between.seconds, between.nanos) = (between.seconds + 1, between.nanos - 1_000_000_000);
        }
        let between = serde_json::to_value(between)?;
        let between = between.as_str().context("a time is a text")?;
        site.append("lines-in", 10..14).await?;

        site.create(&site.sink("lines-out", "STOPPED"), &[]).await?;
        for (time, offset) in [("24h", 0), ("2999-01-01T00:00:00Z", 14), (between, 10)] {
            site.connectors(&format!("offsets alter lines-out --to-time {time}"))
                .await?;
            let get = site.connectors("offsets get lines-out").await?;
            ensure!(get.contains(&format!("offset={offset}")), "{time}: {get}");
        }
        site.connectors("resume lines-out --wait").await?;
        site.arrive(10..14).await?;

        // An alteration that has run is taken back with what the sink had written then.
        site.connectors("stop lines-out --wait").await?;
        site.connectors("offsets alter lines-out --to-earliest").await?;
        site.connectors("resume lines-out --wait").await?;
        site.arrive((10..14).chain(0..14)).await?;
        site.connectors("stop lines-out --wait").await?;
        site.connectors("offsets undo lines-out").await?;
        site.connectors("resume lines-out --wait").await?;
        site.arrive(10..14).await
    });
}

#[test]
fn tasks_that_are_still_held_are_named() {
    run(TEST, async |work| {
        let mut site = Site::start(work).await?;
        site.create(&site.source("lines-in", "RUNNING"), &["--wait"])
            .await?;
        site.read_to("lines-in", length_of(10)).await?;
        // Stop without waiting: until its task has followed the connector is STOPPED, and refuses.
        site.connectors("stop lines-in").await?;
        let altered = eventually(SOON, "the reset is accepted", async || {
            match site.client.reset_offsets("lines-in", vec![], false).await {
                Ok(answer) => Ok(answer),
                Err(gantry_client::Error::Refused {
                    metadata,
                    preconditions,
                    ..
                }) => {
                    let waiting = metadata.get("waiting_for").cloned().unwrap_or_default();
                    assert!(
                        waiting == "0" && !preconditions.is_empty(),
                        "{metadata:?} {preconditions:?}"
                    );
                    anyhow::bail!("it waits for task {waiting}")
                }
                Err(other) => Err(other.into()),
            }
        });
        ensure!(altered.await?.changed, "nothing was reset");
        site.dev.process().terminate(SOON).await?;
        Ok(())
    });
}
