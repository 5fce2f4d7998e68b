//! Waiting for a site to be well, and what tasks did meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use gantry_control_plane::domain::{TaskId, stored};
use gantry_control_plane::store::Key;
use gantry_proto::v1::task::State;
use tokio::time::Instant;

use super::{LONG, SOON, Site, Struck};
use crate::drill::flow::Standing;
use crate::drill::history::{Held, View};
use crate::drill::schedule::{Fault, Round};

/// How often a supervisor looks after its processes.
const REVIVE: Duration = Duration::from_secs(2);

impl Site<'_> {
    /// Waits until all is well, and then until so many records have been written as the round wants.
    pub async fn until(&mut self, round: &Round) -> Result<()> {
        self.all_run(LONG).await?;
        self.committed_beyond(&self.standing()?, false).await?;
        if let Some(flow) = self.flows.first() {
            flow.feeder().more(round.after, SOON).await?;
        }
        Ok(())
    }

    /// Waits until every task of every flow runs, and gives them.
    pub async fn all_run(&mut self, limit: Duration) -> Result<BTreeMap<TaskId, Held>> {
        self.watched(limit, "all tasks of the flows run", |site, view| {
            let mut tasks = BTreeMap::new();
            for flow in &site.flows {
                for uid in flow.uids() {
                    tasks.extend(view.running(uid).with_context(|| format!("of {}", flow.name()))?);
                }
            }
            Ok(tasks)
        })
        .await
    }

    /// Waits until every flow has committed more than this; with `written`, all that was written.
    async fn committed_beyond(
        &mut self,
        standing: &BTreeMap<&'static str, Standing>,
        written: bool,
    ) -> Result<()> {
        self.watched(LONG, "all flows have committed more", |site, view| {
            for flow in &site.flows {
                let now = flow.standing(view)?;
                let before = standing.get(flow.name()).copied().unwrap_or_default();
                let goal = if written {
                    before.written
                } else {
                    before.committed + 1
                };
                ensure!(
                    now.committed >= goal,
                    "{} is at {now:?}, which is not {goal}: {:?}",
                    flow.name(),
                    flow.uids().map(|uid| view.held(uid))
                );
            }
            Ok(())
        })
        .await
    }

    /// Waits until all tasks run and everything is committed that had been written when it struck.
    pub async fn recovered(&mut self, struck: &Struck) -> Result<()> {
        self.all_run(LONG).await?;
        self.committed_beyond(&struck.standing, true).await?;
        // What was on its way to the broker is sent again, without any task starting anew.
        if struck.fault == Fault::BrokerKilled {
            let now = self.standing()?;
            for (name, before) in &struck.standing {
                *self.unknown.entry(name).or_default() += now[name].written - before.committed;
            }
        }
        Ok(())
    }

    /// For each of these tasks, how long after `since` it ran again under another right.
    pub async fn run_again(
        &self,
        tasks: &BTreeMap<TaskId, Held>,
        since: Instant,
        limit: Duration,
    ) -> Result<Vec<Duration>> {
        self.history
            .wait(limit, "the tasks run under another right", |view| {
                let now = self.tasks(view)?;
                let mut took = Vec::new();
                for (id, before) in tasks {
                    let task = now.get(id).with_context(|| format!("nobody has {id}"))?;
                    ensure!(
                        task.fence != before.fence && task.state == Some(State::Running),
                        "{id} is {task:?}"
                    );
                    let at = first_run(view, id, task.fence)?.with_context(|| format!("{id} did not run"))?;
                    took.push(at.saturating_duration_since(since));
                }
                Ok(took)
            })
            .await
    }

    /// Checks that nothing happened to the flows' tasks after `revision`: no right was given or ended, none was anything but running.
    pub async fn none_restarted(&self, revision: i64) -> Result<()> {
        self.history.catch_up(SOON).await?;
        let view = self.history.view();
        let ids: BTreeSet<TaskId> = self.tasks(&view)?.into_keys().collect();
        let after = view
            .changes()
            .iter()
            .rev()
            .take_while(|change| change.revision > revision);
        for change in after {
            match &change.key {
                Key::Grant(id) if ids.contains(id) => {
                    bail!("the right to {id} was written at revision {}", change.revision)
                }
                Key::Status(id) if ids.contains(id) => {
                    let status = change.decoded::<stored::Status>()?;
                    let status = status.with_context(|| format!("the status of {id} was removed"))?;
                    ensure!(
                        status.state() == State::Running && status.restarts == 0,
                        "{id} was {} at revision {}: {status:?}",
                        status.state().as_str_name(),
                        change.revision
                    );
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Waits for something to be so in the store, and meanwhile starts anew what has ended by itself.
    async fn watched<T>(
        &mut self,
        limit: Duration,
        what: &str,
        check: impl Fn(&Self, &View) -> Result<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let wait = self
                .history
                .wait(left.min(REVIVE), what, |view| check(self, view));
            match wait.await {
                Ok(found) => return Ok(found),
                Err(error) if Instant::now() >= deadline => {
                    return Err(error).with_context(|| format!("waited {limit:?} in all"));
                }
                Err(_) => self.revive()?,
            }
        }
    }

    /// Starts agents anew that have ended by themselves, as a supervisor of processes does: an agent whose tasks do not end with
    /// its lease ends itself.
    fn revive(&mut self) -> Result<()> {
        for name in self.cluster.agents() {
            if !self.frozen.contains(&name) && !self.cluster.agent(&name)?.is_running() {
                self.revived += 1;
                self.report
                    .say(format_args!("{name} has ended by itself and is started anew"));
                self.cluster.spawn_agent(&name)?;
            }
        }
        Ok(())
    }
}

/// When a task was first reported to run under a right.
fn first_run(view: &View, id: &TaskId, fence: i64) -> Result<Option<Instant>> {
    let mut first = None;
    // The fence is the revision at which the right was given.
    for change in view
        .changes()
        .iter()
        .rev()
        .take_while(|change| change.revision > fence)
    {
        if matches!(&change.key, Key::Status(of) if of == id)
            && let Some(status) = change.decoded::<stored::Status>()?
            && status.fence == fence
            && status.state() == State::Running
        {
            first = Some(change.at);
        }
    }
    Ok(first)
}
