//! The broker killed, and back at once or much later.

use std::time::Duration;

use anyhow::Result;
use gantry_tests::drill::schedule::rounds;
use gantry_tests::drill::{Fault, Pace, Setup, Site, Times, drill};
use gantry_tests::lines;
use gantry_tests::wait::promptly;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use super::LIMIT;

/// How long it is away, by turns.
const AWAY: [u64; 3] = [0, 3, 40];

#[test]
fn killed_and_started_again() {
    let pace = Pace {
        rounds: rounds(3, 50),
        after: 100..=3_000,
        hold: Duration::ZERO..=Duration::from_secs(40),
    };
    let setup = Setup::new("faults::broker::killed_and_started_again");
    drill(setup, &[Fault::BrokerKilled], &pace, async |site, rounds| {
        let mut times = Times::default();
        for round in rounds {
            site.until(round).await?;
            let struck = site.strike(Fault::BrokerKilled, round.pick).await?;
            sleep(Duration::from_secs(AWAY[round.number as usize % AWAY.len()])).await;
            let (sizes, address) = (sizes(site)?, site.rocketmq.broker());
            let ((), opened) = tokio::try_join!(site.mend(&struck), opens(&address))?;
            flows_on(site, &sizes).await?;
            times.extend([opened.elapsed()]);
            site.recovered(&struck).await?;
        }
        site.report.say(format_args!(
            "from the opening of the broker's port until records arrive in all flows (looked at when the name server knows it, too): {times}"
        ));
        Ok(())
    });
}

/// When the port accepts a connection.
async fn opens(address: &str) -> Result<Instant> {
    promptly(LIMIT, "the broker's port opens", async || {
        TcpStream::connect(address).await.map(|_| Instant::now())
    })
    .await
}

fn sizes(site: &Site<'_>) -> Result<Vec<u64>> {
    site.flows.iter().map(|flow| lines::size(flow.output())).collect()
}

async fn flows_on(site: &Site<'_>, before: &[u64]) -> Result<()> {
    promptly(LIMIT, "records arrive in all flows", async || {
        let now = sizes(site)?;
        let stuck = now
            .iter()
            .zip(before)
            .filter(|(now, before)| now <= before)
            .count();
        anyhow::ensure!(stuck == 0, "{stuck} flows stand still");
        Ok(())
    })
    .await
}
