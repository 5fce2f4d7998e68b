//! Definitions that a connector has had: listed, compared, and given to it again.

use std::collections::BTreeMap;

use gantry_proto::{
    error::{Reason, Refusal},
    name::{ConnectorName, RevisionName},
    v1::{
        Connector, ConnectorRevision, DiffConnectorRevisionsResponse, FieldDifference,
        ListConnectorRevisionsRequest, ListConnectorRevisionsResponse, RollbackConnectorRequest,
        RollbackConnectorResponse,
    },
};
use parking_lot::Mutex;

use super::{
    change::{Draft, Found, Step, change, check_etag, stamp},
    define::checked,
    reads,
    request::Call,
};
use crate::{
    api::{Shared, answers, paging::Paging, principal::Principal},
    domain::{Uid, Versioned, change as changes, diff, stored},
};

/// Most paths that a list tells of one revision.
const MAX_PATHS: usize = 32;

type Revisions = BTreeMap<i64, Versioned<stored::Revision>>;

/// Newest first.
pub(super) async fn list(
    shared: &Shared,
    name: &ConnectorName,
    request: &ListConnectorRevisionsRequest,
) -> Result<ListConnectorRevisionsResponse, Refusal> {
    let question = ["revisions", &request.parent];
    let paging = Paging::parse(request.page_size, &request.page_token, &question)?;
    let before: Option<i64> = paging.after.as_ref().and_then(|a| a.parse().ok());
    let kept = kept(shared, &uid_of(shared, name).await?).await?;
    let mut found = Vec::new();
    for (r, revision) in kept.iter().rev().filter(|(r, _)| before.is_none_or(|b| **r < b)) {
        let mut shown = shown(name, *r, revision, &kept)?;
        shown.connector = shown.connector.map(|c| answers::trimmed(c, request.view()));
        found.push((r.to_string(), shown));
    }
    let (revisions, next_page_token) = paging.cut(found.into_iter());
    Ok(ListConnectorRevisionsResponse {
        revisions,
        next_page_token,
    })
}

pub(super) async fn get(shared: &Shared, name: &RevisionName) -> Result<ConnectorRevision, Refusal> {
    let kept = kept(shared, &uid_of(shared, &name.connector).await?).await?;
    let revision = find(&name.connector, name.revision, &kept)?;
    shown(&name.connector, name.revision, revision, &kept)
}

/// `to` 0: the newest.
pub(super) async fn diff(
    shared: &Shared,
    name: &ConnectorName,
    from: i64,
    to: i64,
) -> Result<DiffConnectorRevisionsResponse, Refusal> {
    numbered("from_revision", from)?;
    let kept = kept(shared, &uid_of(shared, name).await?).await?;
    let to = match to {
        0 => kept.keys().next_back().copied().unwrap_or_default(),
        given => numbered("to_revision", given)?,
    };
    let (before, after) = (find(name, from, &kept)?, find(name, to, &kept)?);
    Ok(DiffConnectorRevisionsResponse {
        differences: differences(&definition(before), &definition(after))?,
        to_revision: to,
    })
}

pub(super) async fn rollback(
    shared: &Shared,
    principal: Principal,
    mut request: RollbackConnectorRequest,
) -> Result<RollbackConnectorResponse, Refusal> {
    let id = std::mem::take(&mut request.request_id);
    let call = Call::new("RollbackConnector", principal, &id, None, &request)?;
    let name = ConnectorName::parse(&request.name).map_err(|e| answers::bad_name("name", &e))?;
    let revision = numbered("revision", request.revision)?;
    if let Some(answer) = call.replayed(shared, &name).await? {
        let changed = answer.changed;
        return Ok(RollbackConnectorResponse {
            connector: Some(answer.present(&name)?),
            changed,
            differences: Vec::new(),
        });
    }
    let uid = uid_of(shared, &name).await?;
    let kept = kept(shared, &uid).await?;
    let earlier = definition(find(&name, revision, &kept)?);
    let stamp = stamp(shared);
    // Of the decision that was written: others may have made it anew.
    let told: Mutex<Vec<FieldDifference>> = Mutex::default();
    let answer = change(shared, &call, &name, |Found { connector, snapshot }| {
        let present = connector
            .filter(|present| present.uid == *uid.0)
            .ok_or_else(|| answers::no_connector(&name.to_string()))?;
        check_etag(&name, &request.etag, present)?;
        if present.delete_time.is_some() {
            return Err(answers::being_deleted(&name.to_string(), "ROLLBACK"));
        }
        let before = present.definition.clone().unwrap_or_default();
        let after = checked(snapshot, &name, &changes::rolled_back(&before, &earlier))?;
        *told.lock() = differences(&before, &after)?;
        if request.validate_only {
            return Ok(Step::Answer(Box::new(Connector {
                name: name.to_string(),
                generation: present.generation,
                ..after
            })));
        }
        if before == after {
            return Ok(Step::Same);
        }
        let value = changes::redefined(present, after, &stamp);
        let text = format!(
            "generation {}: the definition of revision {revision} again, by {}",
            value.generation, call.principal.0
        );
        Ok(Step::Write(Box::new(Draft {
            revised: value.revision != present.revision,
            value,
            event: Some(("ROLLED_BACK", text)),
            adopts: None,
        })))
    })
    .await?;
    let changed = answer.changed;
    Ok(RollbackConnectorResponse {
        connector: Some(answer.present(&name)?),
        changed,
        differences: told.into_inner(),
    })
}

async fn uid_of(shared: &Shared, name: &ConnectorName) -> Result<Uid, Refusal> {
    let present = reads::stored(shared, name).await?;
    Ok(Uid(present.uid.as_str().into()))
}

async fn kept(shared: &Shared, uid: &Uid) -> Result<Revisions, Refusal> {
    let listed = shared.handles.store.list_revisions(uid).await;
    listed.map_err(answers::store)
}

fn numbered(field: &str, revision: i64) -> Result<i64, Refusal> {
    if revision > 0 {
        return Ok(revision);
    }
    let message = format!("{field} is {revision}, and revisions begin with 1");
    Err(Refusal::new(Reason::InvalidField, message).field(field, "must be the number of a revision, from 1"))
}

fn find<'a>(
    name: &ConnectorName,
    revision: i64,
    kept: &'a Revisions,
) -> Result<&'a stored::Revision, Refusal> {
    if let Some(found) = kept.get(&revision) {
        return Ok(found);
    }
    let why = match (kept.keys().next(), kept.keys().next_back()) {
        (Some(first), Some(last)) => format!("the connector has revisions {first} to {last}"),
        _ => "the connector has none".to_owned(),
    };
    Err(answers::no_revision(&name.to_string(), revision, &why))
}

fn definition(revision: &stored::Revision) -> Connector {
    revision.definition.clone().unwrap_or_default()
}

fn differences(before: &Connector, after: &Connector) -> Result<Vec<FieldDifference>, Refusal> {
    diff::differences(before, after).map_err(|e| answers::not_comparable(&e))
}

fn shown(
    name: &ConnectorName,
    r: i64,
    revision: &stored::Revision,
    kept: &Revisions,
) -> Result<ConnectorRevision, Refusal> {
    let changed_paths = match kept.range(..r).next_back() {
        None => Vec::new(),
        Some((_, before)) => {
            let all = differences(&definition(before), &definition(revision))?;
            all.into_iter().take(MAX_PATHS).map(|d| d.path).collect()
        }
    };
    Ok(ConnectorRevision {
        name: format!("{name}/revisions/{r}"),
        connector: revision.definition.clone(),
        principal: revision.principal.clone(),
        create_time: revision.time,
        request_id: revision.request_id.clone(),
        changed_paths,
    })
}
