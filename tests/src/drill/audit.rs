//! What must hold of the whole history of the store, whatever happened meanwhile. Pure.

use std::collections::{BTreeMap, BTreeSet};

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use gantry_control_plane::domain::{TaskId, Uid, stored};
use gantry_control_plane::store::Key;
use gantry_proto::agent::v1::LockIdentity;
use gantry_proto::v1::task::State;
use gantry_proto::v1::value::Kind;
use tokio::time::Instant;

use super::history::Change;

/// What the harness sees of the store may come so much later at one time than at another.
const SLACK: Duration = Duration::from_secs(1);

/// What was counted on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Audited {
    /// Commits of offsets, each partition of each one.
    pub commits: u64,
    /// Rights to commit that were given.
    pub grants: u64,
}

/// Checks that committed offsets never went back, that each commit was made while somebody had the right to it, that no
/// two plans of a connector were granted at once, and that no right was ended before its holder had confirmed or was surely gone.
/// `lease` is the agents'.
pub fn audit(changes: &[Change], lease: Duration) -> Result<Audited> {
    let mut auditor = Auditor {
        lease,
        ..Default::default()
    };
    // The writes of one transaction have one revision: what it ends and what it gives are judged together.
    for transaction in changes.chunk_by(|a, b| a.revision == b.revision) {
        let revision = transaction[0].revision;
        auditor
            .transaction(transaction)
            .with_context(|| format!("at revision {revision} of the store"))?;
    }
    Ok(auditor.audited)
}

#[derive(Default)]
struct Auditor {
    lease: Duration,
    /// With their revisions: the fences.
    grants: BTreeMap<TaskId, (i64, stored::Grant)>,
    statuses: BTreeMap<TaskId, stored::Status>,
    sessions: BTreeMap<String, stored::Session>,
    instances: BTreeMap<String, Instance>,
    positions: BTreeMap<Key, u64>,
    audited: Audited,
}

/// A process of an agent.
#[derive(Default)]
struct Instance {
    lock: Option<LockIdentity>,
    start: u64,
    /// Since when no session has named it; None: one does, or it cannot be told because the harness was cut off from the store itself.
    absent_since: Option<Instant>,
    unsure: bool,
    /// Another one has started under its lock since.
    replaced: bool,
}

impl Auditor {
    fn transaction(&mut self, changes: &[Change]) -> Result<()> {
        let mut given = BTreeSet::new();
        for change in changes {
            match &change.key {
                Key::Session(agent) => self.session(agent, change)?,
                Key::Instance(_) => self.instance(change)?,
                Key::Status(id) => match change.decoded()? {
                    Some(status) => drop(self.statuses.insert(id.clone(), status)),
                    None => drop(self.statuses.remove(id)),
                },
                _ => {}
            }
        }
        for change in changes {
            match &change.key {
                Key::Grant(id) => {
                    if let Some((fence, before)) = self.grants.remove(id) {
                        self.may_end(id, fence, &before, change.at)?;
                    }
                    if let Some(grant) = change.decoded::<stored::Grant>()? {
                        given.insert(id.uid.clone());
                        self.audited.grants += 1;
                        self.grants.insert(id.clone(), (change.revision, grant));
                    }
                }
                Key::Offset(uid, _, _) => {
                    // Those of a connector that is deleted go with it.
                    if let Some(record) = change.decoded::<stored::OffsetRecord>()? {
                        self.commit(uid, &change.key, &record)?;
                    }
                }
                _ => {}
            }
        }
        for uid in given {
            self.one_plan(&uid)?;
        }
        Ok(())
    }

    fn commit(&mut self, uid: &Uid, key: &Key, record: &stored::OffsetRecord) -> Result<()> {
        self.audited.commits += 1;
        ensure!(
            self.grants.keys().any(|id| id.uid == *uid),
            "offsets of {uid} were committed while nobody had the right to: {record:?}"
        );
        let Some(position) = position(record) else {
            return Ok(());
        };
        if let Some(before) = self.positions.get(key).filter(|before| **before > position) {
            bail!("the committed position went back from {before} to {position}: {record:?}");
        }
        self.positions.insert(key.clone(), position);
        Ok(())
    }

    fn session(&mut self, agent: &str, change: &Change) -> Result<()> {
        let now = change.decoded::<stored::Session>()?;
        let before = match &now {
            Some(now) => self.sessions.insert(agent.to_owned(), now.clone()),
            None => self.sessions.remove(agent),
        };
        if let Some(before) = before
            && now
                .as_ref()
                .is_none_or(|now| now.instance_uid != before.instance_uid)
        {
            let instance = self.instances.entry(before.instance_uid).or_default();
            (instance.absent_since, instance.unsure) = (Some(change.at), change.late);
        }
        let Some(now) = now else { return Ok(()) };
        for gone in &now.gone {
            self.instances.entry(gone.clone()).or_default().replaced = true;
        }
        let instance = self.instances.entry(now.instance_uid).or_default();
        (instance.absent_since, instance.unsure) = (None, false);
        Ok(())
    }

    fn instance(&mut self, change: &Change) -> Result<()> {
        let Some(now) = change.decoded::<stored::Instance>()? else {
            return Ok(());
        };
        for (uid, before) in &mut self.instances {
            if *uid != now.instance_uid && before.lock == now.lock && before.start < now.start_counter {
                before.replaced = true;
            }
        }
        let instance = self.instances.entry(now.instance_uid).or_default();
        (instance.lock, instance.start) = (now.lock, now.start_counter);
        Ok(())
    }

    /// The right with this fence was ended or given to somebody: its holder had confirmed, or could not run any more.
    fn may_end(&self, id: &TaskId, fence: i64, grant: &stored::Grant, at: Instant) -> Result<()> {
        let confirmed = self.statuses.get(id).is_some_and(|status| {
            let ended = matches!(status.state(), State::Stopped | State::Failed | State::Paused);
            status.fence == fence && (ended || status.refusal.is_some())
        });
        let session = self.sessions.get(&grant.agent);
        let silent = session.is_some_and(|s| s.silent && s.instance_uid == grant.instance_uid);
        let instance = self.instances.get(&grant.instance_uid);
        let replaced = instance.is_some_and(|instance| instance.replaced);
        let unsure = instance.is_none_or(|instance| instance.unsure);
        let absent = instance.and_then(|instance| instance.absent_since);
        let absent = absent.map(|since| at.saturating_duration_since(since));
        ensure!(
            confirmed || silent || replaced || absent.is_some_and(|a| unsure || a + SLACK >= self.lease),
            "the right to {id} (fence {fence}) of {} was ended although it had not confirmed (it said {:?}), and no session \
             has named it for {absent:?} of {:?}",
            grant.agent,
            self.statuses.get(id).map(|status| (status.state(), status.fence)),
            self.lease
        );
        Ok(())
    }

    fn one_plan(&self, uid: &Uid) -> Result<()> {
        let own = self.grants.iter().filter(|(id, _)| id.uid == *uid);
        let plans: BTreeSet<i64> = own.map(|(_, (_, grant))| grant.plan_generation).collect();
        ensure!(
            plans.len() <= 1,
            "tasks of the plans {plans:?} of {uid} were granted at once"
        );
        Ok(())
    }
}

/// The number in a position that only grows: a file-source's byte, a sink's offset, a destructive-source's file.
pub fn position(record: &stored::OffsetRecord) -> Option<u64> {
    let number = |name: &str| match record.position.get(name)?.kind.as_ref()? {
        Kind::Uint64Value(number) => Some(*number),
        Kind::Int64Value(number) => u64::try_from(*number).ok(),
        _ => None,
    };
    ["byte", "offset", "file"].into_iter().find_map(number)
}

/// The text in a partition that says which it is: a file-source's path, a destructive-source's directory.
pub fn place(record: &stored::OffsetRecord) -> Option<&str> {
    let text = |name: &str| match record.partition.get(name)?.kind.as_ref()? {
        Kind::StringValue(text) => Some(text.as_str()),
        _ => None,
    };
    ["path", "directory"].into_iter().find_map(text)
}

#[cfg(test)]
mod tests {
    use gantry_control_plane::store::codec::encode;
    use gantry_proto::v1::Value;

    use super::*;

    const LEASE: Duration = Duration::from_secs(9);

    /// A history in which a second passes between two revisions.
    struct Story {
        begin: Instant,
        changes: Vec<Change>,
    }

    impl Story {
        fn new() -> Self {
            Self {
                begin: Instant::now(),
                changes: Vec::new(),
            }
        }

        fn change(mut self, revision: i64, key: Key, value: Option<Vec<u8>>) -> Self {
            self.changes.push(Change {
                revision,
                at: self.begin + Duration::from_secs(revision as u64),
                late: false,
                key,
                value,
            });
            self
        }

        fn grant(self, revision: i64, n: u32, plan_generation: i64) -> Self {
            let grant = stored::Grant {
                agent: "a".into(),
                instance_uid: "one".into(),
                plan_generation,
                ..Default::default()
            };
            self.change(revision, Key::Grant(task(n)), Some(encode(&grant)))
        }

        fn end(self, revision: i64, n: u32) -> Self {
            self.change(revision, Key::Grant(task(n)), None)
        }

        fn stopped(self, revision: i64, n: u32, fence: i64) -> Self {
            let mut status = stored::Status {
                fence,
                ..Default::default()
            };
            status.set_state(State::Stopped);
            self.change(revision, Key::Status(task(n)), Some(encode(&status)))
        }

        fn session(self, revision: i64, instance: Option<&str>, silent: bool) -> Self {
            let session = instance.map(|instance| {
                encode(&stored::Session {
                    instance_uid: instance.into(),
                    silent,
                    ..Default::default()
                })
            });
            self.change(revision, Key::Session("a".into()), session)
        }

        fn commit(self, revision: i64, epoch: i64, byte: u64) -> Self {
            let value = Value {
                kind: Some(Kind::Uint64Value(byte)),
            };
            let record = stored::OffsetRecord {
                position: [("byte".to_owned(), value)].into(),
                ..Default::default()
            };
            let key = Key::Offset(Uid("u".into()), epoch, "p".into());
            self.change(revision, key, Some(encode(&record)))
        }

        fn audit(&self) -> Result<Audited> {
            audit(&self.changes, LEASE)
        }
    }

    fn task(n: u32) -> TaskId {
        TaskId {
            uid: Uid("u".into()),
            n,
        }
    }

    #[test]
    fn a_good_history_passes_and_is_counted() {
        let story = Story::new().grant(1, 0, 1).commit(2, 0, 5).commit(3, 0, 5);
        // An alteration begins another epoch, and one transaction ends a right and gives the next.
        let story = story
            .commit(4, 0, 9)
            .commit(5, 1, 2)
            .stopped(6, 0, 1)
            .grant(7, 0, 2);
        let audited = story.audit().unwrap();
        assert_eq!((audited.commits, audited.grants), (4, 2));
    }

    #[test]
    fn an_offset_that_goes_back_is_found() {
        let error = Story::new()
            .grant(1, 0, 1)
            .commit(2, 0, 5)
            .commit(3, 0, 4)
            .audit();
        let error = format!("{:#}", error.unwrap_err());
        assert!(error.contains("went back from 5 to 4"), "{error}");
    }

    #[test]
    fn a_commit_without_a_right_is_found() {
        let ended = Story::new().grant(1, 0, 1).stopped(2, 0, 1).end(3, 0);
        ended.audit().unwrap();
        assert!(ended.commit(4, 0, 5).audit().is_err());
        assert!(Story::new().commit(1, 0, 5).audit().is_err());
    }

    #[test]
    fn two_plans_at_once_are_found() {
        let two = || Story::new().grant(1, 0, 1).grant(2, 1, 2);
        assert!(two().audit().is_err());
        assert!(two().stopped(2, 0, 1).end(3, 0).audit().is_err());
        two().stopped(2, 0, 1).end(2, 0).audit().unwrap();
    }

    #[test]
    fn a_right_that_is_taken_from_one_who_may_still_run_is_found() {
        let held = || Story::new().session(1, Some("one"), false).grant(2, 0, 1);
        assert!(held().end(3, 0).audit().is_err());
        assert!(held().grant(3, 0, 1).audit().is_err());
        // A confirmation of an earlier right is none of this one.
        assert!(held().stopped(3, 0, 1).end(4, 0).audit().is_err());
        held().stopped(3, 0, 2).end(4, 0).audit().unwrap();

        held().session(12, Some("one"), true).end(13, 0).audit().unwrap();
        assert!(held().session(12, Some("two"), true).end(13, 0).audit().is_err());

        let absent = || held().session(3, None, false);
        assert!(absent().end(8, 0).audit().is_err());
        absent().end(12, 0).audit().unwrap();
        let back = absent().session(10, Some("one"), false).session(11, None, false);
        assert!(back.end(13, 0).audit().is_err());
    }

    #[test]
    fn a_start_under_the_same_lock_proves_the_one_before_gone() {
        let started = |instance: &str, boot: &str, start_counter| {
            Some(encode(&stored::Instance {
                instance_uid: instance.into(),
                lock: Some(LockIdentity {
                    boot_id: boot.into(),
                    ..Default::default()
                }),
                start_counter,
                ..Default::default()
            }))
        };
        let key = || Key::Instance("a".into());
        let held = || {
            let first = Story::new().change(1, key(), started("one", "b", 1));
            first.session(1, Some("one"), false).grant(2, 0, 1)
        };
        let second = |boot| {
            held()
                .change(3, key(), started("two", boot, 2))
                .session(3, Some("two"), false)
        };
        second("b").end(4, 0).audit().unwrap();
        assert!(second("another").end(4, 0).audit().is_err());
    }
}
