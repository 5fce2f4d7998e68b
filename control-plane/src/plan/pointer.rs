//! Decides whether a connector has to be split into tasks, and by whom.

use gantry_proto::v1::{Problem, problem::Domain};

use super::{Action, Reason, code, connector::Connector, inputs, world::World};
use crate::domain::{
    Snapshot, stored,
    time::{millis, timestamp},
};

/// More agents than these need not be named: an ask that eight cannot answer is repeated later.
const MOST_AGENTS: usize = 8;

pub(super) struct Planning {
    /// The plan that counts is right for the present definition: tasks may be started from it.
    pub(super) fresh: bool,
    pub(super) action: Option<Action>,
    pub(super) reason: Option<Reason>,
    pub(super) wake_at_ms: Option<i64>,
}

pub(super) fn planning(c: &Connector<'_>, world: &World<'_>) -> Planning {
    let mut result = Planning {
        fresh: false,
        action: None,
        reason: None,
        wake_at_ms: None,
    };
    let generation = c.stored.generation;
    let hash = inputs::input_hash(c.name, c.stored, &c.version, &world.facts.defaults);
    let same = c.plan_generation > 0 && c.pointer.is_some_and(|p| p.input_hash == hash);
    result.fresh = same || c.plan_generation > 0 && c.pointer.is_some_and(|p| p.generation == generation);
    if c.ends() {
        return result;
    }
    let askable = askable(c, world);
    // A problem counts until the user writes the connector again.
    let problem = c
        .pointer
        .filter(|p| p.mod_revision > c.stored.mod_revision)
        .and_then(|p| {
            let problem = p
                .problem
                .as_ref()
                .filter(|_| p.problem_generation == generation)?;
            (!is_own(problem)).then_some((p, problem))
        });
    let replan = replan(c, world.now_ms);
    if same && replan != Replan::Now {
        let failed_replan = problem.is_some() && c.pointer.is_some_and(|p| p.generation == generation);
        if !failed_replan {
            if let Replan::At(at) = replan {
                result.wake_at_ms = Some(at);
            }
            result.action = caught_up(c, generation);
            return result;
        }
    }
    if let Some((pointer, problem)) = problem {
        let next = pointer.next_attempt_time.as_ref().map_or(0, millis);
        if pointer.problem_final || next > world.now_ms {
            result.reason = Some(c.reason(None, code::PLAN_FAILED, problem.message.clone()));
            result.wake_at_ms = (!pointer.problem_final).then_some(next);
            return result;
        }
    }
    match askable {
        Ok(agents) => {
            let whom = agents.join(", ");
            result.reason = Some(c.reason(
                None,
                code::PLANNING,
                format!("agents are asked to split it into tasks: {whom}"),
            ));
            result.action = Some(Action::PlanTasks {
                connector: c.name.to_owned(),
                uid: c.uid.clone(),
                spec: c.stored.mod_revision,
                pointer: c.pointer.map_or(0, |p| p.mod_revision),
                plan_generation: next_generation(c, world.snapshot),
                input_hash: hash,
                plugin_version: c.version.clone(),
                agents,
            });
        }
        // Without agents the tasks that there are say why they wait.
        Err(_) if same => {}
        Err(problem) => {
            result.reason = Some(c.reason(None, own_code(&problem), problem.message.clone()));
            result.action = no_agent(c, generation, problem, world.now_ms);
        }
    }
    result
}

/// The pointer of a plan that is right for this generation too, without a problem.
fn caught_up(c: &Connector<'_>, generation: i64) -> Option<Action> {
    let pointer = c
        .pointer
        .filter(|p| p.generation != generation || p.problem.is_some())?;
    Some(c.set_pointer(stored::PlanPointer {
        generation,
        problem: None,
        problem_generation: 0,
        problem_final: false,
        next_attempt_time: None,
        attempts: 0,
        ..(*pointer.value).clone()
    }))
}

fn no_agent(c: &Connector<'_>, generation: i64, problem: Problem, now_ms: i64) -> Option<Action> {
    let present = c.pointer.map(|p| (*p.value).clone()).unwrap_or_default();
    let known = present.problem_generation == generation
        && present
            .problem
            .as_ref()
            .is_some_and(|p| p.reason == problem.reason && p.message == problem.message);
    (!known).then(|| {
        c.set_pointer(stored::PlanPointer {
            problem: Some(Problem {
                time: Some(timestamp(now_ms)),
                ..problem
            }),
            problem_generation: generation,
            problem_final: false,
            next_attempt_time: None,
            attempts: 0,
            ..present
        })
    })
}

/// Agents that can answer, those that take tasks first, else in the order in which placement would choose.
fn askable(c: &Connector<'_>, world: &World<'_>) -> Result<Vec<String>, Problem> {
    let what = || {
        let version = if c.version.is_empty() {
            String::new()
        } else {
            format!("@{}", c.version)
        };
        format!("{}{version}", c.definition.plugin)
    };
    let none = |reason: &str, message: String, fix: &str| {
        Err(Problem {
            domain: Domain::System.into(),
            reason: reason.into(),
            message,
            fix: fix.into(),
            time: None,
        })
    };
    let offers = c.offers.with(&c.version);
    let selector = c
        .definition
        .agent_selector
        .iter()
        .map(|(k, v)| format!("{k}={v}"))
        .collect::<Vec<_>>()
        .join(",");
    if offers.is_empty() && c.offers.any_labels > 0 && !c.definition.agent_selector.is_empty() {
        return none(
            code::SELECTOR,
            format!(
                "no agent with {} has the labels {} of agent_selector",
                what(),
                selector
            ),
            "change agent_selector, or the labels of an agent",
        );
    }
    if offers.is_empty() {
        return none(
            code::NO_AGENT_WITH_PLUGIN,
            format!("no agent that is connected has {}", what()),
            "start an agent that has the plugin",
        );
    }
    let at_home = |i: &&usize| {
        c.home
            .as_ref()
            .is_none_or(|home| world.agents[**i].session.host_id == *home)
    };
    let mut agents: Vec<_> = offers.iter().filter(at_home).copied().collect();
    if agents.is_empty() {
        return none(
            code::HOST_GONE,
            format!(
                "its data is on host {}, where no agent with {} is connected",
                c.home.as_deref().unwrap_or(""),
                what()
            ),
            "start an agent on that host, or set shared_storage if all hosts see the same files",
        );
    }
    agents.sort_by_key(|i| (world.agents[*i].cordoned(), world.agents[*i].load, *i));
    // Whoever could not answer last time is not the first to be asked again.
    let attempts = c.pointer.map_or(0, |p| p.attempts as usize);
    let turn = attempts % agents.len();
    agents.rotate_left(turn);
    Ok(agents
        .into_iter()
        .take(MOST_AGENTS)
        .map(|i| world.agents[i].name.to_owned())
        .collect())
}

/// Whether tasks of the present plan want the connector to be split anew.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Replan {
    No,
    Now,
    /// The last answer changed nothing: asked again at that time, if it is still wanted then.
    At(i64),
}

/// Tasks say so for as long as it holds. An agent that was asked may see an older route than they do, so that one answer
/// without a change does not settle it.
fn replan(c: &Connector<'_>, now_ms: i64) -> Replan {
    let wants = c.holders.iter().any(|h| {
        h.grant.plan_generation == c.plan_generation
            && h.status
                .is_some_and(|s| s.replan_wanted && s.fence == h.grant.mod_revision)
    });
    let next = c
        .pointer
        .and_then(|p| p.next_attempt_time.as_ref())
        .map_or(i64::MIN, millis);
    match (wants, next > now_ms) {
        (false, _) => Replan::No,
        (true, false) => Replan::Now,
        (true, true) => Replan::At(next),
    }
}

/// Above all generations that were ever stored, also by an attempt that was given up.
fn next_generation(c: &Connector<'_>, snapshot: &Snapshot) -> i64 {
    let all = (c.uid.clone(), i64::MIN, 0)..=(c.uid.clone(), i64::MAX, u32::MAX);
    let stored = snapshot
        .plans
        .range(all)
        .next_back()
        .map_or(0, |((_, generation, _), _)| *generation);
    stored.max(c.plan_generation) + 1
}

/// Problems that the planner finds itself: gone as soon as it finds them no more.
fn is_own(problem: &Problem) -> bool {
    [code::NO_AGENT_WITH_PLUGIN, code::SELECTOR, code::HOST_GONE].contains(&problem.reason.as_str())
}

fn own_code(problem: &Problem) -> &'static str {
    match problem.reason.as_str() {
        code::SELECTOR => code::SELECTOR,
        code::HOST_GONE => code::HOST_GONE,
        _ => code::NO_AGENT_WITH_PLUGIN,
    }
}
