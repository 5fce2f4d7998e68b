use std::sync::Arc;

use async_trait::async_trait;

use crate::{Config, ConfigSpec, ConnectorError, Env, Fields, Lag, Sink, Source, Start, StartPosition};

/// A connector that an agent can run.
#[derive(Clone)]
pub enum Plugin {
    /// Outside system to RocketMQ.
    Source(Arc<dyn SourcePlugin>),
    /// RocketMQ to outside system.
    Sink(Arc<dyn SinkPlugin>),
}

impl Plugin {
    /// What it says of itself.
    pub fn info(&self) -> PluginInfo {
        match self {
            Self::Source(p) => p.info(),
            Self::Sink(p) => p.info(),
        }
    }
}

/// Direction of a plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Outside system to RocketMQ.
    Source,
    /// RocketMQ to outside system.
    Sink,
}

/// Where tasks may be placed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Locality {
    /// On any agent.
    #[default]
    Any,
    /// Only on agents of the host where the task was first placed, unless the parameter `shared_storage` is true.
    Host,
}

/// What Gantry must know to run a plugin rightly.
#[derive(Clone, Copy, Debug, Default)]
pub struct Capabilities {
    /// Two instances of one task must never overlap; the task stops as soon as its agent is cut off.
    pub exclusive: bool,
    /// Where tasks may be placed.
    pub locality: Locality,
}

/// A plugin, as data. The control plane knows it only by this.
#[derive(Clone, Debug)]
pub struct PluginInfo {
    /// `[a-z]([-a-z0-9]*[a-z0-9])?`, at most 63 characters.
    pub name: &'static str,
    /// Semantic version.
    pub version: &'static str,
    /// Direction.
    pub kind: Kind,
    /// One line for lists.
    pub summary: &'static str,
    /// Longer text: what it does, what it promises.
    pub description: &'static str,
    /// Its parameters.
    pub spec: ConfigSpec,
    /// How it must be run.
    pub capabilities: Capabilities,
}

/// A source plugin.
#[async_trait]
pub trait SourcePlugin: Send + Sync {
    /// What it is. The same at every call.
    fn info(&self) -> PluginInfo;

    /// Checks that need this agent: can the file be read, the database be reached. At most 10 s. Changes nothing outside.
    async fn validate(&self, config: &Config, env: &Env) -> Vec<Finding> {
        let _ = (config, env);
        Vec::new()
    }

    /// Splits the work into at most `tasks_max` task configurations, at least one. Deterministic for the same outside state.
    /// The default runs the connector as one task with the configuration as it is.
    async fn plan_tasks(
        &self,
        config: &Config,
        tasks_max: u32,
        env: &Env,
    ) -> Result<Vec<Config>, ConnectorError> {
        let _ = (tasks_max, env);
        Ok(vec![config.clone()])
    }

    /// Where a partition starts when an operator alters the connector's offsets: checks a position, or looks up one that was
    /// asked for in another way. Returns both as they shall be stored. Refuse (`User`) what `open` would refuse, and what
    /// cannot be told. Called while no task of the connector runs; changes nothing outside. The calls for all
    /// partitions together have 10 s.
    ///
    /// The default accepts every position and can tell no other place.
    async fn start_at(
        &self,
        config: &Config,
        partition: &Fields,
        start: &Start,
        env: &Env,
    ) -> Result<StartPosition, ConnectorError> {
        let _ = (config, env);
        match start {
            Start::Position(position) => Ok(StartPosition {
                partition: partition.clone(),
                position: position.clone(),
            }),
            Start::Earliest | Start::Latest | Start::Time(_) => Err(start.unknown_to(self.info().name)),
        }
    }

    /// How much there is to read after a committed position; None: it cannot be told. Cheap, and changes nothing outside.
    async fn lag(
        &self,
        config: &Config,
        position: &StartPosition,
        env: &Env,
    ) -> Result<Option<Lag>, ConnectorError> {
        let _ = (config, position, env);
        Ok(None)
    }

    /// A task that is not open yet. Does no I/O.
    fn create(&self) -> Box<dyn Source>;
}

/// A sink plugin. The queues of its topics are divided among its tasks by Gantry.
#[async_trait]
pub trait SinkPlugin: Send + Sync {
    /// What it is. The same at every call.
    fn info(&self) -> PluginInfo;

    /// Checks that need this agent. At most 10 s. Changes nothing outside.
    async fn validate(&self, config: &Config, env: &Env) -> Vec<Finding> {
        let _ = (config, env);
        Vec::new()
    }

    /// A task that is not open yet. Does no I/O.
    fn create(&self) -> Box<dyn Sink>;
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Would work, but is probably not meant so.
    Warning,
    /// Cannot work.
    Error,
}

/// Something a validation found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad.
    pub severity: Severity,
    /// Parameter concerned; empty for the configuration as a whole.
    pub param: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub fix: String,
}
