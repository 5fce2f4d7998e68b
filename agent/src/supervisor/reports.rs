//! Statuses on their way to the control plane: the last one of each task, until it is stored.

use std::{collections::BTreeMap, time::Duration};

use gantry_proto::{
    agent::v1::{TaskStatus, TaskStatusAck},
    v1::task::State,
};
use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use crate::key::TaskKey;

/// A status without answer is sent again after so long.
const AGAIN: Duration = Duration::from_secs(3);
/// A confirmation is repeated after so long although it is stored.
const CONFIRM: Duration = Duration::from_secs(10);
/// Most statuses in one report.
const BATCH: usize = 200;

/// The statuses of all tasks. Memory is O(tasks).
#[derive(Default)]
pub(crate) struct Reports {
    entries: Mutex<Entries>,
    changed: Notify,
}

#[derive(Default)]
struct Entries {
    tasks: BTreeMap<TaskKey, Entry>,
    sequence: u64,
}

struct Entry {
    status: TaskStatus,
    stored: bool,
    sent: Option<Instant>,
}

impl Entry {
    fn due(&self) -> Option<Instant> {
        let confirms = matches!(self.status.state(), State::Paused | State::Stopped);
        match (self.sent, self.stored) {
            (None, _) => None,
            (Some(sent), false) => Some(sent + AGAIN),
            (Some(sent), true) if confirms => Some(sent + CONFIRM),
            (Some(sent), true) => Some(sent + Duration::from_secs(86_400 * 365)),
        }
    }
}

impl Reports {
    /// This is the task's status now.
    pub(crate) fn set(&self, key: &TaskKey, mut status: TaskStatus) {
        let mut entries = self.entries.lock();
        entries.sequence += 1;
        status.sequence = entries.sequence;
        entries.tasks.insert(
            key.clone(),
            Entry {
                status,
                stored: false,
                sent: None,
            },
        );
        self.changed.notify_one();
    }

    /// The task is not the agent's any more.
    pub(crate) fn remove(&self, key: &TaskKey) {
        self.entries.lock().tasks.remove(key);
    }

    /// The task's status as it was last set.
    pub(crate) fn get(&self, key: &TaskKey) -> Option<TaskStatus> {
        self.entries.lock().tasks.get(key).map(|e| e.status.clone())
    }

    /// A new session knows nothing of what was sent before.
    pub(crate) fn send_all_again(&self) {
        for entry in self.entries.lock().tasks.values_mut() {
            (entry.sent, entry.stored) = (None, false);
        }
        self.changed.notify_one();
    }

    /// What has to be sent now; it counts as sent.
    pub(crate) fn take_due(&self, now: Instant) -> Vec<TaskStatus> {
        let mut entries = self.entries.lock();
        let due = entries
            .tasks
            .values_mut()
            .filter(|e| e.due().is_none_or(|due| due <= now))
            .take(BATCH);
        let take = |e: &mut Entry| {
            e.sent = Some(now);
            e.status.clone()
        };
        due.map(take).collect()
    }

    /// Waits until something changes or is due.
    pub(crate) async fn wait(&self) {
        let due = {
            let entries = self.entries.lock();
            if entries.tasks.values().any(|e| e.sent.is_none()) {
                return;
            }
            entries.tasks.values().filter_map(Entry::due).min()
        };
        match due {
            Some(due) => {
                // Either is a reason to look again.
                let _ = tokio::time::timeout_at(due, self.changed.notified()).await;
            }
            None => self.changed.notified().await,
        }
    }

    /// Takes an answer. True: the right to the task has ended.
    pub(crate) fn acknowledged(&self, ack: &TaskStatusAck) -> bool {
        let Some(task) = &ack.task else { return false };
        let mut entries = self.entries.lock();
        let Some(entry) = entries.tasks.get_mut(&TaskKey::from(task)) else {
            return false;
        };
        if entry.status.sequence == ack.sequence && ack.stored {
            entry.stored = true;
        }
        ack.fenced && entry.status.fence == ack.fence
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(state: State) -> TaskStatus {
        TaskStatus {
            connector_uid: "c".into(),
            state: state as i32,
            fence: 3,
            ..Default::default()
        }
    }

    fn ack(sequence: u64, stored: bool, fenced: bool) -> TaskStatusAck {
        TaskStatusAck {
            task: Some(TaskKey::new("c", 0).to_ref()),
            fence: 3,
            sequence,
            stored,
            fenced,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_status_is_sent_until_it_is_stored_and_confirmations_for_ever() {
        let (reports, key, now) = (Reports::default(), TaskKey::new("c", 0), Instant::now());
        reports.set(&key, status(State::Starting));
        reports.set(&key, status(State::Running));
        let sent = reports.take_due(now);
        assert_eq!(
            (sent.len(), sent[0].state(), sent[0].sequence),
            (1, State::Running, 2)
        );
        assert!(reports.take_due(now).is_empty());
        assert!(
            !reports.acknowledged(&ack(1, true, false)),
            "an answer to an older one"
        );
        assert_eq!(reports.take_due(now + AGAIN).len(), 1);
        reports.acknowledged(&ack(2, true, false));
        assert!(reports.take_due(now + CONFIRM * 2).is_empty());
        reports.set(&key, status(State::Stopped));
        assert_eq!(reports.take_due(now).len(), 1);
        reports.acknowledged(&ack(3, true, false));
        assert_eq!(reports.take_due(now + CONFIRM).len(), 1);
        assert!(reports.acknowledged(&ack(3, false, true)));
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_ends_when_something_is_due() {
        let (reports, key) = (Reports::default(), TaskKey::new("c", 0));
        reports.set(&key, status(State::Running));
        reports.wait().await;
        reports.take_due(Instant::now());
        let before = Instant::now();
        // It has not been acknowledged.
        loop {
            reports.wait().await;
            if !reports.take_due(Instant::now()).is_empty() {
                break;
            }
        }
        assert!(before.elapsed() >= AGAIN, "{:?}", before.elapsed());
        reports.send_all_again();
        reports.wait().await;
        assert_eq!(reports.take_due(Instant::now()).len(), 1);
    }
}
