//! Runs: how they begin, what they tell, how they end.

use super::*;

impl Actor {
    pub(super) fn start(&mut self, key: &TaskKey) {
        self.next_run += 1;
        let id = self.next_run;
        let Some(slot) = self.slots.get_mut(key) else {
            return;
        };
        let task = slot.task.clone();
        // Whether it still holds is for the new run to see.
        (slot.replan_wanted, slot.gap) = (false, None);
        let (control, told) = watch::channel(Control::Run);
        slot.run = Some(Running {
            id,
            fence: task.terms.fence,
            control,
            opened: None,
        });
        slot.start_span = tracing::info_span!(
            "task start",
            connector = task.spec.connector,
            task = key.task,
            otel.status_code = tracing::field::Empty,
            reason = tracing::field::Empty
        );
        if slot.traced_want != task.terms.want_revision {
            slot.traced_want = task.terms.want_revision;
            trace::follow(&slot.start_span, &task.traceparent);
        }
        if slot.restarts > 0 {
            slot.metrics.restarted();
        }
        let context = RunContext {
            key: key.clone(),
            fence: task.terms.fence,
            spec: task.spec.clone(),
            plugin: task.plugin.clone(),
            config: task.config.clone(),
            store: self.shared.store.clone(),
            bus: self.shared.bus.bus(&Endpoint {
                namesrv: task.spec.namesrv.clone(),
            }),
            lease: self.shared.lease.clone(),
            control: told,
            events: Events {
                key: key.clone(),
                run: id,
                to: self.events_in.clone(),
            },
            limits: self.shared.limits.clone(),
            place: self.shared.place.clone(),
            secrets: self.shared.secrets.clone(),
            env: self.shared.env.clone(),
            jitter: self.shared.jitter.clone(),
            metrics: slot.metrics.clone(),
            starts: self.starts.clone(),
            scrubber: Default::default(),
        };
        let span = tracing::info_span!(
            "task",
            connector = task.spec.connector,
            task = key.task,
            fence = task.terms.fence
        );
        let key = key.clone();
        let run = async move {
            let end = match AssertUnwindSafe(task::run(context)).catch_unwind().await {
                Ok(end) => end,
                Err(panic) => {
                    let what = format!("the pipeline panicked: {}", panic_text(&*panic));
                    How::Failed(Failure::new(Cause::Task, "PANIC", what)).into()
                }
            };
            (key, id, end)
        };
        self.runs.spawn(run.instrument(span));
    }

    pub(super) fn event(&mut self, key: &TaskKey, run: u64, event: RunEvent) {
        let now = self.wall();
        let Some(slot) = self.slots.get_mut(key) else {
            return;
        };
        let Some(running) = slot.run.as_mut().filter(|r| r.id == run) else {
            return;
        };
        match event {
            RunEvent::Opened => {
                running.opened = Some(Instant::now());
                slot.start_span = tracing::Span::none();
                self.step(key, Event::Opened);
            }
            RunEvent::Trouble(failure) => {
                slot.problem = Some(failure);
                self.step(key, Event::Trouble);
            }
            RunEvent::Recovered => {
                slot.problem = None;
                self.step(key, Event::Recovered);
            }
            RunEvent::Stalled(failure) => {
                tracing::warn!(task = %key, reason = failure.reason, "the task stalls: {}", failure.message);
                slot.problem = Some(failure);
                self.step(key, Event::Stalled);
            }
            RunEvent::ReplanWanted(wanted) => {
                slot.replan_wanted = wanted;
                self.report(key);
            }
            RunEvent::Gap(gap) => {
                tracing::warn!(task = %key, "{}", gap.why.message);
                slot.lost(gap, now);
                self.report(key);
            }
        }
    }

    pub(super) fn ended(&mut self, key: &TaskKey, run: u64, end: RunEnd) {
        let Some(slot) = self.slots.get_mut(key) else {
            return;
        };
        let Some(running) = slot.run.as_ref().filter(|r| r.id == run) else {
            return;
        };
        let (fence, opened) = (running.fence, running.opened);
        let start_span = std::mem::replace(&mut slot.start_span, tracing::Span::none());
        // Nothing of it is held in memory any more.
        slot.metrics.in_flight_bytes(0);
        let fenced = matches!(end.how, How::Fenced);
        let mut ended = match end.how {
            How::Drained => Ended::Drained,
            How::Again => Ended::Again,
            How::Dropped | How::Fenced => Ended::Dropped,
            How::Failed(failure) => {
                tracing::warn!(task = %key, reason = failure.reason, "the task failed: {}", failure.message);
                start_span.record("otel.status_code", "ERROR");
                start_span.record("reason", failure.reason);
                let again = slot.failed(&failure, opened);
                slot.problem = Some(failure);
                if again {
                    Ended::Failed
                } else {
                    Ended::FailedForGood
                }
            }
        };
        if let Some(Leaked { hook, mut gone }) = end.leaked {
            ended = Ended::Hung;
            self.leaked += 1;
            self.shared.metrics.thread_leaked();
            let why = match hook {
                Some(hook) => format!("{hook} has not returned"),
                None => "something that it drops does not end".to_owned(),
            };
            slot.problem.get_or_insert_with(|| {
                let what =
                    format!("the connector's thread does not end: {why}; nothing new is started beside it");
                Failure::new(Cause::System, "OLD_RUN_HANGS", what).fix(
                    "look for a call that blocks in the connector; a stop makes the agent give itself up, or restart the agent",
                )
            });
            tracing::warn!(task = %key, hook, leaked = self.leaked, "the connector's thread does not end and is given up");
            if let Some(me) = self.me.upgrade() {
                let key = key.clone();
                tokio::spawn(async move {
                    gone.wait().await;
                    let _ = me.send(Msg::ThreadGone(key, run)).await;
                });
            }
            if self.leaked >= self.shared.limits.hooks.leaked_threads {
                self.abort(&format!("{} threads of connectors do not end", self.leaked));
            }
        }
        self.step(key, Event::Ended(ended));
        self.watch_stop(key);
        if fenced {
            self.right_ended(key, fence);
        }
        self.sweep();
    }

    /// Sees to it that a stop ends, one way or another.
    pub(super) fn watch_stop(&mut self, key: &TaskKey) {
        let Some(slot) = self.slots.get(key) else { return };
        if slot.task.terms.wish == Wish::Stop && slot.phase.runs() {
            let limit = wire::duration_in(slot.task.spec.stop_timeout.as_ref(), Duration::from_secs(30));
            self.later(
                limit,
                Msg::StopOverdue(key.clone(), slot.task.terms.want_revision),
            );
        }
    }
}
