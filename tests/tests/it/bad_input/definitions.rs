//! Definitions that are wrong. They are refused before anything is stored.

use std::fs;

use anyhow::{Context, Result, ensure};
use gantry_client::v1::Plugin;
use gantry_client::{Client, Error};
use gantry_tests::connectors::definition;
use gantry_tests::wait::eventually;
use gantry_tests::{Cli, WorkDir, run};
use serde_json::json;

use super::{SOON, TEST, dev, nothing_is_stored};

/// Creates what the text defines.
async fn create(work: &WorkDir, cli: &Cli, text: &str, mentions: &[&str]) -> Result<Vec<String>> {
    let file = work.path().join("definition.yaml");
    fs::write(&file, text)?;
    let answer = cli
        .call(&["connectors", "create", "-f", &file.display().to_string()])
        .await?;
    answer
        .refused(1, mentions)
        .with_context(|| text.chars().take(1_000).collect::<String>())?;
    nothing_is_stored(cli).await?;
    Ok(answer.places().into_iter().map(str::to_owned).collect())
}

#[test]
fn plugins_and_parameters() {
    run(TEST, async |work| {
        let (_dev, cli) = dev(work).await?;
        let text = "name: a\nplugin: file-sorce\ntopic: t\nconfig: {paths: [/tmp/x]}\n";
        create(
            work,
            &cli,
            text,
            &["file-sorce", "file-source", "definition.yaml:1"],
        )
        .await?;
        create(work, &cli, "name: a\ntopic: t\n", &["plugin"]).await?;

        // Missing, unknown and mistyped, all at once; the nearest names are given.
        let text = "name: a\nplugin: file-source\ntopic: t\ntasks_max: -1\nlabels: {kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk: x}\nconfig:\n  \
                    pahts: [/tmp/x]\n  follow: perhaps\n  idle_flush: 5 parsecs\n  start: middle\n  max_line_bytes: [1]\n";
        let places = create(work, &cli, text, &["did you mean paths", "definition.yaml"]).await?;
        for field in [
            "pahts",
            "paths",
            "follow",
            "idle_flush",
            "start",
            "max_line_bytes",
            "tasks_max",
            "labels",
        ] {
            let found = places
                .iter()
                .any(|place| place.contains(&format!("{field}:")) || place.contains(field));
            ensure!(found, "{field} is not among {places:#?}");
        }

        // Everything that is wrong in what surrounds the parameters.
        create(
            work,
            &cli,
            "name: a\nplugin: file-source\nconfig: {paths: [/tmp/x]}\n",
            &["topic"],
        )
        .await?;
        let relative = "name: a\nplugin: file-source\ntopic: t\nconfig: {paths: [x.log]}\n";
        create(work, &cli, relative, &["absolute"]).await?;
        let excluded =
            "name: a\nplugin: file-source\ntopic: t\nconfig: {paths: [/x], follow: false, idle_flush: 1s}\n";
        create(work, &cli, excluded, &["idle_flush", "follow"]).await?;
        let topic = "name: a\nplugin: file-source\ntopic: \"no such/topic name\"\nconfig: {paths: [/x]}\n";
        create(work, &cli, topic, &["topic"]).await?;
        Ok(())
    });
}

#[test]
fn files_and_ids() {
    run(TEST, async |work| {
        let (_dev, cli) = dev(work).await?;
        let good = "plugin: file-source\ntopic: t\nconfig: {paths: [/tmp/x]}\n";
        for id in [
            "Upper",
            "1st",
            "a_b",
            "a--",
            "-a",
            &"a".repeat(64),
            "a/b",
            "ä",
            "\"a b\"",
        ] {
            create(work, &cli, &format!("name: {id}\n{good}"), &["name"]).await?;
        }
        let unknown = "name: a\nplugin: file-source\ntopic: t\ntask_max: 2\n";
        create(work, &cli, unknown, &["task_max", "definition.yaml:4", "tasks"]).await?;
        create(
            work,
            &cli,
            "name: a\nplugin: [file-source\n",
            &["definition.yaml:"],
        )
        .await?;
        create(
            work,
            &cli,
            "name: a\nplugin: file-source\ntasks_max: many\n",
            &["definition.yaml:"],
        )
        .await?;
        create(
            work,
            &cli,
            "plugin: file-source\n",
            &["no name", "definition.yaml:1"],
        )
        .await?;
        create(work, &cli, "# nothing\n", &["definition.yaml"]).await?;
        let missing = work.path().join("missing.yaml").display().to_string();
        cli.refused(1, &["connectors", "create", "-f", &missing], &[&missing])
            .await?;

        // The second document is wrong, and is named; the first one is stored before.
        let two = format!("name: first\n{good}---\nname: second\nplugin: nonsense\ntopic: t\n");
        let file = work.path().join("two.yaml");
        fs::write(&file, two)?;
        let file = file.display().to_string();
        let checked = ["connectors", "create", "-f", &file, "--validate-only"];
        cli.refused(1, &checked, &["nonsense", "two.yaml:6"]).await?;
        nothing_is_stored(&cli).await
    });
}

#[test]
fn definitions_that_are_too_large() {
    run(TEST, async |work| {
        let (dev, cli) = dev(work).await?;
        // In one text, and in many small ones.
        let long = format!(
            "name: a\nplugin: file-source\ntopic: t\nconfig: {{paths: [/{}]}}\n",
            "x".repeat(2 << 20)
        );
        create(work, &cli, &long, &["bytes"]).await?;
        let many: String = (0..40_000).map(|n| format!("    - /tmp/{n:048}\n")).collect();
        create(
            work,
            &cli,
            &format!("name: a\nplugin: file-source\ntopic: t\nconfig:\n  paths:\n{many}"),
            &[],
        )
        .await?;
        // What a server of gRPC does not even read, is an answer too.
        let client = Client::connect(dev.endpoint()).await?;
        let config = json!({ "paths": [format!("/{}", "x".repeat(8 << 20))] });
        let refused = client
            .create(definition("a", "file-source", "t", &config, &json!({}))?, false)
            .await;
        ensure!(
            matches!(refused, Err(Error::Refused { .. })),
            "{:?}",
            refused.map(|c| c.name)
        );
        nothing_is_stored(&cli).await?;
        // More is wrong than fits into an answer: it says how much was left out.
        let unknown: String = (0..500)
            .map(|n| format!("  unknown_parameter_{n:03}: x\n"))
            .collect();
        let text = format!("name: a\nplugin: file-source\ntopic: t\nconfig:\n{unknown}");
        let places = create(work, &cli, &text, &["unknown_parameter_000", " more"]).await?;
        ensure!(places.len() < 200, "{} places", places.len());
        Ok(())
    });
}

#[test]
fn secrets() {
    run(TEST, async |work| {
        let (dev, cli) = dev(work).await?;
        // A reference where it would not be resolved.
        let text =
            "name: a\nplugin: file-source\ntopic: t\nconfig: {paths: [\"/tmp/${env:GANTRY_SECRET_X}\"]}\n";
        create(work, &cli, text, &["paths", "secret"]).await?;

        // An inline value where a reference belongs. It is neither stored nor said back.
        let client = Client::connect(dev.endpoint()).await?;
        let plugins = client.plugins().await?;
        let secret = plugins
            .iter()
            .find_map(|plugin| Some((plugin, secret_of(plugin)?)));
        let Some((plugin, param)) = secret else {
            println!("no built-in plugin has a secret: what is refused is tested with the SDK");
            return Ok(());
        };
        let id = plugin.name.trim_start_matches("plugins/");
        let text = format!("name: a\nplugin: {id}\ntopic: t\nconfig: {{{param}: hunter2}}\n");
        let places = create(work, &cli, &text, &[&param, "GANTRY_SECRET_"]).await?;
        ensure!(
            !places.iter().any(|place| place.contains("hunter2")),
            "{places:?}"
        );
        let log = fs::read_to_string(work.path().join("dev.err"))?;
        ensure!(!log.contains("hunter2"), "the secret is in the log");
        Ok(())
    });
}

fn secret_of(plugin: &Plugin) -> Option<String> {
    let param = plugin.spec.as_ref()?.params.iter().find(|param| param.secret)?;
    Some(param.name.clone())
}

#[test]
fn somebody_else_was_faster() {
    run(TEST, async |work| {
        let (dev, cli) = dev(work).await?;
        let client = Client::connect(dev.endpoint()).await?;
        let config = json!({ "paths": ["/tmp/gantry-tests-nothing"] });
        let stopped = json!({ "target_state": "TARGET_STATE_STOPPED" });
        client
            .create(definition("a", "file-source", "t", &config, &stopped)?, false)
            .await?;
        cli.refused(
            1,
            &[
                "connectors",
                "create",
                "a",
                "--plugin",
                "file-source",
                "--topic",
                "t",
                "--set",
                "paths=/x",
            ],
            &["connectors/a"],
        )
        .await?;

        // An editor that takes so long that the connector has changed meanwhile.
        let (opened, go) = (work.path().join("opened"), work.path().join("go"));
        let editor = work.path().join("editor");
        let script = format!(
            "touch '{}'\nuntil [ -e '{}' ]; do sleep 0.05; done\nsed -i 's/^topic: .*/topic: edited/' \"$1\"\n",
            opened.display(),
            go.display()
        );
        fs::write(&editor, script)?;
        let editor = format!("sh {}", editor.display());
        let edit = async {
            let variables = [("EDITOR", editor.as_str()), ("VISUAL", editor.as_str())];
            cli.call_with(&["connectors", "edit", "a"], &variables).await
        };
        let change = async {
            eventually(SOON, "the editor is open", async || {
                opened.exists().then_some(()).context("it is not")
            })
            .await?;
            client.resume("a").await?;
            fs::write(&go, "")?;
            anyhow::Ok(())
        };
        let (answer, changed) = tokio::join!(edit, change);
        changed?;
        let answer = answer?;
        answer.refused(1, &["changed by somebody else"])?;
        ensure!(answer.stderr.contains("your text is kept"), "{}", answer.shown());
        ensure!(
            client.get("a").await?.topic == "t",
            "the edit was written all the same"
        );

        // Without a rival it is written.
        let variables = [("EDITOR", editor.as_str()), ("VISUAL", editor.as_str())];
        let said = cli
            .call_with(&["connectors", "edit", "a"], &variables)
            .await?
            .succeeded()?;
        ensure!(
            said.contains("updated") && client.get("a").await?.topic == "edited",
            "{said}"
        );
        Ok(())
    });
}
