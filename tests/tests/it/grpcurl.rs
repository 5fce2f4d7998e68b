//! The API from grpcurl, which knows nothing but what reflection tells it.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gantry_tests::{Gantry, WorkDir, env, lines, run};
use serde_json::{Value, json};

const TEST: Duration = Duration::from_secs(120);
const CALL: Duration = Duration::from_secs(30);
const CONNECTORS: &str = "gantry.v1.ConnectorService";

struct Answer {
    success: bool,
    stdout: String,
    stderr: String,
}

/// `grpcurl -plaintext FLAGS ADDRESS WHAT`.
async fn grpcurl(dev: &Gantry, flags: &[&str], what: &[&str]) -> Result<Answer> {
    let address = dev.endpoint().trim_start_matches("http://");
    let mut command = tokio::process::Command::new(env::tool(env::GRPCURL_BIN)?);
    command
        .arg("-plaintext")
        .args(flags)
        .arg(address)
        .args(what)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(CALL, command.output())
        .await
        .with_context(|| format!("grpcurl did not end within {CALL:?}: {what:?}"))??;
    Ok(Answer {
        success: output.status.success(),
        stdout: String::from_utf8(output.stdout)?,
        stderr: String::from_utf8(output.stderr)?,
    })
}

/// A call of the connectors' service that succeeds.
pub(crate) async fn call(dev: &Gantry, method: &str, request: &Value) -> Result<Value> {
    let answer = grpcurl(
        dev,
        &["-d", &request.to_string()],
        &[&format!("{CONNECTORS}/{method}")],
    )
    .await?;
    ensure!(answer.success, "{method} {request}: {}", answer.stderr);
    Ok(serde_json::from_str(&answer.stdout)?)
}

/// A call that is refused, and what grpcurl prints of it.
pub(crate) async fn refused(dev: &Gantry, method: &str, request: &Value) -> Result<String> {
    let answer = grpcurl(
        dev,
        &["-d", &request.to_string()],
        &[&format!("{CONNECTORS}/{method}")],
    )
    .await?;
    ensure!(
        !answer.success,
        "{method} {request} was not refused: {}",
        answer.stdout
    );
    // What grpcurl cannot resolve it prints as base64 or with a note.
    for sign in ["unable to", "unknown message type", "@value", "@error"] {
        ensure!(
            !answer.stderr.contains(sign),
            "the details are not text:\n{}",
            answer.stderr
        );
    }
    Ok(answer.stderr)
}

async fn start(work: &WorkDir) -> Result<Gantry> {
    let data = work.dir("data")?.display().to_string();
    Gantry::start(
        work,
        "dev",
        &["dev", "--listen", "127.0.0.1:0", "--data-dir", &data],
    )
    .await
}

fn source(path: &Path) -> Value {
    json!({ "connector": {
        "name": "connectors/lines-in",
        "plugin": "file-source",
        "topic": "lines",
        "config": { "paths": [path.display().to_string()] },
        "labels": { "team": "tests" },
    } })
}

#[test]
fn everything_can_be_found_by_reflection() {
    run(TEST, async |work| {
        let dev = start(work).await?;
        let listed = grpcurl(&dev, &[], &["list"]).await?.stdout;
        let services = [
            CONNECTORS,
            "gantry.v1.PluginService",
            "gantry.v1.AgentService",
            "grpc.health.v1.Health",
        ];
        for service in services {
            ensure!(
                listed.lines().any(|line| line == service),
                "{service} is not in\n{listed}"
            );
        }
        // Agents have a listener of their own.
        ensure!(!listed.contains("gantry.agent"), "{listed}");
        let methods = grpcurl(&dev, &[], &["list", CONNECTORS]).await?.stdout;
        for method in [
            "CreateConnector",
            "PatchConnectorConfig",
            "WatchConnectors",
            "RestartTask",
        ] {
            ensure!(methods.contains(&format!("{CONNECTORS}.{method}")), "{methods}");
        }
        for symbol in [
            "gantry.v1.Connector",
            "google.rpc.ErrorInfo",
            "google.rpc.Status",
            CONNECTORS,
        ] {
            let described = grpcurl(&dev, &[], &["describe", symbol]).await?;
            ensure!(
                described.success && described.stdout.contains(symbol),
                "{symbol}: {}",
                described.stderr
            );
        }
        for service in ["", CONNECTORS] {
            let request = json!({ "service": service }).to_string();
            let health = grpcurl(&dev, &["-d", &request], &["grpc.health.v1.Health/Check"]).await?;
            ensure!(
                health.stdout.contains("SERVING"),
                "{service}: {}{}",
                health.stdout,
                health.stderr
            );
        }
        let plugins = grpcurl(&dev, &[], &["gantry.v1.PluginService/ListPlugins"])
            .await?
            .stdout;
        ensure!(
            plugins.contains("plugins/file-source") && plugins.contains("\"paths\""),
            "{plugins}"
        );
        Ok(())
    });
}

#[test]
fn a_connector_is_created_updated_and_watched() {
    run(TEST, async |work| {
        let dev = start(work).await?;
        let input = work.dir("in")?.canonicalize()?.join("lines.txt");
        lines::append(&input, 0..10, lines::ascii)?;
        let created = call(&dev, "CreateConnector", &source(&input)).await?;
        ensure!(
            created["name"] == "connectors/lines-in" && created["etag"].is_string(),
            "{created}"
        );
        let name = json!({ "name": "connectors/lines-in" });
        let got = call(&dev, "GetConnector", &name).await?;
        ensure!(
            got["uid"] == created["uid"] && got["kind"] == "KIND_SOURCE",
            "{got}"
        );

        // As the README writes it.
        let update = json!({
            "connector": { "name": "connectors/lines-in", "tasks_max": 2 },
            "update_mask": { "paths": ["tasks_max"] },
        });
        let answer = grpcurl(
            &dev,
            &["-d", &update.to_string()],
            &[&format!("{CONNECTORS}/UpdateConnector")],
        )
        .await?;
        // Versions of grpcurl differ in which JSON form of a mask they read.
        let updated: Value = if answer.success {
            serde_json::from_str(&answer.stdout)?
        } else {
            let mut canonical = update.clone();
            canonical["update_mask"] = "tasksMax".into();
            println!(
                "grpcurl reads only the canonical form of a mask: {}",
                answer.stderr
            );
            call(&dev, "UpdateConnector", &canonical).await?
        };
        ensure!(
            updated["tasksMax"] == 2 && updated["generation"] == "2",
            "{updated}"
        );
        ensure!(
            updated["config"] == got["config"] && updated["labels"]["team"] == "tests",
            "{updated}"
        );

        // A watch has no end of its own: grpcurl ends it.
        let watched = grpcurl(
            &dev,
            &["-max-time", "3", "-d", "{}"],
            &[&format!("{CONNECTORS}/WatchConnectors")],
        )
        .await?;
        ensure!(
            !watched.success && watched.stderr.contains("DeadlineExceeded"),
            "{}",
            watched.stderr
        );
        let messages = serde_json::Deserializer::from_str(&watched.stdout).into_iter::<Value>();
        let messages = messages.collect::<Result<Vec<_>, _>>()?;
        let upserted = messages
            .iter()
            .position(|m| m["upserted"]["name"] == "connectors/lines-in");
        let synced = messages.iter().position(|m| m.get("synced").is_some());
        ensure!(upserted.is_some() && upserted < synced, "{}", watched.stdout);
        let token = messages[synced.context("not synced")?]["resumeToken"].clone();
        ensure!(token.is_string(), "{}", watched.stdout);

        // What happened since is seen from the token on.
        call(&dev, "StopConnector", &name).await?;
        let request = json!({ "resume_token": token }).to_string();
        let flags = ["-max-time", "3", "-d", &request];
        let watched = grpcurl(&dev, &flags, &[&format!("{CONNECTORS}/WatchConnectors")]).await?;
        ensure!(
            watched.stdout.contains("TARGET_STATE_STOPPED"),
            "{}{}",
            watched.stdout,
            watched.stderr
        );
        Ok(())
    });
}

#[test]
fn refusals_are_readable() {
    run(TEST, async |work| {
        let dev = start(work).await?;
        let input = work.dir("in")?.canonicalize()?.join("lines.txt");
        lines::append(&input, 0..10, lines::ascii)?;
        call(&dev, "CreateConnector", &source(&input)).await?;

        let said = refused(&dev, "DeleteConnector", &json!({ "name": "connectors/lines-in" })).await?;
        for part in [
            "FailedPrecondition",
            "type.googleapis.com/google.rpc.ErrorInfo",
            "ACTION_NOT_ALLOWED",
            "\"state\": \"RUNNING\"",
            "\"action\": \"DELETE\"",
            "type.googleapis.com/google.rpc.PreconditionFailure",
            "stop it first",
        ] {
            ensure!(
                squeezed(&said).contains(&squeezed(part)),
                "{part} is not in\n{said}"
            );
        }

        let mut wrong = source(&input);
        wrong["connector"]["name"] = "connectors/other".into();
        wrong["connector"]["config"] = json!({ "pahts": ["/x"], "follow": "perhaps" });
        let said = refused(&dev, "CreateConnector", &wrong).await?;
        for part in [
            "InvalidArgument",
            "google.rpc.BadRequest",
            "config.pahts",
            "config.paths",
            "config.follow",
        ] {
            ensure!(said.contains(part), "{part} is not in\n{said}");
        }
        let said = refused(&dev, "GetConnector", &json!({ "name": "connectors/other" })).await?;
        ensure!(
            said.contains("NotFound") && said.contains("CONNECTOR_NOT_FOUND"),
            "{said}"
        );
        let said = refused(&dev, "CreateConnector", &source(&input)).await?;
        ensure!(
            said.contains("AlreadyExists") && said.contains("CONNECTOR_EXISTS"),
            "{said}"
        );
        Ok(())
    });
}

/// Without the spaces, which protobuf's JSON varies on purpose.
fn squeezed(text: &str) -> String {
    text.split_whitespace().collect()
}
