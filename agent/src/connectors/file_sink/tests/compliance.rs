use std::{fs, sync::Arc};

use gantry_connector::{
    Env, PathPolicy, Payload, SinkPartition, SinkPlugin, SinkRecord,
    testkit::{SinkWorld, check_sink},
};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use super::rig;

/// Real files in a directory.
struct World {
    dir: TempDir,
    rotate_size: Option<&'static str>,
}

pub(super) fn rendered(record: &SinkRecord) -> Vec<u8> {
    let Payload::Bytes(bytes) = &record.value else {
        return b"\n".to_vec();
    };
    [bytes, &b"\n"[..]].concat()
}

impl SinkWorld for World {
    fn plugin(&self) -> Arc<dyn SinkPlugin> {
        rig::plugin()
    }

    fn set_up(&mut self) -> (Map<String, Value>, Env) {
        self.dir = tempfile::tempdir().unwrap();
        let path = self.dir.path().join("{topic}/{queue}.log");
        let map = rig::map(json!({"path": path, "rotate_size": self.rotate_size}));
        (
            map,
            Env {
                paths: PathPolicy::new([self.dir.path().to_owned()]),
            },
        )
    }

    fn rendered(&self, record: &SinkRecord) -> Vec<u8> {
        rendered(record)
    }

    fn contents(&mut self, partition: &SinkPartition) -> Vec<u8> {
        let dir = self.dir.path().join(&*partition.topic);
        let own = format!("{}.log", partition.queue);
        let mut names: Vec<_> = fs::read_dir(&dir)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.retain(|n| n.starts_with(&own));
        names.sort_by_key(|n| (n == &own, n.clone()));
        names
            .into_iter()
            .flat_map(|n| fs::read(dir.join(n)).unwrap())
            .collect()
    }

    fn exactly_once(&self) -> bool {
        true
    }
}

#[tokio::test(start_paused = true)]
async fn files_keep_the_contract() {
    check_sink(
        &mut World {
            dir: tempfile::tempdir().unwrap(),
            rotate_size: None,
        },
        1,
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn rotated_files_keep_the_contract() {
    check_sink(
        &mut World {
            dir: tempfile::tempdir().unwrap(),
            rotate_size: Some("1KiB"),
        },
        2,
    )
    .await;
}
