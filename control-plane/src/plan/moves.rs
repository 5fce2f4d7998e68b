//! Tasks that should be on another agent: told to stop while one can take them, handed over when that is confirmed.

use std::rc::Rc;

use gantry_proto::agent::v1::task_assignment::Want;

use super::{code, connector::Connector, placement::Nowhere, planner::Planner, wants::base, world::weight};
use crate::domain::stored;

/// A task that should be on another agent.
pub(super) struct Move<'a> {
    pub(super) connector: Rc<Connector<'a>>,
    /// Its place among the connector's holders.
    pub(super) holder: usize,
}

impl<'a> Planner<'a> {
    /// Moves: told to stop while another agent can take the task; handed over when that is confirmed.
    pub(super) fn moves(&mut self) {
        let mut moves = std::mem::take(&mut self.moves);
        let under_way = |m: &Move<'_>| {
            m.connector.holders[m.holder]
                .want
                .is_some_and(|w| w.want() == Want::Stop)
        };
        moves.sort_by_key(|m| !under_way(m));
        let mut count = moves.iter().filter(|m| under_way(m)).count();
        for m in &moves {
            let c = &*m.connector;
            let h = &c.holders[m.holder];
            let Some(planned) = self.planned(c, h.task.n) else {
                continue;
            };
            let kept = h.want.map_or(&[][..], |w| &w.value.refusals);
            let own = c.own(&self.world);
            match c.choose(
                &self.world,
                planned.spec_hash,
                None,
                Some(&h.grant.agent),
                kept,
                &own,
            ) {
                Ok(number) => {
                    // Its place is taken already, so that not more tasks are stopped than find one.
                    let name = self.world.agents[number].name;
                    let text = format!("moves from agent {} to {name}", h.grant.agent);
                    if under_way(m) {
                        self.world.add(name, weight(planned.want));
                        self.report.push(c.reason(Some(h.task.n), code::MOVING, text));
                    } else if count < self.world.facts.max_moves {
                        count += 1;
                        self.world.add(name, weight(planned.want));
                        let want = stored::Want {
                            want: Want::Stop.into(),
                            // No request of a user moves it.
                            traceparent: String::new(),
                            ..base(c, h)
                        };
                        self.set_want(c, h, want, None);
                        self.report.push(c.reason(Some(h.task.n), code::MOVING, text));
                    } else {
                        self.set_desired(c, h, true);
                        let text =
                            format!("moves to another agent when some of {count} other tasks have moved");
                        self.report.push(c.reason(Some(h.task.n), code::MOVE_LATER, text));
                    }
                }
                Err(nowhere) => {
                    self.set_desired(c, h, true);
                    self.cannot_move(c, h.task.n, &h.grant.agent, &nowhere);
                }
            }
        }
    }

    pub(super) fn cannot_move(&mut self, c: &Connector<'a>, n: u32, agent: &str, nowhere: &Nowhere) {
        self.wake(nowhere.wake_at_ms);
        let text = format!("should leave agent {agent}, but: {}", nowhere.text);
        self.report.push(c.reason(Some(n), code::CANNOT_MOVE, text));
    }
}
