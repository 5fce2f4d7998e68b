//! The store on a real etcd of three members, one of which at a time is killed or frozen under load: nothing that was
//! acknowledged is lost, nothing happens twice, what is seen is never torn, and nobody leads beside another.
//!
//! The seed is printed; `GANTRY_FAULTS_SEED` repeats a schedule, `GANTRY_FAULTS_ROUNDS` makes it longer.

mod load;
mod members;
mod observer;

use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::SmallRng};
use tokio::time::{sleep, timeout};

use self::{
    load::Load,
    members::Members,
    observer::{Leader, Replica},
};

/// Rounds if nobody asks for more.
const ROUNDS: u64 = 5;
/// Commits that are stored between two faults: a fault strikes at any moment of the load, not of the clock.
const BETWEEN: std::ops::Range<u64> = 50..1500;
/// Commits that have to be stored while a member is away.
const ALTHOUGH: u64 = 500;

/// What happens to a member.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// As `kill -9`; it is started again on its data.
    Kill,
    /// It is stopped where it is, its connections stay open, and it goes on later.
    Freeze,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_member_at_a_time_goes_and_nothing_is_lost() {
    let seed = setting("GANTRY_FAULTS_SEED").unwrap_or_else(|| rand::random_range(0..1_000_000));
    let rounds = setting("GANTRY_FAULTS_ROUNDS").unwrap_or(ROUNDS);
    println!("seed {seed}, {rounds} rounds");
    let mut random = SmallRng::seed_from_u64(seed);
    let mut members = Members::start().await;
    let leader = Leader::default();
    let replicas = [
        Replica::start(&members, 0, &leader).await,
        Replica::start(&members, 1, &leader).await,
    ];
    let load = Load::start(members.store().await, seed).await;
    for round in 0..rounds {
        let number = random.random_range(0..members.len());
        let fault = if random.random() {
            Fault::Kill
        } else {
            Fault::Freeze
        };
        load.advances(random.random_range(BETWEEN), "before a fault")
            .await;
        println!(
            "round {round}: {fault:?} of member {number} after {} commits",
            load.stored()
        );
        members.strike(number, fault);
        load.advances(ALTHOUGH, "while a member is away").await;
        members.recover(number, fault);
        members.all_serve().await;
    }
    let figures = load.finish().await;
    for replica in replicas {
        replica.finish(&members.store().await).await;
    }
    println!("{figures}");
}

#[allow(
    clippy::disallowed_methods,
    reason = "tests/run says in the environment how long and with which seed"
)]
fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is no number")),
    )
}

/// Waits for a condition, bounded.
async fn eventually(what: &str, condition: impl AsyncFn() -> bool) {
    let waiting = async {
        while !condition().await {
            sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = timeout(Duration::from_secs(60), waiting).await;
    assert!(waited.is_ok(), "not within 60 s: {what}");
}
