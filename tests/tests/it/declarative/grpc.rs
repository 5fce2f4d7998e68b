use anyhow::{Context, ensure};
use gantry_tests::run;
use serde_json::{Value, json};

use super::{Site, TEST, contains};
use crate::grpcurl::{call, refused};

#[test]
fn a_plan_is_made_and_carried_out_from_grpcurl() {
    run(TEST, async |work| {
        let site = Site::start(work).await?;
        let dev = &site.dev;
        let definition = |name: &str, tasks: i32| {
            let mut definition = site.source(name);
            definition["name"] = format!("connectors/{name}").into();
            definition["target_state"] = "TARGET_STATE_STOPPED".into();
            definition["tasks_max"] = tasks.into();
            definition
        };
        for name in ["changes", "goes", "stays"] {
            let connector = definition(name, 1);
            call(dev, "CreateConnector", &json!({ "connector": connector })).await?;
        }
        let wanted = json!([
            definition("stays", 1),
            definition("changes", 2),
            definition("new", 1)
        ]);
        let request = json!({ "connectors": wanted, "prune_filter": "name:connectors" });
        let plan = call(dev, "PlanConnectors", &request).await?;
        let changes = plan["changes"].as_array().context("a plan")?;
        let told: Vec<(&Value, &Value)> = changes.iter().map(|c| (&c["name"], &c["action"])).collect();
        let name = |name: &str| json!(format!("connectors/{name}"));
        ensure!(
            told == [
                (&name("changes"), &json!("ACTION_UPDATE")),
                (&name("goes"), &json!("ACTION_DELETE")),
                (&name("new"), &json!("ACTION_CREATE")),
                (&name("stays"), &json!("ACTION_NONE")),
            ],
            "{plan}"
        );
        let difference = json!([{ "path": "tasks_max", "before": 1, "after": 2 }]);
        ensure!(changes[0]["differences"] == difference, "{plan}");
        ensure!(plan["planHash"].as_str().is_some_and(|h| h.len() == 64), "{plan}");
        let again = call(dev, "PlanConnectors", &request).await?;
        ensure!(again == plan, "{again} is not {plan}");
        let unpruned = call(dev, "PlanConnectors", &json!({ "connectors": wanted })).await?;
        ensure!(
            unpruned["changes"].as_array().is_some_and(|c| c.len() == 3)
                && unpruned["planHash"] != plan["planHash"],
            "{unpruned}"
        );

        let mut update = definition("changes", 2);
        update["etag"] = changes[0]["etag"].clone();
        let update = json!({ "connector": update, "update_mask": { "paths": ["*"] } });
        call(dev, "UpdateConnector", &update).await?;
        let delete = json!({ "name": name("goes"), "etag": changes[1]["etag"], "force": true });
        call(dev, "DeleteConnector", &delete).await?;
        call(
            dev,
            "CreateConnector",
            &json!({ "connector": definition("new", 1) }),
        )
        .await?;
        let empty = call(dev, "PlanConnectors", &request).await?;
        let left = empty["changes"].as_array().context("a plan")?;
        ensure!(
            left.len() == 3 && left.iter().all(|c| c["action"] == "ACTION_NONE"),
            "{empty}"
        );
        // The plan was for what was there then.
        let said = refused(dev, "UpdateConnector", &update).await?;
        contains(&said, &["Aborted", "ETAG_MISMATCH"])?;

        // What is wrong is told as data; what is no plan at all is refused.
        let mut wrong = definition("new", 0);
        wrong["tasks_max"] = (-1).into();
        let refusing = json!({ "connectors": [wrong] });
        let plan = call(dev, "PlanConnectors", &refusing).await?;
        ensure!(
            plan["changes"][0]["action"] == "ACTION_REFUSED"
                && plan["changes"][0]["findings"][0]["field"] == "tasks_max"
                && plan.get("planHash").is_none(),
            "{plan}"
        );
        let twice = json!({ "connectors": [definition("a", 1), definition("a", 1), { "name": "A" }] });
        let said = refused(dev, "PlanConnectors", &twice).await?;
        contains(
            &said,
            &[
                "BadRequest",
                "connectors[1].name",
                "defined twice",
                "connectors[2].name",
            ],
        )?;
        let filter = json!({ "prune_filter": "colour=red" });
        let said = refused(dev, "PlanConnectors", &filter).await?;
        contains(&said, &["INVALID_FILTER", "prune_filter"])
    });
}
