//! The pipelines under a load without pauses, without a broker and without connectors. All of it has to be committed; how
//! fast that was is printed with `--nocapture` and never asserted.

use gantry_bus::OutMessage;

use crate::testing::{eventually, plugins::FakeRecord, rig::Rig};

const RECORDS: usize = 200_000;

fn report(what: &str, began: tokio::time::Instant) {
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{what}: {:.0} records of 100 B a second",
        RECORDS as f64 / seconds
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn speed_of_a_source() {
    let mut rig = Rig::new(4);
    rig.inline = false;
    let record = FakeRecord {
        key: None,
        value: vec![b'x'; 100].into(),
    };
    rig.world
        .records
        .lock()
        .extend(std::iter::repeat_n(record, RECORDS));
    let began = tokio::time::Instant::now();
    let run = rig.start_source();
    eventually("all is committed", || rig.committed() == RECORDS as u64).await;
    report("source", began);
    run.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn speed_of_a_sink() {
    let mut rig = Rig::new(4).sink(4);
    rig.inline = false;
    rig.world
        .discards
        .store(true, std::sync::atomic::Ordering::SeqCst);
    for n in 0..RECORDS {
        let message = OutMessage {
            body: vec![b'x'; 100].into(),
            ..Default::default()
        };
        rig.bus.append("t", (n % 4) as u32, message);
    }
    let began = tokio::time::Instant::now();
    let run = rig.start_sink();
    eventually("all is committed", || {
        (0..4).all(|q| rig.offset(q) == Some(RECORDS as u64 / 4))
    })
    .await;
    report("sink", began);
    run.drain().await;
}
