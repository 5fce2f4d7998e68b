use anyhow::{Context, Result, ensure};
use gantry_client::v1::{Connector, View};
use gantry_tests::run;
use gantry_tests::wait::eventually;
use serde_json::{Value, json};

use super::{SOON, Site, TEST, contains};
use crate::grpcurl::{call, refused};

/// Three revisions of a connector, and writes that are none.
async fn three_revisions(site: &Site<'_>, name: &str) -> Result<Connector> {
    site.create(&site.source(name)).await?;
    let mut wanted = Connector {
        name: name.into(),
        tasks_max: 3,
        labels: [("team".into(), "billing".into())].into(),
        ..Connector::default()
    };
    site.client
        .update(wanted.clone(), &["tasks_max", "labels"], false)
        .await?;
    // What shall be done with a definition is no definition.
    site.client.resume(name).await?;
    site.client.pause(name).await?;
    wanted.set_target_state(gantry_client::v1::connector::TargetState::Running);
    site.client
        .update(wanted.clone(), &["target_state"], false)
        .await?;
    wanted.labels = [("team".into(), "shipping".into())].into();
    let third = site.client.update(wanted, &["labels"], false).await?;
    ensure!(third.generation == 6, "{third:?}");
    Ok(third)
}

#[test]
fn a_connector_has_a_history_and_can_go_back_in_it() {
    run(TEST, async |work| {
        let site = Site::start(work).await?;
        let third = three_revisions(&site, "lines-in").await?;

        let table = site.gantry("connectors history lines-in").await?;
        let rows: Vec<Vec<&str>> = table.lines().map(|l| l.split_whitespace().collect()).collect();
        ensure!(
            rows.len() == 4 && rows[0][..3] == ["REVISION", "AGE", "BY"],
            "{table}"
        );
        let told: Vec<(&str, &str, &str)> = rows[1..].iter().map(|r| (r[0], r[2], r[3])).collect();
        ensure!(
            told == [
                ("3", "anonymous", "labels.team"),
                ("2", "anonymous", "labels.team,"),
                ("1", "anonymous", "-")
            ],
            "{table}"
        );
        let all = site.json("connectors history lines-in").await?;
        let second = &all[1];
        ensure!(
            second["name"] == "connectors/lines-in/revisions/2"
                && second["connector"]["tasksMax"] == 3
                && second["connector"].get("targetState").is_none()
                && second["changedPaths"] == json!(["labels.team", "tasks_max"])
                && second["requestId"].as_str().is_some_and(|id| id.len() == 36)
                && second["createTime"].is_string(),
            "{second}"
        );

        let diff = site.gantry("connectors diff lines-in 1").await?;
        contains(
            &diff,
            &[
                "from revision 1 to 3",
                "+  labels.team  \"shipping\"",
                "~  tasks_max    1 -> 3",
            ],
        )?;
        let diff = site.gantry("connectors diff lines-in 2 1").await?;
        contains(&diff, &["-  labels.team  \"billing\"", "~  tasks_max    3 -> 1"])?;
        let same = site.gantry("connectors diff lines-in 3").await?;
        contains(&same, &["are the same"])?;
        site.refused(3, "connectors diff lines-in 4", &["revisions 1 to 3"])
            .await?;
        site.refused(3, "connectors history nobody", &["connectors/nobody"])
            .await?;
        site.refused(3, "connectors rollback lines-in 4", &["revisions 1 to 3"])
            .await?;

        // Looked at first, then done, then done already.
        let checked = site
            .gantry("connectors rollback lines-in 1 --validate-only")
            .await?;
        contains(&checked, &["tasks_max", "3 -> 1", "nothing was stored"])?;
        site.unchanged(&third).await?;
        site.refused(
            1,
            "connectors rollback lines-in 1 --etag 1",
            &["changed by somebody else"],
        )
        .await?;
        let done = site
            .gantry(&format!("connectors rollback lines-in 1 --etag {}", third.etag))
            .await?;
        contains(
            &done,
            &[
                "3 -> 1",
                "connectors/lines-in rolled back to revision 1, generation 7",
            ],
        )?;
        let back = site.client.get("lines-in").await?;
        ensure!(
            back.tasks_max == 1 && back.labels.is_empty() && back.target_state == third.target_state,
            "{back:?}"
        );
        let again = site.gantry("connectors rollback lines-in 1").await?;
        contains(&again, &["unchanged"])?;
        site.unchanged(&back).await?;
        let all = site.client.revisions("lines-in", View::Full).await?;
        ensure!(
            all.len() == 4 && all[0].connector == all[3].connector,
            "the newest is not the oldest: {all:?}"
        );
        eventually(SOON, "the rollback is among the events", async || {
            let described = site.gantry("connectors describe lines-in").await?;
            contains(&described, &["ROLLED_BACK", "the definition of revision 1 again"])
        })
        .await?;

        // The last fifty are kept.
        for n in 0..50 {
            let label = Connector {
                name: "lines-in".into(),
                labels: [("n".into(), n.to_string())].into(),
                ..Connector::default()
            };
            site.client.update(label, &["labels"], false).await?;
        }
        let kept = site.client.revisions("lines-in", View::Basic).await?;
        ensure!(
            kept.len() == 50
                && kept
                    .iter()
                    .all(|r| r.connector.as_ref().is_some_and(|c| c.config.is_none())),
            "{}",
            kept.len()
        );
        site.refused(3, "connectors rollback lines-in 4", &["revisions 5 to 54"])
            .await
    });
}

#[test]
fn history_from_grpcurl() {
    run(TEST, async |work| {
        let site = Site::start(work).await?;
        three_revisions(&site, "lines-in").await?;
        let (dev, parent) = (&site.dev, json!("connectors/lines-in"));

        let mut names = Vec::new();
        let mut token = json!("");
        loop {
            let list = json!({ "parent": parent, "page_size": 2, "page_token": token, "view": "VIEW_BASIC" });
            let page = call(dev, "ListConnectorRevisions", &list).await?;
            let revisions = page["revisions"].as_array().context("a page")?;
            names.extend(revisions.iter().map(|r| r["name"].clone()));
            match page.get("nextPageToken") {
                Some(next) => token = next.clone(),
                None => break,
            }
        }
        let name = |r: i64| format!("connectors/lines-in/revisions/{r}");
        ensure!(names == [name(3), name(2), name(1)], "{names:?}");

        let second = call(dev, "GetConnectorRevision", &json!({ "name": name(2) })).await?;
        ensure!(
            second["connector"]["labels"]["team"] == "billing" && second["principal"] == "anonymous",
            "{second}"
        );
        let said = refused(dev, "GetConnectorRevision", &json!({ "name": name(9) })).await?;
        contains(
            &said,
            &[
                "NotFound",
                "REVISION_NOT_FOUND",
                "revisions 1 to 3",
                "ResourceInfo",
            ],
        )?;
        let said = refused(dev, "GetConnectorRevision", &json!({ "name": parent })).await?;
        contains(
            &said,
            &["InvalidArgument", "connectors/{connector}/revisions/{revision}"],
        )?;

        let diff = json!({ "name": parent, "from_revision": "2" });
        let diff = call(dev, "DiffConnectorRevisions", &diff).await?;
        let wanted: Value = json!([{ "path": "labels.team", "before": "billing", "after": "shipping" }]);
        ensure!(
            diff["differences"] == wanted && diff["toRevision"] == "3",
            "{diff}"
        );
        let said = refused(dev, "DiffConnectorRevisions", &json!({ "name": parent })).await?;
        contains(&said, &["BadRequest", "from_revision"])?;

        let mut rollback = json!({
            "name": parent,
            "revision": "2",
            "validate_only": true,
            "request_id": "0d9f7ed2-55cd-4a1f-8a58-0a4b7d0b7b11",
        });
        let checked = call(dev, "RollbackConnector", &rollback).await?;
        ensure!(
            checked["connector"]["labels"]["team"] == "billing" && checked.get("changed").is_none(),
            "{checked}"
        );
        rollback["validate_only"] = false.into();
        let done = call(dev, "RollbackConnector", &rollback).await?;
        ensure!(
            done["changed"] == true && done["connector"]["generation"] == "7",
            "{done}"
        );
        // Sent again it has had its effect.
        let again = call(dev, "RollbackConnector", &rollback).await?;
        ensure!(
            again["changed"] == true && again["connector"]["generation"] == "7",
            "{again}"
        );
        rollback["revision"] = "1".into();
        let said = refused(dev, "RollbackConnector", &rollback).await?;
        contains(&said, &["REQUEST_ID_REUSED"])?;
        let stale = json!({ "name": parent, "revision": "1", "etag": "1" });
        let said = refused(dev, "RollbackConnector", &stale).await?;
        contains(&said, &["Aborted", "ETAG_MISMATCH"])
    });
}
