//! Replicas of the control plane that are killed, and one that is cut off from the store.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gantry_control_plane::store::Key;
use gantry_tests::connectors::definition;
use gantry_tests::drill::rolling::TOPIC;
use gantry_tests::drill::schedule::rounds;
use gantry_tests::drill::{Fault, Gauge, Pace, Setup, Site, Times, drill};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::LIMIT;

/// So soon after the kill all replicas must serve again for no task to restart.
const BACK: Duration = Duration::from_secs(3);

fn setup(name: &'static str) -> Setup {
    Setup {
        replicas: 3,
        agents: &["one", "two"],
        ..Setup::new(name)
    }
}

fn gauge(site: &Site<'_>) -> Gauge {
    let outputs = site.flows.iter().map(|flow| flow.output().to_owned());
    Gauge::start(outputs.collect())
}

#[test]
fn all_killed_and_soon_back() {
    let pace = Pace {
        rounds: rounds(3, 30),
        after: 100..=4_000,
        hold: Duration::ZERO..=Duration::from_secs(2),
    };
    let setup = setup("faults::replicas::all_killed_and_soon_back");
    drill(setup, &[Fault::ReplicasKilled], &pace, async |site, rounds| {
        let (mut away, mut judged) = (Times::default(), 0);
        for round in rounds {
            site.until(round).await?;
            let struck = site.strike(Fault::ReplicasKilled, round.pick).await?;
            sleep(round.hold).await;
            site.mend(&struck).await?;
            let took = struck.at.elapsed();
            away.extend([took]);
            if took <= BACK {
                site.recovered(&struck).await?;
                site.none_restarted(struck.revision).await?;
                judged += 1;
            } else {
                // This machine was too slow to show it.
                site.recovered(&struck).await?;
            }
        }
        site.report.say(format_args!(
            "replicas were away for {away}; {judged} times for at most {BACK:?}, and then no task restarted"
        ));
        ensure!(
            judged > 0,
            "the replicas were never back within {BACK:?}: nothing was shown"
        );
        Ok(())
    });
}

#[test]
fn one_of_three_killed() {
    let pace = Pace {
        rounds: rounds(6, 200),
        after: 100..=2_000,
        hold: Duration::ZERO..=Duration::from_secs(3),
    };
    let faults = [Fault::LeaderKilled, Fault::FollowerKilled];
    let setup = setup("faults::replicas::one_of_three_killed");
    drill(setup, &faults, &pace, async |site, rounds| {
        let (mut leader, mut follower) = (Times::default(), Times::default());
        let (mut before, mut pauses) = (Times::default(), Times::default());
        for round in rounds {
            let calm = gauge(site);
            site.until(round).await?;
            before.extend([calm.read().await?]);
            let gauge = gauge(site);
            let struck = site.strike(round.faults[0], round.pick).await?;
            let took = first_grant(site, &format!("probe-{}", round.number), struck.at).await?;
            match round.faults[0] {
                Fault::LeaderKilled => leader.extend([took]),
                _ => follower.extend([took]),
            }
            sleep(round.hold).await;
            site.mend(&struck).await?;
            site.recovered(&struck).await?;
            site.none_restarted(struck.revision).await?;
            pauses.extend([gauge.read().await?]);
        }
        site.report.say(format_args!(
            "from the kill to the first grant of a connector created after it: leader {leader}; follower {follower}"
        ));
        site.report.say(format_args!(
            "longest pause of data: {pauses}; when all is well: {before}; no task restarted"
        ));
        Ok(())
    });
}

/// Creates a connector and waits until somebody may run its task.
async fn first_grant(site: &Site<'_>, name: &str, since: Instant) -> Result<Duration> {
    let sink = definition(name, "blackhole-sink", TOPIC, &json!({}), &json!({}))?;
    site.client().await?.create(sink, false).await?;
    let what = format!("somebody may run {name}");
    let at = site.history.wait(LIMIT, &what, |view| {
        let uid = view.uid(name)?;
        let mut changes = view.changes().iter();
        let grant = changes.find(|change| matches!(&change.key, Key::Grant(id) if id.uid == uid));
        Ok(grant.context("nobody may")?.at)
    });
    let took = at.await?.saturating_duration_since(since);
    site.client().await?.delete(name, true, false).await?;
    Ok(took)
}

#[test]
fn one_cut_off_from_the_store() {
    let setup = Setup {
        proxied: true,
        heartbeat: Duration::from_secs(1),
        ..setup("faults::replicas::one_cut_off_from_the_store")
    };
    let pace = Pace {
        rounds: rounds(3, 30),
        after: 100..=2_000,
        hold: Duration::ZERO..=Duration::from_secs(4),
    };
    drill(setup, &[Fault::ReplicaCutOff], &pace, async |site, rounds| {
        let mut times = Times::default();
        for round in rounds {
            site.until(round).await?;
            let struck = site.strike(Fault::ReplicaCutOff, round.pick).await?;
            let what = format!("{} has let go of its agents", struck.whom);
            let agents = site.setup.agents;
            site.history
                .wait(LIMIT, &what, |view| {
                    for agent in agents {
                        let session = view
                            .session(agent)?
                            .with_context(|| format!("{agent} has no session"))?;
                        ensure!(session.replica != struck.whom, "{agent} is still there");
                    }
                    Ok(())
                })
                .await?;
            times.extend([struck.at.elapsed()]);
            sleep(round.hold).await;
            site.mend(&struck).await?;
            site.recovered(&struck).await?;
        }
        site.report.say(format_args!(
            "from the cut until all agents are with another replica: {times}"
        ));
        Ok(())
    });
}
