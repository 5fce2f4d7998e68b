use gantry_proto::v1::{ConfigSpec, Param, Plugin, connector::Kind, connector::TargetState, param::Type};
use proptest::prelude::*;

use super::*;
use crate::domain::{change, change::Stamp};

/// A store in which agents have brought `file-source`.
fn empty() -> Snapshot {
    let param = |name: &str, kind: Type, secret| Param {
        name: name.into(),
        r#type: kind.into(),
        secret,
        ..Param::default()
    };
    let params = vec![
        param("paths", Type::PathList, false),
        param("password", Type::String, true),
    ];
    let plugin = |id: &str| Plugin {
        name: format!("plugins/{id}"),
        version: "1.0.0".into(),
        kind: Kind::Source.into(),
        spec: Some(ConfigSpec {
            params: params.clone(),
            rules: vec![],
        }),
        ..Plugin::default()
    };
    let mut snapshot = Snapshot {
        store_id: Some(versioned(
            1,
            stored::StoreId {
                id: "store".into(),
                ..stored::StoreId::default()
            },
        )),
        ..Snapshot::default()
    };
    for id in ["file-source", "other-source"] {
        let record = stored::PluginRecord {
            plugin: Some(plugin(id)),
            ..stored::PluginRecord::default()
        };
        snapshot
            .plugins
            .insert((id.into(), "1.0.0".into()), versioned(1, record));
    }
    snapshot
}

fn versioned<T>(mod_revision: i64, value: T) -> Versioned<T> {
    Versioned {
        mod_revision,
        create_revision: 1,
        value: Arc::new(value),
    }
}

fn source(name: &str) -> Connector {
    Connector {
        name: name.into(),
        plugin: "file-source".into(),
        topic: "lines".into(),
        config: serde_json::from_str(r#"{"paths": ["/a"]}"#).ok(),
        ..Connector::default()
    }
}

fn planned(snapshot: &Snapshot, wanted: &[Connector]) -> Plan {
    planned_pruning(snapshot, wanted, |_| false)
}

fn planned_pruning(snapshot: &Snapshot, wanted: &[Connector], pruned: impl Fn(&str) -> bool) -> Plan {
    let wanted = by_name(wanted).expect("sound names");
    plan(snapshot, &wanted, |id| pruned(id)).expect("known values")
}

/// What a user does who carries the plan out.
fn carry_out(snapshot: &mut Snapshot, wanted: &[Connector], plan: &Plan) {
    let wanted = by_name(wanted).expect("sound names");
    let stamp = Stamp::default();
    for c in &plan.changes {
        snapshot.revision += 1;
        let id = c.name.trim_start_matches("connectors/");
        let present = snapshot.connectors.get(id).cloned();
        let merged = || {
            let catalog = Catalog::of(snapshot);
            definition(id, wanted[id], present.as_ref(), &catalog).expect("it was planned")
        };
        let written = match c.action() {
            Action::Create => change::created(format!("uid-{id}-{}", snapshot.revision), merged(), &stamp),
            Action::Update => {
                let present = present.clone().expect("it was planned");
                assert_eq!(c.etag, view::etag(&present));
                change::redefined(&present, merged(), &stamp)
            }
            Action::Delete => {
                snapshot.connectors.remove(id);
                continue;
            }
            Action::None | Action::Refused | Action::Unspecified => continue,
        };
        let revision = snapshot.revision;
        snapshot
            .connectors
            .insert(id.into(), versioned(revision, written));
    }
}

fn actions(plan: &Plan) -> Vec<(&str, Action)> {
    plan.changes
        .iter()
        .map(|c| (c.name.trim_start_matches("connectors/"), c.action()))
        .collect()
}

fn with(wanted: &[Connector]) -> Snapshot {
    let mut snapshot = empty();
    let plan = planned(&snapshot, wanted);
    carry_out(&mut snapshot, wanted, &plan);
    snapshot
}

#[test]
fn a_plan_that_was_carried_out_is_empty() {
    let wanted = [source("b"), source("connectors/a")];
    let mut snapshot = empty();
    let plan = planned(&snapshot, &wanted);
    assert_eq!(actions(&plan), [("a", Action::Create), ("b", Action::Create)]);
    let paths: Vec<&str> = plan.changes[0]
        .differences
        .iter()
        .map(|d| d.path.as_str())
        .collect();
    // What is filled in is told as well.
    assert_eq!(
        paths,
        ["config.paths", "plugin", "target_state", "tasks_max", "topic"]
    );
    carry_out(&mut snapshot, &wanted, &plan);
    let again = planned(&snapshot, &wanted);
    assert_eq!(actions(&again), [("a", Action::None), ("b", Action::None)]);
    assert_ne!(again.hash, plan.hash);
    assert_eq!(
        again.hash,
        planned(&snapshot, &[]).hash,
        "nothing is done in both"
    );
}

#[test]
fn what_a_file_leaves_out_becomes_the_default_but_for_the_target_state() {
    let before = Connector {
        tasks_max: 4,
        target_state: TargetState::Paused.into(),
        labels: [("team".into(), "a".into())].into(),
        ..source("a")
    };
    let snapshot = with(&[before]);
    let plan = planned(&snapshot, &[source("a")]);
    assert_eq!(actions(&plan), [("a", Action::Update)]);
    let paths: Vec<&str> = plan.changes[0]
        .differences
        .iter()
        .map(|d| d.path.as_str())
        .collect();
    assert_eq!(paths, ["labels.team", "tasks_max"]);
    assert_eq!(
        plan.changes[0].etag,
        snapshot.connectors["a"].mod_revision.to_string()
    );
    assert_eq!(plan.changes[0].uid, snapshot.connectors["a"].uid);
}

#[test]
fn nothing_is_deleted_but_what_is_pruned() {
    let mut snapshot = with(&[source("a"), source("b"), source("c"), source("gone")]);
    let mut going = (*snapshot.connectors["gone"].value).clone();
    going.delete_time = Some(pbjson_types::Timestamp::default());
    snapshot.connectors.insert("gone".into(), versioned(99, going));
    assert_eq!(
        actions(&planned(&snapshot, &[source("b")])),
        [("b", Action::None)]
    );
    let pruning = planned_pruning(&snapshot, &[source("b")], |id| id != "c");
    assert_eq!(actions(&pruning), [("a", Action::Delete), ("b", Action::None)]);
    assert_eq!(
        pruning.changes[0].etag,
        snapshot.connectors["a"].mod_revision.to_string()
    );
}

#[test]
fn a_plan_with_a_refused_definition_has_no_hash() {
    let snapshot = with(&[source("present")]);
    let mut deleting = snapshot.clone();
    let mut going = (*deleting.connectors["present"].value).clone();
    going.delete_time = Some(pbjson_types::Timestamp::default());
    deleting.connectors.insert("present".into(), versioned(9, going));
    let inline = Connector {
        config: serde_json::from_str(r#"{"paths": ["/a"], "password": "hunter2"}"#).ok(),
        ..source("present")
    };
    let cases = [
        (&snapshot, inline, "config.password"),
        (
            &snapshot,
            Connector {
                plugin: "other-source".into(),
                ..source("present")
            },
            "plugin",
        ),
        (
            &snapshot,
            Connector {
                uid: "another".into(),
                ..source("present")
            },
            "uid",
        ),
        (
            &snapshot,
            Connector {
                etag: "999".into(),
                ..source("present")
            },
            "etag",
        ),
        (
            &snapshot,
            Connector {
                etag: "1".into(),
                ..source("new")
            },
            "etag",
        ),
        (
            &snapshot,
            Connector {
                tasks_max: -1,
                ..source("new")
            },
            "tasks_max",
        ),
        (&deleting, source("present"), "name"),
    ];
    for (snapshot, wanted, field) in cases {
        let plan = planned(snapshot, &[wanted, source("sound")]);
        let refused = &plan.changes[0];
        assert_eq!(refused.action(), Action::Refused, "{field}");
        assert!(refused.findings.iter().any(|f| f.field == field), "{refused:?}");
        assert!(refused.differences.is_empty() && plan.hash.is_empty());
        assert!(!format!("{plan:?}").contains("hunter2"));
    }
}

#[test]
fn a_name_is_one_and_comes_once() {
    let wrong = [
        source("a"),
        source("connectors/a"),
        source("A"),
        source(""),
        source("agents/a"),
    ];
    let violations = by_name(&wrong).expect_err("four are wrong");
    let fields: Vec<&str> = violations.iter().map(|v| v.field.as_str()).collect();
    assert_eq!(fields, [1, 2, 3, 4].map(|i| format!("connectors[{i}].name")));
}

#[test]
fn the_hash_is_of_what_is_done_and_to_what() {
    let snapshot = with(&[source("a"), source("b")]);
    let wanted = Connector {
        tasks_max: 2,
        ..source("a")
    };
    let hash = |snapshot: &Snapshot, wanted: &[Connector]| planned(snapshot, wanted).hash;
    let first = hash(&snapshot, std::slice::from_ref(&wanted));
    assert_eq!(first.len(), 64);
    assert_eq!(
        first,
        hash(&snapshot, &[source("b"), wanted.clone()]),
        "what is so already adds nothing"
    );

    // Somebody has paused it, and the file says nothing of that.
    let edited = |edit: fn(&mut stored::Connector)| {
        let mut snapshot = snapshot.clone();
        let mut value = (*snapshot.connectors["a"].value).clone();
        edit(&mut value);
        snapshot.connectors.insert("a".into(), versioned(77, value));
        snapshot
    };
    fn definition(c: &mut stored::Connector) -> &mut Connector {
        c.definition.get_or_insert_default()
    }
    let paused = edited(|c| definition(c).set_target_state(TargetState::Paused));
    assert_eq!(first, hash(&paused, std::slice::from_ref(&wanted)));

    let mut elsewhere = snapshot.clone();
    elsewhere.store_id = None;
    let others = [
        hash(
            &edited(|c| definition(c).tasks_max = 3),
            std::slice::from_ref(&wanted),
        ),
        hash(
            &edited(|c| definition(c).topic = "t".into()),
            std::slice::from_ref(&wanted),
        ),
        hash(
            &edited(|c| c.uid = "another".into()),
            std::slice::from_ref(&wanted),
        ),
        hash(&elsewhere, std::slice::from_ref(&wanted)),
        hash(
            &snapshot,
            &[Connector {
                tasks_max: 3,
                ..source("a")
            }],
        ),
        planned_pruning(&snapshot, &[wanted], |_| true).hash,
    ];
    for other in others {
        assert!(!other.is_empty() && other != first);
    }
}

/// A few connectors with a few values of each field.
fn some() -> impl Strategy<Value = Vec<Connector>> {
    let one = (0..4i32, 0..4i32, prop::option::of("[ab]"), 0..2usize);
    prop::collection::btree_map("[abc]", one, 0..3).prop_map(|all| {
        let connector =
            |(name, (tasks_max, target, label, paths)): (String, (i32, i32, Option<String>, usize))| {
                let config = [r#"{"paths": ["/a"]}"#, r#"{"paths": ["/a", "/b"]}"#][paths];
                Connector {
                    tasks_max,
                    target_state: target,
                    labels: label.map(|l| (l.clone(), l)).into_iter().collect(),
                    config: serde_json::from_str(config).ok(),
                    ..source(&name)
                }
            };
        all.into_iter().map(connector).collect()
    })
}

proptest! {
    #[test]
    fn applying_twice_is_applying_once(first in some(), second in some(), prune: bool) {
        let mut snapshot = with(&first);
        let plan = planned_pruning(&snapshot, &second, |_| prune);
        carry_out(&mut snapshot, &second, &plan);
        let again = planned_pruning(&snapshot, &second, |_| prune);
        prop_assert!(again.changes.iter().all(|c| c.action() == Action::None), "{:?}", again);
        let names: Vec<_> = snapshot.connectors.keys().map(|id| id.to_string()).collect();
        if prune {
            prop_assert_eq!(names, second.iter().map(|c| c.name.clone()).collect::<Vec<_>>());
        } else {
            prop_assert!(first.iter().chain(&second).all(|c| names.contains(&c.name)));
        }
        // The hash says whether anything is done.
        let nothing = planned(&snapshot, &[]).hash;
        let done = plan.changes.iter().any(|c| c.action() != Action::None);
        prop_assert_eq!(plan.hash != nothing, done);
    }
}
