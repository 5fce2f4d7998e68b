//! Metrics and traces of real processes, as Prometheus and a collector see them.

mod metrics;
mod traces;

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use gantry_tests::{Etcd, Guide, Ports, run};

const TEST: Duration = Duration::from_secs(240);
const SOON: Duration = Duration::from_secs(60);

/// Names in the first columns of the tables of a page.
fn documented() -> Result<BTreeSet<String>> {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/observability.md");
    let page = std::fs::read_to_string(page)?;
    let cell = |line: &str| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned());
    Ok(page.lines().filter_map(cell).collect())
}

#[test]
fn the_page_about_observability() {
    run(TEST, async |work| {
        let etcd = Etcd::start(work, "etcd").await?;
        let ports = Ports::reserve(4)?;
        let endpoints = etcd.endpoints().join(",");
        let free: Vec<String> = (0..4).map(|at| ports.get(at).to_string()).collect();
        let other = [
            ("http://127.0.0.1:2379", endpoints.as_str()),
            ("7420", &free[0]),
            ("7421", &free[1]),
            ("9100", &free[2]),
            ("9101", &free[3]),
        ];
        let mut guide = Guide::open(work, "observability.md", &other)?;
        guide.set("GANTRY_LOCK_DIR", &work.dir("locks")?.display().to_string());
        guide.follow().await?;
        let asked = guide.answer("curl -sS")?;
        for line in [
            "gantry_server_leader 1",
            "gantry_server_sessions 1",
            "gantry_agent_connected 1",
        ] {
            ensure!(asked.lines().any(|l| l == line), "{line} is not in\n{asked}");
        }
        Ok(())
    });
}
