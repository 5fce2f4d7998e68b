//! The API on a real etcd: pages, filters, conditional and repeated writes, the table of actions, watches, agents.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use gantry_client::v1::connector::{Action, State, TargetState};
use gantry_client::v1::connector_service_client::ConnectorServiceClient;
use gantry_client::v1::*;
use gantry_client::{Client, Error, Step};
use gantry_proto::error::Reason;
use gantry_tests::connectors::{definition, holders, reaches, shown};
use gantry_tests::wait::eventually;
use gantry_tests::{Cluster, Ports, WorkDir, run};
use serde_json::{Value, json};
use tokio::time::timeout;
use tonic::Status;
use tonic::transport::Channel;
use tonic_types::StatusExt;

const TEST: Duration = Duration::from_secs(150);
const SOON: Duration = Duration::from_secs(45);

/// A control plane with agents. No broker is there: what moves records waits, what is asked here does not need it.
struct Site<'a> {
    cluster: Cluster<'a>,
    client: Client,
    raw: ConnectorServiceClient<Channel>,
    _no_broker: Ports,
}

impl<'a> Site<'a> {
    async fn start(work: &'a WorkDir, agents: &[&str]) -> Result<Self> {
        let no_broker = Ports::reserve(1)?;
        let mut cluster = Cluster::start(work, &no_broker.address(0)).await?;
        for agent in agents {
            cluster.start_agent(agent).await?;
        }
        let raw = ConnectorServiceClient::connect(cluster.endpoint()).await?;
        Ok(Self { client: cluster.client()?, cluster, raw, _no_broker: no_broker })
    }

    /// A source of files that the agents may read, and do not find.
    fn source(&self, name: &str, more: &Value) -> Result<Connector> {
        let pattern = self.cluster.files().join(name).join("*.log").display().to_string();
        definition(name, "file-source", "lines", &json!({ "paths": [pattern] }), more)
    }

    async fn create(&self, name: &str, more: &Value) -> Result<Connector> {
        Ok(self.client.create(self.source(name, more)?, false).await?)
    }
}

fn stopped() -> Value {
    json!({ "target_state": "TARGET_STATE_STOPPED" })
}

/// The reason of a refusal, which also has to carry the code that belongs to it.
fn reason<T>(result: Result<T, Status>) -> Result<Reason> {
    let Err(status) = result else { bail!("it was not refused") };
    let info = status.get_details_error_info().with_context(|| format!("without ErrorInfo: {status:?}"))?;
    let reason = Reason::parse(&info.reason).with_context(|| format!("an unknown reason: {}", info.reason))?;
    ensure!(status.code() == reason.code() && info.domain == "gantry", "{status:?}");
    Ok(reason)
}

/// The reason of a refusal through the client.
fn why<T>(result: Result<T, Error>) -> Result<Reason> {
    match result {
        Ok(_) => bail!("it was not refused"),
        Err(error) => error.reason().with_context(|| format!("a refusal without a reason: {error}")),
    }
}

#[test]
fn lists_come_in_pages_and_by_filter() {
    run(TEST, async |work| {
        let mut site = Site::start(work, &["one"]).await?;
        let names: Vec<String> = (0..25).map(|n| format!("list-{n:02}")).collect();
        // In another order than that of the pages.
        for (n, name) in names.iter().enumerate().rev() {
            let team = if n % 5 == 0 { "red" } else { "blue" };
            let more = json!({ "target_state": "TARGET_STATE_STOPPED", "labels": { "team": team } });
            site.create(name, &more).await?;
        }

        let request = |size: i32, token: &str, filter: &str| ListConnectorsRequest {
            page_size: size,
            page_token: token.to_owned(),
            filter: filter.to_owned(),
            view: View::Full as i32,
        };
        let (mut listed, mut token, mut first_token) = (Vec::new(), String::new(), String::new());
        loop {
            let page = site.raw.list_connectors(request(10, &token, "")).await?.into_inner();
            ensure!(page.connectors.len() <= 10, "a page of {}", page.connectors.len());
            listed.extend(page.connectors.into_iter().map(|c| c.name.trim_start_matches("connectors/").to_owned()));
            // What comes and goes between two pages neither repeats nor hides what stays.
            if first_token.is_empty() {
                first_token.clone_from(&page.next_page_token);
                site.create("list-00a", &stopped()).await?;
                site.client.delete("list-03", false, false).await?;
            }
            token = page.next_page_token;
            if token.is_empty() {
                break;
            }
        }
        ensure!(listed == names, "{listed:?}");

        // Tokens belong to their question.
        for bad in [request(10, &first_token, "labels.team=red"), request(10, "%%", ""), request(10, "AAAA", "")] {
            let reason = reason(site.raw.list_connectors(bad.clone()).await).with_context(|| format!("{bad:?}"))?;
            ensure!(reason == Reason::InvalidPageToken, "{bad:?}: {reason:?}");
        }
        ensure!(reason(site.raw.list_connectors(request(-1, "", "")).await)? == Reason::InvalidField, "negative size");

        // Filters.
        for (filter, count) in [
            ("labels.team=red", 5),
            ("labels.team=\"red\" OR name=\"connectors/list-01\"", 6),
            ("labels.team=blue AND NOT state=STOPPED", 0),
            ("plugin=file-source AND target_state=STOPPED AND labels.team:*", 24),
            ("kind!=SINK AND labels.team!=blue", 6),
            ("plugin=file-sink", 0),
        ] {
            eventually(SOON, &format!("{filter} matches {count}"), async || {
                let found = site.client.list(filter, View::Basic).await?;
                ensure!(found.len() == count, "{} match", found.len());
                // This view leaves the configuration out.
                ensure!(found.iter().all(|c| c.config.is_none()), "{found:?}");
                Ok(())
            })
            .await?;
        }
        for filter in ["state=", "nonsense=1", "state=RUNNING AND", "(state=RUNNING", "generation>3"] {
            let reason = reason(site.raw.list_connectors(request(0, "", filter)).await).context(filter)?;
            ensure!(reason == Reason::InvalidFilter, "{filter}: {reason:?}");
        }
        Ok(())
    });
}

#[test]
fn writes_are_conditional_and_can_be_repeated() {
    run(TEST, async |work| {
        let mut site = Site::start(work, &["one"]).await?;
        let valid = site.source("edited", &stopped())?;
        // Nothing of a check is stored.
        site.client.create(valid.clone(), true).await?;
        ensure!(why(site.client.get("edited").await)? == Reason::ConnectorNotFound, "validate_only has stored");
        let first = site.client.create(valid, false).await?;
        ensure!(first.generation == 1 && !first.etag.is_empty() && !first.uid.is_empty(), "{first:?}");

        // A mask names what is replaced.
        let patch = Connector { tasks_max: 3, topic: "ignored".into(), ..site.source("edited", &stopped())? };
        let second = site.client.update(patch.clone(), &["tasks_max"], false).await?;
        ensure!((second.tasks_max, second.topic.as_str(), second.generation) == (3, "lines", 2), "{second:?}");
        ensure!(second.etag != first.etag && second.uid == first.uid, "{second:?}");
        ensure!(why(site.client.update(patch.clone(), &["tasks"], false).await)? == Reason::InvalidField, "mask");
        let other = Connector { plugin: "file-sink".into(), ..patch.clone() };
        ensure!(why(site.client.update(other, &["plugin"], false).await)? == Reason::InvalidField, "plugin");

        // An etag says what was read.
        let stale = Connector { etag: first.etag.clone(), tasks_max: 4, ..patch.clone() };
        ensure!(why(site.client.update(stale, &["tasks_max"], false).await)? == Reason::EtagMismatch, "stale etag");
        let fresh = Connector { etag: second.etag.clone(), tasks_max: 4, ..patch.clone() };
        let third = site.client.update(fresh, &["tasks_max"], false).await?;
        ensure!((third.tasks_max, third.generation) == (4, 3), "{third:?}");
        // What changes nothing is no new generation.
        let same = site.client.update(Connector { tasks_max: 4, ..patch.clone() }, &["tasks_max"], false).await?;
        ensure!((same.generation, &same.etag) == (3, &third.etag), "{same:?}");

        // Single keys.
        let patch_config = |set: Value, unset: &[&str], etag: &str, validate_only| -> Result<_> {
            Ok(PatchConnectorConfigRequest {
                name: "connectors/edited".into(),
                set: Some(serde_json::from_value(set)?),
                unset: unset.iter().map(|key| (*key).to_owned()).collect(),
                etag: etag.to_owned(),
                validate_only,
                request_id: String::new(),
            })
        };
        let check = patch_config(json!({ "key": "path" }), &[], "", true)?;
        let checked = site.raw.patch_connector_config(check).await?.into_inner();
        ensure!(config(&checked)?["key"] == "path", "{checked:?}");
        ensure!(site.client.get("edited").await?.etag == third.etag, "validate_only has stored");
        let set = patch_config(json!({ "key": "path", "poll_interval": "50ms" }), &[], &third.etag, false)?;
        let fourth = site.raw.patch_connector_config(set.clone()).await?.into_inner();
        ensure!(config(&fourth)?["poll_interval"] == "50ms" && fourth.tasks_max == 4, "{fourth:?}");
        ensure!(reason(site.raw.patch_connector_config(set).await)? == Reason::EtagMismatch, "stale etag");
        let unset = patch_config(json!({}), &["poll_interval"], "", false)?;
        let fifth = site.raw.patch_connector_config(unset).await?.into_inner();
        let left = config(&fifth)?;
        ensure!(left.get("poll_interval").is_none() && left["key"] == "path" && left["paths"].is_array(), "{left}");
        let wrong = patch_config(json!({ "kee": "path" }), &["paths"], "", false)?;
        ensure!(reason(site.raw.patch_connector_config(wrong).await)? == Reason::InvalidField, "two violations");

        // A request that is sent again is carried out once, and its id fits no other.
        let id = "6f2c1d86-3c1e-4a43-9d29-0f4f0c1f6a11".to_owned();
        let create = CreateConnectorRequest {
            connector: Some(site.source("repeated", &stopped())?),
            request_id: id.clone(),
            ..CreateConnectorRequest::default()
        };
        let once = site.raw.create_connector(create.clone()).await?.into_inner();
        let again = site.raw.create_connector(create.clone()).await?.into_inner();
        ensure!(once.uid == again.uid && again.generation == 1, "{once:?} and {again:?}");
        let mut other = create.clone();
        other.connector = Some(site.source("another", &stopped())?);
        ensure!(reason(site.raw.create_connector(other).await)? == Reason::RequestIdReused, "reused");
        ensure!(why(site.client.get("another").await)? == Reason::ConnectorNotFound, "a refusal has stored");
        let anew = CreateConnectorRequest { request_id: String::new(), ..create };
        ensure!(reason(site.raw.create_connector(anew).await)? == Reason::ConnectorExists, "exists");
        let id = "0b8de1ac-7f5e-4a0b-8a4e-2f3f4f4c9c11".to_owned();
        let resume = ResumeConnectorRequest { name: "connectors/repeated".into(), request_id: id };
        for _ in 0..2 {
            let answer = site.raw.resume_connector(resume.clone()).await?.into_inner();
            ensure!(answer.changed, "the first answer was that it changed");
        }
        ensure!(!site.client.resume("repeated").await?.changed, "it was so already");
        Ok(())
    });
}

fn config(connector: &Connector) -> Result<Value> {
    Ok(serde_json::to_value(&connector.config)?)
}

/// What a connector's row of the table answers to each action, without doing more than is refused or already so.
async fn row(client: &Client, name: &str, allowed: &[Action]) -> Result<()> {
    let connector = client.get(name).await?;
    let listed: BTreeSet<Action> = connector.allowed_actions().collect();
    ensure!(listed == allowed.iter().copied().collect(), "{name} allows {listed:?}; {}", shown(&connector));
    let target = connector.target_state();
    for action in [Action::Stop, Action::Resume, Action::Pause, Action::Restart, Action::Delete] {
        if listed.contains(&action) {
            continue;
        }
        let answer = match action {
            Action::Stop => client.stop(name).await.map(|c| c.changed),
            Action::Resume => client.resume(name).await.map(|c| c.changed),
            Action::Pause => client.pause(name).await.map(|c| c.changed),
            Action::Restart => client.restart(name, false).await.map(|c| c.changed),
            _ => client.delete(name, false, false).await.map(|c| c.etag != connector.etag),
        };
        let same = matches!(
            (action, target, connector.state()),
            (Action::Stop, TargetState::Stopped, _)
                | (Action::Pause, TargetState::Paused, _)
                | (Action::Resume, TargetState::Running, State::Pending | State::Running | State::Degraded)
                | (Action::Delete, _, State::Deleting)
        );
        match answer {
            Ok(changed) => ensure!(same && !changed, "{action:?} of {name} was carried out: {}", shown(&connector)),
            Err(Error::Refused { reason, metadata, preconditions, .. }) => {
                ensure!(!same && reason == "ACTION_NOT_ALLOWED", "{action:?} of {name}: {reason}; {}", shown(&connector));
                for key in ["state", "action", "allowed"] {
                    ensure!(metadata.contains_key(key), "{action:?} of {name}: {metadata:?} lacks {key}");
                }
                ensure!(!preconditions.is_empty(), "{action:?} of {name}: no PreconditionFailure");
            }
            Err(error) => return Err(error.into()),
        }
    }
    ensure!(client.get(name).await?.etag == connector.etag, "a refused action has changed {name}");
    Ok(())
}

#[test]
fn the_table_of_actions() {
    use Action::{AlterOffsets, Delete, Pause, Restart, Resume, Stop};
    run(TEST, async |work| {
        let mut site = Site::start(work, &["one"]).await?;
        let client = site.client.clone();
        site.create("table", &json!({})).await?;
        holders(&client, "table", SOON).await?;
        row(&client, "table", &[Stop, Pause, Restart]).await?;
        ensure!(client.restart("table", false).await?.changed, "restart");
        ensure!(client.pause("table").await?.changed, "pause");
        row(&client, "table", &[Stop, Resume, Restart]).await?;
        ensure!(client.restart("table", false).await?.connector.target_state() == TargetState::Paused, "it stays paused");
        // Two quick commands do not cancel out.
        ensure!(client.resume("table").await?.changed && client.stop("table").await?.changed, "resume and stop");
        reaches(&client, "table", State::Stopped, SOON).await?;
        row(&client, "table", &[Resume, AlterOffsets, Delete]).await?;
        ensure!(client.resume("table").await?.changed, "resume");
        holders(&client, "table", SOON).await?;
        row(&client, "table", &[Stop, Pause, Restart]).await?;

        // What can only be mended by people.
        let outside = json!({ "paths": ["/etc/services"] });
        client.create(definition("failing", "file-source", "lines", &outside, &json!({}))?, false).await?;
        reaches(&client, "failing", State::Failed, SOON).await?;
        row(&client, "failing", &[Stop, Restart, Delete]).await?;
        client.delete("failing", false, false).await?;

        // As long as an agent may still run a task, a deletion is not done.
        site.cluster.kill_agent("one")?;
        let deleting = client.delete("table", true, false).await?;
        ensure!(deleting.state() == State::Deleting, "{}", shown(&deleting));
        row(&client, "table", &[]).await?;
        ensure!(why(site.create("table", &json!({})).await.map_err(downcast))? == Reason::Deleting, "create");
        eventually(SOON, "it is gone", async || {
            let reason = why(client.get("table").await)?;
            ensure!(reason == Reason::ConnectorNotFound, "{reason:?}");
            Ok(())
        })
        .await?;
        ensure!(why(client.pause("table").await)? == Reason::ConnectorNotFound, "pause");
        let new = site.create("table", &stopped()).await?;
        ensure!(new.uid != deleting.uid, "{new:?}");
        Ok(())
    });
}

fn downcast(error: anyhow::Error) -> Error {
    error.downcast().unwrap_or_else(|error| panic!("{error:?}"))
}

#[test]
fn a_watch_outlives_the_server() {
    run(TEST, async |work| {
        let mut site = Site::start(work, &["one"]).await?;
        for name in ["watched-a", "watched-b"] {
            site.create(name, &stopped()).await?;
        }
        let mut watch = site.client.watch(&[], "");
        let mut seen = BTreeSet::new();
        loop {
            match timeout(SOON, watch.next()).await?? {
                Step::Upserted(connector) => seen.insert(connector.name.clone()),
                Step::Synced => break,
                step => bail!("{step:?} before all that exists"),
            };
        }
        ensure!(seen.len() == 2, "{seen:?}");

        let status = site.cluster.stop_server().await?;
        ensure!(status.success(), "the server ended with {status}");
        site.cluster.start_server().await?;
        site.create("watched-c", &stopped()).await?;
        site.client.delete("watched-a", false, false).await?;
        let (mut created, mut removed) = (false, false);
        while !(created && removed) {
            match timeout(SOON, watch.next()).await?? {
                Step::Upserted(connector) => created |= connector.name == "connectors/watched-c",
                Step::Removed(name) => removed |= name == "connectors/watched-a",
                // History was there: nothing has to be read anew.
                step => bail!("{step:?} after a restart of the server"),
            }
        }
        // A token of another store, or none at all, is refused for good.
        let request = WatchConnectorsRequest { resume_token: "nonsense".into(), ..Default::default() };
        let mut raw = ConnectorServiceClient::connect(site.cluster.endpoint()).await?;
        let refused = match raw.watch_connectors(request).await {
            Ok(stream) => stream.into_inner().message().await.map(drop),
            Err(status) => Err(status),
        };
        ensure!(reason(refused)? == Reason::ResumeTokenExpired, "nonsense as a token");
        Ok(())
    });
}

#[test]
fn agents_are_cordoned_and_drained() {
    run(TEST, async |work| {
        let site = Site::start(work, &["one", "two"]).await?;
        let client = &site.client;
        ensure!(client.cordon("one").await?.1 && !client.cordon("one").await?.1, "cordon twice");
        site.create("placed", &json!({ "tasks_max": 4 })).await?;
        ensure!(on(client, "placed").await? == ["two"], "a cordoned agent got a task");
        ensure!(client.uncordon("one").await?.1, "uncordon");
        // What runs stays where it is; what is new goes to the agent with less.
        ensure!(on(client, "placed").await? == ["two"], "a task was moved without need");
        site.create("new", &json!({ "tasks_max": 4 })).await?;
        ensure!(on(client, "new").await?.contains(&"one".to_owned()), "nothing was placed on the empty agent");

        let cli = site.cluster.cli();
        cli.ok(&["agents", "drain", "two", "--wait"]).await?;
        for name in ["placed", "new"] {
            eventually(SOON, "the tasks are on the other agent", async || {
                let on = on(client, name).await?;
                ensure!(on == ["one"], "{name} is on {on:?}");
                Ok(())
            })
            .await?;
        }
        let agent = client.agent("two").await?;
        ensure!(agent.draining && agent.tasks == 0, "{agent:?}");
        cli.ok(&["agents", "uncordon", "two"]).await?;
        let listed = cli.ok(&["agents", "list"]).await?;
        ensure!(listed.contains("READY") && !listed.contains("draining"), "{listed}");
        cli.refused(3, &["agents", "drain", "nobody"], &["nobody"]).await?;
        Ok(())
    });
}

/// The agents that hold tasks of a connector, each once.
async fn on(client: &Client, name: &str) -> Result<Vec<String>> {
    let held: BTreeSet<String> = holders(client, name, SOON).await?.into_iter().collect();
    Ok(held.into_iter().collect())
}
