//! Plans that need an agent's answer: asked in the background, one at a time for each connector.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use gantry_proto::{
    agent::v1::{Ask, PlanTasks, PlanTasksAnswer, ask::Question, ask_answer::Answer},
    v1::{self, Problem, problem::Domain},
};
use tokio::{
    task::{AbortHandle, JoinSet},
    time::Instant,
};

use tracing::{Instrument, Span};

use super::Parts;
use crate::{
    clock::timestamp,
    domain::{Snapshot, Uid, time::millis},
    plan::{Action, Defaults, failed_ask, present_route, split},
    store::{LeaderStore, NewPlan, StoreError, Written},
    trace,
};

/// How long an agent is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// Agents that are asked before it counts as a problem.
const AGENTS: usize = 3;
/// Connectors that are asked about at a time; the rest follows as these are answered.
const AT_ONCE: usize = 64;
/// The mirror sees the new pointer within this.
const CATCH_UP: Duration = Duration::from_secs(2);

/// Questions under way.
pub(super) struct Splits {
    parts: Parts,
    store: LeaderStore,
    defaults: Defaults,
    running: BTreeMap<Uid, Running>,
    jobs: JoinSet<()>,
}

struct Running {
    action: Action,
    abort: AbortHandle,
}

/// One question, with all that it was decided on.
struct Job {
    parts: Parts,
    store: LeaderStore,
    defaults: Defaults,
    snapshot: Arc<Snapshot>,
    connector: String,
    uid: Uid,
    spec: i64,
    pointer: i64,
    plan_generation: i64,
    input_hash: String,
    plugin_version: String,
    agents: Vec<String>,
}

impl Splits {
    pub(super) fn new(parts: Parts, store: LeaderStore, defaults: Defaults) -> Self {
        Self {
            parts,
            store,
            defaults,
            running: BTreeMap::new(),
            jobs: JoinSet::new(),
        }
    }

    /// Takes what the plan asks for now: what is under way goes on, what is no longer asked for is dropped.
    pub(super) fn want(&mut self, actions: Vec<Action>, snapshot: &Arc<Snapshot>) {
        let mut wanted = BTreeMap::new();
        for action in actions {
            if let Action::PlanTasks { uid, .. } = &action {
                wanted.insert(uid.clone(), action);
            }
        }
        self.running.retain(|uid, running| {
            let goes_on = wanted
                .get(uid)
                .is_some_and(|action| is_same(action, &running.action));
            if !goes_on {
                running.abort.abort();
            }
            goes_on
        });
        for (uid, action) in wanted {
            if self.running.len() >= AT_ONCE || self.running.contains_key(&uid) {
                continue;
            }
            if let Some(job) = self.job(&action, snapshot) {
                let span = job.span();
                let run = job.run().instrument(span).in_current_span();
                let abort = self.jobs.spawn(run);
                self.running.insert(uid, Running { action, abort });
            }
        }
    }

    /// Returns when something has been finished.
    pub(super) async fn finished(&mut self) {
        if self.jobs.join_next().await.is_none() {
            std::future::pending::<()>().await;
        }
        self.running.retain(|_, running| !running.abort.is_finished());
    }

    fn job(&self, action: &Action, snapshot: &Arc<Snapshot>) -> Option<Job> {
        let Action::PlanTasks {
            connector,
            uid,
            spec,
            pointer,
            plan_generation,
            input_hash,
            plugin_version,
            agents,
        } = action
        else {
            return None;
        };
        Some(Job {
            parts: self.parts.clone(),
            store: self.store.clone(),
            defaults: self.defaults.clone(),
            snapshot: snapshot.clone(),
            connector: connector.clone(),
            uid: uid.clone(),
            spec: *spec,
            pointer: *pointer,
            plan_generation: *plan_generation,
            input_hash: input_hash.clone(),
            plugin_version: plugin_version.clone(),
            agents: agents.clone(),
        })
    }
}

/// Is this the question that is under way? Who else could answer it does not matter, nor which generation a new one would
/// write: the first part of what the present one writes is seen before the last is written.
fn is_same(a: &Action, b: &Action) -> bool {
    match (a, b) {
        (
            Action::PlanTasks {
                spec,
                pointer,
                input_hash,
                plugin_version,
                ..
            },
            Action::PlanTasks {
                spec: spec_b,
                pointer: pointer_b,
                input_hash: input_hash_b,
                plugin_version: plugin_version_b,
                ..
            },
        ) => {
            (spec, pointer) == (spec_b, pointer_b)
                && (input_hash, plugin_version) == (input_hash_b, plugin_version_b)
        }
        _ => false,
    }
}

impl Job {
    /// As part of the trace of the request that made a new plan necessary, if that was one.
    fn span(&self) -> Span {
        let stored = self.snapshot.connectors.get(self.connector.as_str());
        let pointer = self.snapshot.pointers.get(&self.uid);
        let planned = pointer.map_or(0, |p| p.generation);
        let Some(stored) = stored.filter(|c| c.generation > planned && !c.traceparent.is_empty()) else {
            return Span::none();
        };
        let span = tracing::info_span!(parent: None, "plan", connector = self.connector, generation = stored.generation);
        trace::follow(&span, &stored.traceparent);
        span
    }

    async fn run(self) {
        let stored = match self.answer().await {
            Ok(answer) => self.store_answer(&answer).await,
            Err(problem) => self.store_problem(problem).await,
        };
        match stored {
            Ok(Written::Applied(revision)) => {
                let _ = self
                    .parts
                    .mirror
                    .wait_revision(revision, Instant::now() + CATCH_UP)
                    .await;
            }
            Ok(Written::Conflict) => tracing::debug!(connector = self.connector, "the split came too late"),
            Err(error) => {
                tracing::warn!(connector = self.connector, %error, "the split could not be stored");
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }
    }

    /// The first answer of an agent; else the last problem.
    async fn answer(&self) -> Result<PlanTasksAnswer, Problem> {
        let Some(ask) = self.question() else {
            return Err(system("CONNECTOR_GONE", "the connector is gone".to_owned()));
        };
        let mut last = system(
            "NO_AGENT",
            "no agent can split the connector into tasks".to_owned(),
        );
        for agent in self.agents.iter().take(AGENTS) {
            tracing::debug!(connector = self.connector, agent, "asking for a split");
            match self.parts.asker.ask(agent, ask.clone(), PATIENCE).await {
                Ok(answer) => match answer.answer {
                    Some(Answer::PlanTasks(answer)) => return Ok(answer),
                    // The same everywhere: nobody else is asked.
                    Some(Answer::Problem(problem)) if problem.domain() == Domain::User => {
                        return Err(problem);
                    }
                    Some(Answer::Problem(problem)) => last = problem,
                    _ => {
                        last = system(
                            "NO_ANSWER",
                            format!("agent '{agent}' gave another answer than was asked for"),
                        )
                    }
                },
                Err(error) => last = system("NO_ANSWER", error.to_string()),
            }
        }
        Err(last)
    }

    fn question(&self) -> Option<Ask> {
        let stored = self.snapshot.connectors.get(self.connector.as_str())?;
        let nothing = v1::Connector::default();
        let definition = stored.definition.as_ref().unwrap_or(&nothing);
        let mut ask = question(definition, &self.plugin_version, &self.defaults);
        if let Some(Question::PlanTasks(plan)) = &mut ask.question {
            plan.route = present_route(&self.snapshot, &self.connector, &self.input_hash);
        }
        Some(ask)
    }

    async fn store_answer(&self, answer: &PlanTasksAnswer) -> Result<Written, StoreError> {
        let split = split(
            &self.snapshot,
            &self.connector,
            self.plan_generation,
            &self.input_hash,
            &self.plugin_version,
            answer,
            &self.defaults,
            millis(&timestamp(self.parts.clock.wall())),
        );
        let split = match split {
            Ok(split) => split,
            Err(problem) => return self.store_problem(problem).await,
        };
        if split.tasks.is_empty() {
            return self
                .store
                .set_pointer(
                    &self.connector,
                    &self.uid,
                    self.spec,
                    self.pointer,
                    &split.pointer,
                )
                .await;
        }
        let plan = NewPlan {
            connector: self.connector.clone(),
            uid: self.uid.clone(),
            spec: self.spec,
            pointer: self.pointer,
            plan_generation: self.plan_generation,
            tasks: split.tasks,
            value: split.pointer,
        };
        self.store.store_plan(&plan).await
    }

    async fn store_problem(&self, mut problem: Problem) -> Result<Written, StoreError> {
        tracing::info!(
            connector = self.connector,
            reason = problem.reason,
            "no split: {}",
            problem.message
        );
        let now = timestamp(self.parts.clock.wall());
        problem.time.get_or_insert(now);
        let pointer = failed_ask(&self.snapshot, &self.connector, problem, millis(&now));
        self.store
            .set_pointer(&self.connector, &self.uid, self.spec, self.pointer, &pointer)
            .await
    }
}

/// The question for a definition.
fn question(definition: &v1::Connector, plugin_version: &str, defaults: &Defaults) -> Ask {
    let topics = match definition.topics.as_slice() {
        [] if definition.topic.is_empty() => Vec::new(),
        [] => vec![definition.topic.clone()],
        topics => topics.to_vec(),
    };
    let namesrv = if definition.namesrv.is_empty() {
        &defaults.namesrv
    } else {
        &definition.namesrv
    };
    let tasks_max = u32::try_from(definition.tasks_max).unwrap_or(0).max(1);
    Ask {
        plugin: definition.plugin.clone(),
        plugin_version: plugin_version.to_owned(),
        config: definition.config.clone(),
        namesrv: namesrv.clone(),
        topics,
        create_queues: definition
            .topic_create
            .as_ref()
            .map_or(defaults.create_queues, |create| {
                u32::try_from(create.queues).unwrap_or(0)
            }),
        question: Some(Question::PlanTasks(PlanTasks {
            tasks_max,
            route: Vec::new(),
        })),
        ..Ask::default()
    }
}

fn system(reason: &str, message: String) -> Problem {
    Problem {
        domain: Domain::System.into(),
        reason: reason.to_owned(),
        message,
        ..Problem::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_own_first_part_makes_no_other_question_of_it() {
        let asks = |pointer, plan_generation| Action::PlanTasks {
            connector: "c".to_owned(),
            uid: Uid("u".into()),
            spec: 5,
            pointer,
            plan_generation,
            input_hash: "h".to_owned(),
            plugin_version: "1".to_owned(),
            agents: Vec::new(),
        };
        assert!(is_same(&asks(7, 2), &asks(7, 3)));
        assert!(!is_same(&asks(7, 2), &asks(8, 2)));
    }
}
