//! etcd: its only member killed, one of three killed or frozen.

use std::time::Duration;

use gantry_tests::drill::schedule::rounds;
use gantry_tests::drill::{Fault, Pace, Setup, Times, drill};
use tokio::time::{Instant, sleep};

fn play(setup: Setup, faults: &[Fault], pace: &Pace) {
    drill(setup, faults, pace, async |site, rounds| {
        let mut times = Times::default();
        for round in rounds {
            site.until(round).await?;
            let fault = round.faults[0];
            let struck = site.strike(fault, round.pick).await?;
            sleep(round.hold).await;
            let mended = Instant::now();
            site.mend(&struck).await?;
            site.recovered(&struck).await?;
            times.extend([mended.elapsed()]);
        }
        site.report.say(format_args!(
            "from the return until all that was written before is committed: {times}"
        ));
        Ok(())
    });
}

#[test]
fn the_only_member_killed() {
    let pace = Pace {
        rounds: rounds(4, 100),
        after: 100..=2_000,
        // Longer than a lease, too.
        hold: Duration::ZERO..=Duration::from_secs(12),
    };
    let setup = Setup::new("faults::store::the_only_member_killed");
    play(setup, &[Fault::EtcdKilled], &pace);
}

#[test]
fn one_of_three_killed_or_frozen() {
    let pace = Pace {
        rounds: rounds(6, 100),
        after: 100..=2_000,
        hold: Duration::ZERO..=Duration::from_secs(8),
    };
    let setup = Setup {
        etcd: 3,
        replicas: 2,
        agents: &["one", "two"],
        ..Setup::new("faults::store::one_of_three_killed_or_frozen")
    };
    play(setup, &[Fault::EtcdKilled, Fault::EtcdFrozen], &pace);
}
