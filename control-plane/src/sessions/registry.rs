//! The sessions of this replica as it wrote them, whether their streams are open or not: a broken stream means nothing
//! yet.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use gantry_proto::error::Refusal;
use parking_lot::Mutex;
use tokio::{sync::oneshot, time::Instant};

use crate::{
    domain::stored,
    store::{Lease, sessions::Expected},
};

/// What this replica wrote for an agent, and when it last heard it.
#[derive(Debug)]
pub struct Attachment {
    /// Tells the streams of an agent apart.
    pub serial: u64,
    /// instances/{agent} as written.
    pub instance: stored::Instance,
    /// sessions/{agent} as written.
    pub session: stored::Session,
    /// Their mod_revisions.
    pub keys: Expected,
    /// Lease that the session key is known to hang on.
    pub lease: i64,
    /// When the agent was last heard.
    pub heard: Instant,
    /// Closes the stream. None: it is closed, nothing is answered any more.
    pub close: Option<oneshot::Sender<Refusal>>,
    /// The keys are being written by the keeper.
    pub writing: bool,
}

/// What has to be done about an attachment now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Todo {
    /// Nothing before then.
    Wait(Instant),
    /// Its key went with another lease, and nobody is there.
    Forget,
    /// Nothing was heard for one whole lease: the instance is surely gone.
    MarkSilent,
    /// Its key hung on an earlier lease and is written anew.
    Rebind,
}

impl Attachment {
    /// What has to be done now. `lease`: the replica's present one.
    pub fn todo(&self, lease: Option<i64>, length: Duration, now: Instant) -> Todo {
        let never = now + Duration::from_secs(3600);
        if self.writing {
            return Todo::Wait(never);
        }
        let Some(lease) = lease else {
            return Todo::Wait(never);
        };
        let bound = lease == self.lease;
        let silent_at = self.heard + length;
        match (bound, self.close.is_some(), self.session.silent) {
            (true, _, true) => Todo::Wait(never),
            (true, _, false) if now >= silent_at => Todo::MarkSilent,
            (true, _, false) => Todo::Wait(silent_at),
            (false, true, false) if now < silent_at => Todo::Rebind,
            (false, _, _) => Todo::Forget,
        }
    }
}

/// Attachments by agent.
#[derive(Default)]
pub struct Registry {
    agents: Mutex<BTreeMap<Arc<str>, Attachment>>,
}

impl Registry {
    /// Takes a session that was accepted; an earlier one of the agent is closed. False: a later one is there already.
    pub fn attach(&self, agent: &str, attachment: Attachment, superseded: impl FnOnce() -> Refusal) -> bool {
        let mut agents = self.agents.lock();
        if let Some(present) = agents.get_mut(agent) {
            if present.keys.session > attachment.keys.session {
                return false;
            }
            if let Some(close) = present.close.take() {
                let _ = close.send(superseded());
            }
        }
        agents.insert(agent.into(), attachment);
        true
    }

    /// Takes a session that was found, unless there is one.
    pub fn attach_if_absent(&self, agent: &str, attachment: Attachment) {
        self.agents.lock().entry(agent.into()).or_insert(attachment);
    }

    /// The stream has ended.
    pub fn detach(&self, agent: &str, serial: u64) {
        self.with(agent, serial, |a| a.close = None);
    }

    /// Something was heard on an open stream.
    pub fn heard(&self, agent: &str, serial: u64, now: Instant) {
        self.with(agent, serial, |a| {
            if a.close.is_some() {
                a.heard = now;
            }
        });
    }

    /// A heartbeat may be answered: the stream is open, the session key hangs on the replica's present lease, and that
    /// is fresh.
    pub fn may_answer(&self, agent: &str, serial: u64, lease: &Lease) -> bool {
        lease.is_fresh()
            && self
                .with(agent, serial, |a| {
                    a.close.is_some() && Some(a.lease) == lease.id()
                })
                .unwrap_or(false)
    }

    /// Open streams.
    pub fn open(&self) -> usize {
        self.agents.lock().values().filter(|a| a.close.is_some()).count()
    }

    /// Agents that have an attachment.
    pub fn agents(&self) -> Vec<Arc<str>> {
        self.agents.lock().keys().cloned().collect()
    }

    /// Looks at an agent's attachment, whichever stream it belongs to.
    pub fn look<T>(&self, agent: &str, look: impl FnOnce(&mut Attachment) -> T) -> Option<T> {
        self.agents.lock().get_mut(agent).map(look)
    }

    /// Looks at an agent's attachment while it belongs to this stream.
    pub fn with<T>(&self, agent: &str, serial: u64, look: impl FnOnce(&mut Attachment) -> T) -> Option<T> {
        self.look(agent, |a| (a.serial == serial).then(|| look(a)))
            .flatten()
    }

    /// Forgets an agent's attachment if it still is this one; its stream is closed.
    pub fn forget(&self, agent: &str, serial: u64, why: impl FnOnce() -> Refusal) {
        let mut agents = self.agents.lock();
        if agents.get(agent).is_some_and(|a| a.serial == serial)
            && let Some(close) = agents.remove(agent).and_then(|a| a.close)
        {
            let _ = close.send(why());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: Duration = Duration::from_secs(9);

    fn attachment(lease: i64, heard: Instant) -> (Attachment, oneshot::Receiver<Refusal>) {
        let (close, closed) = oneshot::channel();
        let attachment = Attachment {
            serial: 1,
            instance: stored::Instance::default(),
            session: stored::Session::default(),
            keys: Expected::default(),
            lease,
            heard,
            close: Some(close),
            writing: false,
        };
        (attachment, closed)
    }

    #[test]
    fn silence_of_a_whole_lease_is_written_not_a_moment_earlier() {
        let now = Instant::now();
        let (mut a, _closed) = attachment(7, now);
        assert_eq!(
            a.todo(Some(7), LENGTH, now + LENGTH - Duration::from_millis(1)),
            Todo::Wait(now + LENGTH)
        );
        assert_eq!(a.todo(Some(7), LENGTH, now + LENGTH), Todo::MarkSilent);
        a.close = None;
        assert_eq!(
            a.todo(Some(7), LENGTH, now + LENGTH),
            Todo::MarkSilent,
            "a broken stream means nothing yet"
        );
    }

    #[test]
    fn a_new_lease_takes_over_open_sessions_only() {
        let now = Instant::now();
        let (mut a, _closed) = attachment(7, now);
        assert!(matches!(a.todo(None, LENGTH, now), Todo::Wait(_)));
        assert_eq!(a.todo(Some(8), LENGTH, now), Todo::Rebind);
        assert_eq!(a.todo(Some(8), LENGTH, now + LENGTH), Todo::Forget);
        a.close = None;
        assert_eq!(a.todo(Some(8), LENGTH, now), Todo::Forget);
    }
}
