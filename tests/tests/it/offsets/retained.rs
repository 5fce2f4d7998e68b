use anyhow::{Context, ensure};
use gantry_tests::run;

use super::{Site, TEST, length_of};

#[test]
fn a_new_connector_goes_on_where_a_deleted_one_was_left() {
    run(TEST, async |work| {
        let site = Site::start(work).await?;
        site.create(&site.sink("lines-out", "RUNNING"), &["--wait"])
            .await?;
        site.create(&site.source("lines-in", "RUNNING"), &["--wait"])
            .await?;
        site.read_to("lines-in", length_of(10)).await?;
        site.arrive(0..10).await?;
        site.connectors("delete lines-in --force --keep-offsets --wait")
            .await?;

        let kept = site.connectors("offsets retained").await?;
        let uid = kept.lines().nth(1).and_then(|row| row.split_whitespace().next());
        let uid = uid.context("nothing is kept")?.to_owned();
        ensure!(
            kept.contains("lines-in") && kept.contains("file-source"),
            "{kept}"
        );

        // Only what the same plugin left can be taken over, and only what is there.
        let file = work.path().join("definition.json");
        let create = |uid: &str| format!("create -f {} --adopt-offsets {uid}", file.display());
        std::fs::write(&file, site.sink("again", "STOPPED").to_string())?;
        site.refused(&create(&uid), &["of file-source", "must be of file-sink"])
            .await?;
        std::fs::write(&file, site.source("again", "STOPPED").to_string())?;
        let nothing = [
            "connectors",
            "create",
            "-f",
            "definition.json",
            "--adopt-offsets",
            "0123456789abcdef",
        ];
        site.cli.refused(3, &nothing, &["no offsets are kept"]).await?;
        site.connectors(&create(&uid)).await?;
        let get = site.connectors("offsets get again").await?;
        ensure!(get.contains(&format!("byte={}", length_of(10))), "{get}");
        let kept = site.client.retained_offsets().await?;
        ensure!(kept.is_empty(), "{kept:?}");

        site.connectors("resume again --wait").await?;
        site.append("again", 10..13).await?;
        site.arrive(0..13).await?;
        let history = site.connectors("offsets history again").await?;
        ensure!(history.contains("ADOPT"), "{history}");
        Ok(())
    });
}
