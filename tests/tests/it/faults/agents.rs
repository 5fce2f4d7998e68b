//! Agents that are killed and frozen.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gantry_control_plane::domain::TaskId;
use gantry_tests::drill::schedule::rounds;
use gantry_tests::drill::{Fault, Held, Pace, Setup, Site, Times, drill};
use tokio::time::{Instant, sleep};

use super::{LIMIT, has_session};

fn pace(rounds: u32, hold_ms: u64) -> Pace {
    Pace {
        rounds,
        after: 100..=2_000,
        hold: Duration::ZERO..=Duration::from_millis(hold_ms),
    }
}

#[test]
fn killed_and_started_again() {
    let setup = Setup::new("faults::agents::killed_and_started_again");
    let pace = pace(rounds(10, 200), 1_000);
    drill(setup, &[Fault::AgentKilled], &pace, async |site, rounds| {
        let mut times = Times::default();
        for round in rounds {
            site.until(round).await?;
            let struck = site.strike(Fault::AgentKilled, round.pick).await?;
            sleep(round.hold).await;
            let started = Instant::now();
            site.mend(&struck).await?;
            times.extend(site.run_again(&struck.tasks, started, LIMIT).await?);
            site.recovered(&struck).await?;
        }
        site.report.say(format_args!(
            "from the agent's start to its tasks running: {times}"
        ));
        Ok(())
    });
}

fn killed_beside_another(drill_name: &'static str, heartbeat: Duration, pace: &Pace) {
    let setup = Setup {
        agents: &["one", "two"],
        heartbeat,
        ..Setup::new(drill_name)
    };
    drill(setup, &[Fault::AgentKilled], pace, async |site, rounds| {
        let mut times = Times::default();
        for round in rounds {
            site.until(round).await?;
            let struck = site.strike(Fault::AgentKilled, round.pick).await?;
            times.extend(site.run_again(&struck.tasks, struck.at, LIMIT).await?);
            site.recovered(&struck).await?;
            // Back, for the next round.
            site.mend(&struck).await?;
            has_session(site, &struck.whom).await?;
        }
        site.report.say(format_args!(
            "heartbeat {heartbeat:?}, from the kill to the tasks running elsewhere: {times}"
        ));
        Ok(())
    });
}

#[test]
fn killed_beside_another_with_the_usual_heartbeat() {
    let name = "faults::agents::killed_beside_another_with_the_usual_heartbeat";
    killed_beside_another(name, Duration::from_secs(3), &pace(rounds(2, 100), 0));
}

#[test]
fn killed_beside_another_with_a_heartbeat_of_a_second() {
    let name = "faults::agents::killed_beside_another_with_a_heartbeat_of_a_second";
    killed_beside_another(name, Duration::from_secs(1), &pace(rounds(3, 100), 0));
}

#[test]
fn frozen_past_its_lease_and_woken() {
    let setup = Setup {
        agents: &["one", "two"],
        heartbeat: Duration::from_secs(1),
        ..Setup::new("faults::agents::frozen_past_its_lease_and_woken")
    };
    let pace = pace(rounds(5, 100), 2_000);
    drill(setup, &[Fault::AgentFrozen], &pace, async |site, rounds| {
        let (mut given, mut again, mut ended) = (Times::default(), Times::default(), 0);
        for round in rounds {
            site.until(round).await?;
            let struck = site.strike(Fault::AgentFrozen, round.pick).await?;
            given.extend([given_away(site, &struck.tasks, struck.at).await?]);
            sleep(round.hold).await;
            let woken = Instant::now();
            site.mend(&struck).await?;
            again.extend(site.run_again(&struck.tasks, woken, LIMIT).await?);
            site.recovered(&struck).await?;
            // It may have ended itself: it must not go on with what it cannot stop in time.
            if !site.cluster.agent(&struck.whom)?.is_running() {
                ended += 1;
                site.cluster.spawn_agent(&struck.whom)?;
            }
            has_session(site, &struck.whom).await?;
        }
        site.report.say(format_args!(
            "from the freeze until another has the right to all its tasks: {given}; from its waking until all run: {again}; it \
             ended itself {ended} times"
        ));
        Ok(())
    });
}

/// Waits until others have the right to these tasks. A sink's file stays locked as long as the frozen process exists, so
/// they need not run yet.
async fn given_away(site: &Site<'_>, tasks: &BTreeMap<TaskId, Held>, since: Instant) -> Result<Duration> {
    site.history
        .wait(LIMIT, "another agent has the right to all of them", |view| {
            let now = site.tasks(view)?;
            for (id, before) in tasks {
                let task = now.get(id).with_context(|| format!("nobody has {id}"))?;
                ensure!(task.instance != before.instance, "{id} is {task:?}");
            }
            Ok(since.elapsed())
        })
        .await
}
