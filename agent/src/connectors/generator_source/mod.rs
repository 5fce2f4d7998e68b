//! generator-source: records out of nothing, the same at every run.

mod config;
mod content;
mod position;
mod source;
#[cfg(test)]
mod tests;

use async_trait::async_trait;
use gantry_connector::{Capabilities, Config, ConnectorError, Env, Kind, PluginInfo, Source, SourcePlugin};

use self::{config::Settings, source::GeneratorSource};

const DESCRIPTION: &str = "\
Makes records for trials and measurements. What a record holds depends on seed, partition and sequence number alone, so \
every run makes the same records and a reader can tell whether one is missing, doubled or altered: the text begins with \
partition and sequence number. A position is the sequence number of the next record.";

/// The plugin `generator-source`.
pub(super) struct GeneratorSourcePlugin;

#[async_trait]
impl SourcePlugin for GeneratorSourcePlugin {
    fn info(&self) -> PluginInfo {
        PluginInfo {
            name: "generator-source",
            version: env!("CARGO_PKG_VERSION"),
            kind: Kind::Source,
            summary: "Made-up records at a given rate and size",
            description: DESCRIPTION,
            spec: config::spec(),
            capabilities: Capabilities::default(),
        }
    }

    async fn plan_tasks(
        &self,
        config: &Config,
        tasks_max: u32,
        _: &Env,
    ) -> Result<Vec<Config>, ConnectorError> {
        let partitions = Settings::read(config)?.partitions;
        Ok(vec![config.clone(); partitions.min(tasks_max).max(1) as usize])
    }

    fn create(&self) -> Box<dyn Source> {
        Box::new(GeneratorSource::default())
    }
}
