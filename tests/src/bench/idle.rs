//! What tasks cost that have nothing to do.

use std::time::Duration;

use anyhow::{Result, ensure};
use gantry_client::v1::View;
use gantry_client::v1::connector::State;
use gantry_raw_client::usage;
use gantry_tests::wait::eventually;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::aims::{Aim, Limit};
use crate::report::{Report, Table, mb};
use crate::site::{Agent, Site};

const START: Duration = Duration::from_secs(300);
/// What a start leaves to be done is over after it.
const SETTLE: Duration = Duration::from_secs(15);
/// A multiple of most intervals at which something is looked at.
const WINDOW: Duration = Duration::from_secs(30);

/// An agent that does nothing, seen for a while.
#[derive(Debug, Clone, Copy)]
struct Look {
    tasks: u32,
    resident: f64,
    /// Parts of a core.
    agent: f64,
    broker: f64,
}

/// Measures and reports.
pub(crate) async fn measure(site: &mut Site<'_>, tasks: u32, report: &mut Report) -> Result<()> {
    let (sources, sinks) = (tasks / 2, tasks - tasks / 2);
    let dir = site.new_dir("idle")?;
    let broker = site.broker()?;
    let agent = site.agent().await?;
    let mut looks = vec![look(0, &agent, broker).await?];
    for number in 0..sources {
        let path = dir.join(format!("{number}.txt"));
        std::fs::write(&path, "")?;
        let config = json!({ "paths": [path] });
        let name = format!("idle-in-{number}");
        let source = site.definition(&name, "file-source", "idle-0", 1, &config)?;
        if number == 0 {
            site.rocketmq()?.create_topic("idle-0", 1).await?;
        }
        site.client.create(source, false).await?;
    }
    all_run(site, &agent, sources).await?;
    looks.push(look(sources, &agent, broker).await?);
    for number in 0..sinks {
        let topic = format!("idle-{}", number + 1);
        site.rocketmq()?.create_topic(&topic, 1).await?;
        let config = json!({ "path": dir.join(format!("out-{number}.txt")) });
        let name = format!("idle-out-{number}");
        let sink = site.definition(&name, "file-sink", &topic, 1, &config)?;
        site.client.create(sink, false).await?;
    }
    all_run(site, &agent, tasks).await?;
    looks.push(look(tasks, &agent, broker).await?);
    for connector in site.client.list("", View::Basic).await? {
        site.client.delete(&connector.name, true, false).await?;
    }
    agent.stop().await?;
    present(&looks, report);
    Ok(())
}

async fn all_run(site: &Site<'_>, agent: &Agent, tasks: u32) -> Result<()> {
    let waited = eventually(START, &format!("{tasks} connectors run"), async || {
        let connectors = site.client.list("", View::Basic).await?;
        let run = connectors
            .iter()
            .filter(|connector| connector.state() == State::Running && !connector.reconciling)
            .count();
        ensure!(
            run == tasks as usize,
            "{run} of {} connectors run",
            connectors.len()
        );
        Ok(())
    })
    .await;
    // That it has ended says more than that its tasks do not run.
    agent.runs()?;
    waited
}

async fn look(tasks: u32, agent: &Agent, broker: u32) -> Result<Look> {
    eprintln!(
        "{tasks} idle tasks: looking for {} s",
        (SETTLE + WINDOW).as_secs()
    );
    sleep(SETTLE).await;
    let (start, before) = (Instant::now(), (usage::cpu(agent.id())?, usage::cpu(broker)?));
    sleep(WINDOW).await;
    let seconds = start.elapsed().as_secs_f64();
    Ok(Look {
        tasks,
        resident: usage::memory(agent.id())?.now as f64,
        agent: (usage::cpu(agent.id())? - before.0) / seconds,
        broker: (usage::cpu(broker)? - before.1) / seconds,
    })
}

fn present(looks: &[Look], report: &mut Report) {
    let (Some(first), Some(last)) = (looks.first(), looks.last()) else {
        return;
    };
    let percent = |part: f64| format!("{:.1}", part * 100.0);
    let row = |(number, look): (usize, &Look)| {
        let label = match number {
            0 => "an agent without tasks".to_owned(),
            1 => format!("{} file-sources, each with an empty file", look.tasks),
            _ => format!(
                "and {} file-sinks, each with a topic",
                look.tasks - looks[1].tasks
            ),
        };
        vec![
            label,
            mb(look.resident),
            percent(look.agent),
            percent(look.broker),
        ]
    };
    let table = Table {
        title: format!("idle tasks, over {} s", WINDOW.as_secs()),
        head: vec!["", "resident MB", "% of a core", "broker, % of a core"],
        rows: looks.iter().enumerate().map(row).collect(),
    };
    let tasks = last.tasks;
    let aims = vec![
        Aim::new(
            format!("{tasks} idle tasks: memory above an idle agent"),
            Limit::Bytes(200e6),
            vec![last.resident - first.resident],
        ),
        Aim::new(
            format!("{tasks} idle tasks: CPU above an idle agent"),
            Limit::Core(0.02),
            vec![last.agent - first.agent],
        ),
    ];
    let detail = |look: &Look| {
        json!({
            "tasks": look.tasks,
            "resident_bytes": look.resident,
            "cores": look.agent,
            "broker_cores": look.broker,
        })
    };
    let details: Vec<_> = looks.iter().map(detail).collect();
    report.add(&table, json!({ "what": "idle tasks", "rows": details }), aims);
}
