//! What the calls on connectors do: read, decide with [`crate::domain`], write with an expectation, answer when it is seen.

use std::{sync::Arc, time::Duration};

use gantry_proto::{
    error::{Reason, Refusal},
    name::ConnectorName,
    v1::{self, Connector, connector::TargetState},
};
use pbjson_types::Struct;
use prost::Message;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::{Shared, answers, principal::Principal};
use crate::{
    domain::{
        Snapshot, Uid, Versioned,
        catalog::Catalog,
        hash::Hasher,
        lifecycle::{self, Action, Decision, Row},
        mask, status, stored, validate,
    },
    store::{
        Key,
        codec::FORMAT,
        connectors::{ConnectorOutcome, ConnectorWrite, Request},
    },
};

/// A write that loses against others is decided anew so often.
const TRIES: u32 = 5;
/// How long an answer waits for this replica to see what was read or written.
const CATCH_UP: Duration = Duration::from_secs(2);

/// A verb of the action matrix.
#[derive(Clone, Copy, Debug)]
pub(super) enum Verb {
    /// Pause, resume or stop.
    Target(Action),
    /// All tasks, or the failed ones.
    Restart {
        /// Only tasks that are FAILED.
        only_failed: bool,
    },
    /// One task.
    RestartTask(u32),
}

impl Verb {
    fn action(self) -> Action {
        match self {
            Self::Target(action) => action,
            Self::Restart { .. } | Self::RestartTask(_) => Action::Restart,
        }
    }

    fn method(self) -> &'static str {
        match self {
            Self::Target(Action::Pause) => "PauseConnector",
            Self::Target(Action::Resume) => "ResumeConnector",
            Self::Target(_) => "StopConnector",
            Self::Restart { .. } => "RestartConnector",
            Self::RestartTask(_) => "RestartTask",
        }
    }
}

/// A snapshot that has everything which was acknowledged before this call, by whichever replica.
pub(super) async fn current(shared: &Shared) -> Result<Arc<Snapshot>, Refusal> {
    let (_, revision) = shared
        .handles
        .store
        .get_raw(&Key::StoreId)
        .await
        .map_err(answers::store)?;
    seen(shared, revision).await?;
    Ok(shared.handles.mirror.snapshot())
}

async fn seen(shared: &Shared, revision: i64) -> Result<(), Refusal> {
    let waited = shared
        .handles
        .mirror
        .wait_revision(revision, Instant::now() + CATCH_UP)
        .await;
    waited.map_err(|_| {
        Refusal::new(
            Reason::ReplicaBehind,
            "this replica has not seen that much of the store yet",
        )
    })
}

pub(super) async fn get(shared: &Shared, name: &ConnectorName) -> Result<Connector, Refusal> {
    let snapshot = current(shared).await?;
    shared
        .views
        .connector(&snapshot, name.id())
        .ok_or_else(|| answers::no_connector(&name.to_string()))
}

pub(super) async fn create(
    shared: &Shared,
    principal: &Principal,
    mut call: v1::CreateConnectorRequest,
) -> Result<Connector, Refusal> {
    let request = {
        let id = std::mem::take(&mut call.request_id);
        // The configuration is hashed apart.
        let mut rest = call.clone();
        let config = rest.connector.as_mut().and_then(|c| c.config.take());
        request("CreateConnector", principal, &id, config.as_ref(), &rest)?
    };
    let connector = call.connector.ok_or_else(|| answers::missing("connector"))?;
    let name = created_name(&call.connector_id, &connector.name)?;
    if let Some(answer) = replayed(shared, request.as_ref(), &name).await? {
        return answer.0.ok_or_else(|| answers::no_connector(&name.to_string()));
    }
    let definition = checked(shared, &name, &connector).await?;
    let id = name.id().to_owned();
    let snapshot = shared.handles.mirror.snapshot();
    if let Some(present) = snapshot.connectors.get(name.id()) {
        return Err(taken(&name, present));
    }
    let now = shared.handles.now();
    let value = stored::Connector {
        format: FORMAT,
        uid: format!("{:016x}", shared.handles.random()),
        definition: Some(definition.clone()),
        generation: 1,
        create_time: Some(now),
        update_time: Some(now),
        traceparent: crate::server::current_traceparent(),
        revision: 1,
        ..stored::Connector::default()
    };
    if call.validate_only {
        return Ok(Connector {
            name: name.to_string(),
            generation: 0,
            ..definition
        });
    }
    let write = ConnectorWrite {
        name: id.into(),
        seen: 0,
        revision: Some(revision(&definition, principal, now, request.as_ref())),
        value,
        request,
    };
    match shared
        .handles
        .store
        .write_connector(&write)
        .await
        .map_err(answers::store)?
    {
        ConnectorOutcome::Done {
            connector: Some(done),
            ..
        } => {
            event(shared, &done, "CREATED", &format!("created by {}", principal.0));
            answer(shared, &name, &done).await
        }
        ConnectorOutcome::Conflict(Some(present)) => Err(taken(&name, &present)),
        ConnectorOutcome::Reused => Err(reused()),
        ConnectorOutcome::Done { connector: None, .. } | ConnectorOutcome::Conflict(None) => {
            Err(answers::contended(&name.to_string()))
        }
    }
}

pub(super) async fn update(
    shared: &Shared,
    principal: &Principal,
    mut call: v1::UpdateConnectorRequest,
) -> Result<Connector, Refusal> {
    let request = {
        let id = std::mem::take(&mut call.request_id);
        // The configuration is hashed apart.
        let mut rest = call.clone();
        let config = rest.connector.as_mut().and_then(|c| c.config.take());
        request("UpdateConnector", principal, &id, config.as_ref(), &rest)?
    };
    let patch = call.connector.ok_or_else(|| answers::missing("connector"))?;
    let name = ConnectorName::parse(&patch.name).map_err(|e| answers::bad_name("connector.name", &e))?;
    if call.allow_missing
        && shared
            .handles
            .store
            .read_connector(name.id())
            .await
            .map_err(answers::store)?
            .0
            .is_none()
    {
        let created = v1::CreateConnectorRequest {
            connector_id: name.id().to_owned(),
            connector: Some(patch),
            validate_only: call.validate_only,
            request_id: request.as_ref().map(|r| r.id.to_string()).unwrap_or_default(),
        };
        return Box::pin(create(shared, principal, created)).await;
    }
    let mask = call.update_mask;
    let etag = patch.etag.clone();
    let merge = |present: &stored::Connector| {
        let definition = present.definition.clone().unwrap_or_default();
        mask::merge(&definition, &present.uid, &patch, mask.as_ref())
            .map_err(|v| answers::invalid("the update", "connector.", v))
    };
    redefine(
        shared,
        principal,
        &name,
        &etag,
        call.validate_only,
        request,
        merge,
    )
    .await
}

pub(super) async fn patch(
    shared: &Shared,
    principal: &Principal,
    mut call: v1::PatchConnectorConfigRequest,
) -> Result<Connector, Refusal> {
    let request = {
        let id = std::mem::take(&mut call.request_id);
        let mut rest = call.clone();
        let set = rest.set.take();
        request("PatchConnectorConfig", principal, &id, set.as_ref(), &rest)?
    };
    let name = ConnectorName::parse(&call.name).map_err(|e| answers::bad_name("name", &e))?;
    let merge = |present: &stored::Connector| {
        let definition = present.definition.clone().unwrap_or_default();
        mask::patch_config(&definition, call.set.as_ref(), &call.unset)
            .map_err(|v| answers::invalid("the patch", "", v))
    };
    redefine(
        shared,
        principal,
        &name,
        &call.etag,
        call.validate_only,
        request,
        merge,
    )
    .await
}

/// Read, merge, check, write; again when somebody else was faster, unless an etag says that this matters.
async fn redefine(
    shared: &Shared,
    principal: &Principal,
    name: &ConnectorName,
    etag: &str,
    validate_only: bool,
    request: Option<Request>,
    merge: impl Fn(&stored::Connector) -> Result<Connector, Refusal>,
) -> Result<Connector, Refusal> {
    if let Some(answer) = replayed(shared, request.as_ref(), name).await? {
        return answer.0.ok_or_else(|| answers::no_connector(&name.to_string()));
    }
    for _ in 0..TRIES {
        let present = read(shared, name).await?;
        check_etag(name, etag, &present)?;
        if present.delete_time.is_some() {
            return Err(
                answers::not_allowed(&name.to_string(), Row::Deleting, Action::Restart, &[])
                    .with("action", "UPDATE"),
            );
        }
        let merged = merge(&present)?;
        let definition = checked(shared, name, &merged).await?;
        if validate_only {
            return Ok(Connector {
                name: name.to_string(),
                generation: present.generation,
                ..definition
            });
        }
        if Some(&definition) == present.definition.as_ref() {
            return answer(shared, name, &present).await;
        }
        let now = shared.handles.now();
        let value = stored::Connector {
            definition: Some(definition.clone()),
            generation: present.generation + 1,
            update_time: Some(now),
            traceparent: crate::server::current_traceparent(),
            revision: present.revision + 1,
            ..(*present.value).clone()
        };
        let write = ConnectorWrite {
            name: name.id().into(),
            seen: present.mod_revision,
            value,
            revision: Some(revision(&definition, principal, now, request.as_ref())),
            request: request.clone(),
        };
        match shared
            .handles
            .store
            .write_connector(&write)
            .await
            .map_err(answers::store)?
        {
            ConnectorOutcome::Done {
                connector: Some(done),
                ..
            } => {
                event(
                    shared,
                    &done,
                    "UPDATED",
                    &format!("generation {} by {}", done.generation, principal.0),
                );
                return answer(shared, name, &done).await;
            }
            ConnectorOutcome::Done { connector: None, .. } => {
                return Err(answers::no_connector(&name.to_string()));
            }
            ConnectorOutcome::Reused => return Err(reused()),
            ConnectorOutcome::Conflict(_) => {}
        }
    }
    Err(answers::contended(&name.to_string()))
}

pub(super) async fn delete(
    shared: &Shared,
    principal: &Principal,
    mut call: v1::DeleteConnectorRequest,
) -> Result<Connector, Refusal> {
    let request = {
        let id = std::mem::take(&mut call.request_id);
        request("DeleteConnector", principal, &id, None, &call)?
    };
    let name = ConnectorName::parse(&call.name).map_err(|e| answers::bad_name("name", &e))?;
    let missing = || {
        if call.allow_missing {
            Ok(Connector {
                name: name.to_string(),
                ..Connector::default()
            })
        } else {
            Err(answers::no_connector(&name.to_string()))
        }
    };
    if let Some(answer) = replayed(shared, request.as_ref(), &name).await? {
        // The first call was answered; that the connector is gone by now is its success.
        return Ok(answer.0.unwrap_or_else(|| Connector {
            name: name.to_string(),
            ..Connector::default()
        }));
    }
    let action = if call.force {
        Action::ForceDelete
    } else {
        Action::Delete
    };
    for _ in 0..TRIES {
        let (present, revision) = shared
            .handles
            .store
            .read_connector(name.id())
            .await
            .map_err(answers::store)?;
        let Some(present) = present else { return missing() };
        check_etag(&name, &call.etag, &present)?;
        seen(shared, revision).await?;
        let (row, held) = row(shared, &name, &present);
        match lifecycle::allowed(row, action) {
            Decision::No => return Err(answers::not_allowed(&name.to_string(), row, action, &held)),
            Decision::Same => return answer(shared, &name, &present).await,
            Decision::Yes => {}
        }
        let value = stored::Connector {
            delete_time: Some(shared.handles.now()),
            keep_offsets: call.keep_offsets,
            traceparent: crate::server::current_traceparent(),
            ..(*present.value).clone()
        };
        let write = ConnectorWrite {
            name: name.id().into(),
            seen: present.mod_revision,
            value,
            revision: None,
            request: request.clone(),
        };
        match shared
            .handles
            .store
            .write_connector(&write)
            .await
            .map_err(answers::store)?
        {
            ConnectorOutcome::Done {
                connector: Some(done),
                ..
            } => return answer(shared, &name, &done).await,
            ConnectorOutcome::Done { connector: None, .. } => return missing(),
            ConnectorOutcome::Reused => return Err(reused()),
            ConnectorOutcome::Conflict(_) => {}
        }
    }
    Err(answers::contended(&name.to_string()))
}

/// Pause, resume, stop, restart. Answers the connector and whether anything was written.
pub(super) async fn verb(
    shared: &Shared,
    principal: &Principal,
    name: &ConnectorName,
    verb: Verb,
    request_id: &str,
) -> Result<(Connector, bool), Refusal> {
    let what = format!("{name} {verb:?}");
    let request = request_of(
        verb.method(),
        principal,
        request_id,
        Sha256::digest(what.as_bytes()).into(),
    )?;
    if let Some((connector, changed)) = replayed(shared, request.as_ref(), name).await? {
        return connector
            .map(|c| (c, changed))
            .ok_or_else(|| answers::no_connector(&name.to_string()));
    }
    for _ in 0..TRIES {
        let (present, revision) = shared
            .handles
            .store
            .read_connector(name.id())
            .await
            .map_err(answers::store)?;
        let present = present.ok_or_else(|| answers::no_connector(&name.to_string()))?;
        seen(shared, revision).await?;
        let (row, held) = row(shared, name, &present);
        match lifecycle::allowed(row, verb.action()) {
            Decision::No => return Err(answers::not_allowed(&name.to_string(), row, verb.action(), &held)),
            Decision::Same => return Ok((answer(shared, name, &present).await?, false)),
            Decision::Yes => {}
        }
        let Some(value) = carried_out(shared, name, &present, verb)? else {
            return Ok((answer(shared, name, &present).await?, false));
        };
        let write = ConnectorWrite {
            name: name.id().into(),
            seen: present.mod_revision,
            value,
            revision: None,
            request: request.clone(),
        };
        match shared
            .handles
            .store
            .write_connector(&write)
            .await
            .map_err(answers::store)?
        {
            ConnectorOutcome::Done {
                connector: Some(done),
                changed,
                ..
            } => {
                event(
                    shared,
                    &done,
                    verb.action().as_str(),
                    &format!("asked for by {}", principal.0),
                );
                return Ok((answer(shared, name, &done).await?, changed));
            }
            ConnectorOutcome::Done { connector: None, .. } => {
                return Err(answers::no_connector(&name.to_string()));
            }
            ConnectorOutcome::Reused => return Err(reused()),
            ConnectorOutcome::Conflict(_) => {}
        }
    }
    Err(answers::contended(&name.to_string()))
}

/// The connector after the verb; None: there is nothing to restart.
fn carried_out(
    shared: &Shared,
    name: &ConnectorName,
    present: &Versioned<stored::Connector>,
    verb: Verb,
) -> Result<Option<stored::Connector>, Refusal> {
    let mut value = (*present.value).clone();
    value.update_time = Some(shared.handles.now());
    value.traceparent = crate::server::current_traceparent();
    let nonce = format!("{:016x}", shared.handles.random());
    let snapshot = shared.handles.mirror.snapshot();
    let uid = Uid(present.uid.as_str().into());
    match verb {
        Verb::Target(action) => {
            let target = match action {
                Action::Pause => TargetState::Paused,
                Action::Stop => TargetState::Stopped,
                _ => TargetState::Running,
            };
            value.generation += 1;
            value.definition.get_or_insert_default().target_state = target.into();
        }
        Verb::Restart { only_failed: false } => value.restart_nonce = nonce,
        Verb::Restart { only_failed: true } => {
            let failed = shared
                .views
                .tasks(&snapshot, &uid)
                .into_iter()
                .filter(|t| t.state() == v1::task::State::Failed);
            let mut any = false;
            for task in failed {
                if let Ok(task) = gantry_proto::name::TaskName::parse(&task.name) {
                    value.task_restart_nonces.insert(task.task, nonce.clone());
                    any = true;
                }
            }
            if !any {
                return Ok(None);
            }
        }
        Verb::RestartTask(n) => {
            let text = format!("{name}/tasks/{n}");
            if !shared.views.tasks(&snapshot, &uid).iter().any(|t| t.name == text) {
                return Err(
                    Refusal::new(Reason::TaskNotFound, format!("there is no task {text}"))
                        .resource("gantry/Task", text.clone())
                        .with("name", text),
                );
            }
            value.task_restart_nonces.insert(n, nonce);
        }
    }
    Ok(Some(value))
}

pub(super) async fn validate(
    shared: &Shared,
    connector: Connector,
) -> Result<v1::ValidateConnectorResponse, Refusal> {
    let snapshot = current(shared).await?;
    let id = connector
        .name
        .strip_prefix("connectors/")
        .unwrap_or(&connector.name)
        .to_owned();
    let normal = validate::normalise(&id, &connector);
    let mut findings: Vec<v1::Finding> = validate::validate(&id, &normal, &Catalog::of(&snapshot))
        .into_iter()
        .map(|v| v1::Finding {
            severity: v1::finding::Severity::Error.into(),
            field: v.field,
            message: v.message,
            fix: v.fix,
        })
        .collect();
    let mut not_checked = Vec::new();
    if findings.is_empty() {
        match shared.handles.ask_validate(&snapshot, &normal).await {
            Ok(found) => findings.extend(found),
            Err(why) => not_checked.push(format!("the plugin's own checks: {why}")),
        }
    } else {
        not_checked.push("the plugin's own checks: the definition has errors already".into());
    }
    Ok(v1::ValidateConnectorResponse {
        findings,
        not_checked,
    })
}

pub(super) async fn offsets(shared: &Shared, name: &ConnectorName) -> Result<v1::ConnectorOffsets, Refusal> {
    let present = read(shared, name).await?;
    let listed = shared
        .handles
        .store
        .list_offsets(&Uid(present.uid.as_str().into()))
        .await
        .map_err(answers::store)?;
    let epoch = listed.epoch();
    let partitions = listed
        .records
        .into_iter()
        .map(|o| v1::PartitionOffset {
            partition: o.record.partition.clone(),
            position: o.record.position.clone(),
            commit_time: o.record.time,
            counts: o.record.counts,
            sink_state_bytes: i32::try_from(o.record.sink_state.len()).unwrap_or(i32::MAX),
        })
        .collect();
    Ok(v1::ConnectorOffsets {
        name: format!("{name}/offsets"),
        epoch,
        partitions,
    })
}

pub(super) async fn events(shared: &Shared, name: &ConnectorName) -> Result<Vec<v1::Event>, Refusal> {
    let present = read(shared, name).await?;
    shared
        .handles
        .store
        .list_events(&Uid(present.uid.as_str().into()))
        .await
        .map_err(answers::store)
}

async fn read(shared: &Shared, name: &ConnectorName) -> Result<Versioned<stored::Connector>, Refusal> {
    let (present, _) = shared
        .handles
        .store
        .read_connector(name.id())
        .await
        .map_err(answers::store)?;
    present.ok_or_else(|| answers::no_connector(&name.to_string()))
}

async fn checked(shared: &Shared, name: &ConnectorName, connector: &Connector) -> Result<Connector, Refusal> {
    let snapshot = current(shared).await?;
    let normal = validate::normalise(name.id(), connector);
    let violations = validate::validate(name.id(), &normal, &Catalog::of(&snapshot));
    if violations.is_empty() {
        Ok(normal)
    } else {
        Err(answers::invalid(&name.to_string(), "connector.", violations))
    }
}

fn created_name(id: &str, name: &str) -> Result<ConnectorName, Refusal> {
    let from_name =
        || ConnectorName::parse_lenient(name).map_err(|e| answers::bad_name("connector.name", &e));
    if id.is_empty() {
        return from_name();
    }
    let id = ConnectorName::parse_lenient(id).map_err(|e| answers::bad_name("connector_id", &e))?;
    if !name.is_empty() && from_name()? != id {
        return Err(
            Refusal::new(Reason::InvalidField, "connector_id and connector.name differ")
                .field("connector.name", format!("must be left out or be {id}")),
        );
    }
    Ok(id)
}

fn taken(name: &ConnectorName, present: &stored::Connector) -> Refusal {
    let refusal = if present.delete_time.is_some() {
        Refusal::new(
            Reason::Deleting,
            format!("{name} is still being deleted; create it again when it is gone"),
        )
    } else {
        Refusal::new(Reason::ConnectorExists, format!("{name} exists already"))
    };
    refusal
        .resource("gantry/Connector", name.to_string())
        .with("name", name.to_string())
}

fn check_etag(
    name: &ConnectorName,
    etag: &str,
    present: &Versioned<stored::Connector>,
) -> Result<(), Refusal> {
    let now = present.mod_revision.to_string();
    if etag.is_empty() || etag.trim_matches('"') == now {
        Ok(())
    } else {
        Err(answers::stale_etag(&name.to_string(), &now))
    }
}

fn row(shared: &Shared, name: &ConnectorName, present: &Versioned<stored::Connector>) -> (Row, Vec<u32>) {
    let snapshot = shared.handles.mirror.snapshot();
    let state = shared
        .views
        .connector(&snapshot, name.id())
        .map_or(v1::connector::State::Pending, |c| c.state());
    let held = status::held(&snapshot, &Uid(present.uid.as_str().into()));
    let target = present
        .definition
        .as_ref()
        .map_or(TargetState::Running, Connector::target_state);
    (
        Row::of(present.delete_time.is_some(), target, state, !held.is_empty()),
        held,
    )
}

/// The connector as users see it, once this replica has seen the write.
async fn answer(
    shared: &Shared,
    name: &ConnectorName,
    written: &Versioned<stored::Connector>,
) -> Result<Connector, Refusal> {
    // The write is done: a replica that lags answers with what was written, not with an error.
    let _ = seen(shared, written.mod_revision).await;
    let snapshot = shared.handles.mirror.snapshot();
    let shown = shared.views.connector(&snapshot, name.id());
    Ok(shown.unwrap_or_else(|| Connector {
        name: name.to_string(),
        uid: written.uid.clone(),
        etag: written.mod_revision.to_string(),
        generation: written.generation,
        delete_time: written.delete_time,
        ..written.definition.clone().unwrap_or_default()
    }))
}

fn revision(
    definition: &Connector,
    principal: &Principal,
    now: pbjson_types::Timestamp,
    request: Option<&Request>,
) -> stored::Revision {
    stored::Revision {
        format: FORMAT,
        definition: Some(definition.clone()),
        principal: principal.0.clone(),
        time: Some(now),
        request_id: request.map(|r| r.id.to_string()).unwrap_or_default(),
    }
}

/// `hashed`: the request without its id and without the configuration, which is hashed by content, not by encoding.
fn request<M: Message>(
    method: &str,
    principal: &Principal,
    id: &str,
    config: Option<&Struct>,
    hashed: &M,
) -> Result<Option<Request>, Refusal> {
    let mut hasher = Hasher::new("request 1");
    hasher.structure(config);
    hasher.message(hashed);
    request_of(method, principal, id, Sha256::digest(hasher.finish()).into())
}

fn request_of(
    method: &str,
    principal: &Principal,
    id: &str,
    hash: [u8; 32],
) -> Result<Option<Request>, Refusal> {
    if id.is_empty() {
        return Ok(None);
    }
    let parsed = uuid::Uuid::parse_str(id).map_err(|_| {
        Refusal::new(Reason::InvalidField, "request_id is not a UUID")
            .field("request_id", "must be a UUID4 or empty")
    })?;
    Ok(Some(Request {
        method: method.into(),
        principal: principal.0.as_str().into(),
        id: parsed.to_string().into(),
        hash,
    }))
}

fn reused() -> Refusal {
    Refusal::new(
        Reason::RequestIdReused,
        "this request_id was used for another request",
    )
    .field("request_id", "make a new one for every request")
}

/// The answer of an earlier call of the same request: the connector now, and the first `changed`.
async fn replayed(
    shared: &Shared,
    request: Option<&Request>,
    name: &ConnectorName,
) -> Result<Option<(Option<Connector>, bool)>, Refusal> {
    let Some(request) = request else { return Ok(None) };
    match shared
        .handles
        .store
        .replayed(request, name.id())
        .await
        .map_err(answers::store)?
    {
        None | Some(ConnectorOutcome::Conflict(_)) => Ok(None),
        Some(ConnectorOutcome::Reused) => Err(reused()),
        Some(ConnectorOutcome::Done {
            connector: None,
            changed,
            ..
        }) => Ok(Some((None, changed))),
        Some(ConnectorOutcome::Done {
            connector: Some(present),
            changed,
            ..
        }) => Ok(Some((Some(answer(shared, name, &present).await?), changed))),
    }
}

/// Best effort, and never waited for.
fn event(shared: &Shared, connector: &Versioned<stored::Connector>, kind: &str, message: &str) {
    let store = shared.handles.store.clone();
    let (uid, created) = (Uid(connector.uid.as_str().into()), connector.create_revision);
    let full = connector
        .definition
        .as_ref()
        .map(|d| d.name.clone())
        .unwrap_or_default();
    let name = full.strip_prefix("connectors/").unwrap_or(&full).to_owned();
    let event = v1::Event {
        time: Some(shared.handles.now()),
        r#type: kind.to_owned(),
        message: message.to_owned(),
        ..v1::Event::default()
    };
    tokio::spawn(async move {
        if let Err(error) = store.append_event(&name, created, &uid, &event).await {
            tracing::debug!(%error, connector = name, "an event was not stored");
        }
    });
}
