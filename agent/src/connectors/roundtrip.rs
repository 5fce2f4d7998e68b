//! file-source and file-sink together: what goes in comes out.

use std::fs;

use gantry_connector::{
    Env, PathPolicy, Plugin, SinkContext, SinkRecord, SourceContext, SourceRecord, testkit::partitions,
};
use proptest::prelude::*;
use serde_json::json;

use super::builtin;

fn plugin(name: &str) -> Plugin {
    builtin().into_iter().find(|p| p.info().name == name).unwrap()
}

/// As the bus would bring it.
fn carried((offset, record): (usize, SourceRecord)) -> SinkRecord {
    SinkRecord {
        partition: 0,
        offset: offset as u64,
        key: record.key,
        tag: record.tag,
        value: record.value,
        headers: record.headers,
        timestamp_ms: 0,
    }
}

async fn copy(content: &[u8], max_bytes: usize) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fs::write(&from, content).unwrap();
    let env = Env {
        paths: PathPolicy::new([dir.path().to_owned()]),
    };
    let checked = |plugin: &Plugin, config: serde_json::Value| {
        plugin.info().spec.check(config.as_object().unwrap()).unwrap()
    };

    let plugin_in = plugin("file-source");
    let config = checked(&plugin_in, json!({"paths": [from], "follow": false}));
    let Plugin::Source(source) = plugin_in else {
        panic!("not a source")
    };
    let mut source = source.create();
    source
        .open(SourceContext {
            config,
            positions: vec![],
            task: 0,
            tasks: 1,
            env: env.clone(),
        })
        .await
        .unwrap();

    let plugin_out = plugin("file-sink");
    let config = checked(&plugin_out, json!({"path": to}));
    let Plugin::Sink(sink) = plugin_out else {
        panic!("not a sink")
    };
    let mut sink = sink.create();
    let context = SinkContext {
        config,
        partitions: partitions(1),
        total_partitions: 1,
        task: 0,
        tasks: 1,
        env,
    };
    sink.open(context).await.unwrap();

    loop {
        let polled = source.poll(max_bytes).await.unwrap();
        sink.write(polled.records.into_iter().enumerate().map(carried).collect())
            .await
            .unwrap();
        if polled.end {
            break;
        }
    }
    sink.flush().await.unwrap();
    fs::read(to).unwrap()
}

fn copied(content: &[u8], max_bytes: usize) -> Vec<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(copy(content, max_bytes))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn any_file_comes_out_byte_by_byte(
        content in prop::collection::vec(prop::sample::select(b"\n\n\ra\xc3\xa9\xff\0".to_vec()), 0..300),
        max_bytes in 1usize..500,
    ) {
        prop_assert_eq!(copied(&content, max_bytes), content);
    }
}

#[test]
fn also_a_large_one() {
    let content: Vec<u8> = (0..200_000)
        .flat_map(|i| format!("Zeile {i} é\n").into_bytes())
        .collect();
    assert!(copied(&content, 1 << 20) == content);
}
