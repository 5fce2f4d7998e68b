//! A history as text.

use std::collections::BTreeMap;

use anyhow::Result;
use gantry_control_plane::domain::stored;
use gantry_control_plane::store::Key;
use tokio::time::Instant;

use super::{Change, View};
use crate::drill::audit::position;

impl View {
    /// One line for each change, for whoever looks for the cause of a failure. Times are seconds since `begin`.
    pub fn listing(&self, begin: Instant) -> String {
        let mut names = BTreeMap::new();
        let mut text = String::new();
        for change in &self.changes {
            if let (Key::Connector(name), Ok(Some(stored))) =
                (&change.key, change.decoded::<stored::Connector>())
            {
                names.insert(stored.uid, name.clone());
            }
            let mut key = change.key.to_string();
            for (uid, name) in &names {
                key = key.replace(uid, name);
            }
            let time = change.at.saturating_duration_since(begin).as_secs_f64();
            let value = summary(change).unwrap_or_else(|error| error.to_string());
            text += &format!("{time:8.3} {:6} {key} {value}\n", change.revision);
        }
        text
    }
}

/// What is of interest of a value.
fn summary(change: &Change) -> Result<String> {
    if change.value.is_none() {
        return Ok("deleted".to_owned());
    }
    let none = || "nothing".to_owned();
    Ok(match &change.key {
        Key::Grant(_) => change
            .decoded::<stored::Grant>()?
            .map_or_else(none, |g| format!("{} {}", g.agent, g.instance_uid)),
        Key::Want(_) => change
            .decoded::<stored::Want>()?
            .map_or_else(none, |w| w.want().as_str_name().to_owned()),
        Key::Status(_) => change.decoded::<stored::Status>()?.map_or_else(none, |s| {
            let problem = s.problem.as_ref().map(|p| p.message.as_str()).unwrap_or_default();
            format!(
                "{} fence {} restarts {} {problem}",
                s.state().as_str_name(),
                s.fence,
                s.restarts
            )
        }),
        Key::Offset(..) => change.decoded::<stored::OffsetRecord>()?.map_or_else(none, |o| {
            let counts = o.counts.unwrap_or_default();
            format!("{:?} in {} out {}", position(&o), counts.r#in, counts.out)
        }),
        Key::Session(_) => change.decoded::<stored::Session>()?.map_or_else(none, |s| {
            format!(
                "{} at {} silent {} gone {:?}",
                s.instance_uid, s.replica, s.silent, s.gone
            )
        }),
        Key::Connector(_) => change.decoded::<stored::Connector>()?.map_or_else(none, |c| {
            let target = c.definition.as_ref().map(|d| d.target_state().as_str_name());
            format!("{} {target:?} deleted {}", c.uid, c.delete_time.is_some())
        }),
        Key::Leader => change
            .decoded::<stored::Leader>()?
            .map_or_else(none, |l| l.replica),
        _ => "written".to_owned(),
    })
}
