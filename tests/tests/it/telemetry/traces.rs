use anyhow::{Context, Result, ensure};
use gantry_client::Client;
use gantry_client::v1::connector::State;
use gantry_tests::certs::Authority;
use gantry_tests::collector::Span;
use gantry_tests::connectors::{definition, reaches};
use gantry_tests::parts::ready;
use gantry_tests::wait::eventually;
use gantry_tests::{Cli, Collector, Gantry, Parts, Ports, Process, Scrape, env, run};
use serde_json::json;

use super::{SOON, TEST};

const CREATE: &str = "gantry.v1.ConnectorService/CreateConnector";
const DROPPED: &str = "traces cannot be sent";

/// The trace that the one call of `method` began.
fn of_call(collector: &Collector, method: &str) -> Result<Span> {
    let mut calls = collector.named(method);
    ensure!(calls.len() == 1, "{} calls of {method}", calls.len());
    calls.pop().context("there is one")
}

/// Waits until the start of the task was received, and gives the request, the push and the start.
async fn chain(collector: &Collector, request: &Span) -> Result<(Span, Span)> {
    eventually(SOON, "the trace is complete", async || {
        let push = collector.only(&request.trace, "push")?;
        let start = collector.only(&request.trace, "task start")?;
        ensure!(
            push.parent == request.id,
            "{push:?} does not follow from {request:?}"
        );
        ensure!(start.parent == push.id, "{start:?} does not follow from {push:?}");
        ensure!(
            (
                request.service.as_str(),
                push.service.as_str(),
                start.service.as_str()
            ) == ("gantry-server", "gantry-server", "gantry-agent"),
            "{request:?} {push:?} {start:?}"
        );
        ensure!(start.instance == "one", "{start:?}");
        Ok((push, start))
    })
    .await
}

#[test]
fn one_trace_shows_a_request_from_the_api_to_the_start_of_the_task() {
    run(TEST, async |work| {
        let (parts, collector) = (Parts::with_broker(work).await?, Collector::start().await?);
        let endpoint = collector.endpoint();
        // What is logged has no influence on what is traced.
        let more = ["--otlp-endpoint", &endpoint, "--log", "error"];
        let server = parts.server(&more).await?;
        let client = Client::connect(server.endpoint()).await?;
        let mut agent = parts.agent("one", "http", &more)?;
        let instance = ready(&client, "one", &agent, "").await?;

        let cli = Cli::new(server.endpoint(), work);
        cli.ok(&[
            "connectors",
            "create",
            "made",
            "--plugin",
            "generator-source",
            "--topic",
            "made",
            "--set",
            "rate=10",
            "--wait",
        ])
        .await?;
        let request = eventually(SOON, "the request was received", async || {
            of_call(&collector, CREATE)
        })
        .await?;
        ensure!(
            request.parent.is_empty(),
            "nobody called it with a trace: {request:?}"
        );
        ensure!(
            request.attributes.get("code").is_some_and(|c| c == "Ok"),
            "{request:?}"
        );
        let (push, start) = chain(&collector, &request).await?;
        for (name, attribute, value) in [("plan", "connector", "made"), ("grant", "agent", "one")] {
            let span = eventually(SOON, name, async || collector.only(&request.trace, name)).await?;
            ensure!(
                span.parent == request.id && span.attributes[attribute] == value,
                "{span:?}"
            );
        }
        ensure!(push.attributes["agent"] == "one" && start.attributes["connector"] == "made");

        // A caller's own trace goes on; what the two requests cause is told apart.
        let (trace, parent) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
        let header = format!("traceparent: 00-{trace}-{parent}-01");
        let restart = "gantry.v1.ConnectorService/RestartConnector";
        grpcurl(&parts, &header, restart).await?;
        let restarted = eventually(SOON, "the restart was received", async || {
            collector.only(trace, restart)
        })
        .await?;
        ensure!(restarted.parent == parent, "{restarted:?}");
        let (push, _) = chain(&collector, &restarted).await?;
        let want = eventually(SOON, "the want was received", async || {
            collector.only(trace, "want")
        })
        .await?;
        ensure!(want.parent == restarted.id && push.parent == restarted.id);
        reaches(&client, "made", State::Running, SOON).await?;

        // An agent that is lost is no consequence of a request: its tasks' new starts are not in its trace.
        let before = (
            collector.trace(trace).len(),
            collector.trace(&request.trace).len(),
        );
        let starts = collector.named("task start").len();
        agent.kill()?;
        drop(agent);
        let agent = parts.agent("one", "http", &more)?;
        ready(&client, "one", &agent, &instance).await?;
        eventually(SOON, "the task has started again", async || {
            let now = collector.named("task start");
            ensure!(now.len() > starts, "{} starts", now.len());
            let last = now.last().context("there is one")?;
            ensure!(last.parent.is_empty() && last.trace != trace, "{last:?}");
            Ok(())
        })
        .await?;
        let after = (
            collector.trace(trace).len(),
            collector.trace(&request.trace).len(),
        );
        ensure!(after == before, "{:#?}", collector.trace(trace));

        // Who probes and who looks around is no trace; what lasts as long as a session is none either.
        grpcurl(&parts, "x: y", "grpc.health.v1.Health/Check").await?;
        cli.ok(&["connectors", "list"]).await?;
        let list = "gantry.v1.ConnectorService/ListConnectors";
        eventually(SOON, "the list was received", async || of_call(&collector, list)).await?;
        let names: Vec<_> = collector.spans().into_iter().map(|s| s.name).collect();
        for name in ["session", "leader", "task", "rpc"] {
            ensure!(
                !names.iter().any(|n| n == name || n.starts_with("grpc.")),
                "{names:?}"
            );
        }
        drop((agent, server));
        parts.stop().await;
        Ok(())
    });
}

/// Calls a method that needs no more than the connector's name.
async fn grpcurl(parts: &Parts<'_>, header: &str, method: &str) -> Result<()> {
    let request = match method.starts_with("gantry.") {
        true => json!({ "name": "connectors/made" }).to_string(),
        false => "{}".to_owned(),
    };
    let mut command = tokio::process::Command::new(env::tool(env::GRPCURL_BIN)?);
    command
        .args(["-plaintext", "-H", header, "-d", &request, &parts.users(), method])
        .kill_on_drop(true);
    let output = tokio::time::timeout(SOON, command.output()).await??;
    ensure!(
        output.status.success(),
        "{method}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

fn said(process: &Process, mention: &str) -> Result<usize> {
    let lines = process.stderr()?;
    Ok(lines.lines().filter(|line| line.contains(mention)).count())
}

#[test]
fn without_a_collector_nothing_breaks_and_little_is_said() {
    run(TEST, async |work| {
        let (parts, port) = (Parts::with_broker(work).await?, Ports::reserve(1)?);
        let endpoint = format!("http://{}", port.address(0));
        let more = ["--otlp-endpoint", endpoint.as_str()];
        let mut server = parts.server(&more).await?;
        let client = Client::connect(server.endpoint()).await?;
        // A filter of one's own leaves out nothing that is left out otherwise: there is no flood even so.
        let mut agent = parts.agent("one", "http", &[&more[..], &["--log", "info"]].concat())?;
        ready(&client, "one", &agent, "").await?;
        let made = definition(
            "made",
            "generator-source",
            "made",
            &json!({ "rate": 10 }),
            &json!({}),
        )?;
        client.create(made, false).await?;
        reaches(&client, "made", State::Running, SOON).await?;
        for process in [server.process(), &mut agent] {
            process
                .wait_for_line(SOON, DROPPED, |line| line.contains(DROPPED))
                .await?;
        }
        // Each call makes a span that cannot be sent, over several batches.
        let collector = {
            for _ in 0..4 {
                client.pause("made").await?;
                reaches(&client, "made", State::Paused, SOON).await?;
                client.resume("made").await?;
                reaches(&client, "made", State::Running, SOON).await?;
            }
            for process in [server.process(), &mut agent] {
                ensure!(said(process, DROPPED)? == 1, "{}", process.tail());
                ensure!(said(process, "opentelemetry")? == 0, "{}", process.tail());
            }
            let lines = server.process().stderr()?.lines().count();
            ensure!(lines < 100, "{lines} lines\n{}", server.process().tail());
            Collector::start_on(&port.address(0)).await?
        };
        // It comes: spans are sent again, and that is said.
        eventually(SOON, "spans of both are received", async || {
            client.pause("made").await?;
            reaches(&client, "made", State::Paused, SOON).await?;
            client.resume("made").await?;
            reaches(&client, "made", State::Running, SOON).await?;
            let services: Vec<_> = collector.spans().into_iter().map(|s| s.service).collect();
            for service in ["gantry-server", "gantry-agent"] {
                ensure!(services.iter().any(|s| s == service), "no span of {service}");
            }
            Ok::<_, anyhow::Error>(())
        })
        .await?;
        for process in [server.process(), &mut agent] {
            let again = "traces are sent again";
            process
                .wait_for_line(SOON, again, |line| line.contains(again))
                .await?;
        }
        // What is left is sent at the end, and a collector that does not answer does not hold it up for long.
        collector.stop().await;
        let _mute = tokio::net::TcpListener::bind(port.address(0)).await?;
        client.pause("made").await?;
        ensure!(agent.terminate(SOON).await?.success(), "{}", agent.tail());
        ensure!(
            server.process().terminate(SOON).await?.success(),
            "{}",
            server.process().tail()
        );
        parts.stop().await;
        Ok(())
    });
}

#[test]
fn one_process_shows_it_all() {
    run(TEST, async |work| {
        let collector = Collector::start().await?;
        let (endpoint, data) = (collector.endpoint(), work.dir("data")?.display().to_string());
        let free = "127.0.0.1:0";
        let args = [
            "dev",
            "--listen",
            free,
            "--data-dir",
            &data,
            "--agents",
            "2",
            "--otlp-endpoint",
            &endpoint,
            "--metrics-listen",
            free,
            "--agent-metrics-listen",
            free,
        ];
        let mut dev = Gantry::start(work, "dev", &args).await?;
        let client = Client::connect(dev.endpoint()).await?;
        let made = definition(
            "made",
            "generator-source",
            "made",
            &json!({ "rate": 10 }),
            &json!({}),
        )?;
        client.create(made, false).await?;
        reaches(&client, "made", State::Running, SOON).await?;
        let request = eventually(SOON, "the request was received", async || {
            of_call(&collector, CREATE)
        })
        .await?;
        eventually(SOON, "the trace is complete", async || {
            let push = collector.only(&request.trace, "push")?;
            let start = collector.only(&request.trace, "task start")?;
            ensure!(push.parent == request.id && start.parent == push.id && start.service == "gantry-dev");
            Ok(())
        })
        .await?;
        let printed = dev.process().stdout()?;
        let address = |who: &str| -> Result<String> {
            let begin = format!("metrics of {who} on http://");
            let line = printed.lines().find_map(|line| line.strip_prefix(&begin));
            let line = line.with_context(|| format!("{begin} is not in\n{printed}"))?;
            Ok(line.trim_end_matches("/metrics").to_owned())
        };
        let server = address("the control plane")?;
        let agents = [address("dev-1")?, address("dev-2")?];
        eventually(SOON, "all is shown", async || {
            let seen = Scrape::of(&server).await?;
            ensure!(
                seen.one("gantry_server_sessions", &[])? == 2.0,
                "not all agents have a session"
            );
            let mut tasks = 0;
            for agent in &agents {
                let seen = Scrape::of(agent).await?;
                ensure!(
                    seen.one("gantry_agent_connected", &[])? == 1.0,
                    "{agent} is not connected"
                );
                tasks += seen
                    .all("gantry_agent_records_out_total", &[("connector", "made")])
                    .len();
            }
            ensure!(tasks == 1, "{tasks} agents show the task");
            Ok::<_, anyhow::Error>(())
        })
        .await?;
        ensure!(dev.process().terminate(SOON).await?.success());
        Ok(())
    });
}

#[test]
fn what_is_no_collector_is_refused() {
    run(TEST, async |work| {
        let cli = Cli::new("http://127.0.0.1:9", work);
        let server = ["server", "--etcd", "http://127.0.0.1:9", "--otlp-endpoint"];
        for (endpoint, mention) in [
            ("collector:4317", "must begin with http://"),
            ("https://collector:4317", "no CA is given"),
        ] {
            let args = [&server[..], &[endpoint]].concat();
            cli.refused(2, &args, &[mention, endpoint, "--otlp-endpoint"])
                .await?;
        }
        Ok(())
    });
}

#[test]
fn the_last_spans_are_sent_at_the_end_over_tls_as_well() {
    run(TEST, async |work| {
        let (parts, secrets) = (Parts::start(work).await?, work.dir("secrets")?);
        let authority = Authority::new(&secrets, "ca")?;
        let identity = authority.server("collector", &["127.0.0.1"])?;
        let ca = authority.ca().display().to_string();
        for collector in [Collector::start().await?, Collector::start_tls(&identity).await?] {
            let endpoint = collector.endpoint();
            let mut server = parts
                .server(&["--otlp-endpoint", &endpoint, "--otlp-ca", &ca])
                .await?;
            let cli = Cli::new(server.endpoint(), work);
            cli.ok(&["connectors", "list"]).await?;
            ensure!(server.process().terminate(SOON).await?.success());
            of_call(&collector, "gantry.v1.ConnectorService/ListConnectors")?;
        }
        Ok(())
    });
}
