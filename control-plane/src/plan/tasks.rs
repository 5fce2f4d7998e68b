//! Decides for every task of a connector: who holds it, what the holder should do, whether a right ends.

use std::rc::Rc;

use gantry_proto::agent::v1::task_assignment::Want;

use super::{
    Action, Ended, TaskGuard, code,
    connector::{Connector, Holder},
    moves::Move,
    placement::Nowhere,
    planner::Planner,
    refusal,
    wants::{base, cause, proof},
    world::weight,
};
use crate::domain::{TaskId, stored};

impl<'a> Planner<'a> {
    pub(super) fn tasks(&mut self, mut c: Connector<'a>, fresh: bool) -> Rc<Connector<'a>> {
        let old_plan_held = c
            .holders
            .iter()
            .any(|h| h.grant.plan_generation != c.plan_generation);
        let mut own: Option<Vec<u32>> = None;
        let mut moving = Vec::new();
        let mut held = 0;
        for i in 0..c.holders.len() {
            let (n, generation) = (c.holders[i].task.n, c.holders[i].grant.plan_generation);
            let below = held..n.min(c.tasks);
            self.unheld(&mut c, below, fresh, old_plan_held, &mut own);
            held = n + 1;
            if c.ends() || generation != c.plan_generation || n >= c.tasks {
                self.stop(&c, i);
            } else if self.keep(&mut c, i, fresh, &mut own) {
                moving.push(i);
            }
        }
        let all = c.tasks;
        self.unheld(&mut c, held..all, fresh, old_plan_held, &mut own);
        let connector = Rc::new(c);
        self.moves.extend(moving.into_iter().map(|holder| Move {
            connector: connector.clone(),
            holder,
        }));
        connector
    }

    /// Tasks without a grant.
    fn unheld(
        &mut self,
        c: &mut Connector<'a>,
        numbers: std::ops::Range<u32>,
        fresh: bool,
        old_plan_held: bool,
        own: &mut Option<Vec<u32>>,
    ) {
        if c.ends() {
            return;
        }
        for n in numbers {
            if !fresh {
                let text =
                    "the present definition is not planned yet, and nothing is started from an older one";
                self.report.push(c.reason(Some(n), code::WAITING_FOR_PLAN, text));
            } else if old_plan_held {
                let text = "tasks of the plan before have not all ended";
                self.report
                    .push(c.reason(Some(n), code::WAITING_FOR_OLD_PLAN, text));
            } else {
                let task = TaskId {
                    uid: c.uid.clone(),
                    n,
                };
                let snapshot = self.snapshot();
                let before = snapshot
                    .statuses
                    .get(&task)
                    .map(|s| s.agent.as_str())
                    .filter(|a| !a.is_empty());
                let kept = snapshot.wants.get(&task).map_or(&[][..], |w| &w.value.refusals);
                let guard = c.guard(snapshot, &task);
                if let Err(nowhere) = self.place(c, &task, guard, None, before, None, kept, own) {
                    self.nowhere(c, n, nowhere);
                }
            }
        }
    }

    /// A task whose right shall end.
    fn stop(&mut self, c: &Connector<'a>, i: usize) {
        let h = &c.holders[i];
        if let Some(why) = h.ended {
            return self.end(c, h, why);
        }
        if h.want.is_none_or(|w| w.want() != Want::Stop) {
            let want = stored::Want {
                want: Want::Stop.into(),
                ..base(c, h)
            };
            self.set_want(c, h, want, None);
        }
        if h.live {
            let text = format!(
                "agent {} was told to stop it and has not confirmed that yet",
                h.grant.agent
            );
            self.report.push(c.reason(Some(h.task.n), code::STOPPING, text));
        } else {
            self.not_gone(c, h);
        }
    }

    /// A task that its holder shall keep, if it can. True: it should be on another agent.
    fn keep(&mut self, c: &mut Connector<'a>, i: usize, fresh: bool, own: &mut Option<Vec<u32>>) -> bool {
        let h = &c.holders[i];
        let n = h.task.n;
        let live = h.live;
        let suits = c.suits(&self.world, h.agent);
        match h.ended {
            None if live && fresh && !suits => return true,
            None => {
                self.set_desired(c, h, fresh);
                if !live {
                    self.not_gone(c, h);
                }
            }
            Some(Ended::Silent | Ended::Absent) if self.world.facts.brake.is_some() => {
                let text = format!("agent {} is gone, and too many others are too", h.grant.agent);
                self.report.push(c.reason(Some(n), code::BRAKE, text));
            }
            Some(Ended::Silent | Ended::Absent) if !fresh => {
                let text =
                    "its agent is gone, and nothing is started from a plan that the definition has overtaken";
                self.report.push(c.reason(Some(n), code::WAITING_FOR_PLAN, text));
            }
            // A holder that comes back goes on under its right if nobody could take it over.
            Some(why @ (Ended::Silent | Ended::Absent)) => {
                if let Err(nowhere) = self.hand_over(c, i, why, None, own) {
                    self.wake(nowhere.wake_at_ms);
                    let agent = &c.holders[i].grant.agent;
                    let text = format!(
                        "agent {agent} is gone, and no other can take it: {}",
                        nowhere.text
                    );
                    self.report.push(c.reason(Some(n), code::NO_OTHER_AGENT, text));
                }
            }
            Some(Ended::Confirmed) if fresh && live && suits && !self.has_refused(c, h) => {
                self.set_desired(c, h, fresh);
            }
            Some(Ended::Confirmed) if fresh && live && !suits => {
                let agent = h.grant.agent.clone();
                if let Err(nowhere) = self.hand_over(c, i, Ended::Confirmed, Some(&agent), own) {
                    self.set_desired(c, &c.holders[i], fresh);
                    self.cannot_move(c, n, &agent, &nowhere);
                }
            }
            Some(Ended::Refused) if fresh => self.refused(c, i, own),
            Some(why) if !fresh => {
                self.end(c, h, why);
                let text =
                    "the present definition is not planned yet, and nothing is started from an older one";
                self.report.push(c.reason(Some(n), code::WAITING_FOR_PLAN, text));
            }
            Some(why) => {
                if let Err(nowhere) = self.hand_over(c, i, why, None, own) {
                    self.end(c, &c.holders[i], why);
                    self.nowhere(c, n, nowhere);
                }
            }
        }
        false
    }

    fn has_refused(&self, c: &Connector<'a>, h: &Holder<'a>) -> bool {
        self.planned(c, h.task.n)
            .zip(h.want)
            .is_some_and(|(planned, want)| {
                refusal::is_counted(
                    &want.value.refusals,
                    planned.spec_hash,
                    &h.grant.agent,
                    self.world.now_ms,
                )
            })
    }

    /// The holder refused the task: to another agent, or the refusal is noted and the right ended.
    fn refused(&mut self, c: &mut Connector<'a>, i: usize, own: &mut Option<Vec<u32>>) {
        let h = &c.holders[i];
        let (Some(planned), Some(status)) = (self.planned(c, h.task.n), h.status) else {
            return;
        };
        let Some(said) = &status.value.refusal else { return };
        let kept = h.want.map_or(&[][..], |w| &w.value.refusals);
        let noted = h.want.is_some_and(|w| w.want() == Want::Stop)
            && refusal::is_counted(kept, planned.spec_hash, &h.grant.agent, self.world.now_ms);
        let refusals = if noted {
            kept.to_vec()
        } else {
            refusal::with_refusal(kept, planned.spec_hash, &h.grant.agent, said, self.world.now_ms)
        };
        let guard = proof(c, self.snapshot(), h, Ended::Refused);
        let (task, n) = (h.task.clone(), h.task.n);
        let Err(nowhere) = self.place(c, &task, guard, Some(Ended::Refused), None, None, &refusals, own)
        else {
            return;
        };
        let h = &c.holders[i];
        if noted {
            self.end(c, h, Ended::Refused);
        } else {
            // STOP, so that the agent does not try, and refuse, again because the want has changed.
            let want = stored::Want {
                want: Want::Stop.into(),
                refusals,
                ..base(c, h)
            };
            self.set_want(c, h, want, Some(status.mod_revision));
        }
        self.nowhere(c, n, nowhere);
    }

    /// Gives the right of a holder whose own has surely ended to another agent.
    fn hand_over(
        &mut self,
        c: &mut Connector<'a>,
        i: usize,
        why: Ended,
        except: Option<&str>,
        own: &mut Option<Vec<u32>>,
    ) -> Result<(), Nowhere> {
        let h = &c.holders[i];
        let guard = proof(c, self.snapshot(), h, why);
        let kept = h.want.map_or(&[][..], |w| &w.value.refusals);
        let (task, before) = (h.task.clone(), h.grant.value.agent.clone());
        self.place(c, &task, guard, Some(why), Some(&before), except, kept, own)
    }

    #[allow(clippy::too_many_arguments, reason = "one decision, called from three places")]
    fn place(
        &mut self,
        c: &mut Connector<'a>,
        task: &TaskId,
        guard: TaskGuard,
        ended: Option<Ended>,
        before: Option<&str>,
        except: Option<&str>,
        refusals: &[stored::Refusal],
        own: &mut Option<Vec<u32>>,
    ) -> Result<(), Nowhere> {
        let Some(planned) = self.planned(c, task.n) else {
            let text = "the plan has no configuration for this task".to_owned();
            return Err(Nowhere {
                code: code::WAITING_FOR_PLAN,
                text,
                wake_at_ms: None,
            });
        };
        let own = own.get_or_insert_with(|| c.own(&self.world));
        let snapshot = self.snapshot();
        let old = snapshot
            .grants
            .get(task)
            .and_then(|g| self.world.number(&g.agent).zip(Some(&g.value.agent)));
        let weighed = weight(snapshot.wants.get(task).map_or(Want::Run, |w| w.want()));
        // It makes room where it was.
        if let Some((number, agent)) = old {
            self.world.remove(agent, weighed);
            own[number] = own[number].saturating_sub(1);
        }
        let chosen = c.choose(&self.world, planned.spec_hash, before, except, refusals, own);
        if let (Err(_), Some((number, agent))) = (&chosen, old) {
            self.world.add(agent, weighed);
            own[number] += 1;
        }
        let number = chosen?;
        own[number] += 1;
        let (name, session) = (self.world.agents[number].name, self.world.agents[number].session);
        self.world.add(name, weight(planned.want));
        if c.local && c.home.is_none() {
            c.home = Some(session.host_id.clone()).filter(|host| !host.is_empty());
        }
        let host_id = if c.local {
            session.host_id.clone()
        } else {
            String::new()
        };
        let kept = refusals
            .iter()
            .filter(|r| r.spec_hash == planned.spec_hash)
            .cloned()
            .collect();
        self.actions.push(Action::Grant {
            task: task.clone(),
            guard,
            grant: stored::Grant {
                agent: name.to_owned(),
                instance_uid: session.instance_uid.clone(),
                plan_generation: c.plan_generation,
                host_id: host_id.clone(),
                ..Default::default()
            },
            want: stored::Want {
                want: planned.want.into(),
                spec_hash: planned.spec_hash.to_owned(),
                restart_nonce: planned.nonce.clone(),
                plan_generation: c.plan_generation,
                traceparent: cause(c, snapshot.wants.get(task), &planned),
                host_id,
                refusals: kept,
                ..Default::default()
            },
            ended,
        });
        Ok(())
    }

    fn not_gone(&mut self, c: &Connector<'a>, h: &Holder<'a>) {
        let left = self
            .world
            .absent_ms(h.grant)
            .map(|ms| self.world.facts.lease_ms.saturating_sub(ms));
        self.wake(left.map(|ms| self.world.now_ms.saturating_add(ms as i64)));
        let text = format!(
            "agent {} is not heard, and it is not proven yet that it is gone",
            h.grant.agent
        );
        self.report
            .push(c.reason(Some(h.task.n), code::OLD_INSTANCE_NOT_GONE, text));
    }

    fn nowhere(&mut self, c: &Connector<'a>, n: u32, nowhere: Nowhere) {
        self.wake(nowhere.wake_at_ms);
        self.report.push(c.reason(Some(n), nowhere.code, nowhere.text));
    }
}
