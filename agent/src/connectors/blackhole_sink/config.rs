use std::time::Duration;

use gantry_connector::{Config, ConfigSpec, ConnectorError, Param};

/// The parameters.
pub(super) fn spec() -> ConfigSpec {
    ConfigSpec::new()
        .param(Param::duration("delay").doc("How long each batch takes.").default("0ms"))
        .param(
            Param::int("fail_every")
                .doc("Every so many batches one fails at its first try, as if the outside system were unavailable; 0: none.")
                .min(0)
                .default(0),
        )
        .param(
            Param::int("reject_every")
                .doc("Records whose offset is a multiple of this are rejected; 0: none.")
                .min(0)
                .default(0),
        )
}

/// The parameters of a task.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    pub(super) delay: Duration,
    pub(super) fail_every: u64,
    pub(super) reject_every: u64,
}

impl Settings {
    pub(super) fn read(config: &Config) -> Result<Self, ConnectorError> {
        Ok(Self {
            delay: config.duration("delay")?,
            fail_every: config.uint("fail_every")?,
            reject_every: config.uint("reject_every")?,
        })
    }
}
