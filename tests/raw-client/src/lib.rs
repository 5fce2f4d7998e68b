//! What the benchmark and the raw client have in common: the records, and what processes have used.
//!
//! The program of this package is RocketMQ's own client, a process of its own, so that its CPU and memory can be told
//! from those of everything else.

pub mod data;
pub mod usage;
