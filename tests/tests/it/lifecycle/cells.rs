use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::future::try_join_all;
use gantry_client::v1::Connector;
use gantry_client::v1::connector::{State, TargetState};
use gantry_client::{Client, Error};
use gantry_control_plane::domain::lifecycle::{
    Action, Decision, Row, advice, allowed, allowed_actions, meant,
};
use gantry_proto::error::Reason;
use gantry_tests::connectors::{definition, shown};
use gantry_tests::wait::eventually;
use gantry_tests::{Cluster, RocketMq, Signal, run};
use serde_json::{Value, json};

use super::{SOON, ask, generator};

const TEST: Duration = Duration::from_secs(400);

/// How a connector stands when it is asked for something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stand {
    Running,
    /// It cannot be split: its name server is not there.
    Pending,
    /// Its code does not return from a write.
    Degraded,
    Paused,
    Failed,
    /// Stopped while its code does not return.
    Stopping,
    Stopped,
    /// Deleted while its code does not return.
    Deleting,
    /// Its agent has gone silent.
    Unknown,
}

impl Stand {
    /// All that can be had while the agent runs.
    const WITH_AGENT: [Self; 8] = [
        Self::Running,
        Self::Pending,
        Self::Degraded,
        Self::Paused,
        Self::Failed,
        Self::Stopping,
        Self::Stopped,
        Self::Deleting,
    ];

    fn row(self) -> Row {
        match self {
            Self::Running | Self::Pending | Self::Degraded | Self::Unknown => Row::Running,
            Self::Paused => Row::Paused,
            Self::Failed => Row::Failed,
            Self::Stopping => Row::Stopping,
            Self::Stopped => Row::Stopped,
            Self::Deleting => Row::Deleting,
        }
    }

    /// The states in which it may be asked.
    fn states(self) -> &'static [State] {
        match self {
            Self::Running => &[State::Running],
            Self::Pending => &[State::Pending],
            Self::Degraded => &[State::Degraded],
            Self::Paused => &[State::Paused],
            Self::Failed => &[State::Failed],
            // What counts is that its task is still held.
            Self::Stopping => &[State::Degraded, State::Running],
            Self::Stopped => &[State::Stopped],
            Self::Deleting => &[State::Deleting],
            Self::Unknown => &[State::Unknown],
        }
    }

    fn definition(self, name: &str) -> Result<Connector> {
        match self {
            Self::Running | Self::Unknown => generator(name, &json!({})),
            Self::Paused => generator(name, &json!({ "target_state": "TARGET_STATE_PAUSED" })),
            Self::Stopped => generator(name, &json!({ "target_state": "TARGET_STATE_STOPPED" })),
            Self::Pending => generator(name, &json!({ "namesrv": "127.0.0.1:1" })),
            Self::Failed => {
                let outside = json!({ "paths": ["/etc/services"] });
                definition(name, "file-source", "numbers", &outside, &json!({}))
            }
            Self::Degraded | Self::Stopping | Self::Deleting => definition(
                name,
                "blackhole-sink",
                "numbers",
                &json!({ "delay": "280s" }),
                // It is held for longer than the test takes.
                &json!({ "drain_timeout": "300s", "stop_timeout": "360s" }),
            ),
        }
    }

    /// The state that it has to reach before [`Stand::turn`].
    fn first(self) -> State {
        match self {
            Self::Stopping | Self::Deleting => State::Degraded,
            Self::Unknown => State::Running,
            other => other.states()[0],
        }
    }

    /// The last step to it.
    async fn turn(self, client: &Client, name: &str) -> Result<()> {
        match self {
            Self::Stopping => ensure!(client.stop(name).await?.changed, "{name} was not stopped"),
            Self::Deleting => drop(client.delete(name, true, false).await?),
            _ => {}
        }
        Ok(())
    }
}

/// A connector for one cell.
struct Cell {
    stand: Stand,
    action: Action,
    name: String,
}

fn cells(stands: &[Stand]) -> Vec<Cell> {
    let of = |stand: &Stand| {
        let stand = *stand;
        Action::ALL.map(|action| Cell {
            stand,
            action,
            name: format!("{stand:?}-{action:?}").to_lowercase(),
        })
    };
    stands.iter().flat_map(of).collect()
}

async fn stands(client: &Client, cell: &Cell, state: State) -> Result<()> {
    eventually(
        SOON,
        &format!("{} is {}", cell.name, state.as_str_name()),
        async || {
            let connector = client.get(&cell.name).await?;
            let held = client
                .tasks(&cell.name)
                .await?
                .iter()
                .any(|t| !t.agent.is_empty());
            // Tasks of a connector that is planned anew would still be on their way.
            let settled = !connector.reconciling || state != State::Running;
            ensure!(
                connector.state() == state && settled && (held || state != State::Degraded),
                "{}",
                shown(&connector)
            );
            anyhow::Ok(())
        },
    )
    .await
}

/// The cell answers as the table says, and does no more.
async fn answers(client: &Client, cell: &Cell) -> Result<()> {
    let Cell { stand, action, name } = cell;
    let row = stand.row();
    let before = client.get(name).await?;
    ensure!(stand.states().contains(&before.state()), "{}", shown(&before));
    let listed: BTreeSet<i32> = before.allowed_actions.iter().copied().collect();
    let expected: BTreeSet<i32> = allowed_actions(row).into_iter().map(i32::from).collect();
    ensure!(
        listed == expected,
        "{name} lists {:?}",
        before.allowed_actions().collect::<Vec<_>>()
    );

    let answer = ask(client, name, *action).await;
    match (allowed(row, *action), answer) {
        (Decision::Yes, Ok(true)) => done(client, *action, &before).await,
        (Decision::Same, Ok(false)) => unchanged(client, &before).await,
        (Decision::No, Err(refusal)) => {
            refused(row, *action, name, refusal)?;
            unchanged(client, &before).await
        }
        (decision, answer) => bail!("{decision:?} was expected, and it answered {answer:?}"),
    }
}

async fn unchanged(client: &Client, before: &Connector) -> Result<()> {
    let after = client.get(&before.name).await?;
    ensure!(
        after.etag == before.etag && after.generation == before.generation,
        "it was changed: {}",
        shown(&after)
    );
    Ok(())
}

/// What an allowed action has made of the definition. The tasks follow later.
async fn done(client: &Client, action: Action, before: &Connector) -> Result<()> {
    let after = match client.get(&before.name).await {
        Ok(after) => after,
        Err(Error::Refused { reason, .. })
            if reason == Reason::ConnectorNotFound.as_str()
                && matches!(action, Action::Delete | Action::ForceDelete) =>
        {
            return Ok(());
        }
        Err(other) => return Err(other.into()),
    };
    let target = match action {
        Action::Stop => TargetState::Stopped,
        Action::Resume => TargetState::Running,
        Action::Pause => TargetState::Paused,
        _ => before.target_state(),
    };
    ensure!(after.target_state() == target, "{}", shown(&after));
    let retargets = matches!(action, Action::Stop | Action::Resume | Action::Pause);
    ensure!(
        after.generation == before.generation + i64::from(retargets),
        "generation {} after {}",
        after.generation,
        before.generation
    );
    if matches!(action, Action::Delete | Action::ForceDelete) {
        ensure!(
            after.state() == State::Deleting && after.delete_time.is_some(),
            "{}",
            shown(&after)
        );
    }
    ensure!(after.uid == before.uid, "it is another connector");
    Ok(())
}

fn refused(row: Row, action: Action, name: &str, refusal: Error) -> Result<()> {
    let Error::Refused {
        reason,
        metadata,
        preconditions,
        ..
    } = refusal
    else {
        return Err(refusal.into());
    };
    ensure!(reason == "ACTION_NOT_ALLOWED", "{reason}");
    let listed: Vec<_> = allowed_actions(row)
        .into_iter()
        .map(|a| a.as_str_name().trim_start_matches("ACTION_"))
        .collect();
    let said = |key: &str| metadata.get(key).map(String::as_str);
    ensure!(
        said("state") == Some(row.as_str())
            && said("action") == Some(action.as_str())
            && said("allowed") == Some(&listed.join(","))
            && said("meant") == meant(row, action).map(Action::as_str),
        "{metadata:?}"
    );
    ensure!(
        said("waiting_for") == (row == Row::Stopping).then_some("0"),
        "{metadata:?}"
    );
    ensure!(
        preconditions.len() == 1 && preconditions[0].contains(advice(row, action)),
        "{name}: {preconditions:?}"
    );
    Ok(())
}

async fn all_answer(client: &Client, cells: &[Cell]) -> Result<()> {
    for cell in cells {
        answers(client, cell)
            .await
            .with_context(|| format!("{:?} when it is {:?}", cell.action, cell.stand))?;
    }
    Ok(())
}

#[test]
fn every_cell_of_the_table_answers_as_it_says() {
    run(TEST, async |work| {
        let rocketmq = RocketMq::start(work, "rocketmq").await?;
        rocketmq.create_topic("numbers", 1).await?;
        rocketmq.send("numbers", 0, "", b"one").await?;
        let mut cluster = Cluster::start(work, &rocketmq.namesrv()).await?;
        cluster.start_agent("one").await?;
        let client = cluster.client()?;
        let cells_with = cells(&Stand::WITH_AGENT);
        let unknown = cells(&[Stand::Unknown]);
        for cell in cells_with.iter().chain(&unknown) {
            client.create(cell.stand.definition(&cell.name)?, false).await?;
        }
        let all = cells_with.iter().chain(&unknown);
        try_join_all(all.map(|cell| stands(&client, cell, cell.stand.first()))).await?;
        for cell in &cells_with {
            cell.stand.turn(&client, &cell.name).await?;
        }
        all_answer(&client, &cells_with).await?;

        // An agent that is suspended says nothing, and is not given up for as long as its lease lasts.
        cluster.agent("one")?.signal(Signal::Stop)?;
        try_join_all(unknown.iter().map(|cell| stands(&client, cell, State::Unknown))).await?;
        all_answer(&client, &unknown).await
    });
}

#[test]
fn a_stand_is_what_its_row_says() {
    // Each row of the table is met, so that no cell is left out.
    let rows: Vec<Value> = Stand::WITH_AGENT
        .iter()
        .map(|s| format!("{:?}", s.row()).into())
        .collect();
    for row in Row::ALL {
        assert!(rows.contains(&format!("{row:?}").into()), "{row:?}");
    }
}
