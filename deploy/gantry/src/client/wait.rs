//! `--wait`: shows the tasks as they follow and returns when all have.

use std::time::Duration;

use gantry_client::{
    Step,
    v1::{Connector, Task, connector::State},
};
use tokio::time::{Instant, timeout_at};

use super::Session;
use crate::{
    failure::{Exit, Failure},
    render::{note, short},
};

fn ran_out(what: &str, last: &str) -> Failure {
    Failure::new(
        Exit::TimedOut,
        format!("{what} within the time given; it is stored and goes on"),
    )
    .at(last.to_owned())
    .fix("look at `gantry connectors describe NAME`, or wait longer with --timeout")
}

/// Returns when the tasks match what is wanted. It is a failure if the connector can get no further without help, or cannot
/// work yet when the time is over.
pub(super) async fn followed(
    s: &Session,
    name: &str,
    generation: i64,
    timeout: Duration,
) -> Result<(), Failure> {
    let deadline = Instant::now() + timeout;
    let mut watch = s.client.watch(&[name.to_owned()], "");
    let mut last = String::from("nothing was heard");
    loop {
        let Ok(step) = timeout_at(deadline, watch.next()).await else {
            return Err(ran_out("the tasks did not follow", &last));
        };
        match step? {
            Step::Upserted(c) => {
                let line = summary(&c);
                if line != last {
                    note(&line);
                    last = line;
                }
                if c.generation < generation {
                    continue;
                }
                if c.state() == State::Failed {
                    let cause = c.error.clone().unwrap_or_default();
                    return Err(Failure::new(
                        Exit::Refused,
                        format!("{} has failed: {}", short(&c.name), cause.message),
                    )
                    .at(c.name.clone())
                    .fix(if cause.fix.is_empty() {
                        "look at `gantry connectors describe NAME`".into()
                    } else {
                        cause.fix
                    }));
                }
                // One that cannot work now may work later: that is waited for, too.
                if !c.reconciling && c.state() != State::Degraded {
                    return Ok(());
                }
            }
            Step::Removed(_) => {
                return Err(
                    Failure::new(Exit::NotFound, "the connector was deleted meanwhile").at(name.to_owned()),
                );
            }
            Step::Synced | Step::Restarted => {}
        }
    }
}

/// Returns when the connector is gone.
pub(super) async fn gone(s: &Session, name: &str, timeout: Duration) -> Result<(), Failure> {
    let deadline = Instant::now() + timeout;
    let mut watch = s.client.watch(&[name.to_owned()], "");
    let mut seen = false;
    let mut last = String::from("nothing was heard");
    loop {
        let Ok(step) = timeout_at(deadline, watch.next()).await else {
            return Err(ran_out("the connector was not removed", &last));
        };
        match step? {
            Step::Upserted(c) => {
                seen = true;
                last = summary(&c);
            }
            Step::Removed(_) => return Ok(()),
            Step::Synced if !seen => return Ok(()),
            Step::Synced => {}
            Step::Restarted => seen = false,
        }
    }
}

/// Returns when the agent holds no task.
pub(super) async fn drained(s: &Session, agent: &str, timeout: Duration) -> Result<(), Failure> {
    let deadline = Instant::now() + timeout;
    let mut watch = s.client.watch_tasks("-");
    let mut held = std::collections::BTreeSet::new();
    let mut synced = false;
    loop {
        if synced && held.is_empty() {
            return Ok(());
        }
        let last = held.iter().cloned().collect::<Vec<String>>().join(", ");
        let Ok(step) = timeout_at(deadline, watch.next()).await else {
            return Err(ran_out("the agent was not drained", &last));
        };
        match step? {
            Step::Upserted(task) => follow(&mut held, agent, &task),
            Step::Removed(name) => {
                held.remove(&name);
            }
            Step::Synced => synced = true,
            Step::Restarted => {
                held.clear();
                synced = false;
            }
        }
    }
}

fn follow(held: &mut std::collections::BTreeSet<String>, agent: &str, task: &Task) {
    if task.agent == agent {
        held.insert(task.name.clone());
    } else if held.remove(&task.name) {
        note(&format!("{} left, {} to go", task.name, held.len()));
    }
}

fn summary(c: &Connector) -> String {
    let counts = c.task_counts.unwrap_or_default();
    let state = c.state().as_str_name().trim_start_matches("STATE_");
    let mut text = format!(
        "{} {state}: {} of {} tasks running",
        short(&c.name),
        counts.running,
        counts.total
    );
    if counts.paused > 0 {
        text.push_str(&format!(", {} paused", counts.paused));
    }
    if counts.failed > 0 {
        text.push_str(&format!(", {} failed", counts.failed));
    }
    if let Some(p) = c.plan_error.as_ref().or(c.error.as_ref()) {
        text.push_str(&format!(" ({})", p.message));
    }
    text
}
