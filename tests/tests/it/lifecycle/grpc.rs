use std::time::Duration;

use anyhow::{Result, ensure};
use gantry_client::Client;
use gantry_client::v1::connector::State;
use gantry_tests::connectors::reaches;
use gantry_tests::{Gantry, run};
use serde_json::{Value, json};

use super::SOON;
use crate::grpcurl::{call, refused};

const TEST: Duration = Duration::from_secs(180);

/// A row of the table as grpcurl sees it: the method, and what is in the refusal. Nothing: it is so already.
type Asked<'a> = (&'a str, &'a [&'a str]);

async fn row(dev: &Gantry, name: &Value, listed: &[&str], asked: &[Asked<'_>]) -> Result<()> {
    let connector = call(dev, "GetConnector", name).await?;
    let listed: Vec<String> = listed.iter().map(|a| format!("ACTION_{a}")).collect();
    ensure!(connector["allowedActions"] == json!(listed), "{connector}");
    for (method, mentions) in asked {
        if mentions.is_empty() {
            let answer = call(dev, method, name).await?;
            ensure!(answer.get("changed").is_none(), "{method}: {answer}");
            continue;
        }
        let said: String = refused(dev, method, name).await?.split_whitespace().collect();
        let always = [
            "FailedPrecondition",
            "google.rpc.PreconditionFailure",
            "ACTION_NOT_ALLOWED",
        ];
        for part in always.iter().chain(*mentions) {
            let part: String = part.split_whitespace().collect();
            ensure!(said.contains(&part), "{method}: {part} is not in\n{said}");
        }
    }
    Ok(())
}

#[test]
fn the_table_is_the_same_from_grpcurl() {
    run(TEST, async |work| {
        let data = work.dir("data")?.display().to_string();
        let args = ["dev", "--listen", "127.0.0.1:0", "--data-dir", &data];
        let dev = Gantry::start(work, "dev", &args).await?;
        let client = Client::connect(dev.endpoint()).await?;
        let connector = json!({ "connector": {
            "name": "connectors/numbers",
            "plugin": "generator-source",
            "topic": "numbers",
            "target_state": "TARGET_STATE_STOPPED",
        } });
        call(&dev, "CreateConnector", &connector).await?;
        let name = json!({ "name": "connectors/numbers" });
        row(
            &dev,
            &name,
            &["RESUME", "ALTER_OFFSETS", "DELETE"],
            &[
                ("StopConnector", &[]),
                (
                    "PauseConnector",
                    &[
                        r#""state": "STOPPED""#,
                        r#""action": "PAUSE""#,
                        r#""allowed": "RESUME,ALTER_OFFSETS,DELETE""#,
                        r#""meant": "RESUME""#,
                        "resume it instead",
                    ],
                ),
                ("RestartConnector", &[r#""meant": "RESUME""#]),
            ],
        )
        .await?;

        call(&dev, "ResumeConnector", &name).await?;
        reaches(&client, "numbers", State::Running, SOON).await?;
        let running: &[Asked<'_>] = &[
            ("ResumeConnector", &[]),
            (
                "DeleteConnector",
                &[r#""meant": "STOP""#, "stop it first, or delete with force"],
            ),
        ];
        row(&dev, &name, &["STOP", "PAUSE", "RESTART"], running).await?;
        let restarted = call(&dev, "RestartConnector", &name).await?;
        ensure!(restarted["changed"] == true, "{restarted}");

        let paused = call(&dev, "PauseConnector", &name).await?;
        ensure!(
            paused["changed"] == true && paused["connector"]["targetState"] == "TARGET_STATE_PAUSED",
            "{paused}"
        );
        let while_paused: &[Asked<'_>] = &[
            ("PauseConnector", &[]),
            (
                "DeleteConnector",
                &[r#""state": "PAUSED""#, r#""allowed": "STOP,RESUME,RESTART""#],
            ),
        ];
        row(&dev, &name, &["STOP", "RESUME", "RESTART"], while_paused).await?;
        reaches(&client, "numbers", State::Paused, SOON).await?;
        row(&dev, &name, &["STOP", "RESUME", "RESTART"], while_paused).await?;
        Ok(())
    });
}
