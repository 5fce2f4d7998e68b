//! Which topics a connector reads and writes.

use std::collections::BTreeSet;

use gantry_proto::v1::{self, connector::Kind, error_policy::OnRecordError};

use super::{Found, shorten};

const MAX_TOPIC: usize = 127;
/// Written and read by agents only.
const RESERVED: &str = "gantry-witness";

pub(super) fn check(d: &v1::Connector, kind: Option<Kind>, found: &mut Found) {
    if !d.topic.is_empty() {
        topic("topic", &d.topic, found);
    }
    let mut seen = BTreeSet::new();
    for (i, name) in d.topics.iter().enumerate() {
        topic(&format!("topics[{i}]"), name, found);
        if !seen.insert(name) {
            found.add(
                format!("topics[{i}]"),
                format!("{:?} is named twice", shorten(name)),
                "remove it",
            );
        }
    }
    match kind {
        Some(Kind::Source) => source(d, found),
        Some(Kind::Sink) => sink(d, found),
        _ => {}
    }
    dead_letters(d, kind, found);
}

fn source(d: &v1::Connector, found: &mut Found) {
    if d.topic.is_empty() {
        found.add(
            "topic",
            "is required: the topic that the source writes to",
            "set topic",
        );
    }
    if !d.topics.is_empty() {
        found.add("topics", "is for sinks only", "use topic");
    }
    let for_sinks = "is for sinks only";
    if !d.consumer_group.is_empty() {
        found.add("consumer_group", for_sinks, "remove it");
    }
    if d.start_from.is_some() {
        found.add("start_from", for_sinks, "remove it");
    }
    if d.on_offset_out_of_range != 0 {
        found.add("on_offset_out_of_range", for_sinks, "remove it");
    }
}

fn sink(d: &v1::Connector, found: &mut Found) {
    match (d.topic.is_empty(), d.topics.is_empty()) {
        (true, true) => found.add(
            "topic",
            "is required: the topic that the sink reads",
            "set topic, or topics for several",
        ),
        (false, false) => found.add("topics", "excludes topic", "keep one of topic and topics"),
        _ => {}
    }
    // An empty one is well formed: it stands for the default.
    if d.consumer_group.len() > 255 || !well_formed(&d.consumer_group) {
        let message = format!("{:?} is not a consumer group", shorten(&d.consumer_group));
        found.add(
            "consumer_group",
            message,
            "use at most 255 of the characters A-Z a-z 0-9 _ - % |",
        );
    }
}

fn dead_letters(d: &v1::Connector, kind: Option<Kind>, found: &mut Found) {
    const FIELD: &str = "error_policy.dead_letter_topic";
    let Some(policy) = &d.error_policy else { return };
    let name = &policy.dead_letter_topic;
    if name.is_empty() {
        if policy.on_record_error() == OnRecordError::DeadLetter {
            found.add(FIELD, "is required with DEAD_LETTER", "set it");
        }
        return;
    }
    topic(FIELD, name, found);
    if kind != Some(Kind::Source) && (d.topic == *name || d.topics.contains(name)) {
        let message = format!(
            "{:?} is a topic that the sink reads: dead letters would come back",
            shorten(name)
        );
        found.add(FIELD, message, "use another topic");
    }
}

fn topic(field: &str, name: &str, found: &mut Found) {
    if name.is_empty() {
        found.add(field, "is empty", "remove it");
    } else if name.len() > MAX_TOPIC {
        found.add(
            field,
            format!("has {} characters; at most {MAX_TOPIC}", name.len()),
            "use a shorter name",
        );
    } else if !well_formed(name) {
        let message = format!("{:?} is not the name of a topic", shorten(name));
        found.add(field, message, "use the characters A-Z a-z 0-9 _ - % |");
    } else if name == RESERVED {
        found.add(
            field,
            format!("{RESERVED} is used by Gantry itself"),
            "use another topic",
        );
    }
}

fn well_formed(name: &str) -> bool {
    name.bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'%' | b'|' | b'_' | b'-'))
}
