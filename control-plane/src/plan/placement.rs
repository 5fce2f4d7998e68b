//! Chooses an agent for a task, or says why there is none.

use super::{code, world::World};
use crate::domain::stored;

/// What a task needs.
pub(super) struct Need<'t> {
    pub(super) plugin: &'t str,
    pub(super) version: &'t str,
    /// Agents that have the plugin in that version and match the selector, in order of name.
    pub(super) offers: &'t [usize],
    /// Agents that have the plugin in any version, whatever their labels.
    pub(super) have_plugin: usize,
    /// The selector narrows the choice.
    pub(super) selective: bool,
    /// Only agents on this host.
    pub(super) host: Option<&'t str>,
    /// Agent that had the task before: gets it back if it can take it.
    pub(super) before: Option<&'t str>,
    /// Not this one.
    pub(super) except: Option<&'t str>,
    pub(super) refusals: &'t [stored::Refusal],
    pub(super) spec_hash: &'t str,
}

/// Why there is no agent for a task.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Nowhere {
    pub(super) code: &'static str,
    pub(super) text: String,
    /// Time alone changes that.
    pub(super) wake_at_ms: Option<i64>,
}

/// Number of the agent to take. `own`: by agent, tasks that it holds of the same connector.
pub(super) fn choose(world: &World<'_>, need: &Need<'_>, own: &[u32]) -> Result<usize, Nowhere> {
    let mut refused = None;
    let (mut on_host, mut open, mut willing) = (0, 0, 0);
    let mut best: Option<(u32, u32, usize)> = None;
    for &number in need.offers {
        let agent = &world.agents[number];
        if need.host.is_some_and(|host| agent.session.host_id != host) {
            continue;
        }
        on_host += 1;
        if agent.cordoned() || need.except == Some(agent.name) {
            continue;
        }
        open += 1;
        if let Some(refusal) = refusal(need, agent.name, world.now_ms) {
            let until = refusal.until.as_ref().map_or(0, crate::domain::time::millis);
            refused = Some(refused.map_or(until, |earliest: i64| earliest.min(until)));
            continue;
        }
        willing += 1;
        if agent.full() {
            continue;
        }
        if need.before == Some(agent.name) {
            return Ok(number);
        }
        let rank = (own[number], agent.load, number);
        if best.is_none_or(|b| rank < b) {
            best = Some(rank);
        }
    }
    if let Some((_, _, number)) = best {
        return Ok(number);
    }
    let what = || format!("{}@{}", need.plugin, need.version);
    let nowhere = |code, text| {
        Err(Nowhere {
            code,
            text,
            wake_at_ms: refused,
        })
    };
    if need.offers.is_empty() && need.selective && need.have_plugin > 0 {
        return nowhere(
            code::SELECTOR,
            format!("no agent with {} has the labels of agent_selector", what()),
        );
    }
    if need.offers.is_empty() {
        return nowhere(
            code::NO_AGENT_WITH_PLUGIN,
            format!("no agent that is connected has {}", what()),
        );
    }
    if on_host == 0 {
        let text = format!(
            "its data is on host {}, where no agent with {} is connected; shared_storage lets it go elsewhere",
            need.host.unwrap_or_default(),
            what()
        );
        return nowhere(code::HOST_GONE, text);
    }
    if open == 0 {
        return nowhere(
            code::CORDONED,
            format!("every agent with {} is cordoned or draining", what()),
        );
    }
    if willing == 0 {
        // The first refusal is the one that people see.
        let first = need.refusals.iter().find(|r| r.spec_hash == need.spec_hash);
        let text = first.map_or_else(String::new, |r| {
            format!("agent {} refused it: {}", r.agent, r.message)
        });
        return nowhere(code::REFUSED, text);
    }
    nowhere(
        code::NO_CAPACITY,
        format!(
            "every agent that could take it is full ({willing} with {})",
            what()
        ),
    )
}

/// The refusal that keeps a task away from an agent now.
fn refusal<'t>(need: &Need<'t>, agent: &str, now_ms: i64) -> Option<&'t stored::Refusal> {
    need.refusals.iter().find(|r| {
        r.agent == agent
            && r.spec_hash == need.spec_hash
            && r.until
                .as_ref()
                .is_some_and(|until| crate::domain::time::millis(until) > now_ms)
    })
}
