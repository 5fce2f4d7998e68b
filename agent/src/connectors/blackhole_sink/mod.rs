//! blackhole-sink: takes everything and keeps nothing.

mod config;
mod sink;
#[cfg(test)]
mod tests;

use async_trait::async_trait;
use gantry_connector::{Capabilities, Kind, PluginInfo, Sink, SinkPlugin};

use self::sink::BlackholeSink;

const DESCRIPTION: &str = "\
Takes records and throws them away, for measurements of everything before it. It can be slow, refuse records and \
fail as an outside system does, so that retries, error policies and dead letters can be tried out. How much it has \
taken is logged when it closes.";

/// The plugin `blackhole-sink`.
pub(super) struct BlackholeSinkPlugin;

#[async_trait]
impl SinkPlugin for BlackholeSinkPlugin {
    fn info(&self) -> PluginInfo {
        PluginInfo {
            name: "blackhole-sink",
            version: env!("CARGO_PKG_VERSION"),
            kind: Kind::Sink,
            summary: "Throws records away, as slowly and unwillingly as asked",
            description: DESCRIPTION,
            spec: config::spec(),
            capabilities: Capabilities::default(),
        }
    }

    fn create(&self) -> Box<dyn Sink> {
        Box::new(BlackholeSink::default())
    }
}
