use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use gantry_connector::{
    Domain, Env, Headers, Payload, Sink, SinkContext, SinkPartition, SinkPlugin, SinkRecord,
    testkit::{SinkWorld, check_sink, partitions},
};
use serde_json::{Map, Value, json};

use super::BlackholeSinkPlugin;

struct World;

impl SinkWorld for World {
    fn plugin(&self) -> Arc<dyn SinkPlugin> {
        Arc::new(BlackholeSinkPlugin)
    }

    fn set_up(&mut self) -> (Map<String, Value>, Env) {
        (Map::new(), Env::default())
    }

    fn rendered(&self, _: &SinkRecord) -> Vec<u8> {
        vec![]
    }

    fn contents(&mut self, _: &SinkPartition) -> Vec<u8> {
        vec![]
    }

    fn exactly_once(&self) -> bool {
        true
    }
}

#[tokio::test(start_paused = true)]
async fn it_keeps_the_contract() {
    check_sink(&mut World, 1).await;
}

async fn open(config: Value) -> Box<dyn Sink> {
    let config = BlackholeSinkPlugin
        .info()
        .spec
        .check(config.as_object().unwrap())
        .unwrap();
    let mut sink = BlackholeSinkPlugin.create();
    let partitions = partitions(1);
    let context = SinkContext {
        config,
        partitions,
        total_partitions: 1,
        task: 0,
        tasks: 1,
        env: Env::default(),
    };
    sink.open(context).await.unwrap();
    sink
}

fn batch(offsets: std::ops::Range<u64>) -> Vec<SinkRecord> {
    let each = offsets.map(|offset| SinkRecord {
        partition: 0,
        offset,
        key: None,
        tag: None,
        value: Payload::Bytes(Bytes::from_static(b"x")),
        headers: Headers::new(),
        timestamp_ms: 0,
    });
    each.collect()
}

#[tokio::test(start_paused = true)]
async fn it_is_as_slow_and_unwilling_as_asked() {
    let mut sink = open(json!({"delay": "2s", "fail_every": 2, "reject_every": 5})).await;
    let start = tokio::time::Instant::now();
    let mut answers = Vec::new();
    for _ in 0..6 {
        answers.push(match sink.write(batch(3..12)).await {
            Ok(report) => report.rejected.iter().map(|(i, _)| *i).collect(),
            Err(e) => {
                assert_eq!(e.domain(), Domain::Environment);
                vec![]
            }
        });
    }
    let taken = vec![2, 7];
    assert_eq!(
        answers,
        [taken.clone(), taken.clone(), vec![], taken.clone(), taken, vec![]]
    );
    assert_eq!(start.elapsed(), Duration::from_secs(12));
}
