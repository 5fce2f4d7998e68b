use anyhow::{Result, ensure};
use gantry_client::v1::{
    Connector, CreateConnectorRequest, PatchConnectorConfigRequest, ResumeConnectorRequest,
};
use gantry_proto::error::Reason;
use gantry_tests::connectors::definition;
use gantry_tests::run;
use serde_json::{Value, json};

use super::{Site, TEST, reason, stopped, why};

#[test]
fn writes_are_conditional_and_can_be_repeated() {
    run(TEST, async |work| {
        let mut site = Site::start(work, &["one"]).await?;
        let valid = site.source("edited", &stopped())?;
        // Nothing of a check is stored.
        site.client.create(valid.clone(), true).await?;
        ensure!(
            why(site.client.get("edited").await)? == Reason::ConnectorNotFound,
            "validate_only has stored"
        );
        let first = site.client.create(valid, false).await?;
        ensure!(
            first.generation == 1 && !first.etag.is_empty() && !first.uid.is_empty(),
            "{first:?}"
        );

        // A mask names what is replaced.
        let patch = Connector {
            tasks_max: 3,
            topic: "ignored".into(),
            ..site.source("edited", &stopped())?
        };
        let second = site.client.update(patch.clone(), &["tasks_max"], false).await?;
        ensure!(
            (second.tasks_max, second.topic.as_str(), second.generation) == (3, "lines", 2),
            "{second:?}"
        );
        ensure!(second.etag != first.etag && second.uid == first.uid, "{second:?}");
        ensure!(
            why(site.client.update(patch.clone(), &["tasks"], false).await)? == Reason::InvalidField,
            "mask"
        );
        let other = Connector {
            plugin: "file-sink".into(),
            ..patch.clone()
        };
        ensure!(
            why(site.client.update(other, &["plugin"], false).await)? == Reason::InvalidField,
            "plugin"
        );

        // An etag says what was read.
        let stale = Connector {
            etag: first.etag.clone(),
            tasks_max: 4,
            ..patch.clone()
        };
        ensure!(
            why(site.client.update(stale, &["tasks_max"], false).await)? == Reason::EtagMismatch,
            "stale etag"
        );
        let fresh = Connector {
            etag: second.etag.clone(),
            tasks_max: 4,
            ..patch.clone()
        };
        let third = site.client.update(fresh, &["tasks_max"], false).await?;
        ensure!((third.tasks_max, third.generation) == (4, 3), "{third:?}");
        // What changes nothing is no new generation.
        let same = site
            .client
            .update(
                Connector {
                    tasks_max: 4,
                    ..patch.clone()
                },
                &["tasks_max"],
                false,
            )
            .await?;
        ensure!((same.generation, &same.etag) == (3, &third.etag), "{same:?}");

        // Single keys.
        let patch_config = |set: Value, unset: &[&str], etag: &str, validate_only| -> Result<_> {
            Ok(PatchConnectorConfigRequest {
                name: "connectors/edited".into(),
                set: Some(serde_json::from_value(set)?),
                unset: unset.iter().map(|key| (*key).to_owned()).collect(),
                etag: etag.to_owned(),
                validate_only,
                request_id: String::new(),
            })
        };
        let check = patch_config(json!({ "key": "path" }), &[], "", true)?;
        let checked = site.raw.patch_connector_config(check).await?.into_inner();
        ensure!(config(&checked)?["key"] == "path", "{checked:?}");
        ensure!(
            site.client.get("edited").await?.etag == third.etag,
            "validate_only has stored"
        );
        let set = patch_config(
            json!({ "key": "path", "poll_interval": "50ms" }),
            &[],
            &third.etag,
            false,
        )?;
        let fourth = site.raw.patch_connector_config(set.clone()).await?.into_inner();
        ensure!(
            config(&fourth)?["poll_interval"] == "50ms" && fourth.tasks_max == 4,
            "{fourth:?}"
        );
        ensure!(
            reason(site.raw.patch_connector_config(set).await)? == Reason::EtagMismatch,
            "stale etag"
        );
        let unset = patch_config(json!({}), &["poll_interval"], "", false)?;
        let fifth = site.raw.patch_connector_config(unset).await?.into_inner();
        let left = config(&fifth)?;
        ensure!(
            left.get("poll_interval").is_none() && left["key"] == "path" && left["paths"].is_array(),
            "{left}"
        );
        let wrong = patch_config(json!({ "kee": "path" }), &["paths"], "", false)?;
        ensure!(
            reason(site.raw.patch_connector_config(wrong).await)? == Reason::InvalidField,
            "two violations"
        );

        // A request that is sent again is carried out once, and its id fits no other. Maps have no order, so the same
        // request is not always the same bytes.
        let many = json!({
            "paths": ["/tmp/nothing"], "key": "path", "start": "end", "compression": "none",
            "poll_interval": "1s", "scan_interval": "1s", "rotate_wait": "1s", "idle_flush": "1s",
        });
        let id = "6f2c1d86-3c1e-4a43-9d29-0f4f0c1f6a11".to_owned();
        let create = CreateConnectorRequest {
            connector: Some(definition("repeated", "file-source", "lines", &many, &stopped())?),
            request_id: id.clone(),
            ..CreateConnectorRequest::default()
        };
        let once = site.raw.create_connector(create.clone()).await?.into_inner();
        let again = site.raw.create_connector(create.clone()).await?.into_inner();
        ensure!(
            once.uid == again.uid && again.generation == 1,
            "{once:?} and {again:?}"
        );
        let mut other = create.clone();
        other.connector = Some(site.source("another", &stopped())?);
        ensure!(
            reason(site.raw.create_connector(other).await)? == Reason::RequestIdReused,
            "reused"
        );
        ensure!(
            why(site.client.get("another").await)? == Reason::ConnectorNotFound,
            "a refusal has stored"
        );
        let anew = CreateConnectorRequest {
            request_id: String::new(),
            ..create
        };
        ensure!(
            reason(site.raw.create_connector(anew).await)? == Reason::ConnectorExists,
            "exists"
        );
        let id = "0b8de1ac-7f5e-4a0b-8a4e-2f3f4f4c9c11".to_owned();
        let resume = ResumeConnectorRequest {
            name: "connectors/repeated".into(),
            request_id: id,
        };
        for _ in 0..2 {
            let answer = site.raw.resume_connector(resume.clone()).await?.into_inner();
            ensure!(answer.changed, "the first answer was that it changed");
        }
        ensure!(
            !site.client.resume("repeated").await?.changed,
            "it was so already"
        );
        Ok(())
    });
}

fn config(connector: &Connector) -> Result<Value> {
    Ok(serde_json::to_value(&connector.config)?)
}
