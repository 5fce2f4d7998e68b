//! Numbers, durations, labels, addresses, choices.

use std::collections::BTreeMap;

use gantry_proto::v1::{
    self, OffsetOutOfRange,
    connector::{OnDisconnect, Ordering, TargetState},
    error_policy::OnRecordError,
    start_from::{Position, Where},
};
use pbjson_types::Duration;

use super::{Found, MAX_TASKS, shorten};
use crate::domain::time::span_millis;

const MAX_LABELS: usize = 64;
const MAX_LABEL_CHARS: usize = 63;
const MAX_QUEUES: i32 = 1_024;
const MAX_RECORD_BYTES: i32 = 64 << 20;
const HOUR_MS: i64 = 3_600_000;
const DRAIN_MS: i64 = 10_000;
const STOP_MS: i64 = 30_000;

pub(super) fn check(d: &v1::Connector, found: &mut Found) {
    if !(1..=MAX_TASKS).contains(&d.tasks_max) {
        let message = format!("must be from 1 to {MAX_TASKS}, but is {}", d.tasks_max);
        found.add(
            "tasks_max",
            message,
            format!("give a number from 1 to {MAX_TASKS}"),
        );
    }
    labels("labels", &d.labels, found);
    labels("agent_selector", &d.agent_selector, found);
    namesrv(&d.namesrv, found);
    if let Some(queues) = d
        .topic_create
        .as_ref()
        .map(|t| t.queues)
        .filter(|q| !(0..=MAX_QUEUES).contains(q))
    {
        let message = format!("must be from 0 to {MAX_QUEUES}, but is {queues}");
        found.add(
            "topic_create.queues",
            message,
            format!("give a number from 1 to {MAX_QUEUES}; 0 creates no topic"),
        );
    }
    if !(0..=MAX_RECORD_BYTES).contains(&d.max_record_bytes) {
        let message = format!(
            "must be from 1 to {MAX_RECORD_BYTES}, but is {}",
            d.max_record_bytes
        );
        found.add(
            "max_record_bytes",
            message,
            "give a number of bytes; 0 means 4000000",
        );
    }
    timeouts(d, found);
    if let Some(policy) = &d.restart_policy {
        restarts(policy, found);
    }
    choices(d, found);
}

fn labels(field: &str, labels: &BTreeMap<String, String>, found: &mut Found) {
    if labels.len() > MAX_LABELS {
        found.add(
            field,
            format!("has {} entries; at most {MAX_LABELS}", labels.len()),
            "remove some",
        );
    }
    for (key, value) in labels {
        let at = || format!("{field}.{}", shorten(key));
        if key.is_empty() || key.chars().count() > MAX_LABEL_CHARS || key.chars().any(char::is_control) {
            found.add(
                at(),
                format!("a key has 1 to {MAX_LABEL_CHARS} characters"),
                "use another key",
            );
        }
        if value.chars().count() > MAX_LABEL_CHARS || value.chars().any(char::is_control) {
            found.add(
                at(),
                format!("a value has at most {MAX_LABEL_CHARS} characters"),
                "use a shorter value",
            );
        }
    }
}

fn namesrv(namesrv: &str, found: &mut Found) {
    if namesrv.is_empty() {
        return;
    }
    for address in namesrv.split(';') {
        let sound = address.rsplit_once(':').is_some_and(|(host, port)| {
            let host = host
                .strip_prefix('[')
                .and_then(|h| h.strip_suffix(']'))
                .unwrap_or(host);
            let characters = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
            !host.is_empty() && host.chars().all(characters) && port.parse::<u16>().is_ok_and(|p| p > 0)
        });
        if !sound {
            let message = format!("{:?} is not an address", shorten(address));
            found.add("namesrv", message, "write host:port, several separated by ';'");
        }
    }
}

fn timeouts(d: &v1::Connector, found: &mut Found) {
    let drain = duration(
        "drain_timeout",
        d.drain_timeout.as_ref(),
        DRAIN_MS,
        HOUR_MS,
        found,
    );
    let stop = duration("stop_timeout", d.stop_timeout.as_ref(), STOP_MS, HOUR_MS, found);
    if let (Some(drain), Some(stop)) = (drain, stop)
        && stop < drain
    {
        let message = format!(
            "{stop} ms are less than drain_timeout, {drain} ms: a task that finishes its work would count as hung"
        );
        found.add("stop_timeout", message, "make it longer than drain_timeout");
    }
}

fn restarts(policy: &v1::RestartPolicy, found: &mut Found) {
    let at = |field: &str| format!("restart_policy.{field}");
    let first = duration(
        &at("initial_backoff"),
        policy.initial_backoff.as_ref(),
        1_000,
        HOUR_MS,
        found,
    );
    let longest = duration(
        &at("max_backoff"),
        policy.max_backoff.as_ref(),
        60_000,
        24 * HOUR_MS,
        found,
    );
    duration(
        &at("healthy_period"),
        policy.healthy_period.as_ref(),
        60_000,
        24 * HOUR_MS,
        found,
    );
    if let (Some(first), Some(longest)) = (first, longest)
        && longest < first
    {
        let message = format!("{longest} ms are less than initial_backoff, {first} ms");
        found.add(at("max_backoff"), message, "make it longer");
    }
    if policy.max_restarts < 0 {
        found.add(
            at("max_restarts"),
            format!("is {}", policy.max_restarts),
            "give a number; 0 means: never give up",
        );
    }
}

/// The span in milliseconds, if it is sound; `unset` if there is none.
fn duration(field: &str, given: Option<&Duration>, unset: i64, most: i64, found: &mut Found) -> Option<i64> {
    let Some(d) = given else { return Some(unset) };
    let ms = span_millis(d);
    if d.seconds < 0 || !(0..1_000_000_000).contains(&d.nanos) || ms == 0 || ms > most {
        let message = format!("must be from 1 ms to {} s", most / 1_000);
        found.add(field, message, "give a duration such as 10s");
        return None;
    }
    Some(ms)
}

fn choices(d: &v1::Connector, found: &mut Found) {
    let mut choice = |field: &str, known: bool, value: i32| {
        if !known {
            found.add(
                field,
                format!("{value} is not a value that this version knows"),
                "use a value of the API",
            );
        }
    };
    choice(
        "target_state",
        TargetState::try_from(d.target_state).is_ok(),
        d.target_state,
    );
    choice("ordering", Ordering::try_from(d.ordering).is_ok(), d.ordering);
    choice(
        "on_disconnect",
        OnDisconnect::try_from(d.on_disconnect).is_ok(),
        d.on_disconnect,
    );
    let out_of_range = d.on_offset_out_of_range;
    choice(
        "on_offset_out_of_range",
        OffsetOutOfRange::try_from(out_of_range).is_ok(),
        out_of_range,
    );
    if let Some(policy) = &d.error_policy {
        let value = policy.on_record_error;
        choice(
            "error_policy.on_record_error",
            OnRecordError::try_from(value).is_ok(),
            value,
        );
    }
    match d.start_from.as_ref().and_then(|s| s.r#where.as_ref()) {
        Some(Where::Position(value)) => {
            choice("start_from.position", Position::try_from(*value).is_ok(), *value)
        }
        Some(Where::Time(t)) if t.seconds < 0 || !(0..1_000_000_000).contains(&t.nanos) => {
            found.add(
                "start_from.time",
                "is not a time after 1970",
                "give a time such as 2026-01-01T00:00:00Z",
            );
        }
        _ => {}
    }
}
