//! Two faults at once, drawn at random.

use std::time::Duration;

use gantry_tests::drill::schedule::rounds;
use gantry_tests::drill::{Fault, Pace, Setup, Struck, Times, drill};
use tokio::time::{Instant, sleep};

use super::has_session;

const FAULTS: [Fault; 8] = [
    Fault::AgentKilled,
    Fault::AgentFrozen,
    Fault::LeaderKilled,
    Fault::FollowerKilled,
    Fault::ReplicaCutOff,
    Fault::EtcdKilled,
    Fault::EtcdFrozen,
    Fault::BrokerKilled,
];

#[test]
fn two_at_once() {
    let setup = Setup {
        replicas: 3,
        etcd: 3,
        agents: &["one", "two"],
        heartbeat: Duration::from_secs(1),
        proxied: true,
        ..Setup::new("faults::mixed::two_at_once")
    };
    let pace = Pace {
        rounds: rounds(6, 500),
        after: 100..=2_000,
        hold: Duration::ZERO..=Duration::from_secs(8),
    };
    drill(setup, &FAULTS, &pace, async |site, rounds| {
        let mut times = Times::default();
        for round in rounds {
            site.until(round).await?;
            let mut struck = vec![site.strike(round.faults[0], round.pick).await?];
            sleep(round.apart).await;
            struck.push(site.strike(round.faults[1], round.pick + 1).await?);
            sleep(round.hold).await;
            // What others need to start comes first.
            struck.sort_by_key(order);
            let mended = Instant::now();
            for one in &struck {
                site.mend(one).await?;
            }
            for one in &struck {
                site.recovered(one).await?;
            }
            times.extend([mended.elapsed()]);
            for agent in site.setup.agents {
                has_session(site, agent).await?;
            }
        }
        site.report.say(format_args!(
            "from the return of both until all that was written before is committed: {times}"
        ));
        Ok(())
    });
}

fn order(struck: &Struck) -> u8 {
    match struck.fault {
        Fault::EtcdFrozen | Fault::ReplicaCutOff | Fault::AgentFrozen => 0,
        Fault::EtcdKilled => 1,
        Fault::LeaderKilled | Fault::FollowerKilled | Fault::ReplicasKilled => 2,
        Fault::BrokerKilled => 3,
        Fault::AgentKilled => 4,
    }
}
