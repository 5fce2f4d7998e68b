//! The small steps: say what a holder should do, end a right, and what each has to compare.

use gantry_proto::{agent::v1::task_assignment::Want, v1::connector::TargetState};

use super::{
    Action, Ended, TaskGuard,
    connector::{Connector, Holder},
    planner::Planner,
    world::weight,
};
use crate::domain::{Snapshot, Versioned, stored};

/// What the present plan says of a task.
pub(super) struct Planned<'s> {
    pub(super) spec_hash: &'s str,
    pub(super) want: Want,
    pub(super) nonce: String,
}

impl<'a> Planner<'a> {
    /// Tells the holder what it should do now, if that is something else than before.
    pub(super) fn set_desired(&mut self, c: &Connector<'a>, h: &Holder<'a>, fresh: bool) {
        if !fresh {
            // Of a plan that the definition has overtaken, tasks may be held back, but none is set going.
            let runs = h.want.is_none_or(|w| w.want() == Want::Run);
            if runs && c.target() == TargetState::Paused {
                let want = Want::Pause.into();
                self.set_want(c, h, stored::Want { want, ..base(c, h) }, None);
            }
            return;
        }
        let Some(planned) = self.planned(c, h.task.n) else {
            return;
        };
        let same = |w: &Versioned<stored::Want>| {
            w.want() == planned.want
                && w.restart_nonce == planned.nonce
                && w.spec_hash == planned.spec_hash
                && w.plan_generation == c.plan_generation
        };
        if !h.want.is_some_and(same) {
            let want = stored::Want {
                want: planned.want.into(),
                restart_nonce: planned.nonce,
                spec_hash: planned.spec_hash.to_owned(),
                plan_generation: c.plan_generation,
                ..base(c, h)
            };
            self.set_want(c, h, want, None);
        }
    }

    pub(super) fn end(&mut self, c: &Connector<'a>, h: &Holder<'a>, why: Ended) {
        let weighed = h.want.map_or(Want::Run, |w| w.want());
        self.world.remove(&h.grant.agent, weight(weighed));
        let guard = proof(c, self.snapshot(), h, why);
        self.actions.push(Action::EndGrant {
            task: h.task.clone(),
            guard,
            why,
        });
    }

    pub(super) fn set_want(
        &mut self,
        c: &Connector<'a>,
        h: &Holder<'a>,
        want: stored::Want,
        status: Option<i64>,
    ) {
        let guard = TaskGuard {
            status,
            ..c.guard(self.snapshot(), &h.task)
        };
        self.actions.push(Action::SetWant {
            task: h.task.clone(),
            guard,
            want,
        });
    }

    pub(super) fn planned(&self, c: &Connector<'a>, n: u32) -> Option<Planned<'a>> {
        let task = (*c.planned.get(n as usize)?)?;
        let want = if c.target() == TargetState::Paused {
            Want::Pause
        } else {
            Want::Run
        };
        Some(Planned {
            spec_hash: &task.spec_hash,
            want,
            nonce: c.restart_nonce(n),
        })
    }
}

/// The trace of the request that a placement follows from. A task that is placed again to do what it did before follows from
/// none: its agent was lost, or it moves.
pub(super) fn cause(
    c: &Connector<'_>,
    before: Option<&Versioned<stored::Want>>,
    planned: &Planned<'_>,
) -> String {
    let again = before.is_some_and(|w| {
        let moved = w.want() == Want::Stop && w.traceparent.is_empty();
        (w.want() == planned.want || moved)
            && w.restart_nonce == planned.nonce
            && w.spec_hash == planned.spec_hash
            && w.plan_generation == c.plan_generation
    });
    if again {
        String::new()
    } else {
        c.stored.traceparent.clone()
    }
}

/// The present want, with the trace of the last write of the connector.
pub(super) fn base(c: &Connector<'_>, h: &Holder<'_>) -> stored::Want {
    let present = h
        .want
        .map(|w| (*w.value).clone())
        .unwrap_or_else(|| stored::Want {
            plan_generation: h.grant.plan_generation,
            host_id: h.grant.host_id.clone(),
            ..Default::default()
        });
    stored::Want {
        traceparent: c.stored.traceparent.clone(),
        ..present
    }
}

/// The guard of a write that rests on a right having ended for this reason.
pub(super) fn proof(c: &Connector<'_>, snapshot: &Snapshot, h: &Holder<'_>, why: Ended) -> TaskGuard {
    let mut guard = c.guard(snapshot, &h.task);
    match why {
        Ended::Confirmed | Ended::Goodbye | Ended::Refused => {
            guard.status = Some(h.status.map_or(0, |s| s.mod_revision));
        }
        Ended::Silent | Ended::Absent | Ended::Replaced => {
            let agent = h.grant.agent.as_str();
            let revision = snapshot.instances.get(agent).map_or(0, |i| i.mod_revision);
            guard.instance = Some((agent.to_owned(), revision));
        }
    }
    guard
}
