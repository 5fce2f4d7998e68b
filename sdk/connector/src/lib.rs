//! What a connector author sees: two traits, a record, a configuration spec, errors that say who is to act.
//!
//! A connector is a [`Plugin`]: data about itself ([`PluginInfo`], with its [`ConfigSpec`]), two questions that only its
//! code can answer (is this configuration usable here, how is it split into tasks) and a factory for tasks. A task is a
//! [`Source`] or a [`Sink`]. Gantry owns everything else: threads, retries, order, batching, acknowledgements, offsets.
//!
//! This crate knows neither the wire nor the store.

mod config;
mod env;
mod error;
mod plugin;
mod record;
mod schema;
mod secret;
mod sink;
mod source;
mod spec;
mod start;
#[cfg(feature = "testkit")]
pub mod testkit;
mod units;
mod value;

pub use config::{Config, ConfigError};
pub use env::{Env, PathPolicy};
pub use error::{ConnectorError, Domain};
pub use plugin::{
    Capabilities, Finding, Kind, Locality, Plugin, PluginInfo, Severity, SinkPlugin, SourcePlugin,
};
pub use record::{Headers, Payload};
pub use schema::{Datum, Field, Schema, SchemaType, Structured};
pub use secret::SecretRef;
pub use sink::{Flushed, Sink, SinkContext, SinkPartition, SinkRecord, WriteReport};
pub use source::{Gap, Polled, Source, SourceContext, SourceRecord, StartPosition};
pub use spec::{ConfigSpec, Param, ParamType, Rule, Violation};
pub use start::{Lag, Start};
pub use value::{Fields, Value};
