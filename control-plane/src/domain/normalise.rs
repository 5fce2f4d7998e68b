//! The form in which definitions are stored.

use gantry_proto::v1::{self, connector::TargetState};

/// The definition as it is stored: input fields alone, `name` in full, plugin id without `plugins/`, `tasks_max` and
/// `target_state` made explicit. `etag` is not kept. Other defaults stay unsaid: they are filled in when tasks are planned.
pub fn normalise(id: &str, definition: &v1::Connector) -> v1::Connector {
    let d = definition.clone();
    let target_state = match d.target_state {
        unset if unset == i32::from(TargetState::Unspecified) => TargetState::Running.into(),
        given => given,
    };
    // Every field by name, so that a new one is thought about here.
    v1::Connector {
        name: format!("connectors/{id}"),
        plugin: plugin_id(&d.plugin).to_owned(),
        plugin_version: d.plugin_version,
        config: d.config,
        topic: d.topic,
        topics: d.topics,
        tasks_max: if d.tasks_max == 0 { 1 } else { d.tasks_max },
        target_state,
        labels: d.labels,
        agent_selector: d.agent_selector,
        namesrv: d.namesrv,
        topic_create: d.topic_create,
        error_policy: d.error_policy,
        restart_policy: d.restart_policy,
        ordering: d.ordering,
        on_disconnect: d.on_disconnect,
        start_from: d.start_from,
        on_offset_out_of_range: d.on_offset_out_of_range,
        consumer_group: d.consumer_group,
        max_record_bytes: d.max_record_bytes,
        drain_timeout: d.drain_timeout,
        stop_timeout: d.stop_timeout,

        uid: String::new(),
        etag: String::new(),
        kind: 0,
        generation: 0,
        observed_generation: 0,
        reconciling: false,
        state: 0,
        error: None,
        plan_error: None,
        allowed_actions: Vec::new(),
        task_counts: None,
        create_time: None,
        update_time: None,
        delete_time: None,
    }
}

/// `plugins/file-source` and `file-source` are the same plugin.
pub(super) fn plugin_id(plugin: &str) -> &str {
    plugin.strip_prefix("plugins/").unwrap_or(plugin)
}
