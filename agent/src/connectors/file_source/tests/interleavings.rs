use std::time::Duration;

use proptest::prelude::*;

use super::rig::{Rig, config, text, written};

/// What happens to a file and its reader.
#[derive(Clone, Debug)]
enum Event {
    /// Some bytes are written; any bytes.
    Append(Vec<u8>),
    /// Time passes while the reader reads, long enough for everything but `idle_flush`.
    Settle,
    /// Time passes, also for `idle_flush`.
    Idle,
    /// One call with a small limit.
    Poll(usize),
    /// The task crashes and starts from the last record that came.
    Restart,
    /// The task crashes when so many records have not been committed, of this file or the one before.
    RestartBefore(usize),
    /// The file is renamed and a new one begun.
    Rename,
    /// The file is renamed, and so is the next one, which holds these bytes, before anybody looks.
    RenameTwice(Vec<u8>),
    /// What has been read is cut off, and the file goes on from its beginning.
    Truncate,
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(b"\n\n\rab\xc3\xa9\xff\0".to_vec()), 0..60)
}

/// `twice`: how often a file is overtaken.
fn events(twice: u32) -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        6 => bytes().prop_map(Event::Append),
        2 => Just(Event::Settle),
        1 => Just(Event::Idle),
        4 => (1usize..400).prop_map(Event::Poll),
        2 => Just(Event::Restart),
        2 => (1usize..20).prop_map(Event::RestartBefore),
        2 => Just(Event::Rename),
        1 => Just(Event::Truncate),
        twice => bytes().prop_map(Event::RenameTwice),
    ];
    prop::collection::vec(event, 1..60)
}

/// How many records have come with the first one of that file.
fn first_of(rig: &Rig, generation: usize) -> usize {
    let first = format!("file {generation}");
    rig.records
        .iter()
        .position(|r| text(r) == first)
        .expect("the file has not been read")
        + 1
}

/// The name that a file gets: the later, the higher, as with dates.
fn rotated(generation: usize) -> String {
    format!("a.log-{:08}", 20_260_101 + generation)
}

async fn play(events: Vec<Event>, pattern: &str) -> (Vec<u8>, Vec<u8>) {
    let mut rig = Rig::new(config(&[pattern]));
    let (mut all, mut generation) = (Vec::new(), 0);
    // So many records are always committed: one of the file before the present one, and one of the present one.
    let mut floor = [1, 1];
    let mut append = |rig: &Rig, bytes: &[u8]| {
        rig.append("a.log", bytes);
        all.extend_from_slice(bytes);
    };
    // Each file begins with a line of its own, as logs do: with equal beginnings nobody can tell them apart.
    append(&rig, b"file 0\n");
    rig.open().await;
    rig.settle().await;
    for event in events {
        match event {
            Event::Append(bytes) => append(&rig, &bytes),
            Event::Settle => rig.settle().await,
            Event::Idle => rig.run(Duration::from_secs(7)).await,
            Event::Poll(max) => {
                let polled = rig.poll(max).await.unwrap();
                rig.records.extend(polled.records);
                rig.gaps.extend(polled.gaps);
            }
            Event::Restart => rig.restart().await,
            Event::RestartBefore(n) => {
                let keep = rig.records.len().saturating_sub(n).max(floor[0]);
                rig.records.truncate(keep);
                rig.restart().await;
            }
            Event::Rename => {
                // Files that match by themselves are read in any order.
                rig.settle().await;
                rig.rename("a.log", &rotated(generation));
                generation += 1;
                append(&rig, format!("file {generation}\n").as_bytes());
                rig.settle().await;
                floor = [floor[1], first_of(&rig, generation)];
            }
            Event::RenameTwice(bytes) => {
                rig.rename("a.log", &rotated(generation));
                append(&rig, format!("file {}\n", generation + 1).as_bytes());
                append(&rig, &bytes);
                rig.rename("a.log", &rotated(generation + 1));
                generation += 2;
                append(&rig, format!("file {generation}\n").as_bytes());
                // Each of two files is waited for whose writer may be late.
                rig.settle().await;
                rig.settle().await;
                floor = [first_of(&rig, generation - 1), first_of(&rig, generation)];
            }
            Event::Truncate => {
                rig.run(Duration::from_secs(7)).await;
                rig.truncate("a.log");
                generation += 1;
                append(&rig, format!("file {generation}\n").as_bytes());
                rig.settle().await;
                floor = [first_of(&rig, generation); 2];
            }
        }
    }
    rig.run(Duration::from_secs(20)).await;
    assert!(rig.gaps.iter().all(|g| g.amount == 0), "{:?}", rig.gaps);
    (written(&rig.records), all)
}

fn run(events: Vec<Event>, pattern: &str) -> (Vec<u8>, Vec<u8>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(play(events, pattern))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, max_shrink_iters: 500, ..ProptestConfig::default() })]

    #[test]
    fn every_byte_comes_once_and_in_order(events in events(2)) {
        let (seen, wanted) = run(events, "a.log");
        prop_assert_eq!(String::from_utf8_lossy(&seen), String::from_utf8_lossy(&wanted));
    }

    #[test]
    fn also_when_rotated_files_match_too(events in events(0)) {
        let (seen, wanted) = run(events, "a.log*");
        prop_assert_eq!(String::from_utf8_lossy(&seen), String::from_utf8_lossy(&wanted));
    }
}
