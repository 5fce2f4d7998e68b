//! stubborn-sink: for tests only. A hook of the test's choice does not return, fails or panics, so that one can see that only its own
//! connector suffers.

mod sink;
#[cfg(test)]
mod tests;

use async_trait::async_trait;
use gantry_connector::{Capabilities, Config, ConfigSpec, Env, Finding, Kind, PluginInfo, Sink, SinkPlugin};

use self::sink::StubbornSink;
use super::stubborn::{self, Stubborn};

const DESCRIPTION: &str = "\
Counts records and keeps none. The hook that is chosen does not do what hooks do: it never returns, fails, or panics. How much it \
has taken is logged when it closes. For tests.";

/// The plugin `stubborn-sink`.
pub(super) struct StubbornSinkPlugin;

fn spec() -> ConfigSpec {
    stubborn::spec(["none", "validate", "open", "write", "flush", "close"])
}

#[async_trait]
impl SinkPlugin for StubbornSinkPlugin {
    fn info(&self) -> PluginInfo {
        PluginInfo {
            name: "stubborn-sink",
            version: env!("CARGO_PKG_VERSION"),
            kind: Kind::Sink,
            summary: "Has a hook that hangs, fails or panics (for tests)",
            description: DESCRIPTION,
            spec: spec(),
            capabilities: Capabilities::default(),
        }
    }

    async fn validate(&self, config: &Config, _: &Env) -> Vec<Finding> {
        stubborn::validate(config).await
    }

    fn create(&self) -> Box<dyn Sink> {
        Box::new(StubbornSink::default())
    }
}
