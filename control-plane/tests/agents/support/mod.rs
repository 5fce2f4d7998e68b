//! A cluster to test: etcd in memory, replicas that can be cut off, agents that do what they are told.

pub(crate) mod agent;
pub(crate) mod cut;
pub(crate) mod plugin;
mod process;
pub(crate) mod world;

pub(crate) use agent::Agent;
pub(crate) use world::{World, is_within};
