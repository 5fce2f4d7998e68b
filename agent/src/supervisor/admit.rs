//! Whether an assignment can be run here. Pure.

use std::sync::Arc;

use gantry_connector::{Config, ConfigSpec, Plugin};
use gantry_proto::{
    agent::v1::{TaskAssignment, TaskSpec, task_assignment::Want},
    google::rpc,
};

use crate::{
    desired::{Terms, Wish},
    key::TaskKey,
    wire,
};

/// An assignment that can be run here.
#[derive(Clone)]
pub(crate) struct Admitted {
    pub(crate) key: TaskKey,
    pub(crate) terms: Terms,
    pub(crate) spec: Arc<TaskSpec>,
    pub(crate) plugin: Plugin,
    /// Checked, defaults filled in; references to secrets unresolved.
    pub(crate) config: Config,
    /// W3C trace context of the request that caused this; may be empty.
    pub(crate) traceparent: String,
}

/// What this agent can run.
#[derive(Clone)]
pub(crate) struct Registry(Arc<[Plugin]>);

impl Registry {
    pub(crate) fn new(plugins: Vec<Plugin>) -> Self {
        Self(plugins.into())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Plugin> {
        self.0.iter()
    }

    /// The plugin in exactly that version; an empty version: in the highest it has (the last in order of the list).
    pub(crate) fn find(&self, name: &str, version: &str) -> Option<&Plugin> {
        let id = name.strip_prefix("plugins/").unwrap_or(name);
        let fits = |p: &&Plugin| {
            let info = p.info();
            info.name == id && (version.is_empty() || info.version == version)
        };
        self.0.iter().rfind(fits)
    }

    /// Takes an assignment.
    ///
    /// # Errors
    /// Why it cannot be run here.
    pub(crate) fn admit(&self, task: &TaskAssignment) -> Result<Admitted, rpc::Status> {
        let spec = task
            .spec
            .as_ref()
            .ok_or_else(|| refused(3, "the assignment has no specification".into()))?;
        let plugin = self.find(&spec.plugin, &spec.plugin_version).ok_or_else(|| {
            refused(
                9,
                format!(
                    "this agent has no plugin {} in version {}",
                    spec.plugin, spec.plugin_version
                ),
            )
        })?;
        let config = check(&spec_of(plugin), spec.config.as_ref()).map_err(|what| refused(3, what))?;
        let wish = match task.want() {
            Want::Run | Want::Unspecified => Wish::Run,
            Want::Pause => Wish::Pause,
            Want::Stop => Wish::Stop,
        };
        if matches!(plugin, Plugin::Sink(_)) && spec.queues.is_empty() {
            return Err(refused(3, "a sink's task has no queue".into()));
        }
        Ok(Admitted {
            key: TaskKey::new(&task.connector_uid, task.task),
            terms: Terms {
                fence: task.fence,
                want_revision: task.want_revision,
                wish,
                restart_nonce: task.restart_nonce.clone(),
                spec_hash: task.spec_hash.clone(),
            },
            spec: Arc::new(spec.clone()),
            plugin: plugin.clone(),
            config,
            traceparent: task.traceparent.clone(),
        })
    }
}

/// The plugin's parameters.
pub(crate) fn spec_of(plugin: &Plugin) -> ConfigSpec {
    plugin.info().spec
}

/// Checks a configuration from the wire.
///
/// # Errors
/// All violations as one sentence.
pub(crate) fn check(spec: &ConfigSpec, config: Option<&pbjson_types::Struct>) -> Result<Config, String> {
    spec.check(&wire::config_in(config)).map_err(|violations| {
        let lines: Vec<_> = violations
            .iter()
            .map(|v| format!("config.{}: {}", v.param, v.message))
            .collect();
        lines.join("; ")
    })
}

fn refused(code: i32, message: String) -> rpc::Status {
    rpc::Status {
        code,
        message,
        details: Vec::new(),
    }
}
