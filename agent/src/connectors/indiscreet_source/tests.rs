use gantry_connector::{Domain, Env, SourceContext, SourcePlugin};
use serde_json::json;

use super::{IndiscreetSourcePlugin, source::digest};

/// What a start with this choice comes to: the record's value, or the error.
async fn starts(tells: &str) -> Result<String, (Domain, String)> {
    let given = json!({ "password": "${env:GANTRY_SECRET_A}", "tells": tells });
    let mut config = IndiscreetSourcePlugin
        .info()
        .spec
        .check(given.as_object().unwrap())
        .unwrap();
    config.set("password", "hunter2");
    let mut source = IndiscreetSourcePlugin.create();
    let told = |e: gantry_connector::ConnectorError| (e.domain(), e.chain());
    let context = SourceContext {
        config,
        positions: vec![],
        task: 0,
        tasks: 1,
        env: Env::default(),
    };
    source.open(context).await.map_err(told)?;
    let polled = source.poll(1000).await.map_err(told)?;
    assert!(source.poll(1000).await.map_err(told)?.records.is_empty());
    let record = polled.records.into_iter().next().unwrap();
    match record.value {
        gantry_connector::Payload::Bytes(bytes) => Ok(String::from_utf8(bytes.to_vec()).unwrap()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn it_tells_its_secret_where_it_is_asked_to_and_sends_only_a_digest() {
    assert_eq!(starts("log").await, Ok(digest("hunter2")));
    for (tells, domain) in [
        ("open", Domain::Environment),
        ("poll", Domain::Task),
        ("refusal", Domain::User),
    ] {
        let (found, text) = starts(tells).await.unwrap_err();
        assert!(found == domain && text.contains("hunter2"), "{tells}: {text}");
    }
}
