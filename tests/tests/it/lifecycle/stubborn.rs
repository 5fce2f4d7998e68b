//! Connectors whose code hangs, fails or panics: for each hook, whatever it does, only its own connector suffers, the cause can be
//! seen, and it can be stopped and deleted.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gantry_client::Client;
use gantry_client::v1::Connector;
use gantry_client::v1::agent;
use gantry_client::v1::connector::State;
use gantry_tests::connectors::{definition, problem, reaches, records_out};
use gantry_tests::parts::ready;
use gantry_tests::process::Process;
use gantry_tests::wait::eventually;
use gantry_tests::{Gantry, Parts, WorkDir, run};
use serde_json::json;

use super::SOON;

const TEST: Duration = Duration::from_secs(240);
const TOPIC: &str = "numbers";

/// A hook, and the plugin that has it.
type Hook = (&'static str, &'static str);

const SOURCE: [Hook; 4] = [
    ("stubborn-source", "open"),
    ("stubborn-source", "poll"),
    ("stubborn-source", "committed"),
    ("stubborn-source", "close"),
];
const SINK: [Hook; 4] = [
    ("stubborn-sink", "open"),
    ("stubborn-sink", "write"),
    ("stubborn-sink", "flush"),
    ("stubborn-sink", "close"),
];

/// An agent on which one connector is well, and others are not.
struct Site<'a> {
    parts: Parts<'a>,
    client: Client,
    _server: Gantry,
    agent: Process,
    session: Session,
    go: PathBuf,
}

/// What must stay the same of the agent.
#[derive(Debug, PartialEq)]
struct Session {
    instance: String,
    began: String,
}

impl Session {
    async fn of(client: &Client) -> Result<Self> {
        let agent = client.agent("one").await?;
        ensure!(agent.state() == agent::State::Ready, "{agent:?}");
        Ok(Self {
            instance: agent.instance_uid,
            began: format!("{:?}", agent.connect_time),
        })
    }
}

impl<'a> Site<'a> {
    async fn start(work: &'a WorkDir) -> Result<Self> {
        let parts = Parts::with_broker(work).await?;
        let server = parts.server(&[]).await?;
        let client = Client::connect(server.endpoint()).await?;
        let agent = parts.agent("one", "http", &[])?;
        ready(&client, "one", &agent, "").await?;
        let well = definition(
            "well",
            "generator-source",
            TOPIC,
            &json!({ "rate": 20, "size": "20" }),
            &json!({}),
        )?;
        client.create(well, false).await?;
        reaches(&client, "well", State::Running, SOON).await?;
        let session = Session::of(&client).await?;
        Ok(Self {
            go: work.path().join("go"),
            parts,
            client,
            _server: server,
            agent,
            session,
        })
    }

    /// Makes the connectors of these hooks, and gives their names.
    async fn create(&self, hooks: &[Hook], does: &str) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for (plugin, hook) in hooks {
            let name = format!("{does}-{}-{hook}", plugin.trim_start_matches("stubborn-"));
            self.client
                .create(self.stubborn(&name, plugin, hook, does)?, false)
                .await?;
            names.push(name);
        }
        Ok(names)
    }

    fn stubborn(&self, name: &str, plugin: &str, hook: &str, does: &str) -> Result<Connector> {
        let config = json!({ "hook": hook, "does": does, "until": self.go });
        let topic = if plugin == "stubborn-sink" { TOPIC } else { "few" };
        let more = json!({
            "drain_timeout": "1s",
            "stop_timeout": "20s",
            // Long enough for a problem to be seen.
            "restart_policy": { "initial_backoff": "2s", "max_backoff": "2s" },
        });
        definition(name, plugin, topic, &config, &more)
    }

    /// The connector that is well goes on, in the session that it began in.
    async fn others_go_on(&self) -> Result<()> {
        let before = records_out(&self.client, "well").await?;
        eventually(SOON, "the other connector's records go on", async || {
            let now = records_out(&self.client, "well").await?;
            ensure!(now >= before + 40, "{before} and then {now}");
            anyhow::Ok(())
        })
        .await?;
        let now = Session::of(&self.client).await?;
        ensure!(now == self.session, "{:?} and then {now:?}", self.session);
        Ok(())
    }

    /// Lets all hooks go.
    fn let_go(&self) -> Result<()> {
        Ok(std::fs::write(&self.go, "")?)
    }

    /// Asks for a stop of all, waits until they are stopped, and deletes them.
    async fn stop_and_delete(&self, names: &[String]) -> Result<()> {
        for name in names {
            self.client.stop(name).await?;
        }
        for name in names {
            reaches(&self.client, name, State::Stopped, SOON)
                .await
                .with_context(|| self.agent.tail())?;
        }
        self.delete(names).await
    }

    async fn delete(&self, names: &[String]) -> Result<()> {
        for name in names {
            self.client.delete(name, false, false).await?;
        }
        eventually(SOON, "they are gone", async || {
            for name in names {
                ensure!(self.client.get(name).await.is_err(), "{name} is there");
            }
            anyhow::Ok(())
        })
        .await
    }

    /// Waits until the agent has logged a line with all of these.
    async fn logged(&self, parts: &[&str]) -> Result<()> {
        let has = |line: &str| parts.iter().all(|part| line.contains(part));
        self.agent
            .wait_for_line(SOON, &format!("{parts:?}"), has)
            .await
            .map(drop)
    }
}

#[test]
fn hooks_that_fail_or_panic() {
    run(TEST, async |work| {
        let site = Site::start(work).await?;
        for does in ["fails", "panics"] {
            let hooks = [SOURCE, SINK].concat();
            let names = site.create(&hooks, does).await?;
            for ((_, hook), name) in hooks.iter().zip(&names) {
                let says = match does {
                    "fails" => format!("{hook} fails, as it is told"),
                    _ => format!("the connector panicked in {hook}: {hook} panics, as it is told"),
                };
                match *hook {
                    // Nothing follows from it.
                    "committed" => site.logged(&[name, &says]).await?,
                    "close" => drop(reaches(&site.client, name, State::Running, SOON).await?),
                    _ => {
                        let told = problem(&site.client, name, &says, SOON).await?;
                        ensure!(told.reason == "CONNECTOR_ERROR", "{told:?}");
                    }
                }
            }
            site.others_go_on().await?;
            site.stop_and_delete(&names).await?;
            let says = match does {
                "fails" => "close fails, as it is told",
                _ => "the connector panicked in close",
            };
            for what in ["source", "sink"] {
                site.logged(&[&format!("{does}-{what}-close"), says]).await?;
            }
        }
        site.others_go_on().await
    });
}

/// What a connector shows whose hook holds its thread, or waits for ever where something waits for it.
async fn stalls(site: &Site<'_>, hook: &str, name: &str) -> Result<()> {
    let told = problem(&site.client, name, &format!("{hook} has not returned"), SOON).await?;
    ensure!(
        told.reason == "CODE_DOES_NOT_RETURN" && !told.fix.is_empty(),
        "{name}: {told:?}"
    );
    Ok(())
}

#[test]
fn hooks_that_wait_for_ever() {
    run(TEST, async |work| {
        let site = Site::start(work).await?;
        let hooks = [SOURCE, SINK].concat();
        let names = site.create(&hooks, "pends").await?;
        for (hook, name) in hooks.iter().zip(&names) {
            match hook {
                // To wait for records is what it is for, and it runs until it is stopped.
                (_, "poll" | "close") => drop(reaches(&site.client, name, State::Running, SOON).await?),
                ("stubborn-source", "open") => {}
                (_, hook) => stalls(&site, hook, name).await?,
            }
        }
        site.others_go_on().await?;
        // Nothing is known to wait for a source: it starts, until its time is over. That of what it is told has the same limit.
        let told = problem(&site.client, &names[0], "open did not return within 60 s", SOON).await?;
        ensure!(
            told.reason == "HOOK_TIMED_OUT" && !told.fix.is_empty(),
            "{told:?}"
        );
        // Nobody but the log remembers: it was started again, and runs.
        site.logged(&["committed did not return within 60 s"]).await?;
        reaches(&site.client, &names[2], State::Running, SOON).await?;
        // What only waits is dropped when its time is over: it costs neither a thread nor the agent.
        site.stop_and_delete(&names).await?;
        site.others_go_on().await
    });
}

#[test]
fn hooks_that_keep_a_processor_busy_until_they_let_go() {
    run(TEST, async |work| {
        let site = Site::start(work).await?;
        for hooks in [SOURCE, SINK] {
            let names = site.create(&hooks, "spins").await?;
            for ((_, hook), name) in hooks.iter().zip(&names) {
                match *hook {
                    "close" => drop(reaches(&site.client, name, State::Running, SOON).await?),
                    hook => stalls(&site, hook, name).await?,
                }
            }
            site.others_go_on().await?;
            site.let_go()?;
            for name in &names {
                reaches(&site.client, name, State::Running, SOON).await?;
            }
            std::fs::remove_file(&site.go)?;
            // Those whose hook is called again are busy again until they may go.
            for name in &names {
                site.client.stop(name).await?;
            }
            site.let_go()?;
            site.stop_and_delete(&names).await?;
            std::fs::remove_file(&site.go)?;
            site.others_go_on().await?;
        }
        Ok(())
    });
}

#[test]
fn hooks_that_block_their_thread_for_ever() {
    run(TEST, async |work| {
        let mut site = Site::start(work).await?;
        for hooks in [SOURCE, SINK] {
            let names = site.create(&hooks, "sleeps").await?;
            for ((_, hook), name) in hooks.iter().zip(&names) {
                match *hook {
                    "close" => drop(reaches(&site.client, name, State::Running, SOON).await?),
                    hook => stalls(&site, hook, name).await?,
                }
            }
            site.others_go_on().await?;
            // Nothing ends such a thread but the end of the process.
            for name in &names {
                site.client.stop(name).await?;
            }
            let told = problem(&site.client, &names[3], "close has not returned", SOON).await?;
            ensure!(told.reason == "OLD_RUN_HANGS" && !told.fix.is_empty(), "{told:?}");
            let status = site.agent.ended(SOON).await?;
            ensure!(!status.success(), "it ended with {status}");
            site.logged(&["stop_timeout"]).await?;
            for name in &names {
                reaches(&site.client, name, State::Stopped, SOON).await?;
            }
            site.delete(&names).await?;
            // As whatever supervises the process does.
            site.agent = site.parts.agent("one", "http", &[])?;
            ready(&site.client, "one", &site.agent, &site.session.instance).await?;
            reaches(&site.client, "well", State::Running, SOON).await?;
            site.session = Session::of(&site.client).await?;
            site.others_go_on().await?;
        }
        Ok(())
    });
}
