//! Whether what is in the store is what the verbs have asked for.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use gantry_client::v1::Connector;
use gantry_client::v1::connector::TargetState;
use gantry_control_plane::domain::stored;
use gantry_control_plane::store::Key;
use gantry_proto::v1::task::State;

use super::Expected;
use crate::drill::history::View;

/// What a connector is, as far as verbs say it.
pub(super) fn seen(connector: Option<&Connector>) -> Expected {
    match connector {
        None => Expected::Gone,
        Some(connector) if connector.delete_time.is_some() => Expected::Gone,
        Some(connector) => Expected::Present {
            version: connector
                .labels
                .get("version")
                .and_then(|version| version.parse().ok())
                .unwrap_or_default(),
            target: connector.target_state(),
        },
    }
}

/// The connector is what it must be, and its tasks have followed.
pub(super) fn holds(view: &View, name: &str, expected: &[Expected]) -> Result<()> {
    let stored = view.get::<stored::Connector>(&Key::Connector(name.into()))?;
    let definition = stored.as_ref().and_then(|(_, stored)| stored.definition.as_ref());
    ensure!(
        stored
            .as_ref()
            .is_none_or(|(_, stored)| stored.delete_time.is_none()),
        "{name} is still being deleted"
    );
    let is = seen(definition);
    ensure!(
        expected.contains(&is),
        "{name} is {is:?}; it must be one of {expected:?}"
    );
    let Expected::Present { target, .. } = is else {
        return Ok(());
    };
    let uid = view.uid(name)?;
    let held = view.held(&uid)?;
    let context = || {
        format!(
            "the tasks of {name}, which shall be {}: {held:?}",
            target.as_str_name()
        )
    };
    match target {
        TargetState::Stopped => ensure!(held.is_empty(), "{}", context()),
        TargetState::Paused => {
            let pointer = view.get::<stored::PlanPointer>(&Key::PlanPointer(uid))?;
            let tasks = pointer.map_or(0, |(_, pointer)| pointer.tasks);
            let paused = held.values().all(|task| task.state == Some(State::Paused));
            ensure!(
                paused && tasks > 0 && held.len() == tasks as usize,
                "{}",
                context()
            );
        }
        _ => drop(view.running(&uid).with_context(context)?),
    }
    Ok(())
}

/// Nothing belongs to a connector that does not exist.
pub(super) fn nothing_is_left(view: &View) -> Result<()> {
    let mut uids = BTreeSet::new();
    for key in view.keys() {
        if let Key::Connector(name) = key {
            uids.insert(view.uid(name)?);
        }
    }
    for key in view.keys() {
        let uid = match key {
            Key::Grant(id) | Key::Want(id) | Key::Status(id) => &id.uid,
            Key::PlanPointer(uid)
            | Key::PlannedTask(uid, _, _)
            | Key::OffsetsHead(uid)
            | Key::Offset(uid, _, _) => uid,
            _ => continue,
        };
        ensure!(uids.contains(uid), "{key} is left of a connector that is gone");
    }
    Ok(())
}
