//! From what went wrong inside to what a user is told.

use std::time::Duration;

use gantry_proto::{
    error::{Reason, Refusal},
    name::NameError,
    v1,
};

use crate::{
    domain::{
        Violation,
        diff::NotComparable,
        filter::FilterError,
        lifecycle::{Action, Row, advice, allowed_actions, meant},
    },
    store::StoreError,
};

pub(super) fn invalid(subject: &str, prefix: &str, violations: Vec<Violation>) -> Refusal {
    let count = violations.len();
    let message = match violations.first() {
        Some(v) if count == 1 => format!("{subject} is not valid: {prefix}{} {}", v.field, v.message),
        _ => format!("{subject} is not valid: {count} violations"),
    };
    violations
        .into_iter()
        .fold(Refusal::new(Reason::InvalidField, message), |refusal, v| {
            let text = if v.fix.is_empty() {
                v.message
            } else {
                format!("{}; {}", v.message, v.fix)
            };
            refusal.field(format!("{prefix}{}", v.field), text)
        })
}

pub(super) fn bad_name(field: &str, error: &NameError) -> Refusal {
    Refusal::new(Reason::InvalidField, format!("{field}: {error}")).field(field, error.to_string())
}

pub(super) fn bad_filter(error: &FilterError) -> Refusal {
    bad_filter_in("filter", error)
}

pub(super) fn bad_filter_in(field: &str, error: &FilterError) -> Refusal {
    Refusal::new(
        Reason::InvalidFilter,
        format!("the filter cannot be read: {error}"),
    )
    .field(field, error.to_string())
}

pub(super) fn missing(field: &str) -> Refusal {
    Refusal::new(Reason::InvalidField, format!("{field} is missing")).field(field, "must be given")
}

pub(super) fn no_connector(name: &str) -> Refusal {
    Refusal::new(Reason::ConnectorNotFound, format!("there is no connector {name}"))
        .resource("gantry/Connector", name)
        .with("name", name)
}

pub(super) fn no_task(name: &str) -> Refusal {
    Refusal::new(Reason::TaskNotFound, format!("there is no task {name}"))
        .resource("gantry/Task", name)
        .with("name", name)
}

pub(super) fn no_revision(connector: &str, revision: i64, why: &str) -> Refusal {
    let name = format!("{connector}/revisions/{revision}");
    Refusal::new(Reason::RevisionNotFound, format!("there is no {name}: {why}"))
        .resource("gantry/ConnectorRevision", &name)
        .with("name", name)
}

/// Stored definitions are those of this version, or the log says which is not.
pub(super) fn not_comparable(error: &NotComparable) -> Refusal {
    tracing::error!(%error, "a stored definition has what this version does not know");
    Refusal::new(
        Reason::Internal,
        "a definition has what this version does not know; the log has more",
    )
}

pub(super) fn replica_behind() -> Refusal {
    Refusal::new(
        Reason::ReplicaBehind,
        "this replica has not seen that much of the store yet",
    )
}

pub(super) fn stale_etag(name: &str, present: &str) -> Refusal {
    Refusal::new(
        Reason::EtagMismatch,
        format!("{name} was changed by somebody else"),
    )
    .with("name", name)
    .with("etag", present)
}

pub(super) fn contended(name: &str) -> Refusal {
    Refusal::new(
        Reason::Contended,
        format!("{name} is being changed by others all the time"),
    )
    .with("name", name)
}

/// A refused action: names the state, the action, what is allowed now and what was probably meant.
pub(super) fn not_allowed(name: &str, row: Row, action: Action, held: &[u32]) -> Refusal {
    let allowed: Vec<&str> = allowed_actions(row)
        .into_iter()
        .map(|a| a.as_str_name().trim_start_matches("ACTION_"))
        .collect();
    let advice = advice(row, action);
    let tasks = held.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let told = match (row, action) {
        (Row::Stopping, Action::AlterOffsets) if !held.is_empty() => {
            format!("{advice} (still held: {tasks})")
        }
        _ => advice.to_owned(),
    };
    let mut refusal = wrong_state(name, row, action.as_str(), &told).with("allowed", allowed.join(","));
    if let Some(other) = meant(row, action) {
        refusal = refusal.with("meant", other.as_str());
    }
    if row == Row::Stopping {
        refusal = refusal.with("waiting_for", tasks);
    }
    refusal
}

/// A write to a connector that is being deleted; `action` is none of the table's.
pub(super) fn being_deleted(name: &str, action: &str) -> Refusal {
    wrong_state(name, Row::Deleting, action, "wait until it is gone").with("allowed", "")
}

fn wrong_state(name: &str, row: Row, action: &str, advice: &str) -> Refusal {
    let state = row.as_str();
    let message = format!("{name} is {state} and does not allow {action}; {advice}");
    Refusal::new(Reason::ActionNotAllowed, message)
        .with("state", state)
        .with("action", action)
        .precondition("STATE", name, advice)
}

pub(super) fn store(error: StoreError) -> Refusal {
    match error {
        StoreError::TooLarge {
            ref what,
            size,
            limit,
        } => Refusal::new(
            Reason::LimitExceeded,
            format!("{what} has {size} bytes, at most {limit} are allowed"),
        )
        .with("limit", limit.to_string())
        .field(what.clone(), format!("has {size}, at most {limit} are allowed")),
        StoreError::RequestTooLarge { .. } => Refusal::new(
            Reason::LimitExceeded,
            "the request is larger than the store takes",
        ),
        StoreError::NoSpace => Refusal::new(
            Reason::StoreFull,
            "the store is nearly full: nothing new is taken",
        )
        .precondition("STORE", "etcd", "compact and defragment etcd, or raise its quota"),
        StoreError::NotSent { .. }
        | StoreError::Unknown { .. }
        | StoreError::LeaseGone
        | StoreError::Compacted => {
            Refusal::new(Reason::StoreUnavailable, error.to_string()).retry_after(Duration::from_secs(1))
        }
        other => {
            tracing::error!(error = %other, "the store gave an answer that should not be");
            Refusal::new(
                Reason::Internal,
                "the store gave an answer that should not be; the log has more",
            )
        }
    }
}

/// The resource with as much as was asked for.
pub(super) fn trimmed(mut connector: v1::Connector, view: v1::View) -> v1::Connector {
    if view == v1::View::Basic {
        connector.config = None;
    }
    connector
}
