//! The table of actions and of states through the API: every cell, two commands in a row, and tasks that follow a definition.

mod cells;
mod grpc;
mod pairs;
mod restarts;
mod stubborn;
mod tasks;

use std::time::Duration;

use anyhow::Result;
use gantry_client::v1::Connector;
use gantry_client::{Client, Error};
use gantry_control_plane::domain::lifecycle::Action;
use gantry_tests::connectors::definition;
use serde_json::{Value, json};

/// A slow source that runs by itself.
fn generator(name: &str, more: &Value) -> Result<Connector> {
    definition(
        name,
        "generator-source",
        "numbers",
        &json!({ "rate": 5, "size": "20" }),
        more,
    )
}

/// Asks for an action. True: something was changed.
async fn ask(client: &Client, name: &str, action: Action) -> Result<bool, Error> {
    match action {
        Action::Stop => client.stop(name).await.map(|c| c.changed),
        Action::Resume => client.resume(name).await.map(|c| c.changed),
        Action::Pause => client.pause(name).await.map(|c| c.changed),
        Action::Restart => client.restart(name, false).await.map(|c| c.changed),
        // Whether there was anything to forget is another question.
        Action::AlterOffsets => client.reset_offsets(name, Vec::new(), false).await.map(|_| true),
        Action::Delete | Action::ForceDelete => {
            let force = action == Action::ForceDelete;
            let before = client.get(name).await?;
            let after = client.delete(name, force, false).await?;
            Ok(after.etag != before.etag)
        }
    }
}

const SOON: Duration = Duration::from_secs(120);
