//! `gantry demo`: the main job, seen. Moves real files through RocketMQ and compares the result.

mod compare;
mod inputs;
mod job;

use std::{io::IsTerminal, path::PathBuf, time::Duration};

use gantry_client::Client;
use tokio_util::sync::CancellationToken;

use self::job::Job;
use super::node::{Node, NodeConfig};
use crate::{
    args::{Demo, Global},
    failure::{Exit, Failure},
    render::{Style, out},
    telemetry,
};

/// Moves files with everything embedded in a temporary directory; an error unless nothing is missing.
pub(crate) async fn demo(global: &Global, demo: Demo) -> Result<(), Failure> {
    let telemetry = telemetry::start(global, "gantry-demo", "demo", "error")?;
    let io = |what: &str, e: std::io::Error| Failure::new(Exit::Refused, format!("cannot {what}: {e}"));
    let files = inputs::choose(&demo.from)?;
    let scratch = tempfile::Builder::new()
        .prefix("gantry-demo-")
        .tempdir()
        .map_err(|e| io("make a temporary directory", e))?;
    let target = match &demo.to {
        Some(dir) => {
            std::fs::create_dir_all(dir)
                .map_err(|e| io("make the directory for results", e).at(dir.display().to_string()))?;
            let dir = dir
                .canonicalize()
                .map_err(|e| io("use the directory for results", e))?;
            let used = std::fs::read_dir(&dir)
                .map_err(|e| io("read the directory for results", e))?
                .next()
                .is_some();
            if used {
                return Err(
                    Failure::new(Exit::Refused, "the directory for results is not empty")
                        .at(dir.display().to_string())
                        .fix("give an empty or a new directory with --to"),
                );
            }
            dir
        }
        None => scratch.path().join("results"),
    };
    std::fs::create_dir_all(&target).map_err(|e| io("make the directory for results", e))?;

    out("gantry demo: embedded etcd, embedded RocketMQ, one control plane, one agent, all in this process")?;
    let started = tokio::time::Instant::now();
    let stop = CancellationToken::new();
    let config = NodeConfig::embedded(scratch.path().join("data"), 1, telemetry.redactor());
    let node = Node::start(config, stop.clone()).await?;
    out(&format!(
        "ready on {} after {:.2} s\n",
        node.endpoint(),
        started.elapsed().as_secs_f64()
    ))?;
    let client = Client::connect(node.endpoint()).await?;
    let style = Style::new(global);
    let result = jobs(&client, &files, &target, demo.tasks, style).await;
    if result.is_ok() {
        farewell(&demo, &target)?;
    }
    stop.cancel();
    node.stopped(Duration::from_secs(20)).await;
    result
}

async fn jobs(
    client: &Client,
    files: &[PathBuf],
    target: &std::path::Path,
    tasks: u32,
    style: Style,
) -> Result<(), Failure> {
    let live = std::io::stderr().is_terminal();
    let first = Job::one_file(&files[0], target);
    first.run(client, live, style).await?;
    let second = Job::many_files(files, target, tasks);
    second.run(client, live, style).await
}

fn farewell(demo: &Demo, target: &std::path::Path) -> Result<(), Failure> {
    if demo.to.is_some() {
        out(&format!("The results are in {}", target.display()))?;
    }
    out("What to try next:
  gantry dev                                   the same as a service on 127.0.0.1:7420; data survives a restart
  gantry connectors create lines-in --plugin file-source --topic lines --set paths=/path/to/a.log
  gantry connectors create lines-out --plugin file-sink --topic lines --set path=/tmp/{queue}.txt
  gantry connectors describe lines-in
  grpcurl -plaintext 127.0.0.1:7420 gantry.v1.ConnectorService/ListConnectors
  gantry demo --from FILE --to DIR             your own files")
}
