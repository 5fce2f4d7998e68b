use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

use gantry_client::v1::{Agent, Connector, Event, Plugin, Task};
use gantry_proto::Timestamp;

use super::{Style, table};
use crate::args::Output;

/// The id at the end of a resource name.
pub(crate) fn short(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

/// How long ago, in the largest unit.
pub(crate) fn age(time: Option<&Timestamp>) -> String {
    let Some(time) = time else { return "-".into() };
    let now = now_seconds();
    span(now - time.seconds)
}

#[allow(
    clippy::disallowed_methods,
    reason = "ages are shown against the clock on the wall"
)]
pub(crate) fn now_seconds() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs().cast_signed())
}

fn span(seconds: i64) -> String {
    match seconds.max(0) {
        s @ 0..60 => format!("{s}s"),
        s @ 60..3_600 => format!("{}m", s / 60),
        s @ 3_600..86_400 => format!("{}h", s / 3_600),
        s => format!("{}d", s / 86_400),
    }
}

/// How long until then.
pub(crate) fn until(time: Option<&Timestamp>) -> String {
    let Some(time) = time else { return "-".into() };
    let now = now_seconds();
    if time.seconds <= now {
        "now".into()
    } else {
        format!("in {}", span(time.seconds - now))
    }
}

pub(crate) fn enum_text(full: &str, prefix: &str) -> String {
    full.strip_prefix(prefix).unwrap_or(full).to_owned()
}

pub(crate) fn connectors(style: Style, all: &[Connector]) -> String {
    if style.output == Output::Name {
        return all.iter().map(|c| format!("{}\n", c.name)).collect();
    }
    let wide = style.output == Output::Wide;
    let mut head = vec!["NAME", "PLUGIN", "STATE", "TARGET", "TASKS", "TOPIC", "AGE"];
    if wide {
        head.extend(["GENERATION", "UID", "LABELS"]);
    }
    let rows: Vec<Vec<String>> = all
        .iter()
        .map(|c| {
            let counts = c.task_counts.unwrap_or_default();
            let topic = if c.topics.is_empty() {
                c.topic.clone()
            } else {
                c.topics.join(",")
            };
            let mut row = vec![
                short(&c.name).to_owned(),
                c.plugin.clone(),
                style.state(&enum_text(c.state().as_str_name(), "STATE_"))
                    + if c.reconciling { "*" } else { "" },
                enum_text(c.target_state().as_str_name(), "TARGET_STATE_"),
                format!("{}/{}", counts.running, counts.total),
                topic,
                age(c.create_time.as_ref()),
            ];
            if wide {
                row.extend([
                    format!("{}/{}", c.observed_generation, c.generation),
                    c.uid.clone(),
                    labels(&c.labels),
                ]);
            }
            row
        })
        .collect();
    table(&head, &rows)
}

pub(crate) fn labels(labels: &BTreeMap<String, String>) -> String {
    labels
        .iter()
        .map(|(k, v)| format!("{k}={v}"))
        .collect::<Vec<_>>()
        .join(",")
}

pub(crate) fn tasks(style: Style, all: &[Task]) -> String {
    if style.output == Output::Name {
        return all.iter().map(|t| format!("{}\n", t.name)).collect();
    }
    let rows: Vec<Vec<String>> = all
        .iter()
        .map(|t| {
            let cause = t.problem.as_ref().map(|p| p.message.clone()).unwrap_or_default();
            let next = if t.next_attempt_time.is_some() {
                until(t.next_attempt_time.as_ref())
            } else {
                "-".into()
            };
            let agent = if t.agent.is_empty() { "-" } else { short(&t.agent) };
            vec![
                short(&t.name).to_owned(),
                style.state(&enum_text(t.state().as_str_name(), "STATE_")),
                agent.to_owned(),
                age(t.state_time.as_ref()),
                t.restarts.to_string(),
                next,
                cause,
            ]
        })
        .collect();
    table(
        &["TASK", "STATE", "AGENT", "SINCE", "RESTARTS", "NEXT TRY", "CAUSE"],
        &rows,
    )
}

pub(crate) fn plugins(style: Style, all: &[Plugin]) -> String {
    if style.output == Output::Name {
        return all.iter().map(|p| format!("{}\n", p.name)).collect();
    }
    let rows: Vec<Vec<String>> = all
        .iter()
        .map(|p| {
            vec![
                short(&p.name).to_owned(),
                enum_text(p.kind().as_str_name(), "KIND_").to_lowercase(),
                p.version.clone(),
                p.agents.len().to_string(),
                p.summary.clone(),
            ]
        })
        .collect();
    table(&["NAME", "KIND", "VERSION", "AGENTS", "SUMMARY"], &rows)
}

pub(crate) fn agents(style: Style, all: &[Agent]) -> String {
    if style.output == Output::Name {
        return all.iter().map(|a| format!("{}\n", a.name)).collect();
    }
    let wide = style.output == Output::Wide;
    let mut head = vec![
        "NAME",
        "STATE",
        "TASKS",
        "CAPACITY",
        "HOST",
        "VERSION",
        "CONNECTED",
        "NOTE",
    ];
    if wide {
        head.extend(["REPLICA", "LABELS", "PLUGINS"]);
    }
    let rows: Vec<Vec<String>> = all
        .iter()
        .map(|a| {
            let note = if a.draining {
                "draining"
            } else if a.cordoned {
                "cordoned"
            } else {
                ""
            };
            let mut row = vec![
                short(&a.name).to_owned(),
                style.state(&enum_text(a.state().as_str_name(), "STATE_")),
                a.tasks.to_string(),
                if a.capacity == 0 {
                    "-".into()
                } else {
                    a.capacity.to_string()
                },
                a.host.clone(),
                a.version.clone(),
                age(a.connect_time.as_ref()),
                note.to_owned(),
            ];
            if wide {
                row.extend([a.replica.clone(), labels(&a.labels), a.plugins.join(",")]);
            }
            row
        })
        .collect();
    table(&head, &rows)
}

pub(crate) fn events(all: &[Event]) -> String {
    let rows: Vec<Vec<String>> = all
        .iter()
        .map(|e| {
            vec![
                age(e.time.as_ref()),
                e.r#type.clone(),
                short(&e.task).to_owned(),
                short(&e.agent).to_owned(),
                e.message.clone(),
            ]
        })
        .collect();
    table(&["AGE", "TYPE", "TASK", "AGENT", "WHAT"], &rows)
}
