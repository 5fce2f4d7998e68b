use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gantry_client::Client;
use gantry_client::v1::connector::State;
use gantry_client::v1::task;
use gantry_tests::connectors::{definition, reaches};
use gantry_tests::parts::ready;
use gantry_tests::wait::eventually;
use gantry_tests::{Cli, Parts, run};
use serde_json::{Value, json};

use super::SOON;

const TEST: Duration = Duration::from_secs(180);

/// The line of `gantry connectors describe` that begins so.
async fn line(cli: &Cli, name: &str, key: &str) -> Result<String> {
    let text = cli.ok(&["connectors", "describe", name]).await?;
    let line = text.lines().find(|line| line.starts_with(key));
    Ok(line
        .with_context(|| format!("no line {key} in\n{text}"))?
        .to_owned())
}

#[test]
fn a_task_whose_code_fails_is_started_again_as_its_policy_says() {
    run(TEST, async |work| {
        let parts = Parts::with_broker(work).await?;
        let server = parts.server(&[]).await?;
        let vault = work.dir("vault")?.canonicalize()?;
        std::fs::write(vault.join("key"), "a secret of no importance")?;
        let agent = parts.agent("one", "http", &["--secrets-path", &vault.display().to_string()])?;
        let client = Client::connect(server.endpoint()).await?;
        ready(&client, "one", &agent, "").await?;
        let cli = Cli::new(server.endpoint(), work);
        // Its poll fails each time, and it is the code's fault.
        let failing = |name: &str, policy: Value| {
            let reference = format!("${{file:{}}}", vault.join("key").display());
            let config = json!({ "password": reference, "tells": "poll" });
            definition(
                name,
                "indiscreet-source",
                "told",
                &config,
                &json!({ "restart_policy": policy }),
            )
        };

        let hasty = json!({ "initial_backoff": "0.050s", "max_backoff": "0.100s", "max_restarts": 3 });
        client.create(failing("hasty", hasty)?, false).await?;
        reaches(&client, "hasty", State::Failed, SOON).await?;
        let tasks = client.tasks("hasty").await?;
        let task = tasks.first().context("there is no task")?;
        ensure!(task.restarts == 3 && task.next_attempt_time.is_none(), "{task:?}");
        let said = line(&cli, "hasty", "Restarts:").await?;
        ensure!(
            said.contains("after up to 50ms, doubling to 100ms; at most 3 in a row"),
            "{said}"
        );
        // By hand it begins anew.
        ensure!(
            client.restart("hasty", true).await?.changed,
            "nothing was restarted"
        );
        eventually(SOON, "it has failed again", async || {
            let connector = client.get("hasty").await?;
            let again = client.tasks("hasty").await?;
            let again = again.first().context("there is no task")?;
            ensure!(
                connector.state() == State::Failed && again.state_time != task.state_time,
                "{again:?}"
            );
            anyhow::Ok(())
        })
        .await?;

        let patient = json!({ "initial_backoff": "3000s", "max_backoff": "3600s" });
        client.create(failing("patient", patient)?, false).await?;
        eventually(SOON, "the next try is shown", async || {
            let tasks = client.tasks("patient").await?;
            let task = tasks.first().context("there is no task")?;
            let waits = task.state() == task::State::BackingOff && task.next_attempt_time.is_some();
            ensure!(waits && task.restarts == 1, "{task:?}");
            let said = line(&cli, "patient", "Next try:").await?;
            ensure!(
                said.contains("task 0 in ") && said.ends_with("restarts so far: 1"),
                "{said}"
            );
            let said = line(&cli, "patient", "Restarts:").await?;
            ensure!(said.contains("doubling to 3600s; no limit"), "{said}");
            anyhow::Ok(())
        })
        .await?;
        // What waits for its next try is stopped and deleted all the same.
        client.stop("patient").await?;
        reaches(&client, "patient", State::Stopped, SOON).await?;
        Ok(())
    });
}
