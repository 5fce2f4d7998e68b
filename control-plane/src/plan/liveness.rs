use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use gantry_proto::agent::v1::LockIdentity;

use super::Facts;
use crate::domain::Snapshot;

/// For how long no session has named the holders of grants, on the leader's own clock.
///
/// Made new at an election. `now_ms` everywhere: a clock that never goes back and counts suspension (CLOCK_BOOTTIME).
///
/// A snapshot shows what is, not what was in between: a session may have come and gone unseen. Every session write is
/// also a write of `instances/{agent}`, so a change of that key starts the waits of all instances of that agent anew.
#[derive(Debug, Clone, Default)]
pub struct Absence {
    /// By instance uid: since when no session has named it.
    since: BTreeMap<Arc<str>, Wait>,
    /// By agent: mod_revision of `instances/{agent}` when it was last looked at.
    written: BTreeMap<Arc<str>, i64>,
    /// Instances that were seen, with the lock under which they run and their start counter.
    starts: BTreeMap<Arc<str>, (LockIdentity, u64)>,
    replaced: BTreeSet<Arc<str>>,
}

#[derive(Debug, Clone)]
struct Wait {
    agent: Arc<str>,
    since_ms: u64,
}

impl Absence {
    /// Nothing seen yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Looks at a snapshot that was read or watched up to its revision. All waits start anew after a call with
    /// `connected` false: sessions may have come and gone unseen.
    pub fn observe(&mut self, snapshot: &Snapshot, now_ms: u64, connected: bool) {
        if !connected {
            self.since.clear();
            self.written.clear();
            return;
        }
        self.restart_what_was_written(snapshot, now_ms);
        let mut held = BTreeSet::new();
        for grant in snapshot.grants.values() {
            let (agent, uid) = (grant.value.agent.as_str(), grant.value.instance_uid.as_str());
            if !held.insert(uid) {
                continue;
            }
            if snapshot
                .sessions
                .get(agent)
                .is_some_and(|s| s.instance_uid == uid)
            {
                self.since.remove(uid);
            } else if !self.since.contains_key(uid) {
                self.since.insert(
                    uid.into(),
                    Wait {
                        agent: agent.into(),
                        since_ms: now_ms,
                    },
                );
            }
        }
        self.since.retain(|uid, _| held.contains(&**uid));
        self.note_starts(snapshot, &held);
    }

    fn restart_what_was_written(&mut self, snapshot: &Snapshot, now_ms: u64) {
        let Self { since, written, .. } = self;
        for wait in since.values_mut() {
            let revision = snapshot.instances.get(&wait.agent).map_or(0, |i| i.mod_revision);
            if written.get(&wait.agent).is_some_and(|before| *before != revision) {
                wait.since_ms = now_ms;
            }
        }
        *written = snapshot
            .instances
            .iter()
            .map(|(agent, i)| (agent.clone(), i.mod_revision))
            .collect();
    }

    fn note_starts(&mut self, snapshot: &Snapshot, held: &BTreeSet<&str>) {
        for instance in snapshot.instances.values() {
            let Some(lock) = instance.lock.as_ref().filter(|l| !l.boot_id.is_empty()) else {
                continue;
            };
            for (uid, (known, start)) in &self.starts {
                if known == lock && instance.start_counter > *start && **uid != *instance.instance_uid {
                    self.replaced.insert(uid.clone());
                }
            }
            self.starts.insert(
                instance.instance_uid.as_str().into(),
                (lock.clone(), instance.start_counter),
            );
        }
        let present: BTreeSet<_> = snapshot
            .instances
            .values()
            .map(|i| i.value.instance_uid.as_str())
            .collect();
        let of_use = |uid: &Arc<str>| held.contains(&**uid) || present.contains(&**uid);
        self.starts.retain(|uid, _| of_use(uid));
        self.replaced.retain(of_use);
    }

    /// A session event named this instance: its wait starts anew. For events that one snapshot no longer shows.
    pub fn named(&mut self, instance_uid: &str, now_ms: u64) {
        if let Some(wait) = self.since.get_mut(instance_uid) {
            wait.since_ms = now_ms;
        }
    }

    /// Writes what was measured into `facts`: `absent_ms` and `replaced`.
    pub fn fill(&self, facts: &mut Facts, now_ms: u64) {
        let absent = |(uid, wait): (&Arc<str>, &Wait)| (uid.clone(), now_ms.saturating_sub(wait.since_ms));
        facts.absent_ms = self.since.iter().map(absent).collect();
        facts.replaced.clone_from(&self.replaced);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{TaskId, Uid, Versioned, stored};

    fn versioned<T>(mod_revision: i64, value: T) -> Versioned<T> {
        Versioned {
            mod_revision,
            create_revision: mod_revision,
            value: Arc::new(value),
        }
    }

    fn held_by(instance: &str) -> Snapshot {
        let mut snapshot = Snapshot::default();
        let grant = stored::Grant {
            agent: "a".into(),
            instance_uid: instance.into(),
            ..Default::default()
        };
        snapshot.grants.insert(
            TaskId {
                uid: Uid("u".into()),
                n: 0,
            },
            versioned(1, grant),
        );
        snapshot
    }

    fn accept(snapshot: &mut Snapshot, revision: i64, instance: &str, boot: &str, start: u64) {
        let lock = Some(LockIdentity {
            boot_id: boot.into(),
            device: 1,
            inode: 2,
        });
        let value = stored::Instance {
            instance_uid: instance.into(),
            lock,
            start_counter: start,
            ..Default::default()
        };
        snapshot.instances.insert("a".into(), versioned(revision, value));
        let session = stored::Session {
            instance_uid: instance.into(),
            ..Default::default()
        };
        snapshot.sessions.insert("a".into(), versioned(revision, session));
    }

    fn absent(absence: &Absence, now_ms: u64) -> Option<u64> {
        let mut facts = Facts::default();
        absence.fill(&mut facts, now_ms);
        facts.absent_ms.get("a1").copied()
    }

    #[test]
    fn a_wait_begins_when_this_leader_sees_no_session() {
        let mut absence = Absence::new();
        let mut snapshot = held_by("a1");
        accept(&mut snapshot, 5, "a1", "boot", 1);
        absence.observe(&snapshot, 1_000, true);
        assert_eq!(absent(&absence, 50_000), None);
        snapshot.sessions.clear();
        absence.observe(&snapshot, 60_000, true);
        absence.observe(&snapshot, 65_000, true);
        assert_eq!(absent(&absence, 69_000), Some(9_000));
    }

    #[test]
    fn a_session_in_between_starts_it_anew() {
        let mut absence = Absence::new();
        let mut snapshot = held_by("a1");
        absence.observe(&snapshot, 0, true);
        absence.named("a1", 4_000);
        assert_eq!(absent(&absence, 5_000), Some(1_000));
        // It came and went between two snapshots: only `instances/a` shows it.
        accept(&mut snapshot, 7, "a1", "boot", 1);
        snapshot.sessions.clear();
        absence.observe(&snapshot, 5_000, true);
        absence.observe(&snapshot, 6_000, true);
        accept(&mut snapshot, 9, "a1", "boot", 1);
        snapshot.sessions.clear();
        absence.observe(&snapshot, 8_000, true);
        assert_eq!(absent(&absence, 8_500), Some(500));
    }

    #[test]
    fn a_cut_starts_all_waits_anew() {
        let mut absence = Absence::new();
        let snapshot = held_by("a1");
        absence.observe(&snapshot, 0, true);
        absence.observe(&snapshot, 8_000, false);
        assert_eq!(absent(&absence, 9_500), None);
        absence.observe(&snapshot, 20_000, true);
        assert_eq!(absent(&absence, 21_000), Some(1_000));
    }

    #[test]
    fn a_later_start_under_the_same_lock_proves_the_end() {
        let mut absence = Absence::new();
        let mut snapshot = held_by("a1");
        accept(&mut snapshot, 5, "a1", "boot", 1);
        absence.observe(&snapshot, 0, true);
        accept(&mut snapshot, 6, "a2", "boot", 2);
        absence.observe(&snapshot, 1_000, true);
        let mut facts = Facts::default();
        absence.fill(&mut facts, 1_000);
        assert!(facts.replaced.contains("a1"));

        let mut absence = Absence::new();
        let mut snapshot = held_by("a1");
        accept(&mut snapshot, 5, "a1", "boot", 1);
        absence.observe(&snapshot, 0, true);
        accept(&mut snapshot, 6, "a2", "another boot", 2);
        absence.observe(&snapshot, 1_000, true);
        absence.fill(&mut facts, 1_000);
        assert!(
            facts.replaced.is_empty(),
            "another instance under the same name proves nothing"
        );
        assert_eq!(absent(&absence, 1_000), Some(0));
    }
}
