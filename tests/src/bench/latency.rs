//! From the creation of a source and a sink to the first record in the sink's file.

use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::aims::{Aim, Limit};
use crate::report::{Report, Table, quantile};
use crate::site::Site;

const LIMIT: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(1);

/// Measures and reports.
pub(crate) async fn measure(site: &mut Site<'_>, creates: u32, report: &mut Report) -> Result<()> {
    let dir = site.new_dir("latency")?;
    let agent = site.agent().await?;
    let mut seconds = Vec::new();
    for number in 0..creates {
        let topic = format!("latency-{number}");
        site.rocketmq()?.create_topic(&topic, 1).await?;
        let (input, output) = (
            dir.join(format!("{number}.txt")),
            dir.join(format!("{number}.out")),
        );
        std::fs::write(&input, "the first record\n")?;
        let names = [format!("latency-in-{number}"), format!("latency-out-{number}")];
        let (from, to) = (json!({ "paths": [input] }), json!({ "path": output }));
        let source = site.definition(&names[0], "file-source", &topic, 1, &from)?;
        let sink = site.definition(&names[1], "file-sink", &topic, 1, &to)?;

        let start = Instant::now();
        tokio::try_join!(site.client.create(source, false), site.client.create(sink, false))?;
        while std::fs::metadata(&output).map_or(0, |file| file.len()) == 0 {
            if start.elapsed() > LIMIT {
                bail!("the first record did not arrive within {LIMIT:?}");
            }
            sleep(LOOK).await;
        }
        seconds.push(start.elapsed().as_secs_f64());
        for name in &names {
            site.delete(name).await?;
        }
    }
    agent.stop().await?;
    present(&seconds, report);
    Ok(())
}

fn present(seconds: &[f64], report: &mut Report) {
    let percentiles = [("median", 0.5), ("p90", 0.9), ("p99", 0.99), ("most", 1.0)];
    let table = Table {
        title: format!(
            "create of source and sink -> first record in the file, {} times, in seconds",
            seconds.len()
        ),
        head: std::iter::once("")
            .chain(percentiles.map(|(name, _)| name))
            .collect(),
        rows: vec![
            std::iter::once("gantry".to_owned())
                .chain(percentiles.map(|(_, part)| format!("{:.3}", quantile(seconds, part))))
                .collect(),
        ],
    };
    let aim = Aim::new(
        format!("create -> first record, p99 of {}", seconds.len()),
        Limit::Seconds(1.0),
        vec![quantile(seconds, 0.99)],
    );
    let details = json!({ "what": "create -> first record", "seconds": seconds });
    report.add(&table, details, vec![aim]);
}
