//! Asks an agent what only code can answer: the question is stored, the replica that serves the agent delivers it, and
//! the answer comes back through the mirror.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use gantry_proto::agent::v1::{Ask, AskAnswer};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use thiserror::Error;
use tokio::time::timeout;

use crate::{
    domain::{Snapshot, stored},
    store::{Mirror, Store, StoreError, codec::FORMAT},
};

/// For the answer to come back: an agent that has used all its time says what took it.
pub const WAY_BACK: Duration = Duration::from_secs(2);

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum AskError {
    /// The agent is not connected.
    #[error("agent '{0}' is not connected")]
    NotConnected(String),
    /// It did not answer in time.
    #[error("agent '{agent}' did not answer within {patience:?}")]
    NoAnswer {
        /// The agent.
        agent: String,
        /// How long it was waited for.
        patience: Duration,
    },
    /// The question could not be stored.
    #[error("the question could not be stored")]
    Store(#[from] StoreError),
}

/// Asks agents. Clones share everything.
#[derive(Clone)]
pub struct Asker {
    store: Store,
    mirror: Mirror,
    seed: u64,
    count: Arc<AtomicU64>,
}

impl Asker {
    /// `seed` makes the ids, which have to be unlike those of other replicas.
    pub fn new(store: Store, mirror: Mirror, seed: u64) -> Self {
        Self {
            store,
            mirror,
            seed,
            count: Arc::default(),
        }
    }

    /// Agents that have a plugin in that version, have these labels and are heard, in order of name.
    pub fn agents_with(
        &self,
        plugin: &str,
        version: &str,
        selector: &BTreeMap<String, String>,
    ) -> Vec<String> {
        let wanted = format!("{plugin}@{version}");
        self.mirror.read(|snapshot| {
            let label = |agent: &str, session: &stored::Session, key: &str| {
                let given = snapshot
                    .agents
                    .get(agent)
                    .and_then(|s| s.labels.get(key).cloned());
                given.or_else(|| session.labels.get(key).cloned())
            };
            let has = |agent: &str, session: &stored::Session| {
                let labelled =
                    |(key, value): (&String, &String)| label(agent, session, key).as_ref() == Some(value);
                !session.silent && session.plugins.contains(&wanted) && selector.iter().all(labelled)
            };
            snapshot
                .sessions
                .iter()
                .filter(|(agent, session)| has(agent, session))
                .map(|(agent, _)| agent.to_string())
                .collect()
        })
    }

    /// Asks one agent and waits for its answer. The question's id and timeout are set here.
    ///
    /// # Errors
    /// [`AskError`]. A problem that the agent answers with is no error.
    pub async fn ask(&self, agent: &str, ask: Ask, patience: Duration) -> Result<AskAnswer, AskError> {
        let Some(instance_uid) = self.mirror.read(|s| instance(s, agent)) else {
            return Err(AskError::NotConnected(agent.to_owned()));
        };
        let id = self.next_id();
        let timeout_of_ask = Some(pbjson_types::Duration::from(patience));
        let ask = Ask {
            id: id.clone(),
            timeout: timeout_of_ask,
            ..ask
        };
        let record = stored::AskRecord {
            format: FORMAT,
            ask: Some(ask),
            instance_uid: instance_uid.clone(),
        };
        self.store.put_ask(agent, &id, &record).await?;
        let answer = timeout(patience + WAY_BACK, self.answer(agent, &instance_uid, &id)).await;
        let (store, agent, forgotten) = (self.store.clone(), agent.to_owned(), id.clone());
        let waited_for = agent.clone();
        // It goes by itself; removing it now frees the agent for the next question.
        tokio::spawn(async move { store.remove_ask(&agent, &forgotten).await });
        match answer {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(AskError::NotConnected(waited_for)),
            Err(_) => Err(AskError::NoAnswer {
                agent: waited_for,
                patience,
            }),
        }
    }

    /// None: the instance is gone.
    async fn answer(&self, agent: &str, instance_uid: &str, id: &str) -> Option<AskAnswer> {
        let mut revisions = self.mirror.subscribe();
        loop {
            let (answer, here) = self.mirror.read(|snapshot| {
                let answer = snapshot
                    .answers
                    .get(id)
                    .map(|record| record.answer.clone().unwrap_or_default());
                // A session that has gone for a moment may be back on another replica: only another instance ends it.
                (
                    answer,
                    instance(snapshot, agent).is_none_or(|now| now == instance_uid),
                )
            });
            if answer.is_some() || !here {
                return answer;
            }
            revisions.changed().await.ok()?;
        }
    }

    fn next_id(&self) -> String {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let mut random =
            SmallRng::seed_from_u64(self.seed.wrapping_add(count.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        format!("{:016x}", random.random::<u64>())
    }
}

fn instance(snapshot: &Snapshot, agent: &str) -> Option<String> {
    snapshot
        .sessions
        .get(agent)
        .filter(|s| !s.silent)
        .map(|s| s.instance_uid.clone())
}
