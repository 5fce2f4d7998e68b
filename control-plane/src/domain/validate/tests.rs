use std::sync::Arc;

use gantry_proto::v1::{
    self,
    connector::{Kind, OnDisconnect, Ordering, TargetState},
    error_policy::OnRecordError,
};

use super::{Catalog, MAX_DEFINITION_BYTES, normalise, recommended, validate, warnings};
use crate::domain::{Snapshot, Versioned, stored, time::seconds};

fn catalog() -> Catalog {
    let mut snapshot = Snapshot::default();
    let param = |name: &str, kind: v1::param::Type, required, secret| v1::Param {
        name: name.into(),
        r#type: kind.into(),
        required,
        secret,
        ..Default::default()
    };
    for (id, version, kind, exclusive) in [
        ("file-source", "1.0.0", Kind::Source, false),
        ("file-source", "1.1.0", Kind::Source, false),
        ("file-sink", "1.0.0", Kind::Sink, false),
        ("cdc-source", "1.0.0", Kind::Source, true),
    ] {
        use v1::param::Type;
        let params = vec![
            param("paths", Type::PathList, kind == Kind::Source, false),
            param("password", Type::String, false, true),
        ];
        let plugin = v1::Plugin {
            name: format!("plugins/{id}"),
            version: version.into(),
            kind: kind.into(),
            exclusive,
            spec: Some(v1::ConfigSpec {
                params,
                rules: vec![],
            }),
            ..Default::default()
        };
        let record = stored::PluginRecord {
            plugin: Some(plugin),
            ..Default::default()
        };
        let value = Versioned {
            mod_revision: 1,
            create_revision: 1,
            value: Arc::new(record),
        };
        snapshot.plugins.insert((id.into(), version.into()), value);
    }
    Catalog::of(&snapshot)
}

fn source() -> v1::Connector {
    v1::Connector {
        plugin: "file-source".into(),
        topic: "orders".into(),
        config: serde_json::from_str(r#"{"paths": ["/var/log/a"]}"#).ok(),
        ..Default::default()
    }
}

fn sink() -> v1::Connector {
    v1::Connector {
        plugin: "file-sink".into(),
        topic: "orders".into(),
        ..Default::default()
    }
}

/// Fields and fixes of what is wrong.
fn found(d: &v1::Connector) -> Vec<(String, String)> {
    validate("c", d, &catalog())
        .into_iter()
        .map(|v| (v.field, v.fix))
        .collect()
}

fn fields(d: &v1::Connector) -> Vec<String> {
    found(d).into_iter().map(|(field, _)| field).collect()
}

#[test]
fn sound_definitions_pass() {
    assert_eq!(fields(&source()), [""; 0]);
    assert_eq!(fields(&sink()), [""; 0]);
    let full = v1::Connector {
        name: "connectors/c".into(),
        plugin: "plugins/file-sink".into(),
        plugin_version: "1.0.0".into(),
        topic: String::new(),
        topics: vec!["%RETRY%a".into(), "b|c_1-2".into()],
        tasks_max: 1_000,
        namesrv: "rmq-1.example.com:9876;[::1]:9876;10.0.0.1:9876".into(),
        drain_timeout: Some(seconds(20)),
        stop_timeout: Some(seconds(60)),
        error_policy: Some(v1::ErrorPolicy {
            on_record_error: OnRecordError::DeadLetter.into(),
            dead_letter_topic: "dead".into(),
        }),
        restart_policy: Some(v1::RestartPolicy {
            max_backoff: Some(seconds(300)),
            ..Default::default()
        }),
        consumer_group: "group-1".into(),
        on_disconnect: OnDisconnect::Stop.into(),
        ..sink()
    };
    assert_eq!(fields(&full), [""; 0]);
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let bad = v1::Connector {
        name: "connectors/other".into(),
        topic: "a b".into(),
        topics: vec!["x".into(), "x".into()],
        config: serde_json::from_str(r#"{"paths": ["a"], "password": "hunter2", "pahts": 1}"#).ok(),
        tasks_max: 1_001,
        target_state: 9,
        ordering: 9,
        labels: [("k".repeat(64), "v".repeat(64))].into(),
        namesrv: "host;host:0;:1".into(),
        topic_create: Some(v1::TopicCreate { queues: -1 }),
        max_record_bytes: -1,
        drain_timeout: Some(seconds(0)),
        stop_timeout: Some(seconds(4_000)),
        consumer_group: "g".into(),
        error_policy: Some(v1::ErrorPolicy {
            on_record_error: OnRecordError::DeadLetter.into(),
            ..Default::default()
        }),
        restart_policy: Some(v1::RestartPolicy {
            initial_backoff: Some(seconds(10)),
            max_backoff: Some(seconds(5)),
            max_restarts: -1,
            ..Default::default()
        }),
        ..source()
    };
    let found = fields(&bad);
    let labels = format!("labels.{}", "k".repeat(64));
    let expected = [
        "name",
        "config.pahts",
        "config.paths[0]",
        "config.password",
        "topic",
        "topics[1]",
        "topics",
        "consumer_group",
        "error_policy.dead_letter_topic",
        "tasks_max",
        &labels,
        &labels,
        "namesrv",
        "namesrv",
        "namesrv",
        "topic_create.queues",
        "max_record_bytes",
        "drain_timeout",
        "stop_timeout",
        "restart_policy.max_backoff",
        "restart_policy.max_restarts",
        "target_state",
        "ordering",
    ];
    assert_eq!(found, expected);
    let all = format!("{:?}", validate("c", &bad, &catalog()));
    assert!(!all.contains("hunter2"), "no secret is ever said");
}

#[test]
fn plugins_that_nobody_brought() {
    let with = |plugin: &str, version: &str| v1::Connector {
        plugin: plugin.into(),
        plugin_version: version.into(),
        ..source()
    };
    assert_eq!(
        found(&with("file-sourc", "")),
        [("plugin".into(), "did you mean file-source?".into())]
    );
    assert_eq!(
        found(&with("jdbc", "")),
        [(
            "plugin".into(),
            "use one of cdc-source, file-sink, file-source".into()
        )]
    );
    assert_eq!(fields(&with("", "")), ["plugin"]);
    assert_eq!(fields(&with("No Plugin", "")), ["plugin"]);
    let expected = "leave it out, or use one of 1.1.0, 1.0.0".to_owned();
    assert_eq!(
        found(&with("file-source", "3.0.0")),
        [("plugin_version".into(), expected)]
    );
    let nobody = validate("c", &source(), &Catalog::default());
    assert_eq!(nobody[0].fix, "start an agent: it brings the plugins it has");
}

#[test]
fn topics_of_sources_and_sinks() {
    assert_eq!(
        fields(&v1::Connector {
            topic: String::new(),
            ..source()
        }),
        ["topic"]
    );
    assert_eq!(
        fields(&v1::Connector {
            topic: String::new(),
            ..sink()
        }),
        ["topic"]
    );
    assert_eq!(
        fields(&v1::Connector {
            topics: vec!["a".into()],
            ..sink()
        }),
        ["topics"]
    );
    assert_eq!(
        fields(&v1::Connector {
            topic: "gantry-witness".into(),
            ..source()
        }),
        ["topic"]
    );
    assert_eq!(
        fields(&v1::Connector {
            topic: "t".repeat(128),
            ..source()
        }),
        ["topic"]
    );
    let dead = |topic: &str, base| v1::Connector {
        error_policy: Some(v1::ErrorPolicy {
            on_record_error: OnRecordError::DeadLetter.into(),
            dead_letter_topic: topic.into(),
        }),
        ..base
    };
    assert_eq!(
        fields(&dead("orders", sink())),
        ["error_policy.dead_letter_topic"]
    );
    assert_eq!(fields(&dead("orders", source())), [""; 0]);
    assert_eq!(fields(&dead("a b", sink())), ["error_policy.dead_letter_topic"]);
}

#[test]
fn nobody_goes_on_alone_yet() {
    let on = OnDisconnect::Continue.into();
    let plain = v1::Connector {
        on_disconnect: on,
        ..source()
    };
    assert_eq!(fields(&plain), ["on_disconnect"]);
    let exclusive = v1::Connector {
        plugin: "cdc-source".into(),
        on_disconnect: on,
        ..source()
    };
    assert_eq!(fields(&exclusive), ["on_disconnect"]);
    let ordered = v1::Connector {
        ordering: Ordering::Key.into(),
        on_disconnect: on,
        ..source()
    };
    assert_eq!(fields(&ordered), ["on_disconnect"]);
}

#[test]
fn limits() {
    let long = "x".repeat(MAX_DEFINITION_BYTES);
    let large = v1::Connector {
        config: serde_json::from_str(&format!(r#"{{"paths": ["/{long}"]}}"#)).ok(),
        ..source()
    };
    assert_eq!(fields(&large), ["connector"]);
    let many = v1::Connector {
        labels: (0..65).map(|i| (format!("k{i}"), String::new())).collect(),
        ..source()
    };
    assert_eq!(fields(&many), ["labels"]);
    assert_eq!(validate("Bad", &source(), &catalog())[0].field, "name");
    let short = v1::Connector {
        stop_timeout: Some(seconds(5)),
        ..source()
    };
    assert_eq!(
        fields(&short),
        ["stop_timeout"],
        "the default of drain_timeout counts"
    );
}

#[test]
fn what_is_stored_is_what_was_said() {
    let given = v1::Connector {
        plugin: "plugins/file-source".into(),
        etag: "7".into(),
        uid: "u".into(),
        state: 2,
        generation: 4,
        ..source()
    };
    let stored = normalise("c", &given);
    let expected = v1::Connector {
        name: "connectors/c".into(),
        tasks_max: 1,
        target_state: TargetState::Running.into(),
        ..source()
    };
    assert_eq!(stored, expected);
    assert_eq!(normalise("c", &stored), stored);
}

/// Fields and messages of what is odd about a connector `c` beside others.
fn odd(d: &v1::Connector, others: &[(&str, v1::Connector)]) -> Vec<(String, String)> {
    let mut snapshot = Snapshot::default();
    for (name, other) in others {
        let stored = stored::Connector {
            definition: Some(normalise(name, other)),
            ..Default::default()
        };
        let value = Versioned {
            mod_revision: 1,
            create_revision: 1,
            value: Arc::new(stored),
        };
        snapshot.connectors.insert((*name).into(), value);
    }
    warnings("c", &normalise("c", d), &catalog(), &snapshot)
        .into_iter()
        .map(|v| (v.field, v.message))
        .collect()
}

fn odd_fields(d: &v1::Connector, others: &[(&str, v1::Connector)]) -> Vec<String> {
    odd(d, others).into_iter().map(|(field, _)| field).collect()
}

fn reading(paths: &str) -> v1::Connector {
    v1::Connector {
        config: serde_json::from_str(&format!(r#"{{"paths": {paths}}}"#)).ok(),
        ..source()
    }
}

#[test]
fn what_is_named_twice_is_odd() {
    let twice = reading(r#"["/a", "/b", "/a"]"#);
    assert_eq!(odd_fields(&twice, &[]), ["config.paths[2]"]);
    assert_eq!(fields(&twice), [""; 0], "and no error");
    assert_eq!(odd_fields(&source(), &[]), [""; 0]);
}

#[test]
fn dead_letters_that_go_nowhere_or_among_the_records_are_odd() {
    let policy = |on: OnRecordError, topic: &str| v1::Connector {
        error_policy: Some(v1::ErrorPolicy {
            on_record_error: on.into(),
            dead_letter_topic: topic.into(),
        }),
        ..source()
    };
    const FIELD: &str = "error_policy.dead_letter_topic";
    assert_eq!(odd_fields(&policy(OnRecordError::Skip, "dead"), &[]), [FIELD]);
    assert_eq!(
        odd_fields(&policy(OnRecordError::DeadLetter, "orders"), &[]),
        [FIELD]
    );
    assert_eq!(
        odd_fields(&policy(OnRecordError::DeadLetter, "dead"), &[]),
        [""; 0]
    );
}

#[test]
fn connectors_that_get_in_each_others_way_are_odd() {
    // The same file into the same topic; another topic, or another file, is another matter.
    let both = [("other", reading(r#"["/x", "/var/log/a"]"#))];
    let found = odd(&source(), &both);
    assert_eq!(found[0].0, "config.paths[0]");
    assert!(found[0].1.contains("connectors/other"), "{found:?}");
    let elsewhere = v1::Connector {
        topic: "else".into(),
        ..source()
    };
    assert_eq!(odd_fields(&elsewhere, &both), [""; 0]);
    assert_eq!(odd_fields(&reading(r#"["/b"]"#), &both), [""; 0]);
    // Itself, as it is now, is not another one.
    assert_eq!(odd_fields(&source(), &[("c", source())]), [""; 0]);

    let grouped = |group: &str| v1::Connector {
        consumer_group: group.into(),
        ..sink()
    };
    assert_eq!(odd_fields(&sink(), &[("other", sink())]), [""; 0]);
    assert_eq!(
        odd_fields(&grouped("g"), &[("other", grouped("g"))]),
        ["consumer_group"]
    );
    // The default of another one counts, too.
    assert_eq!(
        odd_fields(&grouped("gantry-other"), &[("other", sink())]),
        ["consumer_group"]
    );
    assert_eq!(odd_fields(&grouped("g"), &[("other", source())]), [""; 0]);
}

#[test]
fn values_that_would_be_accepted_are_named() {
    let take = |field: &str, d: &v1::Connector| recommended(field, d, &catalog());
    assert_eq!(
        take("plugin", &source()),
        ["cdc-source", "file-sink", "file-source"]
    );
    assert_eq!(take("plugin_version", &source()), ["1.1.0", "1.0.0"]);
    assert_eq!(take("config.paths", &source()), [""; 0]);
    assert_eq!(take("topic", &source()), [""; 0]);
}
