//! The one plugin that scripted agents have.

use gantry_proto::v1::{ConfigSpec, Plugin, connector::Kind};

pub(crate) const NAME: &str = "scripted";
pub(crate) const VERSION: &str = "1.0.0";

pub(crate) fn plugin() -> Plugin {
    Plugin {
        name: format!("plugins/{NAME}"),
        version: VERSION.into(),
        kind: Kind::Source.into(),
        spec: Some(ConfigSpec::default()),
        ..Plugin::default()
    }
}
