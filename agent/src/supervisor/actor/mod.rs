//! The supervisor itself: takes one message after another.

mod runs;

use std::{
    collections::{BTreeMap, HashMap},
    panic::AssertUnwindSafe,
    sync::Arc,
    time::Duration,
};

use futures::FutureExt;
use gantry_bus::Endpoint;
use gantry_proto::agent::v1::{RunningTask, StoppedTask};
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    task::JoinSet,
    time::{Instant, sleep},
};
use tracing::Instrument;

use super::{
    Msg, Shared, Wanted,
    admit::Admitted,
    slot::{Running, Slot},
    state::{Action, Ended, Event, Phase},
};
use crate::{
    desired::{self, Command, Terms, Wish},
    key::TaskKey,
    problem::{Cause, Failure},
    task::{self, Control, Events, How, Leaked, RunContext, RunEnd, RunEvent, thread::panic_text},
    trace, wire,
};

type Ending = (TaskKey, u64, RunEnd);

pub(super) struct Actor {
    shared: Shared,
    me: mpsc::WeakSender<Msg>,
    slots: BTreeMap<TaskKey, Slot>,
    runs: JoinSet<Ending>,
    events_in: mpsc::Sender<(TaskKey, u64, RunEvent)>,
    events: mpsc::Receiver<(TaskKey, u64, RunEvent)>,
    starts: Arc<Semaphore>,
    next_run: u64,
    /// This session's full set is not known: nothing is started.
    holds: watch::Sender<bool>,
    /// Everything is drained for good.
    closing: bool,
    /// Highest fence that was found to have ended, by task.
    fenced: HashMap<TaskKey, i64>,
    leaked: usize,
    waiters: Vec<oneshot::Sender<()>>,
}

impl Actor {
    pub(super) fn new(shared: Shared, me: mpsc::WeakSender<Msg>, holds: watch::Sender<bool>) -> Self {
        let (events_in, events) = mpsc::channel(256);
        let starts = Arc::new(Semaphore::new(shared.limits.parallel_starts.max(1)));
        Self {
            shared,
            me,
            slots: BTreeMap::new(),
            runs: JoinSet::new(),
            events_in,
            events,
            starts,
            next_run: 0,
            holds,
            closing: false,
            fenced: HashMap::new(),
            leaked: 0,
            waiters: Vec::new(),
        }
    }

    pub(super) async fn run(mut self, mut messages: mpsc::Receiver<Msg>) {
        loop {
            tokio::select! {
                biased;
                message = messages.recv() => match message {
                    Some(message) => self.message(message),
                    None => return,
                },
                Some((key, run, event)) = self.events.recv() => self.event(&key, run, event),
                Some(ended) = self.runs.join_next() => match ended {
                    Ok((key, run, end)) => self.ended(&key, run, end),
                    // A run catches its own panics and is never aborted.
                    Err(e) => tracing::error!(error = %e, "a run ended without a word"),
                },
            }
            if !self.slots.values().any(|s| s.phase.runs()) {
                for waiter in self.waiters.drain(..) {
                    // Whoever does not wait any more does not need it.
                    let _ = waiter.send(());
                }
            }
        }
    }

    fn message(&mut self, message: Msg) {
        match message {
            Msg::HoldStarts => drop(self.holds.send_replace(true)),
            Msg::Settle => self.settle_all(),
            Msg::Apply(wanted, done) => {
                self.apply(wanted);
                // As below.
                let _ = done.send(());
            }
            Msg::Fenced(key, fence) => self.right_ended(&key, fence),
            Msg::CutOff => {
                self.holds.send_replace(true);
                self.drop_all();
            }
            Msg::LeaseEnded => {
                let running: Vec<_> = self
                    .slots
                    .iter()
                    .filter(|(_, s)| s.phase.runs())
                    .map(|(k, _)| k.to_string())
                    .collect();
                if !running.is_empty() {
                    self.abort(&format!(
                        "the lease has ended and these tasks have not: {}",
                        running.join(", ")
                    ));
                }
            }
            Msg::ForgetAll => {
                self.holds.send_replace(true);
                self.fenced.clear();
                self.slots.values_mut().for_each(|s| s.doomed = true);
                self.drop_all();
                self.sweep();
            }
            Msg::Inventory(answer) => {
                // Whoever does not wait any more does not need it; likewise below.
                let _ = answer.send(self.inventory());
            }
            Msg::Drain(done) => {
                self.closing = true;
                self.waiters.push(done);
                self.settle_all();
            }
            Msg::Stopped(answer) => {
                let _ = answer.send(self.stopped());
            }
            Msg::Due(key, run) => {
                if self
                    .slots
                    .get(&key)
                    .is_some_and(|s| s.run.as_ref().is_some_and(|r| r.id == run))
                {
                    self.step(&key, Event::Due);
                }
            }
            Msg::ThreadGone(key, run) => {
                self.leaked = self.leaked.saturating_sub(1);
                self.shared.metrics.leaked_thread_ended();
                if self
                    .slots
                    .get(&key)
                    .is_some_and(|s| s.run.as_ref().is_some_and(|r| r.id == run))
                {
                    self.step(&key, Event::ThreadGone);
                    self.sweep();
                }
            }
            Msg::StopOverdue(key, want) => {
                let slot = self.slots.get(&key);
                if slot.is_some_and(|s| s.phase == Phase::Hung && s.task.terms.want_revision == want) {
                    self.abort(&format!(
                        "task {key} hangs and has not stopped within its stop_timeout"
                    ));
                }
            }
        }
    }

    fn apply(&mut self, wanted: Wanted) {
        self.holds.send_replace(false);
        let desired: BTreeMap<TaskKey, Terms> = wanted
            .iter()
            .filter(|(key, task)| {
                self.fenced
                    .get(*key)
                    .is_none_or(|fence| *fence < task.terms.fence)
            })
            .map(|(key, task)| (key.clone(), task.terms.clone()))
            .collect();
        let held = self
            .slots
            .iter()
            .filter(|(_, s)| !s.doomed)
            .map(|(k, s)| (k.clone(), s.task.terms.clone()));
        for command in desired::diff(&desired, &held.collect()) {
            match command {
                Command::Drop(key) => self.doom(&key),
                Command::Adopt(key) => self.adopt(&wanted[&key]),
                Command::Change { key, restart } => {
                    if let Some(slot) = self.slots.get_mut(&key) {
                        slot.task = wanted[&key].clone();
                        if restart {
                            (slot.restarts, slot.problem) = (0, None);
                        }
                        self.watch_stop(&key);
                        self.step(&key, if restart { Event::Restart } else { Event::Settle });
                    }
                }
            }
        }
        self.sweep();
        self.settle_all();
    }

    fn settle_all(&mut self) {
        let keys: Vec<_> = self.slots.keys().cloned().collect();
        keys.iter().for_each(|key| self.step(key, Event::Settle));
    }

    fn adopt(&mut self, task: &Arc<Admitted>) {
        let now = self.wall();
        match self.slots.get_mut(&task.key) {
            Some(slot) => {
                // What ran under the older right must have ended before anything runs under the new one.
                let (metrics, phase, run) = (slot.metrics.clone(), slot.phase, slot.run.take());
                *slot = Slot {
                    phase,
                    run,
                    ..Slot::new(task.clone(), metrics, now)
                };
                self.step(&task.key, Event::Drop);
            }
            None => {
                let metrics = self.shared.metrics.task(&task.spec.connector, task.key.task);
                self.slots
                    .insert(task.key.clone(), Slot::new(task.clone(), metrics, now));
                self.step(&task.key, Event::Settle);
            }
        }
        self.watch_stop(&task.key);
    }

    /// Nothing of it counts any more.
    fn doom(&mut self, key: &TaskKey) {
        if let Some(slot) = self.slots.get_mut(key) {
            slot.doomed = true;
            self.shared.reports.remove(key);
            self.step(key, Event::Drop);
        }
    }

    fn right_ended(&mut self, key: &TaskKey, fence: i64) {
        let highest = self.fenced.entry(key.clone()).or_insert(fence);
        *highest = (*highest).max(fence);
        if self.slots.get(key).is_some_and(|s| s.task.terms.fence <= fence) {
            tracing::info!(task = %key, fence, "the right to commit has ended: dropping the task");
            self.doom(key);
            self.sweep();
        }
    }

    fn drop_all(&mut self) {
        let keys: Vec<_> = self
            .slots
            .iter()
            .filter(|(_, s)| s.phase.runs() || s.phase == Phase::BackingOff)
            .map(|(k, _)| k.clone())
            .collect();
        keys.iter().for_each(|key| self.step(key, Event::Drop));
    }

    /// Forgets doomed tasks of which nothing runs.
    fn sweep(&mut self) {
        let gone = self.slots.extract_if(.., |_, s| s.doomed && !s.phase.runs());
        for (key, slot) in gone {
            self.shared.reports.remove(&key);
            self.shared.metrics.forget(&slot.task.spec.connector, key.task);
        }
    }

    /// Takes the task one step on and does what follows.
    fn step(&mut self, key: &TaskKey, event: Event) {
        let may_start = !*self.holds.borrow() && !self.closing && self.shared.lease.is_open();
        let now = self.wall();
        let Some(slot) = self.slots.get_mut(key) else {
            return;
        };
        let wish = if self.closing {
            Wish::Stop
        } else {
            slot.task.terms.wish
        };
        let before = slot.phase;
        let (phase, action) = before.next(event, wish, may_start && !slot.doomed);
        slot.phase = phase;
        if phase != before {
            slot.since = now;
            if phase != Phase::BackingOff {
                slot.next_attempt = None;
            }
            // What happened while it was draining stays visible.
            let settled = matches!(phase, Phase::Paused | Phase::Stopped) && before != Phase::Draining;
            if settled || matches!(phase, Phase::Running | Phase::Draining) {
                slot.problem = None;
            }
        }
        match action {
            Action::None => {}
            Action::Drain => slot.control(Control::Drain),
            Action::Drop => slot.control(Control::Drop),
            Action::Pause => self.pause(key),
            Action::Start => self.start(key),
        }
        self.report(key);
    }

    fn report(&mut self, key: &TaskKey) {
        let Some(slot) = self.slots.get_mut(key) else {
            return;
        };
        if !slot.phase.runs() || matches!(slot.phase, Phase::Starting) {
            slot.carried_nonce.clone_from(&slot.task.terms.restart_nonce);
        }
        let mut status = slot.status();
        slot.metrics.state(status.state());
        if slot.doomed || self.closing {
            return;
        }
        let last = self.shared.reports.get(key);
        status.sequence = last.as_ref().map_or(0, |s| s.sequence);
        if last.as_ref() != Some(&status) {
            self.shared.reports.set(key, status);
        }
    }

    fn pause(&mut self, key: &TaskKey) {
        let Some(slot) = self.slots.get_mut(key) else {
            return;
        };
        let pause = self.shared.jitter.up_to(slot.pauses().bound(slot.restarts));
        slot.next_attempt = Some(self.shared.lease.clock().wall() + pause);
        let run = slot.run.as_ref().map_or(0, |r| r.id);
        self.later(pause, Msg::Due(key.clone(), run));
    }

    fn later(&self, after: Duration, message: Msg) {
        let me = self.me.clone();
        tokio::spawn(async move {
            sleep(after).await;
            if let Some(me) = me.upgrade() {
                let _ = me.send(message).await;
            }
        });
    }

    fn inventory(&self) -> Vec<RunningTask> {
        let held = self.slots.values().filter(|s| !s.doomed);
        let task = |s: &Slot| RunningTask {
            connector_uid: s.task.key.uid.to_string(),
            task: s.task.key.task,
            fence: s.task.terms.fence,
            spec_hash: s.task.terms.spec_hash.clone(),
            status: Some(s.status()),
        };
        held.map(task).collect()
    }

    fn stopped(&self) -> Vec<StoppedTask> {
        let stopped = self
            .slots
            .values()
            .filter(|s| !s.doomed && s.phase == Phase::Stopped);
        stopped
            .map(|s| StoppedTask {
                task: Some(s.task.key.to_ref()),
                fence: s.task.terms.fence,
            })
            .collect()
    }

    fn wall(&self) -> Duration {
        self.shared.lease.clock().wall()
    }

    fn abort(&self, reason: &str) {
        (self.shared.hooks.abort)(reason);
    }
}
