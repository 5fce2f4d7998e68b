//! destructive-source: for tests only. What is committed is deleted where it came from, so a commit too early is a loss that
//! can be seen.

mod config;
mod position;
mod source;
#[cfg(test)]
mod tests;

use async_trait::async_trait;
use gantry_connector::{Capabilities, Kind, Locality, PluginInfo, Source, SourcePlugin};

use self::source::DestructiveSource;

const DESCRIPTION: &str = "\
Reads the files of a directory whose names are numbers, in their order; each is a record. When a position has been \
committed, the files before it are deleted, as a queue or a replication slot does. For tests.";

/// The plugin `destructive-source`.
pub(super) struct DestructiveSourcePlugin;

#[async_trait]
impl SourcePlugin for DestructiveSourcePlugin {
    fn info(&self) -> PluginInfo {
        PluginInfo {
            name: "destructive-source",
            version: env!("CARGO_PKG_VERSION"),
            kind: Kind::Source,
            summary: "Files with numbers as names, deleted once they are committed (for tests)",
            description: DESCRIPTION,
            spec: config::spec(),
            capabilities: Capabilities {
                exclusive: true,
                locality: Locality::Host,
            },
        }
    }

    fn create(&self) -> Box<dyn Source> {
        Box::new(DestructiveSource::default())
    }
}
