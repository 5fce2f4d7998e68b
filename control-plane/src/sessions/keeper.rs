//! Keeps the session keys of this replica true: marks agents silent, takes open sessions to a new lease, lets go of
//! what others have taken over, and answers for sessions that no stream has.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use gantry_proto::error::{Reason, Refusal};
use tokio::time::{Instant, sleep_until};

use super::{
    Sessions,
    registry::{Attachment, Todo},
};
use crate::{
    domain::stored,
    store::{
        Change, Key, StoreError,
        sessions::{Expected, SessionWrite},
    },
};

/// Session keys that are written at a time.
const AT_ONCE: usize = 32;
/// Pause after a write that failed.
const RETRY: Duration = Duration::from_millis(500);

/// What the keeper writes: the state of an attachment when it was looked at.
struct Job {
    agent: Arc<str>,
    serial: u64,
    keys: Expected,
    instance: stored::Instance,
    session: stored::Session,
    lease: i64,
    rebind: bool,
}

/// Follows the mirror for all sessions of the replica.
pub(super) async fn follow(sessions: Sessions) {
    // The first listing is no change: it is read once it is there.
    sessions.mirror().ready().await;
    let mut feed = sessions.mirror().changes();
    sessions.fanout().reload();
    while let Some(change) = feed.next().await {
        sessions.fanout().apply(&change);
        match &change {
            Change::Keys { keys, .. } => {
                for key in keys.iter() {
                    if let Key::Session(agent) | Key::Instance(agent) = key {
                        compare(&sessions, agent);
                    }
                }
            }
            Change::Lagged => {
                for agent in sessions.registry().agents() {
                    compare(&sessions, &agent);
                }
            }
            Change::Replaced => {
                for agent in sessions.registry().agents() {
                    forget(&sessions, &agent, "the store was replaced");
                }
            }
        }
    }
}

/// Looks after attachments, for ever.
pub(super) async fn keep(sessions: Sessions) {
    let mut lease = sessions.lease().watch();
    let mut id = sessions.lease().id();
    loop {
        adopt_orphans(&sessions).await;
        let (jobs, next) = due(&sessions);
        if !jobs.is_empty() {
            futures::stream::iter(jobs)
                .for_each_concurrent(AT_ONCE, |job| carry_out(&sessions, job))
                .await;
            continue;
        }
        let next = next.min(Instant::now() + sessions.settings().heartbeat);
        tokio::select! {
            biased;
            changed = lease.wait_for(|state| state.id != id) => {
                match changed {
                    Ok(state) => id = state.id,
                    Err(_) => return,
                }
            }
            () = sleep_until(next) => {}
        }
    }
}

/// What is due now, and when the next thing is.
fn due(sessions: &Sessions) -> (Vec<Job>, Instant) {
    let now = Instant::now();
    let lease = sessions.lease().id();
    let mut next = now + Duration::from_secs(3600);
    let mut jobs = Vec::new();
    for agent in sessions.registry().agents() {
        let todo = sessions.registry().look(&agent, |a| {
            (a.serial, a.todo(lease, sessions.settings().lease, now))
        });
        let Some((serial, todo)) = todo else { continue };
        match (todo, lease) {
            (Todo::Wait(until), _) => next = next.min(until),
            (Todo::MarkSilent | Todo::Rebind, Some(lease)) => {
                let rebind = todo == Todo::Rebind;
                let job = sessions
                    .registry()
                    .with(&agent, serial, |a| job(&agent, a, lease, rebind));
                jobs.extend(job);
            }
            (Todo::Forget, _) | (_, None) => forget(sessions, &agent, "its lease has ended"),
        }
    }
    (jobs, next)
}

fn job(agent: &Arc<str>, a: &mut Attachment, lease: i64, rebind: bool) -> Job {
    a.writing = true;
    let mut session = a.session.clone();
    if !rebind {
        // Closed before it is written: nothing is answered once the leader may see it.
        if let Some(close) = a.close.take() {
            let _ = close.send(refusal("nothing was heard of the agent for a whole lease"));
        }
        session.silent = true;
    }
    Job {
        agent: agent.clone(),
        serial: a.serial,
        keys: a.keys,
        instance: a.instance.clone(),
        session,
        lease,
        rebind,
    }
}

async fn carry_out(sessions: &Sessions, job: Job) {
    let written = write(sessions, &job).await;
    let (registry, agent) = (sessions.registry(), &job.agent);
    match written {
        Ok(Some(keys)) => {
            registry.with(agent, job.serial, |a| {
                a.keys = keys;
                a.lease = job.lease;
                a.session = job.session;
                a.writing = false;
            });
            let what = if job.rebind {
                "moved to a new lease"
            } else {
                "marked silent"
            };
            tracing::info!(agent = &**agent, what, "session key written");
            compare(sessions, agent);
        }
        Ok(None) => registry.forget(agent, job.serial, || {
            refusal("another session of the agent was accepted")
        }),
        Err(error) => {
            tracing::warn!(agent = &**agent, %error, "the session key could not be written");
            if error == StoreError::LeaseGone {
                sessions.lease().check();
            }
            tokio::time::sleep(RETRY).await;
            registry.with(agent, job.serial, |a| a.writing = false);
        }
    }
}

/// None: the keys are no longer what this replica wrote.
async fn write(sessions: &Sessions, job: &Job) -> Result<Option<Expected>, StoreError> {
    let mut expected = job.keys;
    if job.rebind {
        let present = sessions.store().read_agent(&job.agent).await?.expected();
        if present.instance != job.keys.instance
            || (present.session != 0 && present.session != job.keys.session)
        {
            return Ok(None);
        }
        expected = present;
    }
    let written = sessions
        .store()
        .write_session(&job.agent, expected, &job.instance, &job.session, job.lease)
        .await?;
    Ok(match written {
        SessionWrite::Written(keys) => Some(keys),
        SessionWrite::Conflict(_) => None,
    })
}

/// Compares an attachment with what the mirror has: another writer of the agent's keys ends it.
fn compare(sessions: &Sessions, agent: &Arc<str>) {
    let instance = sessions
        .mirror()
        .read(|s| s.instances.get(agent).map_or(0, |i| i.mod_revision));
    let known = sessions
        .registry()
        .look(agent, |a| (a.serial, a.writing, a.keys.instance));
    if let Some((serial, false, written)) = known
        && instance > written
    {
        sessions.registry().forget(agent, serial, || {
            refusal("another session of the agent was accepted")
        });
    }
}

/// Sessions on this replica's lease that no stream of it has: their hellos were accepted, but the answers of the store were
/// lost. They would live as long as this replica; somebody has to say when they are silent.
async fn adopt_orphans(sessions: &Sessions) {
    let own = &sessions.settings().replica;
    let named: Vec<Arc<str>> = sessions.mirror().read(|s| {
        let live = s.sessions.iter().filter(|(_, s)| s.replica == *own && !s.silent);
        live.map(|(agent, _)| agent.clone()).collect()
    });
    let registry = sessions.registry();
    let orphans = named.into_iter().filter(|a| registry.look(a, |_| ()).is_none());
    futures::stream::iter(orphans)
        .for_each_concurrent(AT_ONCE, |agent| async move { adopt(sessions, &agent).await })
        .await;
}

/// Looks in the store itself: the mirror may show a session that has just ended.
async fn adopt(sessions: &Sessions, agent: &Arc<str>) {
    let Ok(present) = sessions.store().read_agent(agent).await else {
        return;
    };
    let (keys, lease) = (present.expected(), present.session_lease);
    let (Some(instance), Some(session)) = (present.instance, present.session) else {
        return;
    };
    if Some(lease) != sessions.lease().id() || session.silent {
        return;
    }
    let attachment = Attachment {
        serial: sessions.next_serial(),
        instance: (*instance.value).clone(),
        session: (*session.value).clone(),
        keys,
        lease,
        heard: Instant::now(),
        close: None,
        writing: false,
    };
    sessions.registry().attach_if_absent(agent, attachment);
}

fn forget(sessions: &Sessions, agent: &Arc<str>, why: &str) {
    if let Some(serial) = sessions.registry().look(agent, |a| a.serial) {
        sessions.registry().forget(agent, serial, || refusal(why));
    }
}

/// Ends a stream so that the agent dials again.
fn refusal(why: &str) -> Refusal {
    Refusal::new(
        Reason::ReplicaBehind,
        format!("the session has ended: {why}; dial again"),
    )
}
