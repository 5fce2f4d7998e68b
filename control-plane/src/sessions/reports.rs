//! Which task states are written when: a change at once, a flapping task no oftener than every 5 s, and the last value
//! always. Pure.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use super::allowance::Allowance;
use crate::domain::{TaskId, Versioned, stored};

/// A task earns one write in so long.
const INTERVAL: Duration = Duration::from_secs(5);
/// Writes that a task may have saved up, so that STARTING, RUNNING and what follows are seen as they happen.
const SAVED: u32 = 3;

/// A state that an agent reported and that waits to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// What is to be stored.
    pub status: stored::Status,
    /// Names the report in its ack; None: the agent waits for none.
    pub sequence: Option<u64>,
}

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Stored; the status key's new mod_revision.
    Stored(i64),
    /// The right has ended.
    Fenced,
    /// Not now, or not known.
    Later,
}

/// Reports of one session, one entry a task.
#[derive(Debug, Default)]
pub struct Reports {
    tasks: BTreeMap<TaskId, Entry>,
}

#[derive(Debug)]
struct Entry {
    pending: Option<Report>,
    writing: Option<Report>,
    written: Option<Written>,
    writes: Allowance,
    /// When the last write was begun.
    wrote_at: Instant,
    not_before: Instant,
}

#[derive(Debug)]
struct Written {
    revision: i64,
    status: stored::Status,
}

impl Reports {
    /// Takes a report; it replaces one that waits.
    pub fn push(&mut self, id: TaskId, report: Report, now: Instant) {
        let entry = self.tasks.entry(id).or_insert_with(|| Entry {
            pending: None,
            writing: None,
            written: None,
            writes: Allowance::new(SAVED, INTERVAL, now),
            wrote_at: now,
            not_before: now,
        });
        if entry
            .written
            .as_ref()
            .is_some_and(|w| w.status.fence != report.status.fence)
        {
            entry.written = None;
            entry.writes = Allowance::new(SAVED, INTERVAL, now);
        }
        entry.pending = Some(report);
    }

    /// The reports that are due; they count as being written.
    pub fn due(&mut self, now: Instant, most: usize) -> Vec<(TaskId, Report)> {
        let mut due = Vec::new();
        for (id, entry) in &mut self.tasks {
            if due.len() >= most {
                break;
            }
            if entry.due_at(now).is_some_and(|at| at <= now)
                && let Some(report) = entry.pending.take()
            {
                if !is_urgent(&report) {
                    entry.writes.take(now);
                }
                entry.wrote_at = now;
                entry.writing = Some(report.clone());
                due.push((id.clone(), report));
            }
        }
        due
    }

    /// When the next report is due, if one waits.
    pub fn next_due(&self, now: Instant) -> Option<Instant> {
        self.tasks.values().filter_map(|e| e.due_at(now)).min()
    }

    /// Takes the outcome of a write.
    pub fn done(&mut self, id: &TaskId, outcome: Outcome, now: Instant) {
        let Some(entry) = self.tasks.get_mut(id) else {
            return;
        };
        let Some(report) = entry.writing.take() else {
            return;
        };
        match outcome {
            Outcome::Stored(revision) => {
                entry.written = Some(Written {
                    revision,
                    status: report.status,
                })
            }
            Outcome::Fenced => {
                if entry
                    .pending
                    .as_ref()
                    .is_none_or(|p| p.status.fence <= report.status.fence)
                {
                    self.tasks.remove(id);
                }
            }
            Outcome::Later => {
                entry.not_before = now + Duration::from_millis(500);
                if entry.pending.is_none() {
                    entry.pending = Some(report);
                }
            }
        }
    }

    /// What is stored for a task, as far as is known, with its mod_revision: what this session wrote itself, or what
    /// the mirror, which has seen everything up to `seen_up_to`, has of it.
    pub fn known<'a>(
        &'a self,
        id: &TaskId,
        mirrored: Option<&'a Versioned<stored::Status>>,
        seen_up_to: i64,
    ) -> (i64, Option<&'a stored::Status>) {
        match self.tasks.get(id).and_then(|e| e.written.as_ref()) {
            Some(own) if own.revision > seen_up_to => (own.revision, Some(&own.status)),
            _ => (
                mirrored.map_or(0, |m| m.mod_revision),
                mirrored.map(|m| m.value.as_ref()),
            ),
        }
    }

    /// A report of the task waits, or is being written.
    pub fn is_busy(&self, id: &TaskId) -> bool {
        self.tasks
            .get(id)
            .is_some_and(|e| e.pending.is_some() || e.writing.is_some())
    }

    /// Forgets tasks that are no longer the agent's.
    pub fn retain(&mut self, keep: impl Fn(&TaskId) -> bool) {
        self.tasks
            .retain(|id, e| e.pending.is_some() || e.writing.is_some() || keep(id));
    }
}

impl Entry {
    fn due_at(&self, now: Instant) -> Option<Instant> {
        let report = self.pending.as_ref()?;
        if self.writing.is_some() {
            return None;
        }
        let at = match (is_urgent(report), self.changes(report)) {
            (true, _) => now,
            (false, true) => self.writes.free_at(now),
            (false, false) => self.wrote_at + INTERVAL,
        };
        Some(at.max(self.not_before))
    }

    /// It is in another state than the one that is stored, not only with other details.
    fn changes(&self, report: &Report) -> bool {
        self.written
            .as_ref()
            .is_none_or(|w| w.status.state != report.status.state)
    }
}

/// Somebody waits for it: a confirmation or a refusal.
fn is_urgent(report: &Report) -> bool {
    report.status.want_revision != 0 || report.status.refusal.is_some()
}

#[cfg(test)]
mod tests {
    use gantry_proto::v1::task::State;

    use super::*;
    use crate::domain::Uid;

    fn id() -> TaskId {
        TaskId {
            uid: Uid("u".into()),
            n: 0,
        }
    }

    fn report(state: State, restarts: i32, want: i64) -> Report {
        let status = stored::Status {
            fence: 5,
            state: state as i32,
            restarts,
            want_revision: want,
            ..Default::default()
        };
        Report {
            status,
            sequence: Some(1),
        }
    }

    /// Writes what is due every 100 ms for `seconds` while the state flaps; counts the writes.
    fn flap(seconds: u64, want: i64) -> usize {
        let (mut reports, start) = (Reports::default(), Instant::now());
        let mut writes = 0;
        for tick in 0..seconds * 10 {
            let now = start + Duration::from_millis(tick * 100);
            let state = if tick % 2 == 0 {
                State::Running
            } else {
                State::BackingOff
            };
            reports.push(id(), report(state, 0, want), now);
            for (id, _) in reports.due(now, 10) {
                writes += 1;
                reports.done(&id, Outcome::Stored(writes as i64), now);
            }
        }
        writes
    }

    #[test]
    fn the_first_changes_are_written_at_once_and_flapping_is_bounded() {
        let writes = flap(60, 0);
        assert!((12..=15).contains(&writes), "{writes}");
    }

    #[test]
    fn confirmations_are_never_held_back() {
        assert_eq!(flap(10, 7), 100);
    }

    #[test]
    fn the_last_value_is_written_in_the_end() {
        let (mut reports, now) = (Reports::default(), Instant::now());
        for restarts in 0..9 {
            reports.push(id(), report(State::Running, restarts, 0), now);
            for (id, _) in reports.due(now, 10) {
                reports.done(&id, Outcome::Stored(1), now);
            }
        }
        let later = reports.next_due(now).unwrap();
        assert!(later > now && later <= now + INTERVAL);
        assert_eq!(reports.due(later, 10)[0].1.status.restarts, 8);
    }

    #[test]
    fn what_could_not_be_written_is_tried_again_unless_something_newer_waits() {
        let (mut reports, now) = (Reports::default(), Instant::now());
        reports.push(id(), report(State::Starting, 0, 0), now);
        assert_eq!(reports.due(now, 10).len(), 1);
        reports.done(&id(), Outcome::Later, now);
        assert!(reports.due(now, 10).is_empty());
        let later = reports.next_due(now).unwrap();
        assert_eq!(reports.due(later, 10).len(), 1);
        reports.push(id(), report(State::Running, 0, 0), later);
        reports.done(&id(), Outcome::Later, later);
        let again = reports.next_due(later).unwrap();
        assert_eq!(reports.due(again, 10)[0].1.status.state, State::Running as i32);
    }

    #[test]
    fn a_fenced_task_is_forgotten() {
        let (mut reports, now) = (Reports::default(), Instant::now());
        reports.push(id(), report(State::Running, 0, 0), now);
        reports.due(now, 10);
        reports.done(&id(), Outcome::Fenced, now);
        assert!(reports.tasks.is_empty());
    }
}
