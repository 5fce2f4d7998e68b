use std::time::Duration;

use gantry_proto::{
    agent::v1::{Ask, Validate, ask::Question, ask_answer::Answer},
    error::{Reason, Refusal},
    v1::{Connector, Finding, Problem},
};
use parking_lot::Mutex;
use pbjson_types::Timestamp;
use rand::{RngExt, SeedableRng, rngs::SmallRng};

use crate::{
    clock::timestamp,
    domain::{Snapshot, catalog::Catalog},
    replica::ControlPlane,
    store::{Mirror, Store},
};

/// An ask of a user is given up after so long.
const ASK: Duration = Duration::from_secs(10);
/// Agents that are asked, one after the other.
const ASKED: usize = 3;

/// Why no agent has answered a question.
pub(super) struct Unanswered {
    /// The last problem that an agent answered with.
    pub(super) problem: Option<Problem>,
    /// A sentence for people.
    pub(super) why: String,
}

impl Unanswered {
    fn because(why: String) -> Self {
        Self { problem: None, why }
    }
}

/// What the services need of their replica.
pub(crate) struct Handles {
    pub(super) store: Store,
    pub(super) mirror: Mirror,
    control: ControlPlane,
    random: Mutex<SmallRng>,
}

impl Handles {
    pub(super) fn new(control: ControlPlane) -> Self {
        let seed = control.config().seed ^ 0x6170_6900;
        Self {
            store: control.store().clone(),
            mirror: control.mirror().clone(),
            random: Mutex::new(SmallRng::seed_from_u64(seed)),
            control,
        }
    }

    /// The time of day, for people.
    pub(super) fn now(&self) -> Timestamp {
        timestamp(self.control.config().clock.wall())
    }

    /// For uids and nonces.
    pub(super) fn random(&self) -> u64 {
        self.random.lock().random()
    }

    /// Why tasks of lost agents are not placed anew; empty: they are, or this replica does not lead.
    pub(super) fn brake(&self) -> String {
        let report = self.control.reconciler().report();
        report.brake.as_ref().map_or_else(String::new, |b| {
            format!(
                "{} of {} agents were lost within a minute; their tasks wait for them",
                b.lost, b.of
            )
        })
    }

    /// Lets the brake go. False: it was not on.
    pub(super) async fn release_brake(&self) -> Result<bool, Refusal> {
        if let Some(released) = self.control.reconciler().release_brake().await {
            return Ok(released);
        }
        let leader = self
            .mirror
            .read(|s| s.leader.as_ref().map(|l| l.address.clone()))
            .unwrap_or_default();
        Err(Refusal::new(
            Reason::NotLeader,
            format!("only the leader can release the brake; send this to it, at {leader}"),
        )
        .with("leader", leader))
    }

    /// Has an agent run the plugin's own checks. An error says why no agent did.
    pub(super) async fn ask_validate(
        &self,
        snapshot: &Snapshot,
        definition: &Connector,
    ) -> Result<Vec<Finding>, String> {
        let question = Question::Validate(Validate {});
        let found = self.ask(snapshot, definition, question, |answer| match answer {
            Answer::Validate(found) => Some(found.findings),
            _ => None,
        });
        let under = |f: Finding| Finding {
            field: format!("config.{}", f.field),
            ..f
        };
        let found = found.await.map_err(|unanswered| unanswered.why)?;
        Ok(found.into_iter().map(under).collect())
    }

    /// Has an agent that has the plugin answer what only code can; `take` picks the answer to this question. An agent that
    /// cannot answer is followed by another one.
    pub(super) async fn ask<T>(
        &self,
        snapshot: &Snapshot,
        definition: &Connector,
        question: Question,
        take: impl Fn(Answer) -> Option<T>,
    ) -> Result<T, Unanswered> {
        let catalog = Catalog::of(snapshot);
        let Some(entry) = catalog.choose(&definition.plugin, &definition.plugin_version) else {
            return Err(Unanswered::because(format!(
                "no agent has plugin {}",
                definition.plugin
            )));
        };
        let version = entry.plugin.version.clone();
        let asker = self.control.asker();
        let agents = asker.agents_with(&definition.plugin, &version);
        let mut last = Unanswered::because(format!(
            "no agent that is connected has {}@{version}",
            definition.plugin
        ));
        let config = self.control.config();
        let or = |given: &str, default: &str| {
            if given.is_empty() {
                default.to_owned()
            } else {
                given.to_owned()
            }
        };
        for agent in agents.iter().take(ASKED) {
            let topics = if definition.topics.is_empty() {
                vec![definition.topic.clone()]
            } else {
                definition.topics.clone()
            };
            let ask = Ask {
                plugin: definition.plugin.clone(),
                plugin_version: version.clone(),
                config: definition.config.clone(),
                namesrv: or(&definition.namesrv, &config.default_namesrv),
                topics,
                question: Some(question.clone()),
                ..Ask::default()
            };
            last = match asker.ask(agent, ask, ASK).await.map(|answer| answer.answer) {
                Ok(Some(Answer::Problem(problem))) => Unanswered {
                    why: problem.message.clone(),
                    problem: Some(problem),
                },
                Ok(answer) => match answer.and_then(&take) {
                    Some(taken) => return Ok(taken),
                    None => Unanswered::because(format!("agent '{agent}' did not understand the question")),
                },
                Err(error) => Unanswered::because(error.to_string()),
            };
        }
        Err(last)
    }
}
