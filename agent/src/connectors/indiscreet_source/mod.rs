//! indiscreet-source: for tests only. It gives its secret away wherever it can, so that one can see that it does not get out.

mod config;
mod source;
#[cfg(test)]
mod tests;

use async_trait::async_trait;
use gantry_connector::{
    Capabilities, Config, ConnectorError, Env, Fields, Finding, Kind, Lag, PluginInfo, Severity, Source,
    SourcePlugin, Start, StartPosition,
};

use self::{
    config::{Settings, Tells},
    source::IndiscreetSource,
};

const DESCRIPTION: &str = "\
Sends one record each time it starts: the SHA-256 of its secret. It writes the secret to its log, and into errors as it is \
told. For tests.";

/// The plugin `indiscreet-source`.
pub(super) struct IndiscreetSourcePlugin;

#[async_trait]
impl SourcePlugin for IndiscreetSourcePlugin {
    fn info(&self) -> PluginInfo {
        PluginInfo {
            name: "indiscreet-source",
            version: env!("CARGO_PKG_VERSION"),
            kind: Kind::Source,
            summary: "Gives its secret away wherever it can (for tests)",
            description: DESCRIPTION,
            spec: config::spec(),
            capabilities: Capabilities::default(),
        }
    }

    async fn validate(&self, config: &Config, _: &Env) -> Vec<Finding> {
        let settings = match Settings::read(config) {
            Ok(settings) => settings,
            Err(e) => {
                return vec![Finding {
                    severity: Severity::Error,
                    param: "password".into(),
                    message: e.chain(),
                    fix: String::new(),
                }];
            }
        };
        tracing::info!("validate: {}", settings.gossip());
        vec![Finding {
            severity: Severity::Warning,
            param: "password".into(),
            message: settings.gossip(),
            fix: format!("use another password than {}", settings.password),
        }]
    }

    async fn plan_tasks(&self, config: &Config, _: u32, _: &Env) -> Result<Vec<Config>, ConnectorError> {
        let settings = Settings::read(config)?;
        let mut task = config.clone();
        if settings.tells == Tells::Plan {
            task.set("note", settings.gossip());
        }
        Ok(vec![task])
    }

    async fn start_at(
        &self,
        config: &Config,
        _: &Fields,
        _: &Start,
        _: &Env,
    ) -> Result<StartPosition, ConnectorError> {
        Err(ConnectorError::user(Settings::read(config)?.gossip()))
    }

    async fn lag(&self, config: &Config, _: &StartPosition, _: &Env) -> Result<Option<Lag>, ConnectorError> {
        Err(ConnectorError::user(Settings::read(config)?.gossip()))
    }

    fn create(&self) -> Box<dyn Source> {
        Box::new(IndiscreetSource::default())
    }
}
