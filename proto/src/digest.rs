//! Digests that close chunked messages. They are over text that both sides write in the same way: encoded messages would not do,
//! since the order of a map's entries is not defined.

use sha2::{Digest, Sha256};

use crate::agent::v1::{RunningTask, TaskAssignment};

/// Digest of an assignment's tasks: `{uid}/{task} {fence} {want revision} {want} {restart nonce} {spec hash}` and a
/// newline for each, in order. The spec itself is covered by its hash.
pub fn of_assignments<'a>(tasks: impl IntoIterator<Item = &'a TaskAssignment>) -> Vec<u8> {
    let mut hash = Sha256::new();
    for t in tasks {
        let line = format!(
            "{}/{} {} {} {} {} {}\n",
            t.connector_uid, t.task, t.fence, t.want_revision, t.want, t.restart_nonce, t.spec_hash
        );
        hash.update(line);
    }
    hash.finalize().to_vec()
}

/// Digest of an inventory's tasks: `{uid}/{task} {fence} {spec hash}` and a newline for each, in order.
pub fn of_inventory<'a>(tasks: impl IntoIterator<Item = &'a RunningTask>) -> Vec<u8> {
    let mut hash = Sha256::new();
    for t in tasks {
        hash.update(format!(
            "{}/{} {} {}\n",
            t.connector_uid, t.task, t.fence, t.spec_hash
        ));
    }
    hash.finalize().to_vec()
}

#[cfg(test)]
mod tests {
    use pbjson_types::{Struct, value::Kind};

    use super::*;
    use crate::agent::v1::TaskSpec;

    #[test]
    fn the_order_of_map_entries_does_not_matter() {
        let fields = (0..50).map(|i| {
            (
                format!("k{i}"),
                pbjson_types::Value {
                    kind: Some(Kind::NumberValue(1.0)),
                },
            )
        });
        let task = |config: Struct| TaskAssignment {
            connector_uid: "a".into(),
            spec_hash: "h".into(),
            spec: Some(TaskSpec {
                config: Some(config),
                ..TaskSpec::default()
            }),
            ..TaskAssignment::default()
        };
        let forward = task(Struct {
            fields: fields.clone().collect(),
        });
        let backward = task(Struct {
            fields: fields.rev().collect(),
        });
        assert_eq!(of_assignments([&forward]), of_assignments([&backward]));
        let other = TaskAssignment {
            fence: 1,
            ..forward.clone()
        };
        assert_ne!(of_assignments([&forward]), of_assignments([&other]));
    }
}
