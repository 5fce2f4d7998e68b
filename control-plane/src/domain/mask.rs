//! Updates: which fields of a definition a write replaces.

use gantry_proto::v1::{self, connector::TargetState};
use pbjson_types::{FieldMask, Struct};

use super::{
    Violation,
    normalise::plugin_id,
    validate::{Found, nearest, shorten},
};

/// A field that a write may replace.
struct Field {
    path: &'static str,
    /// Does the patch say anything of it?
    is_set: fn(&v1::Connector) -> bool,
    replace: fn(&mut v1::Connector, &v1::Connector),
}

macro_rules! fields {
    ($($name:ident),* $(,)?) => {
        &[$(Field {
            path: stringify!($name),
            is_set: |c| c.$name != v1::Connector::default().$name,
            replace: |c, patch| c.$name.clone_from(&patch.$name),
        }),*]
    };
}

/// All input fields that may change.
const FIELDS: &[Field] = fields![
    plugin_version,
    config,
    topic,
    topics,
    tasks_max,
    target_state,
    labels,
    agent_selector,
    namesrv,
    topic_create,
    error_policy,
    restart_policy,
    ordering,
    on_disconnect,
    start_from,
    on_offset_out_of_range,
    consumer_group,
    max_record_bytes,
    drain_timeout,
    stop_timeout,
];

/// Fields that are accepted in a mask and say nothing.
const IGNORED: &[&str] = &[
    "name",
    "etag",
    "kind",
    "generation",
    "observed_generation",
    "reconciling",
    "state",
    "error",
    "plan_error",
    "allowed_actions",
    "task_counts",
    "create_time",
    "update_time",
    "delete_time",
];

/// Fields that are compared, never changed.
const IMMUTABLE: &[&str] = &["plugin", "uid"];

/// The present definition with the fields of `patch` that the mask names; no mask: every field of `patch` that is set; `*`: all
/// of them. A `target_state` that is not set never changes the present one, whatever the mask.
///
/// # Errors
/// Unknown paths, a change of `plugin` or `uid`.
pub fn merge(
    present: &v1::Connector,
    uid: &str,
    patch: &v1::Connector,
    mask: Option<&FieldMask>,
) -> Result<v1::Connector, Vec<Violation>> {
    let mut found = Found::default();
    if !patch.plugin.is_empty() && plugin_id(&patch.plugin) != plugin_id(&present.plugin) {
        let message = format!(
            "cannot be changed from {} to {:?}",
            present.plugin,
            shorten(&patch.plugin)
        );
        found.add(
            "plugin",
            message,
            "create another connector; it can adopt nothing of this one",
        );
    }
    if !patch.uid.is_empty() && patch.uid != uid {
        let message = format!(
            "is {uid}: the connector that is meant was deleted, and this is another of the same name"
        );
        found.add("uid", message, "read the connector again");
    }
    let mut merged = present.clone();
    let unsaid = patch.target_state == i32::from(TargetState::Unspecified);
    let mut replace = |field: &Field| {
        if !(field.path == "target_state" && unsaid) {
            (field.replace)(&mut merged, patch);
        }
    };
    match mask.filter(|m| !m.paths.is_empty()) {
        None => FIELDS.iter().filter(|f| (f.is_set)(patch)).for_each(&mut replace),
        Some(mask) if mask.paths.iter().any(|p| p == "*") => {
            FIELDS.iter().for_each(&mut replace);
            if mask.paths.len() > 1 {
                found.add("update_mask", "'*' excludes other paths", "use '*' alone");
            }
        }
        Some(mask) => {
            for path in &mask.paths {
                match FIELDS.iter().find(|f| f.path == path) {
                    Some(field) => replace(field),
                    None if IGNORED.contains(&path.as_str()) || IMMUTABLE.contains(&path.as_str()) => {}
                    None => unknown(path, &mut found),
                }
            }
        }
    }
    if found.0.is_empty() {
        Ok(merged)
    } else {
        Err(found.0)
    }
}

fn unknown(path: &str, found: &mut Found) {
    let top = path.split('.').next().unwrap_or_default();
    if top != path && FIELDS.iter().any(|f| f.path == top) {
        let fix = match top {
            "config" => {
                "use config, which is replaced whole, or PatchConnectorConfig for single keys".to_owned()
            }
            _ => format!("use {top}, which is replaced whole"),
        };
        found.add(
            "update_mask",
            format!("{:?} is inside of a field", shorten(path)),
            fix,
        );
        return;
    }
    let fix = match nearest(path, FIELDS.iter().map(|f| f.path)) {
        Some(name) => format!("did you mean {name}?"),
        None => format!(
            "use '*', or some of {}",
            FIELDS.iter().map(|f| f.path).collect::<Vec<_>>().join(", ")
        ),
    };
    found.add(
        "update_mask",
        format!("there is no field {:?}", shorten(path)),
        fix,
    );
}

/// The present definition with single keys of `config` set and removed. Removing a key that is not there is no error.
///
/// # Errors
/// A key that is both set and removed.
pub fn patch_config(
    present: &v1::Connector,
    set: Option<&Struct>,
    unset: &[String],
) -> Result<v1::Connector, Vec<Violation>> {
    let mut found = Found::default();
    let mut merged = present.clone();
    let config = merged.config.get_or_insert_default();
    for (i, key) in unset.iter().enumerate() {
        if set.is_some_and(|s| s.fields.contains_key(key)) {
            let message = format!("{:?} is both set and removed", shorten(key));
            found.add(format!("unset[{i}]"), message, "keep one of both");
        }
        config.fields.remove(key);
    }
    for (key, value) in set.iter().flat_map(|s| &s.fields) {
        config.fields.insert(key.clone(), value.clone());
    }
    if merged.config.as_ref().is_some_and(|c| c.fields.is_empty()) && present.config.is_none() {
        merged.config = None;
    }
    if found.0.is_empty() {
        Ok(merged)
    } else {
        Err(found.0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::domain::normalise::normalise;

    fn present() -> v1::Connector {
        let patch = v1::Connector {
            plugin: "file-source".into(),
            topic: "t".into(),
            labels: [("a".into(), "1".into())].into(),
            target_state: TargetState::Paused.into(),
            config: serde_json::from_str(r#"{"paths": ["/a"], "follow": true}"#).ok(),
            ..Default::default()
        };
        normalise("c", &patch)
    }

    fn mask(paths: &[&str]) -> FieldMask {
        FieldMask {
            paths: paths.iter().map(|p| (*p).to_owned()).collect(),
        }
    }

    #[test]
    fn every_field_of_the_message_is_known() {
        // Serialised with all fields set, by the names of the wire.
        let descriptor = include_str!("../../../proto/gantry/v1/connector.proto");
        let body = descriptor
            .split("message Connector {")
            .nth(1)
            .unwrap()
            .split("\n}")
            .next()
            .unwrap();
        let mut names = BTreeSet::new();
        for line in body
            .lines()
            .filter(|l| l.starts_with("  ") && !l.starts_with("   ") && l.contains(" = "))
        {
            let before = line.split(" = ").next().unwrap();
            if let Some(name) = before
                .split_whitespace()
                .last()
                .filter(|_| !before.contains("option"))
            {
                names.insert(name);
            }
        }
        let known: BTreeSet<_> = FIELDS
            .iter()
            .map(|f| f.path)
            .chain(IGNORED.iter().copied())
            .chain(IMMUTABLE.iter().copied())
            .collect();
        assert_eq!(names, known);
    }

    #[test]
    fn a_mask_chooses() {
        let patch = v1::Connector {
            topic: "other".into(),
            tasks_max: 4,
            ..Default::default()
        };
        let merged = merge(
            &present(),
            "u",
            &patch,
            Some(&mask(&["topic", "labels", "state"])),
        )
        .unwrap();
        assert_eq!(
            (merged.topic.as_str(), merged.tasks_max, merged.labels.len()),
            ("other", 1, 0)
        );
        let merged = merge(&present(), "u", &patch, None).unwrap();
        assert_eq!(
            (merged.topic.as_str(), merged.tasks_max, merged.labels.len()),
            ("other", 4, 1)
        );
        let merged = merge(&present(), "u", &patch, Some(&mask(&["*"]))).unwrap();
        assert_eq!((merged.labels.len(), &merged.config), (0, &None));
        assert_eq!(
            merged.target_state(),
            TargetState::Paused,
            "what is not said does not resume it"
        );
        assert_eq!(merged.plugin, "file-source");
    }

    #[test]
    fn what_is_wrong_is_said_at_once() {
        let patch = v1::Connector {
            plugin: "plugins/other".into(),
            uid: "v".into(),
            ..Default::default()
        };
        let found = merge(
            &present(),
            "u",
            &patch,
            Some(&mask(&["topik", "config.paths", "xyz"])),
        )
        .unwrap_err();
        let found: Vec<_> = found.iter().map(|v| (v.field.as_str(), v.fix.as_str())).collect();
        assert_eq!(found.len(), 5);
        assert_eq!((found[0].0, found[1].0), ("plugin", "uid"));
        assert_eq!(found[2], ("update_mask", "did you mean topic?"));
        assert!(found[3].1.contains("PatchConnectorConfig") && found[4].1.contains("plugin_version"));
        let same = v1::Connector {
            plugin: "plugins/file-source".into(),
            uid: "u".into(),
            ..Default::default()
        };
        assert_eq!(
            merge(&present(), "u", &same, Some(&mask(&["plugin", "uid"]))),
            Ok(present())
        );
    }

    #[test]
    fn single_keys_of_the_configuration() {
        let set: Struct = serde_json::from_str(r#"{"follow": false, "start": "end"}"#).unwrap();
        let merged = patch_config(&present(), Some(&set), &["paths".into(), "missing".into()]).unwrap();
        let expected: Struct = serde_json::from_str(r#"{"follow": false, "start": "end"}"#).unwrap();
        assert_eq!(merged.config, Some(expected));
        assert_eq!(
            patch_config(&present(), Some(&set), &["start".into()]).unwrap_err()[0].field,
            "unset[0]"
        );
        assert_eq!(
            patch_config(&v1::Connector::default(), None, &[]).unwrap().config,
            None
        );
    }
}
