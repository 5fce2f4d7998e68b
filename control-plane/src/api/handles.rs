use std::time::Duration;

use gantry_proto::{
    agent::v1::{Ask, Validate, ask::Question, ask_answer::Answer},
    error::{Reason, Refusal},
    v1::{Connector, Finding, Problem},
};
use parking_lot::Mutex;
use pbjson_types::Timestamp;
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use tokio::time::Instant;

use crate::{
    clock::timestamp,
    domain::{Snapshot, catalog::Catalog},
    replica::ControlPlane,
    sessions::asker::WAY_BACK,
    store::{Mirror, Store},
};

/// An ask of a user is given up after so long.
const ASK: Duration = Duration::from_secs(10);
/// All agents that are asked together have so long: callers wait for 20 s.
const ASK_ALL: Duration = Duration::from_secs(18);
/// Agents that are asked, one after the other.
const ASKED: usize = 3;

/// What an agent has checked.
pub(super) struct Checked {
    /// The agent.
    pub(super) agent: String,
    /// What it found, with the paths of the definition's fields.
    pub(super) findings: Vec<Finding>,
    /// Agents that could run the connector, too, and were not asked.
    pub(super) others: Vec<String>,
}

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

    /// Has an agent run the checks that need code or a look at RocketMQ. An error says why no agent did.
    pub(super) async fn ask_validate(
        &self,
        snapshot: &Snapshot,
        definition: &Connector,
    ) -> Result<Checked, Unanswered> {
        let policy = definition.error_policy.as_ref();
        let question = Question::Validate(Validate {
            tasks_max: u32::try_from(definition.tasks_max).unwrap_or(0),
            dead_letter_topic: policy.map(|p| p.dead_letter_topic.clone()).unwrap_or_default(),
        });
        let asked = self.ask_one(snapshot, definition, question, |answer| match answer {
            Answer::Validate(found) => Some(found.findings),
            _ => None,
        });
        let (agent, mut findings, others) = asked.await?;
        for finding in &mut findings {
            // Agents know the topics, and not in which of the two fields one stands.
            if finding.field == "topic" && definition.topic.is_empty() {
                finding.field = "topics[0]".into();
            }
        }
        Ok(Checked {
            agent,
            findings,
            others,
        })
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
        let asked = self.ask_one(snapshot, definition, question, take);
        asked.await.map(|(_, taken, _)| taken)
    }

    /// As [`ask`](Self::ask); also the agent that has answered, and those that could have.
    async fn ask_one<T>(
        &self,
        snapshot: &Snapshot,
        definition: &Connector,
        question: Question,
        take: impl Fn(Answer) -> Option<T>,
    ) -> Result<(String, T, Vec<String>), Unanswered> {
        let catalog = Catalog::of(snapshot);
        let Some(entry) = catalog.choose(&definition.plugin, &definition.plugin_version) else {
            return Err(Unanswered::because(format!(
                "no agent has plugin {}",
                definition.plugin
            )));
        };
        let version = entry.plugin.version.clone();
        let asker = self.control.asker();
        let mut agents = asker.agents_with(&definition.plugin, &version, &definition.agent_selector);
        let labels = if definition.agent_selector.is_empty() {
            ""
        } else {
            " and the labels of agent_selector"
        };
        let mut last = Unanswered::because(format!(
            "no agent that is connected has {}@{version}{labels}",
            definition.plugin
        ));
        let ask = self.question(definition, &version, question);
        let deadline = Instant::now() + ASK_ALL;
        for agent in agents.iter().take(ASKED) {
            let left = deadline
                .saturating_duration_since(Instant::now())
                .saturating_sub(WAY_BACK);
            if left.is_zero() {
                break;
            }
            last = match asker
                .ask(agent, ask.clone(), ASK.min(left))
                .await
                .map(|answer| answer.answer)
            {
                Ok(Some(Answer::Problem(problem))) => Unanswered {
                    why: problem.message.clone(),
                    problem: Some(problem),
                },
                Ok(answer) => match answer.and_then(&take) {
                    Some(taken) => {
                        let agent = agent.clone();
                        agents.retain(|other| *other != agent);
                        return Ok((agent, taken, agents));
                    }
                    None => Unanswered::because(format!("agent '{agent}' did not understand the question")),
                },
                Err(error) => Unanswered::because(error.to_string()),
            };
        }
        Err(last)
    }

    fn question(&self, definition: &Connector, version: &str, question: Question) -> Ask {
        let config = self.control.config();
        let namesrv = match definition.namesrv.as_str() {
            "" => &config.default_namesrv,
            given => given,
        };
        let topics = if definition.topics.is_empty() {
            vec![definition.topic.clone()]
        } else {
            definition.topics.clone()
        };
        let create = definition.topic_create.as_ref();
        Ask {
            plugin: definition.plugin.clone(),
            plugin_version: version.to_owned(),
            config: definition.config.clone(),
            namesrv: namesrv.to_owned(),
            topics,
            create_queues: create.map_or(config.default_topic_queues, |t| {
                u32::try_from(t.queues).unwrap_or(0)
            }),
            question: Some(question),
            ..Ask::default()
        }
    }
}
