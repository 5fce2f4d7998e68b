use std::{sync::Arc, time::Duration};

use gantry_connector::{
    Env, Payload, SourceContext, SourcePlugin,
    testkit::{SourceWorld, check_source},
};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::GeneratorSourcePlugin;

struct World(Value, usize);

impl SourceWorld for World {
    fn plugin(&self) -> Arc<dyn SourcePlugin> {
        Arc::new(GeneratorSourcePlugin)
    }

    fn set_up(&mut self) -> (Map<String, Value>, Env) {
        (self.0.as_object().unwrap().clone(), Env::default())
    }

    fn records(&self) -> usize {
        self.1
    }

    fn endless(&self) -> bool {
        self.0.get("count").is_none()
    }
}

#[tokio::test(start_paused = true)]
async fn it_keeps_the_contract() {
    check_source(&mut World(json!({"count": 30, "keys": 3, "rate": 100}), 30), 1).await;
    check_source(
        &mut World(
            json!({"count": 1000, "partitions": 3, "rate": 0, "size": 20}),
            1000,
        ),
        2,
    )
    .await;
    check_source(&mut World(json!({"rate": 0, "size": "1KiB"}), 500), 3).await;
}

async fn open(config: Value) -> Box<dyn gantry_connector::Source> {
    let config = GeneratorSourcePlugin
        .info()
        .spec
        .check(config.as_object().unwrap())
        .unwrap();
    let mut source = GeneratorSourcePlugin.create();
    let context = SourceContext {
        config,
        positions: vec![],
        task: 0,
        tasks: 1,
        env: Env::default(),
    };
    source.open(context).await.unwrap();
    source
}

#[tokio::test(start_paused = true)]
async fn records_come_at_the_rate_that_is_asked_for() {
    let mut source = open(json!({"rate": 50})).await;
    let start = Instant::now();
    let mut n = 0;
    while start.elapsed() < Duration::from_secs(10) {
        let polled = source.poll(1 << 20).await.unwrap();
        n += polled.records.len();
        tokio::time::sleep(polled.idle_for.unwrap_or_default()).await;
    }
    assert!((499..=502).contains(&n), "{n}");
    tokio::time::advance(Duration::from_secs(3600)).await;
    assert!(
        source.poll(1 << 20).await.unwrap().records.len() <= 51,
        "an hour is not made up for"
    );
}

#[tokio::test]
async fn a_value_tells_which_record_it_is() {
    let mut source = open(json!({"rate": 0, "count": 12, "size": 50})).await;
    let records = source.poll(1 << 20).await.unwrap().records;
    for (i, record) in records.iter().enumerate() {
        let Payload::Bytes(value) = &record.value else {
            panic!("not bytes")
        };
        assert!(value.starts_with(format!("0-{i} ").as_bytes()) && value.len() == 50);
    }
    assert!(source.poll(1).await.unwrap().end);
}

#[tokio::test]
async fn altered_positions_are_sequence_numbers_of_partitions_that_exist() {
    use gantry_connector::{Fields, Lag, Start};
    let config = |value: Value| {
        GeneratorSourcePlugin
            .info()
            .spec
            .check(value.as_object().unwrap())
            .unwrap()
    };
    let (counted, endless) = (config(json!({"count": 11, "partitions": 2})), config(json!({})));
    let partition = |n: i64| Fields::new().with("partition", n);
    let at = async |config, n: i64, start: Start| {
        let found = GeneratorSourcePlugin
            .start_at(config, &partition(n), &start, &Env::default())
            .await;
        found.ok().map(|s| s.position.uint("sequence").unwrap())
    };
    let sequence = |n: i64| Start::Position(Fields::new().with("sequence", n));
    assert_eq!(at(&counted, 1, sequence(3)).await, Some(3));
    assert_eq!(at(&counted, 2, sequence(3)).await, None, "no such partition");
    assert_eq!(at(&counted, 0, sequence(-1)).await, None);
    assert_eq!(at(&counted, 1, Start::Latest).await, Some(5));
    assert_eq!(at(&counted, 0, Start::Earliest).await, Some(0));
    assert_eq!(at(&endless, 0, Start::Latest).await, None, "it has no end");
    let (first, fourth, env) = (partition(0), sequence(4), Env::default());
    let start = GeneratorSourcePlugin
        .start_at(&counted, &first, &fourth, &env)
        .await;
    let lag = GeneratorSourcePlugin.lag(&counted, &start.unwrap(), &env).await;
    let (amount, unit) = (2, "records");
    assert_eq!(lag.unwrap(), Some(Lag { amount, unit }));
}
