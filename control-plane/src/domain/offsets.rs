//! Altering offsets: what a request asks for, and what that makes of the stored positions.

use std::collections::{BTreeMap, BTreeSet};

use gantry_proto::v1::{AlteredOffset, OffsetChange, Queue, Value, offset_change::Target, value::Kind};
use pbjson_types::Timestamp;
use prost::Message;

use super::{
    Violation,
    stored::{OffsetRecord, PastPosition},
};

/// A partition or a position: values by name.
pub type Fields = BTreeMap<String, Value>;

/// What is asked for one partition, or for all that are not named.
#[derive(Debug, Clone, PartialEq)]
pub enum Wanted {
    /// A position or a place that an agent has to look at.
    Ask(OffsetChange),
    /// What was committed then.
    Committed(Timestamp),
}

/// A change of one partition, and where in the request it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Path in the request, for example `changes[2]`.
    pub path: String,
    /// The partition.
    pub partition: Fields,
    /// What is asked for.
    pub wanted: Wanted,
}

/// A partition with the position that it gets.
#[derive(Debug, Clone, PartialEq)]
pub struct Settled {
    /// The partition.
    pub partition: Fields,
    /// Its position.
    pub position: Fields,
    /// The sink's state that belongs to the position. None: it stays as it is.
    pub sink_state: Option<Vec<u8>>,
}

/// Tells partitions and positions apart, whatever type a person has given to an integer.
pub fn identity(fields: &Fields) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        let value = match value.kind {
            Some(Kind::Int64Value(n)) => u64::try_from(n).map_or(value.clone(), |n| Value {
                kind: Some(Kind::Uint64Value(n)),
            }),
            _ => value.clone(),
        };
        for part in [name.as_bytes(), &value.encode_to_vec()] {
            bytes.extend((part.len() as u64).to_be_bytes());
            bytes.extend(part);
        }
    }
    bytes
}

/// `path=/var/log/a.log,byte=17`, for messages.
pub fn shown(fields: &Fields) -> String {
    let value = |v: &Value| match &v.kind {
        Some(Kind::Int64Value(v)) => v.to_string(),
        Some(Kind::Uint64Value(v)) => v.to_string(),
        Some(Kind::StringValue(v)) => v.clone(),
        Some(Kind::BoolValue(v)) => v.to_string(),
        Some(Kind::BytesValue(v)) => v.iter().map(|b| format!("{b:02x}")).collect(),
        None => String::new(),
    };
    let fields: Vec<String> = fields
        .iter()
        .map(|(name, v)| format!("{name}={}", value(v)))
        .collect();
    fields.join(",")
}

/// The partition of a queue, as agents store it.
pub fn queue_partition(queue: &Queue) -> Fields {
    let text = |text: &str| Value {
        kind: Some(Kind::StringValue(text.to_owned())),
    };
    let id = Value {
        kind: Some(Kind::Uint64Value(queue.id.into())),
    };
    [
        ("topic".to_owned(), text(&queue.topic)),
        ("broker".to_owned(), text(&queue.broker)),
        ("queue".to_owned(), id),
    ]
    .into()
}

/// Checks the form of a request. A partition that has a record is named as it is stored.
pub fn changes(
    present: &[OffsetRecord],
    changes: &[OffsetChange],
    others: Option<&OffsetChange>,
) -> Result<(Vec<Change>, Option<Wanted>), Vec<Violation>> {
    let stored: BTreeMap<Vec<u8>, &Fields> = present
        .iter()
        .map(|r| (identity(&r.partition), &r.partition))
        .collect();
    let (mut found, mut violations, mut named) = (Vec::new(), Vec::new(), BTreeSet::new());
    if changes.is_empty() && others.is_none() {
        violations.push(violation(
            "changes",
            "is empty",
            "name partitions, or say what becomes of all in others",
        ));
    }
    for (at, change) in changes.iter().enumerate() {
        let path = format!("changes[{at}]");
        let identity = identity(&change.partition);
        let partition = stored
            .get(&identity)
            .map_or(&change.partition, |known| *known)
            .clone();
        if !named.insert(identity) {
            let what = format!("names {} again", shown(&partition));
            violations.push(violation(
                &format!("{path}.partition"),
                what,
                "name each partition once",
            ));
            continue;
        }
        match wanted(&path, &partition, change) {
            Ok(wanted) => found.push(Change {
                path,
                partition,
                wanted,
            }),
            Err(violation) => violations.push(violation),
        }
    }
    let others = others.map(|others| {
        if others.partition.is_empty() {
            wanted("others", &Fields::new(), others)
        } else {
            Err(violation(
                "others.partition",
                "is set",
                "leave it out: others means every other partition",
            ))
        }
    });
    match (others.transpose(), violations.is_empty()) {
        (Ok(others), true) => Ok((found, others)),
        (others, _) => {
            violations.extend(others.err());
            Err(violations)
        }
    }
}

fn wanted(path: &str, partition: &Fields, change: &OffsetChange) -> Result<Wanted, Violation> {
    let fix = "give one of position, place, time and committed_time";
    match (&change.target, change.position.is_empty()) {
        (None, true) => Err(violation(path, "says nothing", fix)),
        (Some(_), false) => Err(violation(path, "has a position and a target", fix)),
        (Some(Target::Place(0)), true) => Err(violation(&format!("{path}.place"), "is not set", fix)),
        (Some(Target::CommittedTime(time)), true) => Ok(Wanted::Committed(*time)),
        _ => Ok(Wanted::Ask(OffsetChange {
            partition: partition.clone(),
            ..change.clone()
        })),
    }
}

fn violation(field: &str, message: impl Into<String>, fix: &str) -> Violation {
    Violation {
        field: field.to_owned(),
        message: message.into(),
        fix: fix.to_owned(),
    }
}

/// What was committed at that time, with the state that the sink had.
pub fn committed_at(record: &OffsetRecord, time: Timestamp) -> Result<Settled, String> {
    let now = PastPosition {
        position: record.position.clone(),
        time: record.time,
        sink_state: record.sink_state.clone(),
    };
    let key = |t: &Timestamp| (t.seconds, t.nanos);
    let at = |past: &PastPosition| past.time.as_ref().map(key);
    let remembered = || record.history.iter().chain([&now]);
    let last = remembered()
        .filter(|past| at(past).is_some_and(|at| at <= key(&time)))
        .max_by_key(|past| at(past));
    match last {
        Some(past) => Ok(Settled {
            partition: record.partition.clone(),
            position: past.position.clone(),
            sink_state: Some(past.sink_state.clone()),
        }),
        None => Err(format!(
            "no position of {} is remembered that is so old",
            shown(&record.partition)
        )),
    }
}

/// Earlier positions that a record keeps beside the present one.
const KEPT: usize = 10;

/// The records with these positions. Counts of an altered partition begin anew: they belonged to another position.
pub fn altered(present: &[OffsetRecord], settled: &[Settled], now: Timestamp) -> Vec<OffsetRecord> {
    let mut settled: BTreeMap<Vec<u8>, &Settled> =
        settled.iter().map(|s| (identity(&s.partition), s)).collect();
    let mut records: Vec<OffsetRecord> = present
        .iter()
        .map(|record| match settled.remove(&identity(&record.partition)) {
            Some(new) => moved(record, new, now),
            None => record.clone(),
        })
        .collect();
    records.extend(settled.into_values().map(|new| OffsetRecord {
        partition: new.partition.clone(),
        position: new.position.clone(),
        sink_state: new.sink_state.clone().unwrap_or_default(),
        time: Some(now),
        ..OffsetRecord::default()
    }));
    records
}

fn moved(record: &OffsetRecord, new: &Settled, now: Timestamp) -> OffsetRecord {
    let state_stays = new
        .sink_state
        .as_ref()
        .is_none_or(|state| *state == record.sink_state);
    if identity(&record.position) == identity(&new.position) && state_stays {
        return record.clone();
    }
    let mut history = record.history.clone();
    history.push(PastPosition {
        position: record.position.clone(),
        time: record.time,
        sink_state: record.sink_state.clone(),
    });
    history.drain(..history.len().saturating_sub(KEPT));
    OffsetRecord {
        position: new.position.clone(),
        sink_state: new
            .sink_state
            .clone()
            .unwrap_or_else(|| record.sink_state.clone()),
        counts: None,
        time: Some(now),
        history,
        ..record.clone()
    }
}

/// The records of a source without those of `which`; None: without any.
pub fn forgotten(present: &[OffsetRecord], which: Option<&[Fields]>) -> Vec<OffsetRecord> {
    let Some(which) = which else { return Vec::new() };
    let which: BTreeSet<Vec<u8>> = which.iter().map(identity).collect();
    let stays = |record: &&OffsetRecord| !which.contains(&identity(&record.partition));
    present.iter().filter(stays).cloned().collect()
}

/// Each of the queues at its first message, resolved by its task when it starts. The sink's state is dropped: it begins as if
/// it had never run.
pub fn earliest<'a>(queues: impl IntoIterator<Item = &'a Fields>) -> Vec<Settled> {
    let earliest = Value {
        kind: Some(Kind::StringValue("EARLIEST".to_owned())),
    };
    let position: Fields = [("offset".to_owned(), earliest)].into();
    let settled = |partition: &Fields| Settled {
        partition: partition.clone(),
        position: position.clone(),
        sink_state: Some(Vec::new()),
    };
    queues.into_iter().map(settled).collect()
}

/// The partitions whose position differs, first those that were there before.
pub fn difference(before: &[OffsetRecord], after: &[OffsetRecord]) -> Vec<AlteredOffset> {
    let mut new: BTreeMap<Vec<u8>, &OffsetRecord> = after
        .iter()
        .map(|record| (identity(&record.partition), record))
        .collect();
    let mut altered = Vec::new();
    for old in before {
        let position = new
            .remove(&identity(&old.partition))
            .map(|record| record.position.clone())
            .unwrap_or_default();
        if identity(&position) != identity(&old.position) {
            altered.push(AlteredOffset {
                partition: old.partition.clone(),
                before: old.position.clone(),
                after: position,
            });
        }
    }
    altered.extend(new.into_values().map(|record| AlteredOffset {
        partition: record.partition.clone(),
        before: Fields::new(),
        after: record.position.clone(),
    }));
    altered
}

#[cfg(test)]
mod tests;
