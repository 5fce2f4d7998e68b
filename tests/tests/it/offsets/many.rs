use std::fmt::Write;

use anyhow::ensure;
use gantry_proto::v1::value::Kind;
use gantry_tests::run;
use serde_json::json;

use super::{Site, TEST};

const MANY: usize = 10_000;

#[test]
fn ten_thousand_partitions_are_altered_together_or_not_at_all() {
    run(TEST, async |work| {
        let site = Site::start(work).await?;
        let dir = work.dir("many")?.canonicalize()?;
        let mut definition = site.source("many", "STOPPED");
        definition["config"] = json!({ "paths": [dir.join("*.log").display().to_string()] });
        site.create(&definition, &[]).await?;
        let positions = |byte: usize, last: &str| {
            let mut text = String::from("partitions:\n");
            for n in 0..MANY {
                let name = if n == MANY - 1 {
                    last.to_owned()
                } else {
                    format!("{n:05}.log")
                };
                let _ = writeln!(
                    text,
                    "- partition: {{path: \"{}\"}}\n  position: {{byte: {byte}}}",
                    dir.join(name).display()
                );
            }
            text
        };
        let file = work.path().join("positions.yaml");
        let alter = format!("offsets alter many -f {}", file.display());

        // The last of them is refused, and so all are.
        std::fs::write(&file, positions(7, "last.txt"))?;
        site.refused(&alter, &["not among the files", "changes[9999]"])
            .await?;
        ensure!(
            site.offsets("many").await?.partitions.is_empty(),
            "some are stored"
        );

        std::fs::write(&file, positions(7, "last.log"))?;
        site.connectors(&format!("{alter} --validate-only")).await?;
        ensure!(
            site.offsets("many").await?.partitions.is_empty(),
            "some are stored"
        );
        site.connectors(&alter).await?;
        let stored = site.offsets("many").await?;
        let at = |byte| {
            let there = stored.partitions.iter().filter_map(|p| p.position.get("byte"));
            there.filter(|v| v.kind == Some(Kind::Uint64Value(byte))).count()
        };
        ensure!(
            (stored.partitions.len(), at(7), stored.epoch) == (MANY, MANY, 1),
            "{} of {}",
            at(7),
            stored.partitions.len()
        );

        // One of so many is a new epoch of all.
        let first = dir.join("00000.log");
        let one = format!(
            "offsets alter many --partition path={} --to byte=8",
            first.display()
        );
        site.connectors(&one).await?;
        let undone = site.connectors("offsets undo many").await?;
        ensure!(
            undone.contains("byte=8") && undone.contains("altered, epoch 3"),
            "{undone}"
        );
        ensure!(
            site.offsets("many").await?.partitions == stored.partitions,
            "it is not as it was"
        );
        site.connectors("offsets reset many").await?;
        ensure!(site.offsets("many").await?.partitions.is_empty(), "some are left");
        Ok(())
    });
}
