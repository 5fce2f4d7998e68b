use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use gantry_client::v1::connector::{Action, State, TargetState};
use gantry_client::{Client, Error};
use gantry_proto::error::Reason;
use gantry_tests::connectors::{definition, holders, reaches, shown};
use gantry_tests::run;
use gantry_tests::wait::eventually;
use serde_json::json;

use super::{SOON, Site, TEST, stopped, why};

/// What a connector's row of the table answers to each action, without doing more than is refused or already so.
async fn row(client: &Client, name: &str, allowed: &[Action]) -> Result<()> {
    let connector = client.get(name).await?;
    let listed: BTreeSet<Action> = connector.allowed_actions().collect();
    ensure!(
        listed == allowed.iter().copied().collect(),
        "{name} allows {listed:?}; {}",
        shown(&connector)
    );
    let target = connector.target_state();
    for action in [
        Action::Stop,
        Action::Resume,
        Action::Pause,
        Action::Restart,
        Action::Delete,
    ] {
        if listed.contains(&action) {
            continue;
        }
        let answer = match action {
            Action::Stop => client.stop(name).await.map(|c| c.changed),
            Action::Resume => client.resume(name).await.map(|c| c.changed),
            Action::Pause => client.pause(name).await.map(|c| c.changed),
            Action::Restart => client.restart(name, false).await.map(|c| c.changed),
            _ => client
                .delete(name, false, false)
                .await
                .map(|c| c.etag != connector.etag),
        };
        let same = matches!(
            (action, target, connector.state()),
            (Action::Stop, TargetState::Stopped, _)
                | (Action::Pause, TargetState::Paused, _)
                | (
                    Action::Resume,
                    TargetState::Running,
                    State::Pending | State::Running | State::Degraded
                )
                | (Action::Delete, _, State::Deleting)
        );
        match answer {
            Ok(changed) => ensure!(
                same && !changed,
                "{action:?} of {name} was carried out: {}",
                shown(&connector)
            ),
            Err(Error::Refused {
                reason,
                metadata,
                preconditions,
                ..
            }) => {
                ensure!(
                    !same && reason == "ACTION_NOT_ALLOWED",
                    "{action:?} of {name}: {reason}; {}",
                    shown(&connector)
                );
                for key in ["state", "action", "allowed"] {
                    ensure!(
                        metadata.contains_key(key),
                        "{action:?} of {name}: {metadata:?} lacks {key}"
                    );
                }
                ensure!(
                    !preconditions.is_empty(),
                    "{action:?} of {name}: no PreconditionFailure"
                );
            }
            Err(error) => return Err(error.into()),
        }
    }
    ensure!(
        client.get(name).await?.etag == connector.etag,
        "a refused action has changed {name}"
    );
    Ok(())
}

#[test]
fn the_table_of_actions() {
    use Action::{AlterOffsets, Delete, Pause, Restart, Resume, Stop};
    run(TEST, async |work| {
        let mut site = Site::start_with_broker(work, &["one"]).await?;
        let client = site.client.clone();
        site.create("table", &json!({})).await?;
        holders(&client, "table", SOON).await?;
        row(&client, "table", &[Stop, Pause, Restart]).await?;
        ensure!(client.restart("table", false).await?.changed, "restart");
        ensure!(client.pause("table").await?.changed, "pause");
        row(&client, "table", &[Stop, Resume, Restart]).await?;
        ensure!(
            client.restart("table", false).await?.connector.target_state() == TargetState::Paused,
            "it stays paused"
        );
        // Two quick commands do not cancel out.
        ensure!(
            client.resume("table").await?.changed && client.stop("table").await?.changed,
            "resume and stop"
        );
        reaches(&client, "table", State::Stopped, SOON).await?;
        row(&client, "table", &[Resume, AlterOffsets, Delete]).await?;
        ensure!(client.resume("table").await?.changed, "resume");
        holders(&client, "table", SOON).await?;
        row(&client, "table", &[Stop, Pause, Restart]).await?;

        // What can only be mended by people.
        let outside = json!({ "paths": ["/etc/services"] });
        client
            .create(
                definition("failing", "file-source", "lines", &outside, &json!({}))?,
                false,
            )
            .await?;
        reaches(&client, "failing", State::Failed, SOON).await?;
        row(&client, "failing", &[Stop, Restart, Delete]).await?;
        client.delete("failing", false, false).await?;

        // As long as an agent may still run a task, a deletion is not done.
        site.cluster.kill_agent("one")?;
        let deleting = client.delete("table", true, false).await?;
        ensure!(deleting.state() == State::Deleting, "{}", shown(&deleting));
        row(&client, "table", &[]).await?;
        ensure!(
            why(site.create("table", &json!({})).await.map_err(downcast))? == Reason::Deleting,
            "create"
        );
        eventually(SOON, "it is gone", async || {
            let reason = why(client.get("table").await)?;
            ensure!(reason == Reason::ConnectorNotFound, "{reason:?}");
            Ok(())
        })
        .await?;
        ensure!(
            why(client.pause("table").await)? == Reason::ConnectorNotFound,
            "pause"
        );
        let new = site.create("table", &stopped()).await?;
        ensure!(new.uid != deleting.uid, "{new:?}");
        Ok(())
    });
}

fn downcast(error: anyhow::Error) -> Error {
    error.downcast().unwrap_or_else(|error| panic!("{error:?}"))
}
