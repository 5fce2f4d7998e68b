//! generator-source: records out of nothing, the same at every run.

mod config;
mod content;
mod position;
mod source;
#[cfg(test)]
mod tests;

use async_trait::async_trait;
use gantry_connector::{
    Capabilities, Config, ConnectorError, Env, Fields, Kind, Lag, PluginInfo, Source, SourcePlugin, Start,
    StartPosition,
};

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

    async fn start_at(
        &self,
        config: &Config,
        partition: &Fields,
        start: &Start,
        _: &Env,
    ) -> Result<StartPosition, ConnectorError> {
        position::start_at(&Settings::read(config)?, partition, start)
    }

    async fn lag(&self, config: &Config, at: &StartPosition, _: &Env) -> Result<Option<Lag>, ConnectorError> {
        let settings = Settings::read(config)?;
        let (number, sequence) = position::read(&at.partition, &at.position)?;
        let left = |_| settings.count_of(number).saturating_sub(sequence);
        Ok(settings.count.map(left).map(|amount| Lag {
            amount,
            unit: "records",
        }))
    }

    fn create(&self) -> Box<dyn Source> {
        Box::new(GeneratorSource::default())
    }
}
