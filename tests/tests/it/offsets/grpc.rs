use anyhow::{Context, ensure};
use gantry_tests::run;
use serde_json::{Value, json};

use super::{Site, TEST, length_of};
use crate::grpcurl::{call, refused};

#[test]
fn offsets_are_altered_from_grpcurl() {
    run(TEST, async |work| {
        let site = Site::start(work).await?;
        let dev = &site.dev;
        site.create(&site.sink("lines-out", "RUNNING"), &["--wait"])
            .await?;
        let mut definition = site.source("connectors/lines-in", "TARGET_STATE_STOPPED");
        definition["name"] = "connectors/lines-in".into();
        call(dev, "CreateConnector", &json!({ "connector": definition })).await?;
        let name = "connectors/lines-in/offsets";
        let path = json!({ "path": { "string_value": site.input.display().to_string() } });
        let half = length_of(5).to_string();
        let mut alter = json!({
            "name": name,
            "changes": [{ "partition": path, "position": { "byte": { "int64_value": half } } }],
            "validate_only": true,
            "request_id": "5b1a3ad0-3c5e-4a86-9a0f-2f8f4cb9d6aa",
        });
        let checked = call(dev, "AlterConnectorOffsets", &alter).await?;
        ensure!(
            checked["offsets"][0]["after"]["byte"]["uint64Value"] == half && checked.get("changed").is_none(),
            "{checked}"
        );
        alter["validate_only"] = false.into();
        let altered = call(dev, "AlterConnectorOffsets", &alter).await?;
        ensure!(altered["changed"] == true && altered["epoch"] == "1", "{altered}");
        // Sent again it has had its effect.
        let again = call(dev, "AlterConnectorOffsets", &alter).await?;
        ensure!(again == altered, "{again}");
        alter["changes"][0]["position"]["byte"]["int64_value"] = "0".into();
        let said = refused(dev, "AlterConnectorOffsets", &alter).await?;
        ensure!(said.contains("REQUEST_ID_REUSED"), "{said}");

        let connector = json!({ "name": "connectors/lines-in" });
        call(dev, "ResumeConnector", &connector).await?;
        site.arrive(5..10).await?;
        site.read_to("lines-in", length_of(10)).await?;

        let said = refused(dev, "ResetConnectorOffsets", &json!({ "name": name })).await?;
        for part in [
            "FailedPrecondition",
            "ACTION_NOT_ALLOWED",
            "PreconditionFailure",
            "stop it first",
            "ALTER_OFFSETS",
        ] {
            ensure!(said.contains(part), "{part} is not in\n{said}");
        }
        call(dev, "StopConnector", &connector).await?;
        site.stopped("lines-in").await?;
        let wrong = json!({ "name": name, "changes": [
            { "partition": path, "position": { "line": { "int64_value": "1" } } },
            { "partition": { "path": { "string_value": "/elsewhere" } }, "place": "PLACE_EARLIEST" },
            { "partition": path },
        ] });
        let said = refused(dev, "AlterConnectorOffsets", &wrong).await?;
        ensure!(
            said.contains("BadRequest") && said.contains("changes[2].partition"),
            "{said}"
        );
        let mut wrong = wrong;
        wrong["changes"].as_array_mut().context("a list")?.pop();
        let said = refused(dev, "AlterConnectorOffsets", &wrong).await?;
        for part in [
            "changes[0]",
            "neither byte nor file",
            "changes[1]",
            "not among the files",
        ] {
            ensure!(said.contains(part), "{part} is not in\n{said}");
        }

        let reset = call(dev, "ResetConnectorOffsets", &json!({ "name": name })).await?;
        ensure!(
            reset["offsets"][0].get("after").is_none() && reset["epoch"] == "2",
            "{reset}"
        );
        let undone = call(dev, "UndoConnectorOffsets", &json!({ "name": name })).await?;
        ensure!(
            undone["offsets"][0]["after"]["byte"]["uint64Value"] == json!(length_of(10).to_string()),
            "{undone}"
        );
        let said = refused(
            dev,
            "UndoConnectorOffsets",
            &json!({ "name": name, "epoch": "9" }),
        )
        .await?;
        ensure!(
            said.contains("NOTHING_TO_UNDO") && said.contains("PreconditionFailure"),
            "{said}"
        );
        let all = json!({ "name": name, "include_lag": true, "include_history": true });
        let got = call(dev, "GetConnectorOffsets", &all).await?;
        let kinds: Vec<&Value> = got["alterations"]
            .as_array()
            .context("alterations")?
            .iter()
            .map(|a| &a["kind"])
            .collect();
        ensure!(kinds == ["KIND_UNDO", "KIND_RESET", "KIND_ALTER"], "{got}");
        let partition = &got["partitions"][0];
        ensure!(
            partition["lag"] == "0" && partition["lagUnit"] == "bytes",
            "{got}"
        );
        ensure!(
            partition["history"].as_array().is_some_and(|h| !h.is_empty()),
            "{got}"
        );

        call(
            dev,
            "DeleteConnector",
            &json!({ "name": "connectors/lines-in", "keep_offsets": true }),
        )
        .await?;
        let kept = gantry_tests::wait::eventually(super::SOON, "they are kept", async || {
            let kept = call(dev, "ListRetainedOffsets", &json!({})).await?;
            ensure!(kept["retainedOffsets"].is_array(), "{kept}");
            Ok(kept)
        });
        let kept = kept.await?;
        let kept = &kept["retainedOffsets"][0];
        ensure!(
            kept["connector"] == "connectors/lines-in" && kept["partitionCount"] == 1,
            "{kept}"
        );
        definition["name"] = "connectors/heir".into();
        let create = json!({ "connector": definition, "adopt_offsets_uid": kept["uid"] });
        call(dev, "CreateConnector", &create).await?;
        let got = call(
            dev,
            "GetConnectorOffsets",
            &json!({ "name": "connectors/heir/offsets" }),
        )
        .await?;
        ensure!(
            got["partitions"][0]["position"]["byte"]["uint64Value"] == json!(length_of(10).to_string()),
            "{got}"
        );
        Ok(())
    });
}
