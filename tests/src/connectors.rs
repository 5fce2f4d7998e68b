//! What tests ask about connectors through the API.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gantry_client::Client;
use gantry_client::v1::connector::State;
use gantry_client::v1::value::Kind;
use gantry_client::v1::{Connector, ConnectorOffsets, Problem, Task};
use serde_json::{Value, json};

use crate::wait::eventually;

/// A definition. `more` has further fields of the connector, in proto JSON.
pub fn definition(name: &str, plugin: &str, topic: &str, config: &Value, more: &Value) -> Result<Connector> {
    let mut all = json!({ "name": name, "plugin": plugin, "topic": topic, "config": config });
    for (key, value) in more.as_object().into_iter().flatten() {
        all[key] = value.clone();
    }
    serde_json::from_value(all).context("a definition of this test is no connector")
}

/// Waits until the connector is in this state and its tasks have followed.
pub async fn reaches(client: &Client, name: &str, state: State, limit: Duration) -> Result<Connector> {
    eventually(limit, &format!("{name} is {}", state.as_str_name()), async || {
        let connector = client.get(name).await?;
        ensure!(
            connector.state() == state && !connector.reconciling,
            "{}",
            shown(&connector)
        );
        Ok(connector)
    })
    .await
}

/// Waits until every task of the connector is held by an agent, and gives their names without `agents/`.
pub async fn holders(client: &Client, name: &str, limit: Duration) -> Result<Vec<String>> {
    eventually(limit, &format!("agents hold the tasks of {name}"), async || {
        let tasks = client.tasks(name).await?;
        let held = tasks.iter().all(|task| !task.agent.is_empty());
        ensure!(!tasks.is_empty() && held, "{}", shown(&client.get(name).await?));
        Ok(tasks.iter().map(holder).collect())
    })
    .await
}

/// The agent of a task, without `agents/`; empty if there is none.
pub fn holder(task: &Task) -> String {
    task.agent.trim_start_matches("agents/").to_owned()
}

/// Waits until a problem of the connector, of its plan or of a task contains `mention`, and gives it.
pub async fn problem(client: &Client, name: &str, mention: &str, limit: Duration) -> Result<Problem> {
    eventually(
        limit,
        &format!("{name} has a problem that mentions {mention:?}"),
        async || {
            let connector = client.get(name).await?;
            let tasks = client.tasks(name).await?;
            let found = connector
                .error
                .iter()
                .chain(&connector.plan_error)
                .chain(tasks.iter().filter_map(|task| task.problem.as_ref()))
                .find(|problem| problem.message.contains(mention))
                .cloned();
            found.with_context(|| format!("{}; {tasks:?}", shown(&connector)))
        },
    )
    .await
}

/// How many records the committed offsets of a connector stand for.
pub async fn records_out(client: &Client, name: &str) -> Result<u64> {
    let offsets = client.offsets(name).await?;
    Ok(offsets
        .partitions
        .iter()
        .filter_map(|partition| partition.counts)
        .map(|counts| counts.out)
        .sum())
}

/// The byte that a file-source has committed, of all its files together.
pub async fn bytes_read(client: &Client, name: &str) -> Result<u64> {
    Ok(bytes(&client.offsets(name).await?))
}

fn bytes(offsets: &ConnectorOffsets) -> u64 {
    let positions = offsets
        .partitions
        .iter()
        .filter_map(|partition| partition.position.get("byte"));
    positions
        .filter_map(|value| match value.kind {
            Some(Kind::Uint64Value(byte)) => Some(byte),
            Some(Kind::Int64Value(byte)) => u64::try_from(byte).ok(),
            _ => None,
        })
        .sum()
}

/// One line, for failures.
pub fn shown(connector: &Connector) -> String {
    let problem = |problem: &Option<Problem>| problem.as_ref().map(|p| p.message.clone()).unwrap_or_default();
    format!(
        "{} is {}, wanted {}, {:?}, {} {} {}",
        connector.name,
        connector.state().as_str_name(),
        connector.target_state().as_str_name(),
        connector.task_counts.unwrap_or_default(),
        if connector.reconciling {
            "reconciling"
        } else {
            "settled"
        },
        problem(&connector.error),
        problem(&connector.plan_error),
    )
}
