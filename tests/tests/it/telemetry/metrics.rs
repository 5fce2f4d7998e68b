use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use gantry_client::Client;
use gantry_client::v1::connector::State;
use gantry_tests::connectors::{definition, reaches, records_out};
use gantry_tests::lines::{self, ascii};
use gantry_tests::parts::ready;
use gantry_tests::scrape::http;
use gantry_tests::wait::{eventually, promptly};
use gantry_tests::{Cli, Parts, Scrape, run};
use serde_json::{Value, json};

use super::{SOON, TEST, documented};

const LINES: u64 = 2_000;

/// A server and an agent that serve metrics, and a pair of connectors to be.
struct Site<'a> {
    parts: Parts<'a>,
    client: Client,
}

impl Site<'_> {
    async fn server(&self) -> Result<Scrape> {
        Scrape::of(&self.parts.server_metrics()).await
    }

    async fn agent(&self) -> Result<Scrape> {
        Scrape::of(&self.parts.agent_metrics()).await
    }

    async fn create(&self, name: &str, plugin: &str, config: Value) -> Result<()> {
        let connector = definition(name, plugin, "lines", &config, &json!({}))?;
        self.client.create(connector, false).await?;
        reaches(&self.client, name, State::Running, SOON).await?;
        Ok(())
    }

    /// A file to a topic to files.
    async fn pair(&self) -> Result<()> {
        let files = self.parts.files();
        let (input, output) = (files.join("lines.txt"), files.join("out"));
        std::fs::create_dir_all(&output)?;
        self.create("lines-in", "file-source", json!({ "paths": [input] }))
            .await?;
        self.create(
            "lines-out",
            "file-sink",
            json!({ "path": output.join("{queue}.txt") }),
        )
        .await
    }

    /// Adds lines, and waits until the sink has committed all so far.
    async fn append(&self, from: u64, to: u64) -> Result<()> {
        lines::append(&self.parts.files().join("lines.txt"), from..to, ascii)?;
        eventually(SOON, &format!("{to} lines are committed"), async || {
            let committed = records_out(&self.client, "lines-out").await?;
            ensure!(committed == to, "{committed} are");
            Ok(())
        })
        .await
    }

    /// Removes connectors, and waits until they are gone.
    async fn delete(&self, names: &[&str]) -> Result<()> {
        for name in names {
            self.client.delete(name, true, false).await?;
        }
        eventually(SOON, &format!("{names:?} are gone"), async || {
            let left = self.client.list("", Default::default()).await?;
            let left: Vec<_> = left.into_iter().map(|c| c.name).collect();
            ensure!(
                !names
                    .iter()
                    .any(|name| left.contains(&format!("connectors/{name}"))),
                "{left:?}"
            );
            anyhow::Ok(())
        })
        .await
    }
}

/// Sum over all tasks of a connector.
fn total(scrape: &Scrape, name: &str, connector: &str) -> f64 {
    scrape.all(name, &[("connector", connector)]).into_iter().sum()
}

#[test]
fn a_pair_of_connectors_is_seen_while_it_runs_and_no_longer() {
    run(TEST, async |work| {
        let parts = Parts::with_broker(work).await?;
        let (server_metrics, agent_metrics) = (parts.server_metrics(), parts.agent_metrics());
        let server = parts.server(&["--metrics-listen", &server_metrics]).await?;
        let client = Client::connect(server.endpoint()).await?;
        let agent = parts.agent("one", "http", &["--metrics-listen", &agent_metrics])?;
        ready(&client, "one", &agent, "").await?;
        let site = Site { parts, client };
        lines::append(&site.parts.files().join("lines.txt"), 0..1, ascii)?;

        // The first session may have been refused, before the store had an identity.
        let empty = eventually(SOON, "this replica leads and has the agent", async || {
            let seen = site.server().await?;
            ensure!(seen.one("gantry_server_leader", &[])? == 1.0, "it does not lead");
            ensure!(
                seen.one("gantry_server_agents", &[("state", "READY")])? == 1.0,
                "no agent"
            );
            ensure!(seen.one("gantry_server_sessions", &[])? == 1.0, "no session");
            anyhow::Ok(seen)
        })
        .await?;
        ensure!(empty.one("gantry_server_connectors", &[("state", "RUNNING")])? == 0.0);
        let idle = eventually(SOON, "the agent is connected", async || {
            let seen = site.agent().await?;
            ensure!(seen.one("gantry_agent_connected", &[])? == 1.0, "it is not");
            anyhow::Ok(seen)
        })
        .await?;
        ensure!(idle.values("connector").is_empty(), "{}", idle.text);

        site.pair().await?;
        site.append(1, LINES).await?;
        agent_figures(&site).await?;
        server_figures(&site, &empty).await?;

        // What is served is what the documentation says, no more and no less.
        let (of_server, of_agent) = (site.server().await?.families(), site.agent().await?.families());
        let served: BTreeSet<String> = of_server.union(&of_agent).cloned().collect();
        let documented = documented()?;
        let unknown: Vec<_> = served.difference(&documented).collect();
        ensure!(unknown.is_empty(), "not documented: {unknown:?}");
        // Shown only when it has happened.
        let missing: Vec<_> = documented
            .difference(&served)
            .filter(|n| *n != "gantry_agent_gap")
            .collect();
        ensure!(missing.is_empty(), "not served: {missing:?}");

        // A deleted connector leaves nothing; one of its name begins anew.
        site.delete(&["lines-in", "lines-out"]).await?;
        eventually(SOON, "its series are gone", async || {
            let seen = site.agent().await?;
            ensure!(seen.series() == idle.series(), "{}", seen.text);
            anyhow::Ok(())
        })
        .await?;
        site.pair().await?;
        eventually(SOON, "its series are there again", async || {
            let seen = site.agent().await?;
            // The new source reads the file from its beginning; the new sink the topic, with what the old source sent.
            let read = total(&seen, "gantry_agent_records_in_total", "lines-in");
            ensure!(read == LINES as f64, "{read} of {LINES} lines are read");
            ensure!(total(&seen, "gantry_agent_records_out_total", "lines-out") == 2.0 * LINES as f64);
            anyhow::Ok(())
        })
        .await?;
        site.delete(&["lines-in", "lines-out"]).await?;
        drop((agent, server));
        site.parts.stop().await;
        Ok(())
    });
}

/// What the agent shows of a pair through which all lines have gone.
async fn agent_figures(site: &Site<'_>) -> Result<()> {
    let seen = eventually(SOON, "all is counted", async || {
        let seen = site.agent().await?;
        for (name, connector) in [
            ("gantry_agent_records_in_total", "lines-in"),
            ("gantry_agent_records_out_total", "lines-in"),
            ("gantry_agent_records_in_total", "lines-out"),
            ("gantry_agent_records_out_total", "lines-out"),
        ] {
            let records = total(&seen, name, connector);
            ensure!(records == LINES as f64, "{name} of {connector} is {records}");
        }
        ensure!(total(&seen, "gantry_agent_in_flight_bytes", "lines-in") == 0.0);
        ensure!(total(&seen, "gantry_agent_lag_messages", "lines-out") == 0.0);
        anyhow::Ok(seen)
    })
    .await?;
    let size = std::fs::metadata(site.parts.files().join("lines.txt"))?.len() - LINES;
    ensure!(total(&seen, "gantry_agent_records_in_bytes_total", "lines-in") == size as f64);
    ensure!(total(&seen, "gantry_agent_records_out_bytes_total", "lines-in") == size as f64);
    ensure!(total(&seen, "gantry_agent_records_out_bytes_total", "lines-out") >= size as f64);
    for connector in ["lines-in", "lines-out"] {
        let running = [("connector", connector), ("state", "RUNNING")];
        ensure!(seen.one("gantry_agent_task_state", &running)? == 1.0);
        ensure!(
            seen.all("gantry_agent_task_state", &running[..1]).len() == 1,
            "in one state only"
        );
        let restarts = total(&seen, "gantry_agent_task_restarts_total", connector);
        ensure!(restarts == 0.0, "{restarts} restarts");
    }
    ensure!(
        seen.all("gantry_agent_lag_messages", &[("connector", "lines-in")])
            .is_empty(),
        "sources have no lag"
    );

    // The last commit moves with the records, and only with them.
    let commit = |seen: &Scrape, connector: &str| {
        seen.one(
            "gantry_agent_last_commit_timestamp_seconds",
            &[("connector", connector)],
        )
    };
    let now = now()?;
    for connector in ["lines-in", "lines-out"] {
        let at = commit(&seen, connector)?;
        ensure!(
            at <= now && at > now - TEST.as_secs_f64(),
            "{at} is no time of this test, which is at {now}"
        );
    }
    // A sink that takes its time: messages wait, and are held in memory.
    site.create("slow", "blackhole-sink", json!({ "delay": "1s" }))
        .await?;
    let before = promptly(SOON, "the slow sink lags", async || {
        let seen = site.agent().await?;
        ensure!(total(&seen, "gantry_agent_lag_messages", "slow") > 0.0, "no lag");
        ensure!(
            total(&seen, "gantry_agent_in_flight_bytes", "slow") > 0.0,
            "nothing in flight"
        );
        anyhow::Ok(seen)
    })
    .await?;
    ensure!(
        commit(&before, "lines-out")? == commit(&seen, "lines-out")?,
        "nothing has come since"
    );
    eventually(SOON, "the slow sink has caught up", async || {
        let seen = site.agent().await?;
        ensure!(
            total(&seen, "gantry_agent_lag_messages", "slow") == 0.0,
            "{}",
            seen.text
        );
        ensure!(total(&seen, "gantry_agent_records_out_total", "slow") == LINES as f64);
        anyhow::Ok(())
    })
    .await?;
    site.delete(&["slow"]).await?;
    Ok(())
}

/// The time of day, in seconds.
#[allow(
    clippy::disallowed_methods,
    reason = "what another process says of the time is compared with it"
)]
fn now() -> Result<f64> {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    Ok(since.as_secs_f64())
}

/// What the server shows; `empty`: what it did before there was a connector.
async fn server_figures(site: &Site<'_>, empty: &Scrape) -> Result<()> {
    let seen = eventually(SOON, "the leader counts two that run", async || {
        let seen = site.server().await?;
        ensure!(seen.one("gantry_server_connectors", &[("state", "RUNNING")])? == 2.0);
        ensure!(seen.one("gantry_server_tasks", &[("state", "RUNNING")])? == 2.0);
        anyhow::Ok(seen)
    })
    .await?;
    ensure!(seen.one("gantry_server_connectors", &[("state", "FAILED")])? == 0.0);
    let grown = |name: &str, labels: &[(&str, &str)]| -> Result<()> {
        let sum = |s: &Scrape| s.all(name, labels).into_iter().sum::<f64>();
        ensure!(
            sum(&seen) > sum(empty),
            "{name}{labels:?} has not grown\n{}",
            seen.text
        );
        Ok(())
    };
    for name in [
        "gantry_server_plan_runs_total",
        "gantry_server_plan_duration_seconds_count",
        "gantry_server_plan_duration_seconds_sum",
        "gantry_server_actions_total",
        "gantry_server_pushes_total",
        "gantry_server_statuses_total",
        "gantry_server_commits_total",
        "gantry_server_commit_duration_seconds_count",
    ] {
        grown(name, &[])?;
    }
    for kind in ["read", "write"] {
        grown(
            "gantry_server_etcd_request_duration_seconds_count",
            &[("kind", kind), ("outcome", "ok")],
        )?;
    }
    ensure!(seen.one("gantry_server_mirror_lag_seconds", &[])? < 30.0);
    ensure!(seen.one("gantry_server_store_used_bytes", &[])? > 0.0);
    ensure!(seen.one("gantry_server_store_quota_bytes", &[])? > 1e6);
    let create = ("method", "gantry.v1.ConnectorService/CreateConnector");
    grown("gantry_server_rpcs_total", &[create, ("code", "Ok")])?;
    grown("gantry_server_rpc_duration_seconds_count", &[create])?;
    Ok(())
}

/// Callers cannot make series: not by methods that do not exist, nor by names of what they ask for.
#[test]
fn series_are_bounded() {
    run(TEST, async |work| {
        let parts = Parts::with_broker(work).await?;
        let (server_metrics, agent_metrics) = (parts.server_metrics(), parts.agent_metrics());
        let server = parts.server(&["--metrics-listen", &server_metrics]).await?;
        let client = Client::connect(server.endpoint()).await?;
        let agent = parts.agent("one", "http", &["--metrics-listen", &agent_metrics])?;
        ready(&client, "one", &agent, "").await?;
        let site = Site { parts, client };
        let cli = Cli::new(server.endpoint(), work);

        let round = async |from: usize| -> Result<()> {
            for n in from..from + 5 {
                let name = format!("made-{n}");
                site.create(&name, "generator-source", json!({ "count": 10 }))
                    .await?;
                let path = format!("/gantry.v1.ConnectorService/Method{n}");
                let kind = ["content-type: application/grpc-web+proto"];
                let answer = http(&site.parts.users(), "POST", &path, &kind, &[0; 5]).await?;
                ensure!(answer.head.contains("grpc-status: 12"), "{}", answer.head);
                cli.refused(3, &["connectors", "get", &format!("none-{n}")], &["no connector"])
                    .await?;
                site.delete(&[&name]).await?;
            }
            Ok(())
        };
        round(0).await?;
        let first = site.server().await?;
        let methods = first.values("method");
        ensure!(
            methods.contains("unknown") && methods.iter().all(|m| !m.contains("Method")),
            "{methods:?}"
        );
        round(5).await?;
        let second = site.server().await?;
        let new: Vec<_> = second.series().difference(&first.series()).cloned().collect();
        ensure!(new.is_empty(), "{new:?}");
        eventually(SOON, "the agent shows no task", async || {
            let seen = site.agent().await?;
            ensure!(
                seen.values("connector").is_empty(),
                "{:?}",
                seen.values("connector")
            );
            anyhow::Ok(())
        })
        .await?;

        // Only one path is served.
        for (method, path) in [("GET", "/"), ("POST", "/metrics"), ("GET", "/metrics/x")] {
            for address in [&server_metrics, &agent_metrics] {
                let answer = http(address, method, path, &[], b"").await?;
                ensure!(answer.status == 404, "{method} {path}: {}", answer.head);
            }
        }
        drop((agent, server));
        site.parts.stop().await;
        Ok(())
    });
}
