use std::fmt::Write;

use gantry_client::v1::{Agent, Connector, ConnectorOffsets, Event, Param, Plugin, Problem, Task, param};

use super::{
    Style, offsets,
    restarts::{next_attempt, policy},
    short, table,
    tables::{age, enum_text, labels, tasks},
};

fn line(text: &mut String, key: &str, value: impl AsRef<str>) {
    if !value.as_ref().is_empty() {
        let _ = writeln!(text, "{:<14}{}", format!("{key}:"), value.as_ref());
    }
}

fn problem(text: &mut String, key: &str, problem: Option<&Problem>) {
    let Some(p) = problem else { return };
    let domain = enum_text(p.domain().as_str_name(), "DOMAIN_");
    line(text, key, format!("{} ({domain}): {}", p.reason, p.message));
    if !p.fix.is_empty() {
        line(text, "fix", &p.fix);
    }
}

/// What is it, is it well, if not why, what can I do now: on one screen.
pub(crate) fn describe_connector(
    style: Style,
    c: &Connector,
    all_tasks: &[Task],
    committed: &ConnectorOffsets,
    events: &[Event],
) -> String {
    let mut text = String::new();
    line(&mut text, "Name", short(&c.name));
    let kind = enum_text(c.kind().as_str_name(), "KIND_").to_lowercase();
    line(&mut text, "Plugin", format!("{} ({kind})", c.plugin));
    line(
        &mut text,
        "Topic",
        if c.topics.is_empty() {
            c.topic.clone()
        } else {
            c.topics.join(", ")
        },
    );
    let state = style.state(&enum_text(c.state().as_str_name(), "STATE_"));
    let target = enum_text(c.target_state().as_str_name(), "TARGET_STATE_");
    let following = if c.reconciling {
        ", tasks are following"
    } else {
        ""
    };
    line(
        &mut text,
        "State",
        format!("{state} (wanted: {target}{following})"),
    );
    problem(&mut text, "Cause", c.error.as_ref());
    problem(&mut text, "Plan", c.plan_error.as_ref());
    let actions: Vec<String> = c
        .allowed_actions()
        .map(|a| {
            enum_text(a.as_str_name(), "ACTION_")
                .to_lowercase()
                .replace('_', "-")
        })
        .collect();
    line(&mut text, "Allowed now", actions.join(", "));
    line(&mut text, "Restarts", policy(c.restart_policy.as_ref()));
    line(&mut text, "Next try", next_attempt(all_tasks).unwrap_or_default());
    line(
        &mut text,
        "Generation",
        format!("{} (running: {})", c.generation, c.observed_generation),
    );
    line(
        &mut text,
        "Created",
        format!("{} ago", age(c.create_time.as_ref())),
    );
    line(&mut text, "Labels", labels(&c.labels));
    line(&mut text, "Uid", &c.uid);
    if let Some(config) = &c.config {
        text.push_str("\nConfiguration\n");
        for (key, value) in &config.fields {
            let value = serde_json::to_string(value).unwrap_or_default();
            let _ = writeln!(text, "  {key} = {value}");
        }
    }
    text.push_str("\nTasks\n");
    if all_tasks.is_empty() {
        text.push_str("  none\n");
    } else {
        text.push_str(&indented(&tasks(style, all_tasks)));
    }
    text.push_str("\nOffsets\n");
    if committed.partitions.is_empty() {
        text.push_str("  nothing committed\n");
    } else {
        const SHOWN: usize = 20;
        let mut some = committed.clone();
        some.partitions.truncate(SHOWN);
        text.push_str(&indented(&offsets(&some, false)));
        if committed.partitions.len() > SHOWN {
            let _ = writeln!(
                text,
                "  and {} more: gantry connectors offsets get {}",
                committed.partitions.len() - SHOWN,
                short(&c.name)
            );
        }
    }
    if !events.is_empty() {
        text.push_str("\nLast events\n");
        text.push_str(&indented(&super::events(events)));
    }
    text
}

fn indented(text: &str) -> String {
    text.lines().map(|l| format!("  {l}\n")).collect()
}

pub(crate) fn describe_plugin(p: &Plugin) -> String {
    let mut text = String::new();
    line(&mut text, "Name", short(&p.name));
    line(
        &mut text,
        "Kind",
        enum_text(p.kind().as_str_name(), "KIND_").to_lowercase(),
    );
    line(&mut text, "Version", &p.version);
    line(&mut text, "All versions", p.versions.join(", "));
    line(
        &mut text,
        "Agents",
        p.agents.iter().map(|a| short(a)).collect::<Vec<_>>().join(", "),
    );
    let _ = write!(
        text,
        "\n{}\n\nParameters\n",
        if p.description.is_empty() {
            &p.summary
        } else {
            &p.description
        }
    );
    let params = p.spec.as_ref().map(|s| s.params.as_slice()).unwrap_or_default();
    let rows: Vec<Vec<String>> = params
        .iter()
        .map(|q| vec![q.name.clone(), kind_of(q), need_of(q), q.doc.clone()])
        .collect();
    text.push_str(&indented(&table(&["NAME", "TYPE", "DEFAULT", "MEANING"], &rows)));
    text
}

fn kind_of(p: &Param) -> String {
    let kind = enum_text(p.r#type().as_str_name(), "TYPE_").to_lowercase();
    let kind = if p.r#type() == param::Type::Enum {
        p.choices.join("|")
    } else {
        kind
    };
    if p.secret { format!("{kind}, secret") } else { kind }
}

fn need_of(p: &Param) -> String {
    match &p.default_value {
        _ if p.required => "required".into(),
        Some(value) => serde_json::to_string(value).unwrap_or_default(),
        None => "-".into(),
    }
}

pub(crate) fn describe_agent(style: Style, a: &Agent, held: &[Task]) -> String {
    let mut text = String::new();
    line(&mut text, "Name", short(&a.name));
    line(
        &mut text,
        "State",
        style.state(&enum_text(a.state().as_str_name(), "STATE_")),
    );
    let note = if a.draining {
        "draining"
    } else if a.cordoned {
        "cordoned"
    } else {
        ""
    };
    line(&mut text, "Note", note);
    line(&mut text, "Host", &a.host);
    line(&mut text, "Version", &a.version);
    line(&mut text, "Labels", labels(&a.labels));
    line(
        &mut text,
        "Capacity",
        if a.capacity == 0 {
            "no limit".into()
        } else {
            a.capacity.to_string()
        },
    );
    line(&mut text, "Replica", &a.replica);
    line(
        &mut text,
        "Connected",
        format!("{} ago", age(a.connect_time.as_ref())),
    );
    line(&mut text, "Instance", &a.instance_uid);
    line(&mut text, "Plugins", a.plugins.join(", "));
    text.push_str("\nTasks\n");
    let rows: Vec<Vec<String>> = held
        .iter()
        .map(|t| {
            let name = t
                .name
                .strip_prefix("connectors/")
                .unwrap_or(&t.name)
                .replace("/tasks/", " ");
            vec![
                name,
                style.state(&enum_text(t.state().as_str_name(), "STATE_")),
                age(t.state_time.as_ref()),
            ]
        })
        .collect();
    text.push_str(&if rows.is_empty() {
        "  none\n".into()
    } else {
        indented(&table(&["TASK", "STATE", "SINCE"], &rows))
    });
    text
}
