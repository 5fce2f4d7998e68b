//! What a replica writes for the agents that it serves.

use std::time::Duration;

use gantry_proto::v1::task::State;
use prost::Message;

use super::{
    Expect, Guarded, Key, Raw, Store, StoreError,
    codec::{self, FORMAT, rewritable},
};
use crate::domain::{Snapshot, TaskId, Versioned, stored};

mod statuses;

pub use statuses::{MAX_STATUSES, StatusOutcome, StatusWrite, Stopped};

/// Asks and answers live at least so long.
const ASK_LIFE: Duration = Duration::from_secs(30);
/// Largest ask, and largest answer, in bytes.
const MAX_ASK: usize = 256 << 10;
/// Tries of a write whose outcome is not known, each after a read.
const TRIES: u32 = 3;

/// What is known of an agent: revisions for the next write, values to judge a hello by.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AgentKeys {
    /// instances/{agent}
    pub instance: Option<Versioned<stored::Instance>>,
    /// sessions/{agent}
    pub session: Option<Versioned<stored::Session>>,
    /// Lease that the session key hangs on; 0: there is none.
    pub session_lease: i64,
    /// Revision of the read.
    pub revision: i64,
}

impl AgentKeys {
    /// The same as it is in a snapshot; the lease is not known there and is given as 0.
    pub fn of(snapshot: &Snapshot, agent: &str) -> Self {
        Self {
            instance: snapshot.instances.get(agent).cloned(),
            session: snapshot.sessions.get(agent).cloned(),
            session_lease: 0,
            revision: snapshot.revision,
        }
    }

    /// What the next write of the two keys compares.
    pub fn expected(&self) -> Expected {
        Expected {
            instance: self.instance.as_ref().map_or(0, |instance| instance.mod_revision),
            session: self.session.as_ref().map_or(0, |session| session.mod_revision),
        }
    }
}

/// mod_revisions of an agent's two keys; 0: there is no such key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Expected {
    /// instances/{agent}
    pub instance: i64,
    /// sessions/{agent}
    pub session: i64,
}

/// What became of a write of an agent's two keys.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub enum SessionWrite {
    /// Written; the next write compares these.
    Written(Expected),
    /// Another write came first, and these are the keys now. Of a lease that ended only the session is gone:
    /// write again on the new lease if `instance` is still what this replica wrote.
    Conflict(AgentKeys),
}

impl Store {
    /// Reads an agent's two keys at one revision, linearizable.
    ///
    /// # Errors
    /// As of any read.
    pub async fn read_agent(&self, agent: &str) -> Result<AgentKeys, StoreError> {
        let outcome = self
            .guarded()
            .read(&Key::Instance(agent.into()))
            .read(&Key::Session(agent.into()))
            .run()
            .await?;
        agent_keys(outcome.read(0), outcome.read(1), outcome.revision)
    }

    /// Writes an agent's session (accepts its hello, marks it silent or heard again, moves it to a new lease)
    /// together with its instance, which is written even if it is the same: whoever decided on the old state
    /// must find out.
    ///
    /// A lost answer is resolved by reading: `Unknown` is returned only if that was not possible. The write
    /// may then still happen: a session that this replica does not serve may appear on its lease, and it has
    /// to remove it.
    ///
    /// # Errors
    /// [`StoreError::LeaseGone`]: try on the replica's next lease. Others as of any write.
    pub async fn write_session(
        &self,
        agent: &str,
        expected: Expected,
        instance: &stored::Instance,
        session: &stored::Session,
        lease: i64,
    ) -> Result<SessionWrite, StoreError> {
        self.write_agent(agent, expected, instance, Some((session, lease)))
            .await
    }

    /// Removes an agent's session, after its goodbye or when another instance is to be let in. The instance
    /// is written anew, as by [`write_session`](Self::write_session).
    ///
    /// # Errors
    /// As of any write.
    pub async fn remove_session(
        &self,
        agent: &str,
        expected: Expected,
        instance: &stored::Instance,
    ) -> Result<SessionWrite, StoreError> {
        self.write_agent(agent, expected, instance, None).await
    }

    async fn write_agent(
        &self,
        agent: &str,
        expected: Expected,
        instance: &stored::Instance,
        session: Option<(&stored::Session, i64)>,
    ) -> Result<SessionWrite, StoreError> {
        let (instance_key, session_key) = (Key::Instance(agent.into()), Key::Session(agent.into()));
        let mut tries = 0;
        loop {
            tries += 1;
            let txn = self
                .guarded()
                .expect(&Expect::ModRevision(instance_key.clone(), expected.instance))
                .expect(&Expect::ModRevision(session_key.clone(), expected.session))
                .put(&instance_key, instance)
                .or_read(&instance_key)
                .or_read(&session_key);
            let txn = match session {
                Some((session, lease)) => txn.put_leased(&session_key, session, lease),
                None => txn.delete(&session_key),
            };
            let keys = match txn.run().await {
                Ok(outcome) if outcome.applied => {
                    let at = outcome.revision;
                    let session = if session.is_some() { at } else { 0 };
                    return Ok(SessionWrite::Written(Expected {
                        instance: at,
                        session,
                    }));
                }
                Ok(outcome) => agent_keys(outcome.read(0), outcome.read(1), outcome.revision)?,
                Err(error) if error.may_have_been_written() && tries < TRIES => {
                    let keys = self.read_agent(agent).await?;
                    if keys.expected() == expected {
                        // Not written yet. If it still is, the next try fails and shows it.
                        continue;
                    }
                    keys
                }
                Err(error) => return Err(error),
            };
            check_formats(agent, &keys)?;
            return Ok(match own_write(&keys, expected, instance, session) {
                Some(written) => SessionWrite::Written(written),
                None => SessionWrite::Conflict(keys),
            });
        }
    }

    /// Stores plugins that an agent has brought, except those that `snapshot` shows to be stored already. The
    /// last one wins where two agents have the same version of a plugin with different contents.
    ///
    /// # Errors
    /// As of any write; some may have been stored.
    pub async fn put_plugins(
        &self,
        snapshot: &Snapshot,
        plugins: &[stored::PluginRecord],
    ) -> Result<(), StoreError> {
        for record in plugins {
            let Some(plugin) = &record.plugin else { continue };
            let name = plugin.name.strip_prefix("plugins/").unwrap_or(&plugin.name);
            let id = (name.into(), plugin.version.as_str().into());
            let present = snapshot.plugins.get(&id);
            if present.is_some_and(|present| present.hash == record.hash) {
                continue;
            }
            let key = Key::Plugin(id.0, id.1);
            if let Some(present) = present {
                rewritable(&key, &*present.value)?;
            }
            let revision = present.map_or(0, |present| present.mod_revision);
            // Not written because another came first: that one is as good.
            let _ = self
                .guarded()
                .expect(&Expect::ModRevision(key.clone(), revision))
                .put(&key, record)
                .run()
                .await?;
        }
        Ok(())
    }

    /// Writes this replica's own record on its lease.
    ///
    /// # Errors
    /// As of any write. It may be repeated: only this replica writes the key.
    pub async fn put_replica(
        &self,
        replica: &str,
        record: &stored::Replica,
        lease: i64,
    ) -> Result<i64, StoreError> {
        let txn = self
            .guarded()
            .put_leased(&Key::Replica(replica.into()), record, lease);
        Ok(txn.run().await?.revision)
    }

    /// Asks an agent: the replica that serves it sees the key, delivers the question, and answers under
    /// [`Key::Answer`]. Question and answer go by themselves after 30 to 60 s.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] over 256 KiB. After `Unknown` the ask may be repeated with the same id.
    pub async fn put_ask(&self, agent: &str, id: &str, ask: &stored::AskRecord) -> Result<i64, StoreError> {
        limit_ask("an ask in bytes", ask.encoded_len())?;
        let key = Key::Ask(agent.into(), id.into());
        self.put_for(ASK_LIFE, |txn, lease| txn.put_leased(&key, ask, lease))
            .await
    }

    /// Answers an ask and removes it.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] over 256 KiB. After `Unknown` the answer may be repeated.
    pub async fn put_answer(
        &self,
        agent: &str,
        id: &str,
        answer: &stored::AnswerRecord,
    ) -> Result<i64, StoreError> {
        limit_ask("an answer in bytes", answer.encoded_len())?;
        let (ask, key) = (Key::Ask(agent.into(), id.into()), Key::Answer(id.into()));
        self.put_for(ASK_LIFE, |txn, lease| {
            txn.put_leased(&key, answer, lease).delete(&ask)
        })
        .await
    }

    /// Removes a question and its answer, when nobody wants them any more.
    ///
    /// # Errors
    /// As of any write; they go by themselves in any case.
    pub async fn remove_ask(&self, agent: &str, id: &str) -> Result<(), StoreError> {
        let (ask, answer) = (Key::Ask(agent.into(), id.into()), Key::Answer(id.into()));
        self.guarded().delete(&ask).delete(&answer).run().await.map(drop)
    }

    /// Puts on a shared lease, which is replaced if etcd no longer has it. Returns the revision.
    async fn put_for(
        &self,
        life: Duration,
        build: impl Fn(Guarded, i64) -> Guarded,
    ) -> Result<i64, StoreError> {
        let lease = self.shared_lease(life).await?;
        match build(self.guarded(), lease).run().await {
            Err(StoreError::LeaseGone) => {
                self.forget_shared_lease(life).await;
                let lease = self.shared_lease(life).await?;
                Ok(build(self.guarded(), lease).run().await?.revision)
            }
            outcome => Ok(outcome?.revision),
        }
    }
}

fn agent_keys(instance: Option<&Raw>, session: Option<&Raw>, revision: i64) -> Result<AgentKeys, StoreError> {
    Ok(AgentKeys {
        instance: instance.map(Raw::decode).transpose()?,
        session_lease: session.map_or(0, |session| session.lease),
        session: session.map(Raw::decode).transpose()?,
        revision,
    })
}

fn check_formats(agent: &str, keys: &AgentKeys) -> Result<(), StoreError> {
    if let Some(instance) = &keys.instance {
        rewritable(&Key::Instance(agent.into()), &*instance.value)?;
    }
    if let Some(session) = &keys.session {
        rewritable(&Key::Session(agent.into()), &*session.value)?;
    }
    Ok(())
}

/// What is stored is what this call sent: its answer was lost, or it was sent twice.
fn own_write(
    keys: &AgentKeys,
    expected: Expected,
    instance: &stored::Instance,
    session: Option<(&stored::Session, i64)>,
) -> Option<Expected> {
    let stored_instance = keys.instance.as_ref()?;
    let at = stored_instance.mod_revision;
    let same_instance = at > expected.instance && codec::same(&*stored_instance.value, instance);
    let same_session = match (session, &keys.session) {
        (None, None) => true,
        (Some((session, lease)), Some(found)) => {
            found.mod_revision == at && keys.session_lease == lease && codec::same(&*found.value, session)
        }
        _ => false,
    };
    (same_instance && same_session).then(|| keys.expected())
}

fn limit_ask(what: &str, size: usize) -> Result<(), StoreError> {
    if size > MAX_ASK {
        return Err(StoreError::TooLarge {
            what: what.to_owned(),
            size,
            limit: MAX_ASK,
        });
    }
    Ok(())
}
