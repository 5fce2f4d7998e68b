use std::collections::BTreeMap;

use gantry_client::v1::{
    AlterConnectorOffsetsResponse, ConnectorOffsets, PartitionOffset, RetainedOffsets, Value, value::Kind,
};
use gantry_proto::Timestamp;

use super::{
    short, table,
    tables::{age, enum_text},
};

/// `path=/var/log/x,byte=17`
pub(crate) fn field_text(fields: &BTreeMap<String, Value>) -> String {
    let fields: Vec<String> = fields
        .iter()
        .map(|(k, v)| format!("{k}={}", value_text(v)))
        .collect();
    fields.join(",")
}

fn value_text(value: &Value) -> String {
    match &value.kind {
        Some(Kind::Int64Value(v)) => v.to_string(),
        Some(Kind::Uint64Value(v)) => v.to_string(),
        Some(Kind::StringValue(v)) => v.clone(),
        Some(Kind::BoolValue(v)) => v.to_string(),
        Some(Kind::BytesValue(v)) => v.iter().map(|b| format!("{b:02x}")).collect(),
        None => String::new(),
    }
}

/// A position that may be none.
fn position_text(position: &BTreeMap<String, Value>) -> String {
    if position.is_empty() {
        "-".into()
    } else {
        field_text(position)
    }
}

pub(crate) fn offsets(all: &ConnectorOffsets, with_lag: bool) -> String {
    let mut head = vec!["PARTITION", "POSITION", "COMMITTED"];
    if with_lag {
        head.push("LAG");
    }
    head.extend(["IN", "OUT", "SKIPPED", "DEAD"]);
    let lag = |p: &PartitionOffset| {
        p.lag
            .map_or_else(|| "-".into(), |lag| format!("{lag} {}", p.lag_unit))
    };
    let rows: Vec<Vec<String>> = all
        .partitions
        .iter()
        .map(|p| {
            let counts = p.counts.unwrap_or_default();
            let mut row = vec![
                field_text(&p.partition),
                field_text(&p.position),
                age(p.commit_time.as_ref()),
            ];
            if with_lag {
                row.push(lag(p));
            }
            row.extend(
                [counts.r#in, counts.out, counts.skipped, counts.dead_lettered].map(|n| n.to_string()),
            );
            row
        })
        .collect();
    table(&head, &rows)
}

/// What an alteration makes of each partition.
pub(crate) fn alteration(name: &str, answer: &AlterConnectorOffsetsResponse, validate_only: bool) -> String {
    let rows: Vec<Vec<String>> = answer
        .offsets
        .iter()
        .map(|o| {
            vec![
                field_text(&o.partition),
                position_text(&o.before),
                position_text(&o.after),
            ]
        })
        .collect();
    let mut text = String::new();
    if !rows.is_empty() {
        text = table(&["PARTITION", "BEFORE", "AFTER"], &rows);
    }
    if answer.omitted > 0 {
        text.push_str(&format!("and {} more\n", answer.omitted));
    }
    let name = short(name);
    text.push_str(&match (validate_only, answer.changed) {
        (true, _) => format!("connectors/{name}/offsets: nothing was stored\n"),
        (false, false) => format!("connectors/{name}/offsets unchanged: they were so already\n"),
        (false, true) => format!("connectors/{name}/offsets altered, epoch {}\n", answer.epoch),
    });
    text
}

pub(crate) fn offsets_history(all: &ConnectorOffsets) -> String {
    let mut text = format!("Alterations (epoch {} now)\n", all.epoch);
    let rows: Vec<Vec<String>> = all
        .alterations
        .iter()
        .map(|a| {
            let undo = if a.undoable {
                format!("undo --epoch {}", a.epoch - 1)
            } else {
                "not kept".into()
            };
            vec![
                a.epoch.to_string(),
                enum_text(a.kind().as_str_name(), "KIND_"),
                age(a.time.as_ref()),
                a.principal.clone(),
                undo,
            ]
        })
        .collect();
    if rows.is_empty() {
        text.push_str("none\n");
    } else {
        text.push_str(&table(&["EPOCH", "KIND", "AGE", "BY", "BEFORE IT"], &rows));
    }
    text.push_str("\nPositions\n");
    let mut rows = Vec::new();
    for p in &all.partitions {
        let partition = field_text(&p.partition);
        rows.push(vec![
            partition.clone(),
            field_text(&p.position),
            when(p.commit_time.as_ref()),
        ]);
        let past = p.history.iter();
        rows.extend(past.map(|h| {
            vec![
                partition.clone(),
                field_text(&h.position),
                when(h.commit_time.as_ref()),
            ]
        }));
    }
    if rows.is_empty() {
        text.push_str("none\n");
    } else {
        text.push_str(&table(&["PARTITION", "POSITION", "COMMITTED"], &rows));
    }
    text
}

/// A time as `--to-committed` takes it. Rounded up to the second, so that what was committed then is found.
pub(super) fn when(time: Option<&Timestamp>) -> String {
    let Some(time) = time else { return "-".into() };
    let shown = Timestamp {
        seconds: time.seconds + i64::from(time.nanos > 0),
        nanos: 0,
    };
    let text = serde_json::to_value(shown).ok();
    text.as_ref().and_then(|t| t.as_str()).unwrap_or("-").to_owned()
}

pub(crate) fn retained(all: &[RetainedOffsets]) -> String {
    let rows: Vec<Vec<String>> = all
        .iter()
        .map(|r| {
            vec![
                r.uid.clone(),
                short(&r.connector).to_owned(),
                r.plugin.clone(),
                r.partition_count.to_string(),
                age(r.delete_time.as_ref()),
                when(r.expire_time.as_ref()),
            ]
        })
        .collect();
    table(
        &["UID", "CONNECTOR", "PLUGIN", "PARTITIONS", "DELETED", "EXPIRES"],
        &rows,
    )
}
