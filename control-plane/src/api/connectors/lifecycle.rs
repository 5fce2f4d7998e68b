//! What a connector shall do: pause, resume, stop, restart, delete. The table of actions decides.

use std::collections::BTreeMap;

use gantry_proto::{
    error::Refusal,
    name::{ConnectorName, TaskName},
    v1::{Connector, DeleteConnectorRequest, task::State as TaskState},
};

use super::{
    change::{Answer, Draft, Found, Step, change, check_etag, stamp},
    request::Call,
};
use crate::{
    api::{Shared, answers, principal::Principal},
    domain::{
        Snapshot, Uid, Versioned,
        change::{self as changes, CarriedOut, Verb},
        lifecycle::{self, Action, Decision},
        stored, view,
    },
};

/// Pause, resume, stop, restart.
pub(super) async fn verb(
    shared: &Shared,
    call: &Call,
    name: &ConnectorName,
    verb: Verb,
) -> Result<Answer, Refusal> {
    let (stamp, nonce) = (stamp(shared), format!("{:016x}", shared.handles.random()));
    let action = verb.action();
    change(shared, call, name, |Found { connector, snapshot }| {
        let present = connector.ok_or_else(|| answers::no_connector(&name.to_string()))?;
        match allowed(shared, snapshot, name, present, action)? {
            Decision::Yes => {}
            Decision::Same | Decision::No => return Ok(Step::Same),
        }
        let tasks = task_states(shared, snapshot, &Uid(present.uid.as_str().into()));
        match changes::carried_out(present, verb, &tasks, &nonce, &stamp) {
            CarriedOut::Changed(value) => Ok(Step::Write(Box::new(Draft {
                value: *value,
                revised: false,
                event: Some((action.as_str(), format!("asked for by {}", call.principal.0))),
                adopts: None,
            }))),
            CarriedOut::Nothing => Ok(Step::Same),
            CarriedOut::NoTask(n) => Err(answers::no_task(&format!("{name}/tasks/{n}"))),
        }
    })
    .await
}

pub(super) async fn delete(
    shared: &Shared,
    principal: Principal,
    mut request: DeleteConnectorRequest,
) -> Result<Connector, Refusal> {
    let id = std::mem::take(&mut request.request_id);
    let call = Call::new("DeleteConnector", principal, &id, None, &request)?;
    let name = ConnectorName::parse(&request.name).map_err(|e| answers::bad_name("name", &e))?;
    let gone = || Connector {
        name: name.to_string(),
        ..Connector::default()
    };
    let action = if request.force {
        Action::ForceDelete
    } else {
        Action::Delete
    };
    let stamp = stamp(shared);
    let answer = change(shared, &call, &name, |Found { connector, snapshot }| {
        let Some(present) = connector else {
            return if request.allow_missing {
                Ok(Step::Answer(Box::new(gone())))
            } else {
                Err(answers::no_connector(&name.to_string()))
            };
        };
        check_etag(&name, &request.etag, present)?;
        match allowed(shared, snapshot, &name, present, action)? {
            Decision::Yes => Ok(Step::Write(Box::new(Draft {
                value: changes::deleted(present, request.keep_offsets, &stamp),
                revised: false,
                event: None,
                adopts: None,
            }))),
            Decision::Same | Decision::No => Ok(Step::Same),
        }
    });
    // That the connector is gone by now is the success of this request.
    Ok(answer.await?.connector.unwrap_or_else(gone))
}

/// What the table says; No is the refusal.
pub(super) fn allowed(
    shared: &Shared,
    snapshot: &Snapshot,
    name: &ConnectorName,
    present: &Versioned<stored::Connector>,
    action: Action,
) -> Result<Decision, Refusal> {
    let (row, held) = view::row(snapshot, &shared.views.now().reasons, name.id(), present);
    match lifecycle::allowed(row, action) {
        Decision::No => Err(answers::not_allowed(&name.to_string(), row, action, &held)),
        decision => Ok(decision),
    }
}

fn task_states(shared: &Shared, snapshot: &Snapshot, uid: &Uid) -> BTreeMap<u32, TaskState> {
    let tasks = shared.views.tasks(snapshot, uid);
    let numbered = tasks
        .iter()
        .filter_map(|task| Some((TaskName::parse(&task.name).ok()?.task, task.state())));
    numbered.collect()
}
