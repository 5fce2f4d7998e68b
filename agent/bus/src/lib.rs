//! The message bus: what Gantry needs of RocketMQ, as a trait, with RocketMQ itself and an in-memory bus behind it.
//!
//! Everything is by explicit queue and explicit offset. There is no consumer group, no rebalancing and no
//! subscription: etcd alone decides who reads what from where.

mod api;
mod check;
mod clock;
mod error;
pub mod memory;
#[cfg(feature = "rocketmq")]
pub mod rocketmq;

pub use api::{
    Bounds, Bus, BusFactory, Endpoint, InMessage, OutMessage, PullRequest, Pulled, Queue, properties,
};
pub use error::{BusError, BusErrorKind};
