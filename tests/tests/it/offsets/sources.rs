use anyhow::ensure;
use gantry_tests::run;
use serde_json::Value;

use super::{Site, TEST, length_of};

#[test]
fn a_source_starts_where_it_was_set() {
    run(TEST, async |work| {
        let site = Site::start(work).await?;
        site.create(&site.sink("lines-out", "RUNNING"), &["--wait"])
            .await?;
        site.create(&site.source("lines-in", "STOPPED"), &[]).await?;
        let partition = format!("path={}", site.input.display());
        let half = length_of(5);

        // What would change is shown, and nothing is stored.
        let alter = format!("offsets alter lines-in --partition {partition} --to byte={half}");
        let shown = site.connectors(&format!("{alter} --validate-only")).await?;
        let row = format!("{partition}  -       byte={half}");
        ensure!(
            shown.contains(&row) && shown.contains("nothing was stored"),
            "{shown}"
        );
        ensure!(
            site.offsets("lines-in").await?.partitions.is_empty(),
            "something is stored"
        );
        let shown = site.connectors(&alter).await?;
        ensure!(
            shown.contains(&row) && shown.contains("altered, epoch 1"),
            "{shown}"
        );
        let shown = site.connectors(&alter).await?;
        ensure!(shown.contains("unchanged"), "{shown}");

        // The plugin refuses what cannot be.
        let refused = format!(
            "offsets alter lines-in --partition {partition} --to byte={}",
            length_of(10) + 1
        );
        site.refused(&refused, &["has only", "set byte to a number from 0"])
            .await?;
        site.refused(
            "offsets alter lines-in --partition path=/etc/services --to byte=0",
            &["not among the files", "/etc/services"],
        )
        .await?;
        site.refused(
            "offsets alter lines-in --to-time 1h",
            &["cannot tell the position of a time"],
        )
        .await?;

        // Exactly the rest arrives.
        site.connectors("resume lines-in --wait").await?;
        site.arrive(5..10).await?;
        site.refused("offsets reset lines-in", &["RUNNING", "stop it first"])
            .await?;

        // Everything arrives again.
        site.read_to("lines-in", length_of(10)).await?;
        site.connectors("stop lines-in --wait").await?;
        let get = site.connectors("offsets get lines-in").await?;
        ensure!(get.contains("0 bytes"), "the lag is not shown: {get}");
        let shown = site.connectors("offsets reset lines-in").await?;
        ensure!(shown.contains("altered, epoch 2"), "{shown}");
        site.connectors("resume lines-in --wait").await?;
        site.arrive((5..10).chain(0..10)).await?;

        // And not again, when that is taken back.
        site.read_to("lines-in", length_of(10)).await?;
        site.connectors("stop lines-in --wait").await?;
        let history = site.connectors("offsets history lines-in").await?;
        for part in ["RESET", "ALTER", "undo --epoch 1"] {
            ensure!(history.contains(part), "{part} is not in\n{history}");
        }
        site.connectors("offsets reset lines-in").await?;
        let shown = site.connectors("offsets undo lines-in").await?;
        ensure!(shown.contains(&format!("byte={}", length_of(10))), "{shown}");
        site.connectors("resume lines-in --wait").await?;
        site.append("lines-in", 10..12).await?;
        site.arrive((5..10).chain(0..10).chain(10..12)).await?;
        let events = site.connectors("events lines-in").await?;
        for event in ["OFFSETS_ALTERED", "OFFSETS_RESET", "OFFSETS_UNDONE"] {
            ensure!(events.contains(event), "{event} is not in\n{events}");
        }
        Ok(())
    });
}

#[test]
fn a_source_created_again_starts_from_the_beginning() {
    run(TEST, async |work| {
        let site = Site::start(work).await?;
        site.create(&site.sink("lines-out", "RUNNING"), &["--wait"])
            .await?;
        site.create(&site.source("lines-in", "RUNNING"), &["--wait"])
            .await?;
        site.arrive(0..10).await?;
        let uid = site.client.get("lines-in").await?.uid;
        site.connectors("delete lines-in --force --wait").await?;
        site.create(&site.source("lines-in", "RUNNING"), &["--wait"])
            .await?;
        site.arrive((0..10).chain(0..10)).await?;
        ensure!(
            site.client.get("lines-in").await?.uid != uid,
            "it is the same connector"
        );
        Ok(())
    });
}

#[test]
fn a_source_goes_back_to_what_was_committed_at_a_time_or_to_what_a_file_says() {
    run(TEST, async |work| {
        let site = Site::start(work).await?;
        site.create(&site.sink("lines-out", "RUNNING"), &["--wait"])
            .await?;
        site.create(&site.source("lines-in", "RUNNING"), &["--wait"])
            .await?;
        site.read_to("lines-in", length_of(10)).await?;
        site.arrive(0..10).await?;
        site.connectors("stop lines-in --wait").await?;
        let then = site.offsets("lines-in").await?.partitions[0].commit_time;
        let then = serde_json::to_value(then)?;
        let then = then.as_str().unwrap_or_default();
        let printed = site.connectors("offsets get lines-in -o json").await?;

        site.connectors("offsets alter lines-in --to-earliest").await?;
        site.connectors(&format!("offsets alter lines-in --to-committed {then}"))
            .await?;
        site.connectors("resume lines-in --wait").await?;
        site.arrive(0..10).await?;

        // What was printed is what a file may say.
        site.connectors("stop lines-in --wait").await?;
        let file = work.path().join("positions.yaml");
        let alter = format!("offsets alter lines-in -f {}", file.display());
        std::fs::write(&file, site.connectors("offsets get lines-in -o yaml").await?)?;
        let shown = site.connectors(&alter).await?;
        ensure!(shown.contains("unchanged"), "{shown}");
        let mut edited: Value = serde_json::from_str(&printed)?;
        edited["partitions"][0]["position"]["byte"] = length_of(8).into();
        std::fs::write(&file, edited.to_string())?;
        site.connectors(&alter).await?;
        site.connectors("resume lines-in --wait").await?;
        site.arrive((0..10).chain(8..10)).await?;
        Ok(())
    });
}
