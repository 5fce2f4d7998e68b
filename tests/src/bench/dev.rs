//! `gantry dev`: how soon it is ready, and file to file over its own broker.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gantry_client::Client;
use gantry_raw_client::{data, usage};
use gantry_tests::connectors::{definition, records_out};
use gantry_tests::wait::{eventually, promptly};
use gantry_tests::{Gantry, Process, WorkDir, lines};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::aims::{Aim, Limit};
use crate::meter::follow;
use crate::report::{Report, Table, grouped, mb, quantile};

const SOON: Duration = Duration::from_secs(60);
const STARTS: u32 = 10;
const BYTES: usize = 100;

/// Measures and reports.
pub(crate) async fn measure(work: &WorkDir, records: u64, report: &mut Report) -> Result<()> {
    let dir = work.dir("dev")?.canonicalize()?;
    let (mut first, mut again) = (Vec::new(), Vec::new());
    for number in 0..STARTS {
        let data = dir.join(format!("data-{number}"));
        for seconds in [&mut first, &mut again] {
            let (mut process, ready, _) = start(work, &data).await?;
            seconds.push(ready);
            let status = process.terminate(SOON).await?;
            ensure!(
                status.success(),
                "gantry dev ended with {status}\n{}",
                process.tail()
            );
        }
        std::fs::remove_dir_all(&data)?;
    }
    present_starts(&first, &again, report);
    Box::pin(file_to_file(work, &dir, records, report)).await
}

/// Starts it; when it is ready, in seconds, and where it serves.
async fn start(work: &WorkDir, data: &Path) -> Result<(Process, f64, String)> {
    let data = data.display().to_string();
    let begin = Instant::now();
    let process = Gantry::spawn(
        work,
        "dev",
        &["dev", "--listen", "127.0.0.1:0", "--data-dir", &data],
    )?;
    loop {
        let printed = process.stdout()?;
        let line = printed.lines().find_map(|line| line.strip_prefix("ready on "));
        if let Some(address) = line.filter(|_| printed.ends_with('\n')) {
            let address = address.to_owned();
            return Ok((process, begin.elapsed().as_secs_f64(), address));
        }
        ensure!(
            process.is_running() && begin.elapsed() < SOON,
            "gantry dev is not ready\n{}",
            process.tail()
        );
        sleep(Duration::from_millis(2)).await;
    }
}

fn present_starts(first: &[f64], again: &[f64], report: &mut Report) {
    let row = |label: &str, seconds: &[f64]| {
        let times = [0.5, 1.0].map(|part| format!("{:.2}", quantile(seconds, part)));
        [&[label.to_owned()], &times[..]].concat()
    };
    let table = Table {
        title: format!("gantry dev: start -> ready, {STARTS} times, in seconds"),
        head: vec!["", "median", "most"],
        rows: vec![
            row("in an empty directory", first),
            row("again in the same directory", again),
        ],
    };
    let details = json!({ "what": "gantry dev: start -> ready", "seconds": first, "again": again });
    let aim = Aim::new("gantry dev: start -> ready", Limit::Seconds(1.5), first.to_vec());
    report.add(&table, details, vec![aim]);
}

async fn file_to_file(work: &WorkDir, dir: &Path, records: u64, report: &mut Report) -> Result<()> {
    let paths = data::write(&dir.join("in"), 1, records, BYTES)?;
    let output = dir.join("out");
    std::fs::create_dir(&output)?;
    let (mut process, _, address) = start(work, &dir.join("data")).await?;
    let client = Client::connect(&address).await?;
    let more = json!({ "topic_create": { "queues": 4 } });
    let (from, to) = (
        json!({ "paths": paths }),
        json!({ "path": output.join("{queue}.txt") }),
    );
    let source = definition("bench-in", "file-source", "bench", &from, &more)?;
    let sink = definition("bench-out", "file-sink", "bench", &to, &more)?;
    let before = usage::cpu(process.id())?;
    let begin = Instant::now();
    tokio::try_join!(client.create(source, false), client.create(sink, false))?;
    let total = records * (BYTES as u64 + 1);
    let growth = follow(begin, total, async || lines::size(&output)).await?;
    let cpu = usage::cpu(process.id())? - before;
    let peak = usage::memory(process.id())?.peak as f64;
    eventually(SOON, "everything is committed", async || {
        let out = records_out(&client, "bench-out").await?;
        ensure!(out == records, "{out} of {records} records are committed");
        Ok(())
    })
    .await?;
    data::check(&output, records, BYTES)?;
    promptly(SOON, "gantry dev ends", async || process.terminate(SOON).await)
        .await
        .context("after all was moved")?;

    let rate = growth.rate() / (BYTES as f64 + 1.0);
    let per_million = cpu / (records as f64 / 1e6);
    let table = Table {
        title: format!("gantry dev: file -> file over its own broker, {records} records of {BYTES} B"),
        head: vec!["", "records/s", "CPU s/M", "peak MB", "first after s"],
        rows: vec![vec![
            "all in one process".into(),
            grouped(rate),
            format!("{per_million:.2}"),
            mb(peak),
            format!("{:.2}", growth.until_first().as_secs_f64()),
        ]],
    };
    let details = json!({
        "what": "gantry dev: file -> file",
        "records_per_s": rate,
        "cpu_s_per_million": per_million,
        "peak_bytes": peak,
        "seconds_to_first": growth.until_first().as_secs_f64(),
    });
    report.add(&table, details, Vec::new());
    Ok(())
}
