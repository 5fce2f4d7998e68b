//! The compliance suite: what every source and every sink promises, tried out.
//!
//! A connector's test describes a world (an outside system that can be set up anew) and calls [`check_source`] or [`check_sink`],
//! best with tokio's clock paused. The suite drives the connector as Gantry does, crashes it, drops its futures, hands it
//! altered positions, and compares what comes out. It panics with what was broken and the seed that shows it again.

mod drive;
mod plugin;
mod rng;
mod sink;
mod source;
#[cfg(test)]
mod tests;

pub use plugin::check_info;
pub use rng::Rng;
pub use sink::{SinkWorld, check_sink, partitions};
pub use source::{SourceWorld, check_source};
