use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::BrakeState;

/// What the leader has measured itself, and what it was configured with.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    /// Lease of an agent's session.
    pub lease_ms: u64,
    /// By instance uid: for how long, on the leader's own clock, no session has named the instance.
    pub absent_ms: BTreeMap<Arc<str>, u64>,
    /// Instances of which a later start under the same lock was accepted.
    pub replaced: BTreeSet<Arc<str>>,
    /// Many agents were lost at once.
    pub brake: Option<BrakeState>,
    /// Most tasks that are on the move at once.
    pub max_moves: usize,
    /// Of this control plane.
    pub defaults: Defaults,
}

/// What definitions that say nothing get.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Defaults {
    /// Name servers, `host:port`, several separated by `;`.
    pub namesrv: String,
    /// Create missing topics with so many queues; 0: never.
    pub create_queues: u32,
}

impl Default for Facts {
    /// Nothing measured: no right is ended because its holder is absent.
    fn default() -> Self {
        Self {
            lease_ms: 9_000,
            absent_ms: BTreeMap::new(),
            replaced: BTreeSet::new(),
            brake: None,
            max_moves: 32,
            defaults: Defaults::default(),
        }
    }
}
