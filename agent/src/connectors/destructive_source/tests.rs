use std::{fs, sync::Arc};

use gantry_connector::{
    Env, PathPolicy, SourceContext, SourcePlugin,
    testkit::{SourceWorld, check_source},
};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use super::DestructiveSourcePlugin;

struct World(TempDir);

impl SourceWorld for World {
    fn plugin(&self) -> Arc<dyn SourcePlugin> {
        Arc::new(DestructiveSourcePlugin)
    }

    fn set_up(&mut self) -> (Map<String, Value>, Env) {
        let dir = self.0.path();
        for n in 0..25 {
            fs::write(dir.join(n.to_string()), format!("record {n}")).unwrap();
        }
        let Value::Object(map) = json!({"directory": dir}) else {
            unreachable!()
        };
        (
            map,
            Env {
                paths: PathPolicy::new([dir.to_owned()]),
            },
        )
    }

    fn records(&self) -> usize {
        25
    }
}

#[tokio::test(start_paused = true)]
async fn it_keeps_the_contract() {
    check_source(&mut World(tempfile::tempdir().unwrap()), 1).await;
}

#[tokio::test]
async fn what_is_committed_is_gone_and_nothing_else() {
    let mut world = World(tempfile::tempdir().unwrap());
    let (map, env) = world.set_up();
    let config = DestructiveSourcePlugin.info().spec.check(&map).unwrap();
    let mut source = DestructiveSourcePlugin.create();
    source
        .open(SourceContext {
            config,
            positions: vec![],
            task: 0,
            tasks: 1,
            env,
        })
        .await
        .unwrap();
    let records = source.poll(1 << 20).await.unwrap().records;
    source
        .committed(&[(records[9].partition.clone(), records[9].position.clone())])
        .await
        .unwrap();
    assert_eq!(fs::read_dir(world.0.path()).unwrap().count(), 15);
    assert!(world.0.path().join("10").exists() && !world.0.path().join("9").exists());
}
