//! Definitions that are checked before anything is stored: by the command, over the API, with and without an agent.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gantry_client::Client;
use gantry_client::v1::finding::Severity;
use gantry_tests::connectors::definition;
use gantry_tests::lines::{self, ascii};
use gantry_tests::wait::eventually;
use gantry_tests::{Cli, Cluster, Gantry, RocketMq, run};
use serde_json::{Value, json};

const TEST: Duration = Duration::from_secs(180);
const SOON: Duration = Duration::from_secs(60);

/// Severity and field of each finding.
async fn found(client: &Client, plugin: &str, config: Value, more: Value) -> Result<Vec<(Severity, String)>> {
    let connector = definition("checked", plugin, "lines", &config, &more)?;
    let answer = client.validate(connector).await?;
    ensure!(answer.not_checked.is_empty(), "{:?}", answer.not_checked);
    for finding in &answer.findings {
        ensure!(
            !finding.message.is_empty() && !finding.fix.is_empty() && !finding.field.is_empty(),
            "{finding:?}"
        );
    }
    let findings = answer.findings.into_iter();
    Ok(findings.map(|f| (f.severity(), f.field)).collect())
}

fn warned(fields: &[&str]) -> Vec<(Severity, String)> {
    fields
        .iter()
        .map(|f| (Severity::Warning, (*f).to_owned()))
        .collect()
}

#[test]
fn everything_that_can_be_known_before_is_said_with_path_reason_and_fix() {
    run(TEST, async |work| {
        let data = work.dir("data")?.display().to_string();
        let args = ["dev", "--listen", "127.0.0.1:0", "--data-dir", &data];
        let dev = Gantry::start(work, "dev", &args).await?;
        let client = Client::connect(dev.endpoint()).await?;
        let cli = Cli::new(dev.endpoint(), work);
        let files = work.dir("files")?.canonicalize()?;
        let (there, nowhere) = (files.join("lines.txt"), files.join("nowhere.txt"));
        lines::append(&there, 0..3, ascii)?;
        let (there, nowhere) = (there.display().to_string(), nowhere.display().to_string());
        let out = files.join("{queue}.out").display().to_string();

        // Nothing to say, also of a topic that will be created.
        let sound = found(&client, "file-source", json!({ "paths": [there] }), json!({})).await?;
        ensure!(sound.is_empty(), "{sound:?}");
        let sound = found(
            &client,
            "file-sink",
            json!({ "path": out }),
            json!({ "tasks_max": 4 }),
        )
        .await?;
        ensure!(sound.is_empty(), "{sound:?}");

        // What only an agent sees, under the path that the definition has for it.
        let odd = found(
            &client,
            "file-source",
            json!({ "paths": [there, nowhere, there] }),
            json!({}),
        )
        .await?;
        ensure!(odd == warned(&["config.paths[2]", "config.paths"]), "{odd:?}");
        let folder = json!({ "paths": [files.display().to_string()] });
        let wrong = found(&client, "file-source", folder, json!({})).await?;
        ensure!(wrong == [(Severity::Error, "config.paths".into())], "{wrong:?}");
        let no_topic = json!({ "topic_create": { "queues": 0 }, "tasks_max": 2 });
        let odd = found(&client, "file-sink", json!({ "path": out }), no_topic).await?;
        ensure!(odd == warned(&["topic"]), "{odd:?}");
        let odd = found(
            &client,
            "file-sink",
            json!({ "path": out }),
            json!({ "tasks_max": 5 }),
        )
        .await?;
        ensure!(odd == warned(&["tasks_max"]), "{odd:?}");

        // Fields that contradict each other.
        let dead = json!({ "error_policy": {
            "on_record_error": "ON_RECORD_ERROR_DEAD_LETTER", "dead_letter_topic": "lines",
        } });
        let source = found(&client, "file-source", json!({ "paths": [there] }), dead.clone()).await?;
        ensure!(
            source == warned(&["error_policy.dead_letter_topic"]),
            "{source:?}"
        );
        let sink = definition("checked", "file-sink", "lines", &json!({ "path": out }), &dead)?;
        let answer = client.validate(sink.clone()).await?;
        let first = answer.findings.first().context("nothing was found")?;
        ensure!(
            first.severity() == Severity::Error && first.field == "error_policy.dead_letter_topic",
            "{answer:?}"
        );
        ensure!(
            answer
                .not_checked
                .iter()
                .any(|n| n.contains("has errors already")),
            "{answer:?}"
        );
        ensure!(
            client.create(sink, true).await.is_err(),
            "validate_only takes what is wrong"
        );

        // Connectors that get in each other's way.
        let reading = definition(
            "reading",
            "file-source",
            "lines",
            &json!({ "paths": [there] }),
            &json!({}),
        )?;
        client.create(reading, false).await?;
        let odd = found(&client, "file-source", json!({ "paths": [there] }), json!({})).await?;
        ensure!(odd == warned(&["config.paths[0]"]), "{odd:?}");

        // The command: errors apart from warnings, what would be taken, and where.
        let file = work.path().join("definitions.yaml");
        let text = format!(
            "name: one\nplugin: file-source\ntopic: lines\nconfig:\n  paths: [{there}]\n  start: middle\n---\n\
             name: two\nplugin: file-sink\ntopic: lines\ntasks_max: 9\nconfig:\n  path: '{out}'\n"
        );
        std::fs::write(&file, text)?;
        let file = file.display().to_string();
        let answer = cli.call(&["connectors", "validate", &file]).await?;
        answer.refused(1, &["one error was found", "fix: change what is named above"])?;
        for line in [
            "error: config.start: ",
            " take: beginning, end",
            "warning: config.paths[0]: ",
            "one: errors: 1, warnings: 1",
            "warning: tasks_max: ",
            "two: errors: 0, warnings: 1",
        ] {
            ensure!(
                answer.stdout.lines().any(|l| l.starts_with(line)),
                "{line:?} is not in\n{}",
                answer.stdout
            );
        }
        for place in ["definitions.yaml:1", "definitions.yaml:8"] {
            ensure!(
                answer.stdout.contains(place),
                "{place} is not in\n{}",
                answer.stdout
            );
        }
        let sound = format!("name: two\nplugin: file-sink\ntopic: lines\nconfig:\n  path: '{out}'\n");
        std::fs::write(&file, sound)?;
        let said = cli.ok(&["connectors", "validate", &file]).await?;
        ensure!(said == "two: nothing wrong was found\n", "{said}");
        let said = cli.ok(&["connectors", "validate", &file, "-o", "json"]).await?;
        ensure!(serde_json::from_str::<Value>(&said)?.is_object(), "{said}");

        // From grpcurl, and nothing of all that was stored.
        let request = json!({ "connector": {
            "name": "connectors/checked", "plugin": "fiel-source", "topic": "lines",
        } });
        let answer = crate::grpcurl::call(&dev, "ValidateConnector", &request).await?;
        let first = &answer["findings"][0];
        ensure!(
            first["severity"] == "SEVERITY_ERROR" && first["field"] == "plugin",
            "{answer}"
        );
        ensure!(
            first["fix"]
                .as_str()
                .is_some_and(|fix| fix.contains("file-source"))
                && first["recommended"]
                    .as_array()
                    .is_some_and(|r| r.contains(&"file-source".into())),
            "{answer}"
        );
        let names: Vec<String> = client
            .list("", gantry_client::v1::View::Basic)
            .await?
            .into_iter()
            .map(|c| c.name)
            .collect();
        ensure!(names == ["connectors/reading"], "{names:?}");
        Ok(())
    });
}

#[test]
fn what_needs_an_agent_is_named_when_none_can_be_asked() {
    run(TEST, async |work| {
        let rocketmq = RocketMq::start(work, "rocketmq").await?;
        rocketmq.create_topic("lines", 1).await?;
        let mut cluster = Cluster::start(work, &rocketmq.namesrv()).await?;
        cluster.start_agent("one").await?;
        cluster.start_agent("two").await?;
        let client = cluster.client()?;
        let file = cluster.files().join("lines.txt").display().to_string();
        let source = |more: Value| {
            definition(
                "checked",
                "file-source",
                "lines",
                &json!({ "paths": [file] }),
                &more,
            )
        };

        // Two agents: one has looked, and what it sees need not be so on the other one.
        let answer = client.validate(source(json!({}))?).await?;
        ensure!(
            answer.findings.iter().any(|f| f.field == "config.paths")
                && answer.not_checked.len() == 1
                && answer.not_checked[0].contains("one was asked, and tasks may also go to two"),
            "{answer:?}"
        );
        // Nobody has the labels.
        let answer = client
            .validate(source(json!({ "agent_selector": { "zone": "far" } }))?)
            .await?;
        ensure!(
            answer.findings.is_empty()
                && answer.not_checked.len() == 1
                && answer.not_checked[0].contains("labels of agent_selector"),
            "{answer:?}"
        );
        for agent in ["one", "two"] {
            cluster.stop_agent(agent).await?;
        }
        eventually(SOON, "nobody can be asked", async || {
            let answer = client.validate(source(json!({}))?).await?;
            ensure!(
                answer.findings.is_empty()
                    && answer.not_checked.len() == 1
                    && answer.not_checked[0].contains("no agent that is connected has file-source"),
                "{answer:?}"
            );
            anyhow::Ok(())
        })
        .await?;
        // What needs no agent is checked all the same.
        let answer = client.validate(source(json!({ "tasks_max": 100_000 }))?).await?;
        ensure!(
            answer.findings.iter().any(|f| f.field == "tasks_max"),
            "{answer:?}"
        );
        Ok(())
    });
}
