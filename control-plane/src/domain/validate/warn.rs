//! What would work, and is probably not meant so.

use std::collections::BTreeMap;

use gantry_proto::v1::{self, connector::Kind, error_policy::OnRecordError, param::Type};
use pbjson_types::{Value, value};

use super::{Found, Violation, shorten};
use crate::domain::{Snapshot, catalog::Catalog};

/// What is odd about a definition (normalised), also beside the other connectors. `id`: the last part of its name.
pub fn warnings(id: &str, d: &v1::Connector, catalog: &Catalog, snapshot: &Snapshot) -> Vec<Violation> {
    let mut found = Found::default();
    let Some(entry) = catalog.choose(&d.plugin, &d.plugin_version) else {
        return found.0;
    };
    let params = entry.plugin.spec.as_ref().map_or(&[][..], |spec| &spec.params);
    twice(params, d, &mut found);
    dead_letters(d, entry.plugin.kind(), &mut found);
    let others = || {
        let stored = snapshot.connectors.iter();
        stored
            .filter(|(name, stored)| ***name != *id && stored.delete_time.is_none())
            .filter_map(|(name, stored)| Some((&**name, stored.definition.as_ref()?)))
    };
    for (name, other) in others() {
        if entry.plugin.kind() == Kind::Sink {
            group(id, d, (name, other), catalog, &mut found);
        }
        if other.plugin == d.plugin {
            places(params, d, entry.plugin.kind(), (name, other), &mut found);
        }
    }
    found.0
}

/// The texts of a parameter, with their paths.
fn texts(param: &v1::Param, d: &v1::Connector) -> Vec<(String, String)> {
    let field = format!("config.{}", param.name);
    let given = d.config.as_ref().and_then(|c| c.fields.get(&param.name));
    let text = |value: &Value| match &value.kind {
        Some(value::Kind::StringValue(text)) => Some(text.clone()),
        _ => None,
    };
    match given.and_then(|v| v.kind.as_ref()) {
        Some(value::Kind::StringValue(one)) => vec![(field, one.clone())],
        Some(value::Kind::ListValue(list)) => {
            let all = list.values.iter().enumerate();
            all.filter_map(|(i, v)| Some((format!("{field}[{i}]"), text(v)?)))
                .collect()
        }
        _ => Vec::new(),
    }
}

/// An element of a list that is there already.
fn twice(params: &[v1::Param], d: &v1::Connector, found: &mut Found) {
    let lists = |p: &&v1::Param| matches!(p.r#type(), Type::List | Type::PathList);
    for param in params.iter().filter(lists) {
        let mut seen = BTreeMap::new();
        for (field, text) in texts(param, d) {
            if let Some(first) = seen.get(&text) {
                let message = format!("{:?} is named in {first} already", shorten(&text));
                found.add(field, message, "remove it");
            } else {
                seen.insert(text, field);
            }
        }
    }
}

fn dead_letters(d: &v1::Connector, kind: Kind, found: &mut Found) {
    const FIELD: &str = "error_policy.dead_letter_topic";
    let Some(policy) = &d.error_policy else { return };
    if policy.dead_letter_topic.is_empty() {
        return;
    }
    if policy.on_record_error() != OnRecordError::DeadLetter {
        found.add(
            FIELD,
            "has no effect: on_record_error is not DEAD_LETTER",
            "set error_policy.on_record_error to DEAD_LETTER, or remove it",
        );
    } else if kind == Kind::Source && policy.dead_letter_topic == d.topic {
        let message = format!(
            "{:?} is the topic that the source writes to: dead letters would be among its records",
            shorten(&d.topic)
        );
        found.add(FIELD, message, "use another topic");
    }
}

/// Positions of two sinks under one group overwrite each other in what RocketMQ's tools show.
fn group(
    id: &str,
    d: &v1::Connector,
    (name, other): (&str, &v1::Connector),
    catalog: &Catalog,
    found: &mut Found,
) {
    let of = |id: &str, d: &v1::Connector| match d.consumer_group.as_str() {
        "" => format!("gantry-{id}"),
        group => group.to_owned(),
    };
    let sink = catalog
        .choose(&other.plugin, &other.plugin_version)
        .is_some_and(|e| e.plugin.kind() == Kind::Sink);
    let group = of(id, d);
    if sink && group == of(name, other) {
        let message = format!(
            "connectors/{name} uses {:?}, too: RocketMQ's tools would show the positions of both as those of one",
            shorten(&group)
        );
        found.add(
            "consumer_group",
            message,
            "use a group of its own, or leave it out",
        );
    }
}

/// The same file, read twice into a topic or written by two.
fn places(
    params: &[v1::Param],
    d: &v1::Connector,
    kind: Kind,
    (name, other): (&str, &v1::Connector),
    found: &mut Found,
) {
    let required = |p: &&v1::Param| p.required && matches!(p.r#type(), Type::Path | Type::PathList);
    if kind == Kind::Source && other.topic != d.topic {
        return;
    }
    for param in params.iter().filter(required) {
        let taken = texts(param, other);
        for (field, text) in texts(param, d) {
            if !taken.iter().any(|(_, t)| *t == text) {
                continue;
            }
            let (message, fix) = if kind == Kind::Sink {
                (
                    format!("connectors/{name} writes to {:?}, too", shorten(&text)),
                    "use another path",
                )
            } else {
                (
                    format!(
                        "connectors/{name} reads {:?} into the same topic: each record would come twice",
                        shorten(&text)
                    ),
                    "remove it from one of the two",
                )
            };
            found.add(field, message, fix);
        }
    }
}
