use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::future::try_join_all;
use gantry_client::v1::connector::{State, TargetState};
use gantry_client::{Client, Error};
use gantry_control_plane::domain::lifecycle::{Action, Decision, Row, allowed};
use gantry_proto::error::Reason;
use gantry_tests::connectors::{reaches, shown};
use gantry_tests::wait::eventually;
use gantry_tests::{Cli, Gantry, run};
use serde_json::json;

use super::{SOON, ask, generator};

const TEST: Duration = Duration::from_secs(400);

/// Two commands for a connector that was created with a target state.
struct Pair {
    created: TargetState,
    first: Action,
    second: Action,
    name: String,
}

/// What is wanted after an action that was accepted. None: the connector shall go.
fn wanted_after(target: TargetState, action: Action) -> Option<TargetState> {
    match action {
        Action::Stop => Some(TargetState::Stopped),
        Action::Resume => Some(TargetState::Running),
        Action::Pause => Some(TargetState::Paused),
        Action::Restart | Action::AlterOffsets => Some(target),
        Action::Delete | Action::ForceDelete => None,
    }
}

/// Rows in which a connector may be of which this is wanted, before and after its tasks have followed.
fn rows(target: TargetState) -> &'static [Row] {
    match target {
        TargetState::Stopped => &[Row::Stopping, Row::Stopped],
        TargetState::Paused => &[Row::Paused],
        _ => &[Row::Running],
    }
}

fn pairs() -> Vec<Pair> {
    let mut pairs = Vec::new();
    for created in [TargetState::Running, TargetState::Paused, TargetState::Stopped] {
        let settled = rows(created).last().copied().unwrap_or(Row::Running);
        let verbs = [Action::Stop, Action::Resume, Action::Pause, Action::Restart];
        for first in verbs
            .into_iter()
            .filter(|a| allowed(settled, *a) == Decision::Yes)
        {
            for second in Action::ALL {
                let name = format!("{created:?}-{first:?}-{second:?}").to_lowercase();
                pairs.push(Pair {
                    created,
                    first,
                    second,
                    name,
                });
            }
        }
    }
    pairs
}

/// Both commands, one right after the other; then the tasks follow what was accepted last.
async fn both(client: &Client, pair: &Pair) -> Result<()> {
    ensure!(
        ask(client, &pair.name, pair.first).await?,
        "the first command was nothing new"
    );
    let target = wanted_after(pair.created, pair.first).context("the first command deletes nothing")?;
    let decisions: Vec<Decision> = rows(target)
        .iter()
        .map(|row| allowed(*row, pair.second))
        .collect();
    let answered = match ask(client, &pair.name, pair.second).await {
        Ok(true) => Decision::Yes,
        Ok(false) => Decision::Same,
        Err(Error::Refused { reason, .. }) if reason == Reason::ActionNotAllowed.as_str() => Decision::No,
        Err(other) => return Err(other.into()),
    };
    ensure!(
        decisions.contains(&answered),
        "the second command answered {answered:?}, and should {decisions:?}"
    );
    let end = if answered == Decision::Yes {
        wanted_after(target, pair.second)
    } else {
        Some(target)
    };
    let state = match end {
        Some(TargetState::Stopped) => State::Stopped,
        Some(TargetState::Paused) => State::Paused,
        Some(_) => State::Running,
        None => return gone(client, &pair.name).await,
    };
    let connector = reaches(client, &pair.name, state, SOON).await?;
    ensure!(Some(connector.target_state()) == end, "{}", shown(&connector));
    let tasks = client.tasks(&pair.name).await?;
    let expected = usize::from(state != State::Stopped);
    ensure!(
        tasks.len() == expected,
        "{} tasks, and {expected} expected",
        tasks.len()
    );
    Ok(())
}

async fn gone(client: &Client, name: &str) -> Result<()> {
    eventually(SOON, &format!("{name} is gone"), async || {
        match client.get(name).await {
            Ok(connector) => bail!("{}", shown(&connector)),
            Err(Error::Refused { reason, .. }) if reason == Reason::ConnectorNotFound.as_str() => Ok(()),
            Err(other) => Err(other.into()),
        }
    })
    .await
}

#[test]
fn two_commands_in_a_row_never_cancel_out() {
    run(TEST, async |work| {
        let data = work.dir("data")?.display().to_string();
        let args = ["dev", "--listen", "127.0.0.1:0", "--data-dir", &data];
        let dev = Gantry::start(work, "dev", &args).await?;
        let client = Client::connect(dev.endpoint()).await?;
        let pairs = pairs();
        for pair in &pairs {
            let target = json!({ "target_state": pair.created.as_str_name() });
            client.create(generator(&pair.name, &target)?, false).await?;
        }
        let settled = pairs.iter().map(|pair| {
            let state = match pair.created {
                TargetState::Paused => State::Paused,
                TargetState::Stopped => State::Stopped,
                _ => State::Running,
            };
            reaches(&client, &pair.name, state, SOON)
        });
        try_join_all(settled).await?;
        let told = pairs.iter().map(async |pair| {
            both(&client, pair).await.with_context(|| {
                format!(
                    "{:?} then {:?}, created {:?}",
                    pair.first, pair.second, pair.created
                )
            })
        });
        try_join_all(told).await?;

        // Several at once for one connector: whatever comes last is what is wanted and what the tasks come to.
        let name = "running-stop-stop";
        for round in 0..5 {
            let storm = [
                Action::Resume,
                Action::Stop,
                Action::Resume,
                Action::Pause,
                Action::Stop,
            ];
            for action in storm.into_iter().cycle().skip(round).take(4) {
                // Pause is refused while it shall be stopped.
                let _ = ask(&client, name, action).await;
            }
            let wanted = client.get(name).await?;
            let state = match wanted.target_state() {
                TargetState::Stopped => State::Stopped,
                TargetState::Paused => State::Paused,
                _ => State::Running,
            };
            let end = reaches(&client, name, state, SOON).await?;
            ensure!(end.target_state() == wanted.target_state(), "{}", shown(&end));
        }

        // The command says the same.
        let cli = Cli::new(dev.endpoint(), work);
        cli.ok(&["connectors", "stop", name, "--wait"]).await?;
        let said = cli.ok(&["connectors", "stop", name]).await?;
        ensure!(said.contains("unchanged"), "{said}");
        let described = cli.ok(&["connectors", "describe", name]).await?;
        let listed = described
            .lines()
            .any(|l| l.starts_with("Allowed now:") && l.ends_with("resume, alter-offsets, delete"));
        ensure!(listed, "{described}");
        cli.refused(
            1,
            &["connectors", "pause", name],
            &["is STOPPED and does not allow PAUSE", "resume it instead"],
        )
        .await?;
        Ok(())
    });
}
