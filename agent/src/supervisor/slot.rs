use std::{collections::VecDeque, sync::Arc, time::Duration};

use gantry_proto::{
    agent::v1::{self as agent, TaskStatus},
    v1::task::State,
};
use tokio::{sync::watch, time::Instant};

use super::{admit::Admitted, state::Phase};
use crate::{
    backoff::Pauses,
    desired::Wish,
    metrics::TaskMetrics,
    problem::{Cause, Failure},
    task::{Control, Gap},
    wire,
};

/// Most gaps that a status names.
const GAPS: usize = 8;

/// A task of this agent.
pub(super) struct Slot {
    pub(super) task: Arc<Admitted>,
    pub(super) phase: Phase,
    pub(super) run: Option<Running>,
    /// Forgotten as soon as nothing of it runs.
    pub(super) doomed: bool,
    /// Failures in a row.
    pub(super) restarts: u32,
    /// Why it is not well, or why it last failed.
    pub(super) problem: Option<Failure>,
    /// When it is tried again, as time of day.
    pub(super) next_attempt: Option<Duration>,
    pub(super) carried_nonce: String,
    pub(super) replan_wanted: bool,
    /// The last gap of this run, shown as long as nothing is worse.
    pub(super) gap: Option<Failure>,
    /// The last gaps under this right, oldest first.
    pub(super) gaps: VecDeque<agent::Gap>,
    /// Since when it is in its phase, as time of day.
    pub(super) since: Duration,
    pub(super) metrics: TaskMetrics,
    /// Ends when the connector is open.
    pub(super) start_span: tracing::Span,
    /// The want whose trace has seen a start: later ones of the same want are no consequence of the request.
    pub(super) traced_want: i64,
}

/// A run that exists.
pub(super) struct Running {
    pub(super) id: u64,
    pub(super) fence: i64,
    pub(super) control: watch::Sender<Control>,
    pub(super) opened: Option<Instant>,
}

impl Slot {
    pub(super) fn new(task: Arc<Admitted>, metrics: TaskMetrics, since: Duration) -> Self {
        Self {
            task,
            phase: Phase::Waiting,
            run: None,
            doomed: false,
            restarts: 0,
            problem: None,
            next_attempt: None,
            carried_nonce: String::new(),
            replan_wanted: false,
            gap: None,
            gaps: VecDeque::new(),
            since,
            metrics,
            start_span: tracing::Span::none(),
            traced_want: 0,
        }
    }

    /// Tells the run, if there is one. It only ever becomes stricter.
    pub(super) fn control(&self, control: Control) {
        if let Some(run) = &self.run {
            run.control.send_if_modified(|now| {
                let stricter = *now < control;
                *now = (*now).max(control);
                stricter
            });
        }
    }

    /// How failures are answered.
    pub(super) fn pauses(&self) -> Pauses {
        let policy = self.task.spec.restart_policy.unwrap_or_default();
        let first = wire::duration_in(policy.initial_backoff.as_ref(), Duration::from_secs(1));
        let longest = wire::duration_in(policy.max_backoff.as_ref(), Duration::from_secs(60));
        Pauses {
            first,
            longest: longest.max(first),
        }
    }

    /// Counts a failure. False: it has failed for good.
    pub(super) fn failed(&mut self, failure: &Failure, opened: Option<Instant>) -> bool {
        let policy = self.task.spec.restart_policy.unwrap_or_default();
        let healthy = wire::duration_in(policy.healthy_period.as_ref(), Duration::from_secs(60));
        if opened.is_some_and(|at| at.elapsed() >= healthy) {
            self.restarts = 0;
        }
        match failure.cause {
            Cause::User | Cause::Record => return false,
            Cause::Task if policy.max_restarts > 0 && self.restarts >= policy.max_restarts as u32 => {
                return false;
            }
            Cause::Task | Cause::External | Cause::System => {}
        }
        self.restarts += 1;
        true
    }

    /// Takes down data that is gone, so that it is reported whatever happens to the task next.
    pub(super) fn lost(&mut self, gap: Gap, now: Duration) {
        let number = self.gaps.back().map_or(0, |last| last.number) + 1;
        if self.gaps.len() == GAPS {
            self.gaps.pop_front();
        }
        self.gaps.push_back(agent::Gap {
            number,
            amount: gap.amount,
            unit: gap.unit.to_owned(),
            problem: Some(gap.why.problem(now)),
        });
        self.gap = Some(gap.why);
    }

    /// As it is reported.
    pub(super) fn status(&self) -> TaskStatus {
        let state = match (self.phase, self.task.terms.wish) {
            (Phase::Waiting | Phase::Starting, _) => State::Starting,
            (Phase::Running, _) => State::Running,
            (Phase::Troubled | Phase::BackingOff, _) => State::BackingOff,
            (Phase::Stalled, _) => State::Stalled,
            (Phase::Draining | Phase::Dropping, _) | (Phase::Hung, Wish::Stop) => State::Stopping,
            (Phase::Hung, _) => State::Pending,
            (Phase::Paused, _) => State::Paused,
            (Phase::Failed, _) => State::Failed,
            (Phase::Stopped, _) => State::Stopped,
        };
        // Named only by what confirms it: everything else may be reported late.
        let answers = matches!(
            (self.phase, self.task.terms.wish),
            (Phase::Paused, Wish::Pause) | (Phase::Stopped, Wish::Stop)
        );
        TaskStatus {
            connector_uid: self.task.key.uid.to_string(),
            task: self.task.key.task,
            fence: self.task.terms.fence,
            want_revision: if answers { self.task.terms.want_revision } else { 0 },
            state: state as i32,
            problem: self
                .problem
                .as_ref()
                .or(self.gap.as_ref())
                .map(|p| p.problem(self.since)),
            next_attempt_time: self.next_attempt.map(wire::timestamp),
            restarts: self.restarts as i32,
            state_time: Some(wire::timestamp(self.since)),
            restart_nonce: self.carried_nonce.clone(),
            replan_wanted: self.replan_wanted,
            sequence: 0,
            gaps: self.gaps.iter().cloned().collect(),
        }
    }
}
