//! The store: what is in etcd, under which key, and how it is read, watched and written.
//!
//! - [`Key`], [`Prefix`], [`TABLE`]: every key, what it holds and who writes it. [`codec`]: the same in bytes.
//! - [`Store`]: a client of one cluster's keys. Every call has a time limit. What was surely not sent is sent
//!   again; a write whose outcome is not known is an error of its own ([`StoreError::Unknown`]), followed by a
//!   read.
//! - [`Guarded`]: a transaction with expectations. Nothing is written in any other way.
//! - [`Mirror`]: everything but offsets, requests, revisions and events, in memory, at one revision.
//! - [`Lease`]: the one lease of this replica. [`Election`]: who leads.
//! - What the guards of the protocol ask for, one function per write: [`LeaderStore`] (the leader's executor),
//!   [`sessions`] (whoever serves agents), [`Committer`] and [`Store::read_offsets`] (offsets),
//!   [`connectors`] and [`offset_epochs`] (the API).
//! - [`Compactor`] and [`QuotaWatch`]: upkeep.
//!
//! Time is tokio's, wall-clock time is a [`WallClock`] and randomness comes from callers, so that all of it
//! runs in a simulation with a paused clock.

mod client;
pub mod codec;
mod compact;
pub mod connectors;
mod election;
mod error;
mod events;
mod guarded;
mod keys;
mod leader_writes;
mod lease;
mod mirror;
pub mod offset_epochs;
mod offsets;
mod read;
pub mod retained;
pub mod sessions;
mod shared_lease;
mod watch;

pub use client::{Settings, Store, connect_options};
pub use compact::{Compactor, Quota, QuotaLevel, QuotaWatch};
pub use election::{Candidate, Election, Leadership};
pub use error::StoreError;
pub use guarded::{Expect, Guarded, TxnOutcome};
pub use keys::{Key, Keys, Partition, Prefix, Row, TABLE, partition_key};
pub use leader_writes::{LeaderStore, NewPlan, Written};
pub use lease::{Lease, LeaseState};
pub use mirror::{Change, ChangeFeed, Connection, HistoryGone, Mirror};
pub use offsets::{
    Committer, CommitterSettings, ListedOffset, ListedOffsets, MAX_PARTITIONS_PER_COMMIT, MAX_SINK_STATE,
    ReadOffsets,
};
pub use read::{Page, Raw};

use std::sync::Arc;

/// Wall-clock time, for what people read. Never used to decide anything.
pub type WallClock = Arc<dyn Fn() -> pbjson_types::Timestamp + Send + Sync>;

/// Time since some fixed moment that never goes back and counts the time that the machine was suspended.
pub type BootClock = Arc<dyn Fn() -> std::time::Duration + Send + Sync>;

#[cfg(test)]
mod tests;
