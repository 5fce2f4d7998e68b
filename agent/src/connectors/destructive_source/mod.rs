//! destructive-source: for tests only. What is committed is deleted where it came from, so a commit too early is a loss that
//! can be seen.

mod config;
mod position;
mod source;
#[cfg(test)]
mod tests;

use async_trait::async_trait;
use gantry_connector::{
    Capabilities, Config, ConnectorError, Env, Fields, Kind, Locality, PluginInfo, Source, SourcePlugin,
    Start, StartPosition,
};

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

    async fn start_at(
        &self,
        config: &Config,
        partition: &Fields,
        start: &Start,
        _: &Env,
    ) -> Result<StartPosition, ConnectorError> {
        let own = position::partition(&config::directory(config)?);
        let Start::Position(position) = start else {
            return Err(start.unknown_to("destructive-source"));
        };
        let wanted = StartPosition {
            partition: partition.clone(),
            position: position.clone(),
        };
        let position = position::position(position::read(&own, &wanted)?);
        Ok(StartPosition {
            partition: own,
            position,
        })
    }

    fn create(&self) -> Box<dyn Source> {
        Box::new(DestructiveSource::default())
    }
}
