//! stubborn-source: for tests only. A hook of the test's choice does not return, fails or panics, so that one can see that only its
//! own connector suffers.

mod source;
#[cfg(test)]
mod tests;

use async_trait::async_trait;
use gantry_connector::{
    Capabilities, Config, ConfigSpec, ConnectorError, Env, Fields, Finding, Kind, Lag, Param, PluginInfo,
    Source, SourcePlugin, Start, StartPosition,
};

use self::source::StubbornSource;
use super::stubborn::{self, Stubborn};

const DESCRIPTION: &str = "\
Sends a few numbered records, and has nothing more to do after that. The hook that is chosen does not do what hooks do: it never \
returns, fails, or panics. poll does so when all records are sent. For tests.";

/// The plugin `stubborn-source`.
pub(super) struct StubbornSourcePlugin;

fn spec() -> ConfigSpec {
    let hooks = [
        "none",
        "validate",
        "plan",
        "start_at",
        "lag",
        "open",
        "poll",
        "committed",
        "close",
    ];
    stubborn::spec(hooks).param(
        Param::int("records")
            .doc("How many records it sends.")
            .min(0)
            .default(3),
    )
}

#[async_trait]
impl SourcePlugin for StubbornSourcePlugin {
    fn info(&self) -> PluginInfo {
        PluginInfo {
            name: "stubborn-source",
            version: env!("CARGO_PKG_VERSION"),
            kind: Kind::Source,
            summary: "Has a hook that hangs, fails or panics (for tests)",
            description: DESCRIPTION,
            spec: spec(),
            capabilities: Capabilities::default(),
        }
    }

    async fn validate(&self, config: &Config, _: &Env) -> Vec<Finding> {
        stubborn::validate(config).await
    }

    async fn plan_tasks(&self, config: &Config, _: u32, _: &Env) -> Result<Vec<Config>, ConnectorError> {
        Stubborn::read(config)?.reaches("plan").await?;
        Ok(vec![config.clone()])
    }

    async fn start_at(
        &self,
        config: &Config,
        partition: &Fields,
        start: &Start,
        _: &Env,
    ) -> Result<StartPosition, ConnectorError> {
        Stubborn::read(config)?.reaches("start_at").await?;
        let next = match start {
            Start::Position(position) => source::next(position)?,
            Start::Earliest => 0,
            Start::Latest => config.uint("records")?,
            Start::Time(_) => return Err(start.unknown_to("stubborn-source")),
        };
        Ok(StartPosition {
            partition: partition.clone(),
            position: source::position(next),
        })
    }

    async fn lag(&self, config: &Config, at: &StartPosition, _: &Env) -> Result<Option<Lag>, ConnectorError> {
        Stubborn::read(config)?.reaches("lag").await?;
        let next = source::next(&at.position)?;
        Ok(Some(Lag {
            amount: config.uint("records")?.saturating_sub(next),
            unit: "records",
        }))
    }

    fn create(&self) -> Box<dyn Source> {
        Box::new(StubbornSource::default())
    }
}
