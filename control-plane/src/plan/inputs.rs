//! What a plan is made from, and whether the present one is still right.

use super::Defaults;
use crate::domain::{hash::Hasher, stored};

/// Hash of all that the split and the task specs depend on. Target state, labels and selector are not among it: they
/// change where and whether tasks run, never what they are.
pub(super) fn input_hash(
    id: &str,
    connector: &stored::Connector,
    plugin_version: &str,
    defaults: &Defaults,
) -> String {
    let mut h = Hasher::new("plan inputs 1");
    h.text(id);
    h.text(plugin_version);
    // A restart asks for the split anew.
    h.text(&connector.restart_nonce);
    let nothing = gantry_proto::v1::Connector::default();
    let d = connector.definition.as_ref().unwrap_or(&nothing);
    h.text(&d.plugin);
    h.structure(d.config.as_ref());
    h.int(i64::from(d.tasks_max));
    h.text(&d.topic);
    h.int(d.topics.len() as i64);
    d.topics.iter().for_each(|t| h.text(t));
    h.text(if d.namesrv.is_empty() {
        &defaults.namesrv
    } else {
        &d.namesrv
    });
    h.int(super::split::create_queues(d, defaults).into());
    h.optional(d.error_policy.as_ref());
    h.optional(d.restart_policy.as_ref());
    h.int(d.ordering.into());
    h.int(d.on_disconnect.into());
    h.optional(d.start_from.as_ref());
    h.int(d.on_offset_out_of_range.into());
    h.text(&d.consumer_group);
    h.int(d.max_record_bytes.into());
    h.optional(d.drain_timeout.as_ref());
    h.optional(d.stop_timeout.as_ref());
    h.finish()
}
