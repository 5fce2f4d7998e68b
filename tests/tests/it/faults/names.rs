//! Two agents under one name.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gantry_tests::Process;
use gantry_tests::drill::schedule::rounds;
use gantry_tests::drill::{Fault, Pace, Setup, Site, Times, drill};
use gantry_tests::wait::eventually;
use tokio::time::{Instant, sleep};

use super::{LIMIT, has_session};

const NAME: &str = "one";

#[test]
fn two_agents_under_one_name() {
    let setup = Setup {
        heartbeat: Duration::from_secs(1),
        ..Setup::new("faults::names::two_agents_under_one_name")
    };
    let pace = Pace {
        rounds: rounds(3, 30),
        after: 100..=2_000,
        hold: Duration::ZERO..=Duration::from_secs(2),
    };
    drill(setup, &[Fault::AgentFrozen], &pace, async |site, rounds| {
        let mut times = Times::default();
        for round in rounds {
            site.until(round).await?;
            // The first is well: a second one is refused, on the same host by the lock, from elsewhere by the control plane.
            let before = site.all_run(LIMIT).await?;
            let revision = site.history.view().revision();
            is_refused(site.cluster.spawn_twin(NAME)?).await?;
            is_refused(site.cluster.spawn_stranger(NAME)?).await?;
            site.none_restarted(revision).await?;

            // The first is frozen: on the same host the lock still keeps others out; one from elsewhere gets the name when
            // the first has been silent for a whole lease.
            let struck = site.strike(Fault::AgentFrozen, round.pick).await?;
            is_refused(site.cluster.spawn_twin(NAME)?).await?;
            let old = &before.values().next().context("there are tasks")?.instance;
            let stranger = takes_over(site, old).await?;
            times.extend([struck.at.elapsed()]);
            sleep(round.hold).await;

            // The first wakes up, and finds its name taken.
            site.mend(&struck).await?;
            site.run_again(&struck.tasks, Instant::now(), LIMIT).await?;
            let first = site.cluster.agent(NAME)?;
            eventually(LIMIT, "the first agent gives way", async || {
                ensure!(!first.is_running(), "it still runs");
                Ok(())
            })
            .await
            .with_context(|| first.tail())?;
            site.recovered(&struck).await?;
            site.cluster.adopt_agent(NAME, stranger);

            // Back to an agent with the usual lock.
            site.cluster.stop_agent(NAME).await?;
            site.cluster.spawn_agent(NAME)?;
            has_session(site, NAME).await?;
        }
        site.report.say(format_args!(
            "from the freeze until the second one has the name: {times}"
        ));
        Ok(())
    });
}

/// It ends, and says why.
async fn is_refused(mut process: Process) -> Result<()> {
    let status = process.ended(LIMIT).await?;
    ensure!(
        !status.success(),
        "a second agent of the name ended with {status}"
    );
    let said = process.stderr()?;
    ensure!(
        said.contains("error: ") && said.contains(NAME),
        "a second agent does not say why it ends: {said}"
    );
    Ok(())
}

/// Starts agents of the name from elsewhere until one is accepted.
async fn takes_over(site: &Site<'_>, old: &str) -> Result<Process> {
    let deadline = Instant::now() + LIMIT;
    loop {
        let process = site.cluster.spawn_stranger(NAME)?;
        let accepted = site.history.wait(LIMIT, "it is accepted, or ends", |view| {
            let session = view.session(NAME)?;
            let accepted = session.is_some_and(|s| s.instance_uid != old && !s.silent);
            ensure!(accepted || !process.is_running(), "neither");
            Ok(accepted)
        });
        // What ends is no change of the store: the next heartbeat of a replica is.
        if accepted.await? {
            return Ok(process);
        }
        is_refused(process).await?;
        ensure!(Instant::now() < deadline, "nobody was accepted within {LIMIT:?}");
    }
}
