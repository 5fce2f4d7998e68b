use std::path::PathBuf;

use gantry_connector::{Config, ConfigSpec, ConnectorError, Param};

/// The parameters.
pub(super) fn spec() -> ConfigSpec {
    ConfigSpec::new().param(
        Param::path("directory")
            .doc("Its files whose names are numbers are read and deleted.")
            .required(),
    )
}

pub(super) fn directory(config: &Config) -> Result<PathBuf, ConnectorError> {
    config.path("directory")
}
