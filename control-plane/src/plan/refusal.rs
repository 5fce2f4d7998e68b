//! Agents that refused a task are left alone for a while.

use crate::domain::{
    stored,
    time::{millis, timestamp},
};

const FIRST_MS: i64 = 60_000;
const LONGEST_MS: i64 = 3_600_000;

/// The refusals to keep in the want of a task: those of the same spec, with the one that a status brought.
pub(super) fn with_refusal(
    kept: &[stored::Refusal],
    spec_hash: &str,
    agent: &str,
    refusal: &stored::Refusal,
    now_ms: i64,
) -> Vec<stored::Refusal> {
    let mut all: Vec<_> = kept
        .iter()
        .filter(|r| r.spec_hash == spec_hash)
        .cloned()
        .collect();
    let entry = match all.iter().position(|r| r.agent == agent) {
        Some(i) => &mut all[i],
        None => {
            let new = stored::Refusal {
                agent: agent.into(),
                spec_hash: spec_hash.into(),
                ..Default::default()
            };
            all.push(new);
            let last = all.len() - 1;
            &mut all[last]
        }
    };
    entry.times += 1;
    entry.message.clone_from(&refusal.message);
    let pause = FIRST_MS
        .saturating_mul(1 << (entry.times - 1).min(16))
        .min(LONGEST_MS);
    entry.until = Some(timestamp(now_ms + pause));
    all
}

/// Has this refusal been counted in the want already?
pub(super) fn is_counted(kept: &[stored::Refusal], spec_hash: &str, agent: &str, now_ms: i64) -> bool {
    let still = |r: &stored::Refusal| r.until.as_ref().is_some_and(|until| millis(until) > now_ms);
    kept.iter()
        .any(|r| r.agent == agent && r.spec_hash == spec_hash && still(r))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_left_alone_for_longer_each_time() {
        let said = stored::Refusal {
            message: "no such directory".into(),
            ..Default::default()
        };
        let mut kept = Vec::new();
        let mut pauses = Vec::new();
        for _ in 0..9 {
            kept = with_refusal(&kept, "s1", "a", &said, 1_000);
            pauses.push((millis(kept[0].until.as_ref().unwrap()) - 1_000) / 1_000);
        }
        assert_eq!(pauses, [60, 120, 240, 480, 960, 1_920, 3_600, 3_600, 3_600]);
        kept = with_refusal(&kept, "s1", "b", &said, 1_000);
        assert_eq!(
            kept.iter()
                .map(|r| (r.agent.as_str(), r.times))
                .collect::<Vec<_>>(),
            [("a", 9), ("b", 1)]
        );
        assert!(is_counted(&kept, "s1", "b", 60_999) && !is_counted(&kept, "s1", "b", 61_000));
        assert_eq!(
            with_refusal(&kept, "s2", "a", &said, 0).len(),
            1,
            "another spec starts anew"
        );
    }
}
