//! What a connector is: create, update, patch of its configuration.

use gantry_proto::{
    error::{Reason, Refusal},
    name::ConnectorName,
    v1::{Connector, CreateConnectorRequest, PatchConnectorConfigRequest, UpdateConnectorRequest},
};

use super::{
    change::{Draft, Found, Step, change, check_etag, stamp},
    offsets,
    request::Call,
};
use crate::{
    api::{Shared, answers, principal::Principal},
    domain::{
        Snapshot, Versioned, catalog::Catalog, change as changes, change::Stamp, mask, stored, validate,
    },
    store::retained::Adoption,
};

pub(super) async fn create(
    shared: &Shared,
    principal: Principal,
    mut request: CreateConnectorRequest,
) -> Result<Connector, Refusal> {
    let id = std::mem::take(&mut request.request_id);
    let call = Call::defining("CreateConnector", principal, &id, &request, |r| {
        r.connector.as_mut()
    })?;
    let connector = request.connector.ok_or_else(|| answers::missing("connector"))?;
    let name = name_of_new(&request.connector_id, &connector.name)?;
    let new = New {
        // A request that is sent again finds them gone: it has taken them over.
        adopts: match call.replayed(shared, &name).await? {
            Some(answer) => return answer.present(&name),
            None => offsets::adoption(shared, &request.adopt_offsets_uid).await?,
        },
        ..New::of(shared, &call, request.validate_only)
    };
    let answer = change(shared, &call, &name, |found| match found.connector {
        Some(present) => Err(taken(&name, present)),
        None => new.step(&name, &connector, found.snapshot),
    });
    answer.await?.present(&name)
}

pub(super) async fn update(
    shared: &Shared,
    principal: Principal,
    mut request: UpdateConnectorRequest,
) -> Result<Connector, Refusal> {
    let id = std::mem::take(&mut request.request_id);
    let call = Call::defining("UpdateConnector", principal, &id, &request, |r| {
        r.connector.as_mut()
    })?;
    let patch = request.connector.ok_or_else(|| answers::missing("connector"))?;
    let name = ConnectorName::parse(&patch.name).map_err(|e| answers::bad_name("connector.name", &e))?;
    let new = New::of(shared, &call, request.validate_only);
    let merge = |present: &stored::Connector| {
        let definition = present.definition.clone().unwrap_or_default();
        mask::merge(&definition, &present.uid, &patch, request.update_mask.as_ref())
            .map_err(|v| answers::invalid("the update", "connector.", v))
    };
    let answer = change(shared, &call, &name, |found| match found.connector {
        None if request.allow_missing => new.step(&name, &patch, found.snapshot),
        _ => redefine(
            &name,
            &patch.etag,
            request.validate_only,
            &call,
            &new.stamp,
            found,
            merge,
        ),
    });
    answer.await?.present(&name)
}

pub(super) async fn patch(
    shared: &Shared,
    principal: Principal,
    mut request: PatchConnectorConfigRequest,
) -> Result<Connector, Refusal> {
    let id = std::mem::take(&mut request.request_id);
    let mut rest = request.clone();
    let set = rest.set.take();
    let call = Call::new("PatchConnectorConfig", principal, &id, set.as_ref(), &rest)?;
    let name = ConnectorName::parse(&request.name).map_err(|e| answers::bad_name("name", &e))?;
    let stamp = stamp(shared);
    let merge = |present: &stored::Connector| {
        let definition = present.definition.clone().unwrap_or_default();
        mask::patch_config(&definition, request.set.as_ref(), &request.unset)
            .map_err(|v| answers::invalid("the patch", "", v))
    };
    let answer = change(shared, &call, &name, |found| {
        redefine(
            &name,
            &request.etag,
            request.validate_only,
            &call,
            &stamp,
            found,
            merge,
        )
    });
    answer.await?.present(&name)
}

/// What becomes of a connector that is not there yet.
struct New {
    uid: String,
    principal: String,
    stamp: Stamp,
    validate_only: bool,
    /// Offsets that it takes over.
    adopts: Option<Adoption>,
}

impl New {
    fn of(shared: &Shared, call: &Call, validate_only: bool) -> Self {
        Self {
            uid: format!("{:016x}", shared.handles.random()),
            principal: call.principal.0.clone(),
            stamp: stamp(shared),
            validate_only,
            adopts: None,
        }
    }

    fn step(
        &self,
        name: &ConnectorName,
        connector: &Connector,
        snapshot: &Snapshot,
    ) -> Result<Step, Refusal> {
        let definition = checked(snapshot, name, connector)?;
        if let Some(adopts) = self.adopts.as_ref().filter(|a| a.plugin != definition.plugin) {
            let what = format!("the offsets kept under {} are of {}", adopts.from, adopts.plugin);
            return Err(Refusal::new(Reason::InvalidField, what)
                .field("adopt_offsets_uid", format!("must be of {}", definition.plugin)));
        }
        if self.validate_only {
            return Ok(Step::Answer(Box::new(Connector {
                name: name.to_string(),
                generation: 0,
                ..definition
            })));
        }
        Ok(Step::Write(Box::new(Draft {
            value: changes::created(self.uid.clone(), definition, &self.stamp),
            revised: true,
            event: Some(("CREATED", format!("created by {}", self.principal))),
            adopts: self.adopts.clone(),
        })))
    }
}

/// The step to another definition of a connector that is there.
fn redefine(
    name: &ConnectorName,
    etag: &str,
    validate_only: bool,
    call: &Call,
    stamp: &Stamp,
    found: Found<'_>,
    merge: impl Fn(&stored::Connector) -> Result<Connector, Refusal>,
) -> Result<Step, Refusal> {
    let present: &Versioned<stored::Connector> = found
        .connector
        .ok_or_else(|| answers::no_connector(&name.to_string()))?;
    check_etag(name, etag, present)?;
    if present.delete_time.is_some() {
        return Err(answers::being_deleted(&name.to_string(), "UPDATE"));
    }
    let definition = checked(found.snapshot, name, &merge(present)?)?;
    if validate_only {
        return Ok(Step::Answer(Box::new(Connector {
            name: name.to_string(),
            generation: present.generation,
            ..definition
        })));
    }
    if Some(&definition) == present.definition.as_ref() {
        return Ok(Step::Same);
    }
    let value = changes::redefined(present, definition, stamp);
    let text = format!("generation {} by {}", value.generation, call.principal.0);
    Ok(Step::Write(Box::new(Draft {
        revised: value.revision != present.revision,
        value,
        event: Some(("UPDATED", text)),
        adopts: None,
    })))
}

/// The definition in its normal form, if it is valid.
pub(super) fn checked(
    snapshot: &Snapshot,
    name: &ConnectorName,
    connector: &Connector,
) -> Result<Connector, Refusal> {
    let normal = validate::normalise(name.id(), connector);
    let violations = validate::validate(name.id(), &normal, &Catalog::of(snapshot));
    if violations.is_empty() {
        Ok(normal)
    } else {
        Err(answers::invalid(&name.to_string(), "connector.", violations))
    }
}

fn name_of_new(id: &str, name: &str) -> Result<ConnectorName, Refusal> {
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
