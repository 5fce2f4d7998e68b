use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use gantry_client::Error;
use gantry_client::v1::connector::{State, TargetState};
use gantry_client::v1::{Connector, View};
use gantry_tests::run;
use gantry_tests::wait::eventually;
use serde_json::{Value, json};

use super::{SOON, Site, TEST, contains};

/// A directory of definitions.
struct Files {
    dir: PathBuf,
}

impl Files {
    fn new(site: &Site<'_>) -> Result<Self> {
        let dir = site.work.dir("definitions")?;
        Ok(Self { dir })
    }

    fn write(&self, name: &str, definition: &Value) -> Result<()> {
        let path = self.dir.join(format!("{name}.json"));
        Ok(std::fs::write(path, definition.to_string())?)
    }

    /// `COMMAND -f DIR MORE`.
    fn with(&self, command: &str, more: &str) -> String {
        let all = format!("{command} -f {} {more}", self.dir.display());
        all.trim_end().to_owned()
    }
}

fn hash(plan: &str) -> Result<String> {
    let line = plan.lines().find_map(|l| l.strip_prefix("plan "));
    Ok(line.with_context(|| format!("no hash in\n{plan}"))?.to_owned())
}

async fn all(site: &Site<'_>) -> Result<Vec<Connector>> {
    Ok(site.client.list("", View::Full).await?)
}

fn names(connectors: &[Connector]) -> Vec<&str> {
    let names = connectors.iter().map(|c| c.name.as_str());
    names.map(|n| n.trim_start_matches("connectors/")).collect()
}

#[test]
fn files_are_applied_once_and_then_nothing_is_written() {
    run(TEST, async |work| {
        let site = Site::start(work).await?;
        let files = Files::new(&site)?;
        files.write("a", &site.source("a"))?;
        files.write("b", &site.source("b"))?;

        // Looked at, and nothing is stored without a word.
        let plan = site.gantry(&files.with("diff", "")).await?;
        contains(
            &plan,
            &[
                "+ connectors/a: create",
                "topic",
                "\"lines\"",
                "2 to create, 0 to update, 0 to delete, 0 unchanged",
            ],
        )?;
        let dry = site.gantry(&files.with("apply", "--dry-run")).await?;
        ensure!(dry == plan, "{dry} is not {plan}");
        site.refused(1, &files.with("diff", "--exit-code"), &["2 connectors"])
            .await?;
        site.refused(2, &files.with("apply", ""), &["nothing was written", "--yes"])
            .await?;
        ensure!(all(&site).await?.is_empty(), "something was stored");

        let done = site.gantry(&files.with("apply", "--yes --wait")).await?;
        contains(&done, &["connectors/a created", "connectors/b created"])?;
        let first = all(&site).await?;
        ensure!(names(&first) == ["a", "b"], "{first:?}");

        // The second time there is nothing to do, and nobody has to be asked.
        let again = site.gantry(&files.with("apply", "")).await?;
        contains(&again, &["nothing to change: 2 are as they shall be"])?;
        site.gantry(&files.with("diff", "--exit-code")).await?;
        for connector in &first {
            site.unchanged(connector).await?;
            ensure!(
                site.client.revisions(&connector.name, View::Basic).await?.len() == 1,
                "a second revision"
            );
        }

        // What a file no longer says becomes the default; what it never said of the target state stays.
        let mut changed = site.source("a");
        changed["labels"] = json!({ "team": "billing" });
        changed["tasks_max"] = 2.into();
        let definition = changed.as_object_mut().context("an object")?;
        definition.remove("target_state");
        files.write("a", &changed)?;
        let plan = site.gantry(&files.with("diff", "-o wide")).await?;
        contains(
            &plan,
            &[
                "~ connectors/a: update",
                "+  labels.team  \"billing\"",
                "~  tasks_max    1 -> 2",
                "= connectors/b: unchanged",
            ],
        )?;
        ensure!(!plan.contains("target_state"), "{plan}");
        // The hash is of what is done: that somebody resumes `a` meanwhile is not undone by it, and no reason to refuse.
        let seen = hash(&plan)?;
        site.client.resume("a").await?;
        let done = site
            .gantry(&files.with("apply", &format!("--plan-hash {seen}")))
            .await?;
        contains(&done, &["connectors/a updated, generation 3"])?;
        let a = site.client.get("a").await?;
        ensure!(
            a.tasks_max == 2 && a.target_state() == TargetState::Running,
            "{a:?}"
        );
        let definition = changed.as_object_mut().context("an object")?;
        definition.remove("labels");
        definition.remove("tasks_max");
        files.write("a", &changed)?;
        let seen = hash(&site.gantry(&files.with("diff", "")).await?)?;

        // Another plan than the one that was seen is not carried out.
        let other = Connector {
            tasks_max: 7,
            ..a.clone()
        };
        let other = site
            .client
            .update(
                Connector {
                    etag: String::new(),
                    ..other
                },
                &["tasks_max"],
                false,
            )
            .await?;
        let stale = files.with("apply", &format!("--plan-hash {seen}"));
        site.refused(1, &stale, &["the plan is another one now", &seen])
            .await?;
        site.unchanged(&other).await?;
        let now = site.json(&files.with("diff", "")).await?;
        ensure!(
            now["changes"][0]["etag"] == json!(other.etag)
                && now["changes"][0]["action"] == "ACTION_UPDATE"
                && now["changes"][1]["action"] == "ACTION_NONE",
            "{now}"
        );
        let now = now["planHash"].as_str().context("a hash")?;
        site.gantry(&files.with("apply", &format!("--plan-hash {now}")))
            .await?;
        let a = site.client.get("a").await?;
        ensure!(a.tasks_max == 1 && a.labels.is_empty(), "{a:?}");
        Ok(())
    });
}

#[test]
fn only_what_pruning_is_bound_to_is_deleted() {
    run(TEST, async |work| {
        let site = Site::start(work).await?;
        let files = Files::new(&site)?;
        let labelled = |name: &str, team: &str, target: &str| {
            let mut definition = site.source(name);
            definition["labels"] = json!({ "team": team });
            definition["target_state"] = target.into();
            definition
        };
        site.create(&labelled("theirs", "shipping", "STOPPED")).await?;
        site.create(&labelled("old", "billing", "RUNNING")).await?;
        files.write("new", &labelled("new", "billing", "STOPPED"))?;

        site.refused(2, &files.with("apply", "--prune --yes"), &["--selector", "--all"])
            .await?;
        let star = files.with("apply", "--prune -l team=* --yes");
        site.refused(2, &star, &["compared as a whole"]).await?;
        let other = files.with("apply", "--prune -l team=shipping --yes");
        site.refused(2, &other, &["new has no label team=shipping", "new.json:1"])
            .await?;
        let plain = site.gantry(&files.with("diff", "")).await?;
        contains(&plain, &["1 to create, 0 to update, 0 to delete"])?;
        let pruning = files.with("apply", "--prune -l team=billing --yes --wait");
        let done = site.gantry(&pruning).await?;
        contains(
            &done,
            &[
                "+ connectors/new: create",
                "- connectors/old: delete",
                "connectors/old is being deleted",
            ],
        )?;
        let left = all(&site).await?;
        ensure!(names(&left) == ["new", "theirs"], "{left:?}");
        let again = site.gantry(&pruning).await?;
        contains(&again, &["nothing to change: 1 are"])?;

        let everything = site
            .gantry(&files.with("apply", "--prune --all --yes --wait"))
            .await?;
        contains(&everything, &["- connectors/theirs: delete"])?;
        ensure!(names(&all(&site).await?) == ["new"], "theirs is still there");

        site.refused(2, &files.with("delete", ""), &["nothing was written"])
            .await?;
        site.client.resume("new").await?;
        site.refused(1, &files.with("delete", "--yes"), &["stop it first"])
            .await?;
        let gone = site.gantry(&files.with("delete", "--yes --force --wait")).await?;
        contains(&gone, &["connectors/new is being deleted"])?;
        ensure!(all(&site).await?.is_empty(), "new is still there");
        let again = site.gantry(&files.with("delete", "--yes")).await?;
        contains(&again, &["nothing to delete"])
    });
}

#[test]
fn a_definition_that_is_refused_stops_all_of_it_before_it_begins() {
    run(TEST, async |work| {
        let site = Site::start(work).await?;
        let files = Files::new(&site)?;
        files.write("a", &site.source("a"))?;
        let mut wrong = site.source("b");
        wrong["tasks_max"] = 5000.into();
        wrong["config"] = json!({ "paths": ["/x"], "kee": "path" });
        files.write("b", &wrong)?;
        let apply = files.with("apply", "--yes");
        site.refused(
            1,
            &apply,
            &[
                "connectors/b is not valid",
                "b.json:1 tasks_max",
                "b.json:1 config.kee",
            ],
        )
        .await?;
        files.write("b", &json!({ "name": "b", "task_max": 1 }))?;
        site.refused(1, &apply, &["unknown field `task_max`", "b.json:1"])
            .await?;
        files.write("b", &site.source("a"))?;
        site.refused(1, &apply, &["a is defined twice", "a.json:1", "b.json:1"])
            .await?;
        let nowhere = site.work.dir("empty")?.display().to_string();
        site.refused(
            1,
            &format!("apply --prune --all --yes -f {nowhere}"),
            &["no definition file"],
        )
        .await?;
        site.refused(
            2,
            &format!("{apply} --request-id 0d9f7ed2-55cd-4a1f-8a58-0a4b7d0b7b11"),
            &["--request-id"],
        )
        .await?;
        ensure!(all(&site).await?.is_empty(), "something was stored");

        // The plugin of a connector that is there cannot become another.
        site.create(&site.source("a")).await?;
        let mut other = site.source("a");
        other["plugin"] = "generator-source".into();
        std::fs::remove_file(files.dir.join("b.json"))?;
        files.write("a", &other)?;
        site.refused(1, &apply, &["a.json:1 plugin: cannot be changed"])
            .await
    });
}

#[test]
fn what_is_exported_is_taken_back_as_it_is() {
    run(TEST, async |work| {
        let site = Site::start(work).await?;
        let mut rich = site.source("rich");
        rich["labels"] = json!({ "team": "no", "a.b/c": "0123", "someThing": "" });
        rich["config"]["key"] = "path".into();
        rich["target_state"] = "PAUSED".into();
        rich["tasks_max"] = 3.into();
        rich["ordering"] = "KEY".into();
        rich["drain_timeout"] = "1.500s".into();
        rich["restart_policy"] = json!({ "max_restarts": 5, "initial_backoff": "2s" });
        rich["error_policy"] = json!({ "on_record_error": "SKIP" });
        site.create(&rich).await?;
        site.create(&site.source("plain")).await?;
        let before = all(&site).await?;

        let dir = site.work.path().join("exported").display().to_string();
        let written = site.gantry(&format!("export --to {dir}")).await?;
        contains(&written, &["plain.yaml", "rich.yaml"])?;
        let text = std::fs::read_to_string(format!("{dir}/rich.yaml"))?;
        contains(
            &text,
            &["name: rich\n", "tasks_max: 3\n", "target_state: PAUSED\n"],
        )?;
        let same = site.gantry(&format!("apply -f {dir} --prune --all")).await?;
        contains(&same, &["nothing to change: 2 are"])?;
        for format in ["yaml", "json"] {
            let file = site.work.path().join("all.yaml").display().to_string();
            std::fs::write(&file, site.gantry(&format!("export -o {format}")).await?)?;
            let same = site.gantry(&format!("diff -f {file} --exit-code")).await?;
            contains(&same, &["nothing to change: 2 are"])?;
        }
        for connector in &before {
            site.unchanged(connector).await?;
        }
        let some = site.gantry("export --filter target_state=PAUSED").await?;
        ensure!(
            some.contains("name: rich") && !some.contains("name: plain"),
            "{some}"
        );

        // In place of what was lost it is what it was.
        site.gantry(&format!("delete -f {dir} --yes --force --wait"))
            .await?;
        site.gantry(&format!("apply -f {dir} --yes")).await?;
        let after = all(&site).await?;
        for (b, a) in before.iter().zip(&after) {
            let input = |c: &Connector| {
                let mut c = serde_json::to_value(c)?;
                let fields = c.as_object_mut().context("an object")?;
                let system = [
                    "uid",
                    "etag",
                    "generation",
                    "observedGeneration",
                    "reconciling",
                    "state",
                    "error",
                    "planError",
                    "allowedActions",
                    "taskCounts",
                    "createTime",
                    "updateTime",
                ];
                system.iter().for_each(|f| {
                    fields.remove(*f);
                });
                anyhow::Ok(c)
            };
            ensure!(input(b)? == input(a)? && a.uid != b.uid, "{a:?} is not {b:?}");
        }
        Ok(())
    });
}

#[test]
fn a_change_that_somebody_else_makes_meanwhile_is_kept() {
    run(TEST, async |work| {
        let site = Site::start(work).await?;
        let present = site.create(&site.source("a")).await?;
        let wanted: Connector = serde_json::from_value(json!({
            "name": "a", "plugin": "file-source", "topic": "lines", "tasksMax": 2,
            "config": { "paths": ["/x"] },
        }))?;
        // What `apply` does with a plan, and somebody else in between.
        let plan = site.client.plan(std::slice::from_ref(&wanted), None).await?;
        let change = plan.changes.first().context("one change")?;
        ensure!(
            change.etag == present.etag && change.uid == present.uid,
            "{change:?}"
        );
        site.client.resume("a").await?;
        let write = Connector {
            etag: change.etag.clone(),
            ..wanted
        };
        let refused: Result<Connector, Error> = site.client.update(write, &["*"], false).await;
        let reason = refused.err().and_then(|e| e.reason());
        ensure!(
            reason == Some(gantry_proto::error::Reason::EtagMismatch),
            "{reason:?}"
        );
        eventually(SOON, "the connector does what it was told last", async || {
            let a = site.client.get("a").await?;
            ensure!(
                a.target_state() == TargetState::Running && a.tasks_max == 1,
                "{a:?}"
            );
            ensure!(a.state() != State::Stopped, "{a:?}");
            Ok(())
        })
        .await
    });
}
