//! What has to be written so that connectors are as somebody declares them.

use std::{collections::BTreeMap, sync::Arc};

use gantry_proto::{
    name::ConnectorName,
    v1::{Connector, FieldDifference, Finding, PlannedChange, finding::Severity, planned_change::Action},
};
use pbjson_types::FieldMask;

use super::{
    Snapshot, Versioned, Violation,
    catalog::Catalog,
    diff::{self, NotComparable},
    hash::Hasher,
    mask, stored,
    validate::{self, normalise},
    view,
};

/// What has to be done.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// In order of name, also what is as it shall be.
    pub changes: Vec<PlannedChange>,
    /// Names what is done. Empty: some definition is refused.
    pub hash: String,
}

/// The declared connectors by id.
///
/// # Errors
/// Names that are none, or that come twice. Paths begin with `connectors[i].`.
pub fn by_name(connectors: &[Connector]) -> Result<BTreeMap<&str, &Connector>, Vec<Violation>> {
    let mut all = BTreeMap::new();
    let mut violations = Vec::new();
    for (i, connector) in connectors.iter().enumerate() {
        let mut wrong = |message: String, fix: &str| {
            violations.push(Violation {
                field: format!("connectors[{i}].name"),
                message,
                fix: fix.to_owned(),
            });
        };
        match ConnectorName::parse_lenient(&connector.name) {
            Err(error) => wrong(error.to_string(), "name the connector, for example orders-in"),
            Ok(_) => {
                let id = connector.name.rsplit('/').next().unwrap_or_default();
                if all.insert(id, connector).is_some() {
                    wrong(format!("{id} is defined twice"), "keep one of both");
                }
            }
        }
    }
    if violations.is_empty() {
        Ok(all)
    } else {
        Err(violations)
    }
}

/// The plan from what is to what is wanted. `pruned`: whether a connector that is not wanted is deleted.
///
/// # Errors
/// [`NotComparable`]: a stored definition has what this version does not know.
pub fn plan(
    snapshot: &Snapshot,
    wanted: &BTreeMap<&str, &Connector>,
    pruned: impl Fn(&Arc<str>) -> bool,
) -> Result<Plan, NotComparable> {
    let catalog = Catalog::of(snapshot);
    let mut changes = BTreeMap::new();
    for (id, connector) in wanted {
        let present = snapshot.connectors.get(*id);
        changes.insert((*id).to_owned(), change(id, connector, present, &catalog)?);
    }
    let unwanted = snapshot
        .connectors
        .iter()
        .filter(|(id, present)| !wanted.contains_key(&***id) && present.delete_time.is_none());
    for (id, present) in unwanted.filter(|(id, _)| pruned(id)) {
        changes.insert(id.to_string(), blank(id, Some(present), Action::Delete));
    }
    let changes: Vec<PlannedChange> = changes.into_values().collect();
    let store_id = snapshot.store_id.as_ref().map_or("", |s| s.id.as_str());
    Ok(Plan {
        hash: hash(store_id, &changes),
        changes,
    })
}

fn change(
    id: &str,
    wanted: &Connector,
    present: Option<&Versioned<stored::Connector>>,
    catalog: &Catalog,
) -> Result<PlannedChange, NotComparable> {
    let after = match definition(id, wanted, present, catalog) {
        Ok(after) => after,
        Err(violations) => {
            return Ok(PlannedChange {
                findings: violations.into_iter().map(finding).collect(),
                ..blank(id, present, Action::Refused)
            });
        }
    };
    let none = Connector {
        name: after.name.clone(),
        ..Connector::default()
    };
    let before = present.and_then(|p| p.definition.as_ref());
    let action = match before {
        None => Action::Create,
        Some(before) if *before == after => Action::None,
        Some(_) => Action::Update,
    };
    Ok(PlannedChange {
        differences: diff::differences(before.unwrap_or(&none), &after)?,
        ..blank(id, present, action)
    })
}

/// What the definition would be stored as.
fn definition(
    id: &str,
    wanted: &Connector,
    present: Option<&Versioned<stored::Connector>>,
    catalog: &Catalog,
) -> Result<Connector, Vec<Violation>> {
    let one = |field: &str, message: &str, fix: &str| {
        vec![Violation {
            field: field.to_owned(),
            message: message.to_owned(),
            fix: fix.to_owned(),
        }]
    };
    let merged = match present {
        None if !wanted.etag.is_empty() || !wanted.uid.is_empty() => {
            let field = if wanted.etag.is_empty() { "uid" } else { "etag" };
            let message = "is given, but there is no connector of this name";
            return Err(one(field, message, "leave it out to create the connector"));
        }
        None => wanted.clone(),
        Some(present) if present.delete_time.is_some() => {
            return Err(one(
                "name",
                "is taken by a connector that is still being deleted",
                "plan again when it is gone",
            ));
        }
        Some(present) if !wanted.etag.is_empty() && wanted.etag.trim_matches('"') != view::etag(present) => {
            return Err(one(
                "etag",
                "is not the present one: the connector was changed by somebody else",
                "leave it out, or get the connector again",
            ));
        }
        Some(present) => {
            let all = FieldMask {
                paths: vec!["*".to_owned()],
            };
            let before = present.definition.clone().unwrap_or_default();
            mask::merge(&before, &present.uid, wanted, Some(&all))?
        }
    };
    let normal = normalise(id, &merged);
    let violations = validate::validate(id, &normal, catalog);
    if violations.is_empty() {
        Ok(normal)
    } else {
        Err(violations)
    }
}

fn blank(id: &str, present: Option<&Versioned<stored::Connector>>, action: Action) -> PlannedChange {
    PlannedChange {
        name: format!("connectors/{id}"),
        action: action.into(),
        etag: present.map(view::etag).unwrap_or_default(),
        uid: present.map(|p| p.uid.clone()).unwrap_or_default(),
        ..PlannedChange::default()
    }
}

fn finding(violation: Violation) -> Finding {
    Finding {
        severity: Severity::Error.into(),
        field: violation.field,
        message: violation.message,
        fix: violation.fix,
        recommended: Vec::new(),
    }
}

/// Of what is done, not of what it rests on: a connector that was paused meanwhile and whose target state is left as it is
/// makes no other plan.
fn hash(store_id: &str, changes: &[PlannedChange]) -> String {
    if changes.iter().any(|c| c.action() == Action::Refused) {
        return String::new();
    }
    let mut hasher = Hasher::new("plan 1");
    hasher.text(store_id);
    for change in changes.iter().filter(|c| c.action() != Action::None) {
        hasher.text(&change.name);
        hasher.text(change.action().as_str_name());
        hasher.text(&change.uid);
        hasher.int(i64::try_from(change.differences.len()).unwrap_or(i64::MAX));
        for FieldDifference { path, before, after } in &change.differences {
            hasher.text(path);
            hasher.any(before.as_ref());
            hasher.any(after.as_ref());
        }
    }
    hasher.finish()
}

#[cfg(test)]
mod tests;
