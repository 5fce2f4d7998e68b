use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{
    fault::Fault,
    suite,
    support::{Backend, eventually},
    world::{connector, leader, name, put},
};
use crate::store::{Compactor, Key, Prefix, Quota, QuotaLevel, QuotaWatch, StoreError};

#[tokio::test(start_paused = true)]
async fn history_of_five_minutes_is_kept() {
    let backend = Backend::embedded();
    let store = backend.store("upkeep").await;
    let mut compactor = Compactor::new(store.clone());
    let mut written = Vec::new();
    for minute in 0..12_usize {
        written.push(put(&store, Key::Leader, &leader("a")).await);
        let compacted = compactor.step().await.expect("etcd answers");
        assert_eq!(compacted, minute.checked_sub(5).map(|at| written[at]));
        sleep(Duration::from_secs(60)).await;
    }
    let path = store.keys().path(&Key::Leader);
    let read = async |revision| {
        let options = etcd_client::GetOptions::new().with_revision(revision);
        backend
            .client()
            .await
            .get(path.as_str(), Some(options))
            .await
            .map(drop)
            .map_err(StoreError::from)
    };
    assert_eq!(read(written[7]).await, Ok(()));
    assert_eq!(read(written[5]).await, Err(StoreError::Compacted));
}

#[test]
fn the_store_alarms_at_sixty_and_refuses_at_eighty_percent() {
    let level = |used, limit| Quota { used, limit }.level();
    assert_eq!(level(1 << 40, None), QuotaLevel::Ok);
    assert_eq!(level(59, Some(100)), QuotaLevel::Ok);
    assert_eq!(level(60, Some(100)), QuotaLevel::Alarm);
    assert_eq!(level(80, Some(100)), QuotaLevel::Refuse);
    assert_eq!(level(u64::MAX, Some(1)), QuotaLevel::Refuse);
}

async fn the_size_is_looked_at(backend: Backend) {
    let store = backend.store("upkeep").await;
    put(&store, Key::Leader, &leader("a")).await;
    let watch = QuotaWatch::spawn(store.clone(), None, CancellationToken::new());
    eventually("it was looked at", async || watch.quota().used > 0).await;
    // etcd 3.6 says what its quota is; the embedded one has none.
    assert_eq!(watch.quota().limit.is_some(), backend.is_real());
    assert_eq!(store.quota(), QuotaLevel::Ok);
    let stop = CancellationToken::new();
    let small = QuotaWatch::spawn(backend.store("small").await, Some(1), stop);
    eventually("it was looked at", async || small.quota().used > 0).await;
}

async fn what_was_not_sent_is_sent_again_and_what_may_have_been_is_not(backend: Backend) {
    let (store, faults) = backend.disturbed("upkeep").await;
    faults.next("Txn", Fault::LoseAnswer);
    let txn = store.guarded().put(&Key::Leader, &leader("a"));
    let lost = txn.run().await;
    assert!(
        matches!(&lost, Err(error) if error.may_have_been_written()),
        "{lost:?}"
    );
    assert_eq!(
        faults.calls("Txn"),
        1,
        "a write whose outcome is not known is not repeated"
    );
    faults.next("Range", Fault::LoseAnswer);
    assert!(
        store
            .get_raw(&Key::Leader)
            .await
            .expect("a read is repeated")
            .0
            .is_some()
    );
    faults.cut();
    let asked = Instant::now();
    assert!(store.get_raw(&Key::Leader).await.is_err());
    assert!(
        asked.elapsed() <= store.settings().retry_for,
        "{:?}",
        asked.elapsed()
    );
}

async fn long_lists_come_in_pages_at_one_revision(backend: Backend) {
    let store = backend.store("upkeep").await;
    for chunk in 0..25_usize {
        let txn = (0..100).fold(store.guarded(), |txn, n| {
            txn.put(&Key::Connector(name("c", chunk * 100 + n)), &connector())
        });
        assert!(txn.run().await.expect("a write").applied);
    }
    let page = store.list(&Prefix::Connectors).await.expect("a list");
    assert_eq!(page.values.len(), 2500);
    assert!(page.values.is_sorted_by(
        |a, b| a.key.as_ref().map(ToString::to_string) < b.key.as_ref().map(ToString::to_string)
    ));
    assert!(page.values.iter().all(|raw| raw.mod_revision <= page.revision));
    // Values that together are larger than one message may be.
    let large = crate::domain::stored::OffsetRecord {
        sink_state: vec![7; 1 << 20],
        ..Default::default()
    };
    for n in 0..80 {
        put(&store, Key::Offset(super::world::uid(), 0, name("p", n)), &large).await;
    }
    let page = store
        .list(&Prefix::Offsets(super::world::uid()))
        .await
        .expect("a list");
    assert_eq!(page.values.len(), 80);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_hangs_ends_after_two_seconds() {
    let (transport, _) =
        super::fault::Faults::around(tower::util::BoxCloneSyncService::new(tower::service_fn(|_| {
            std::future::pending()
        })));
    let channel = etcd_client::Channel::Custom(transport);
    let client = etcd_client::Client::from_channel(channel, None)
        .await
        .expect("a client");
    let store = crate::store::Store::new(&client, "hangs");
    let asked = Instant::now();
    let outcome = store.guarded().put(&Key::Leader, &leader("a")).run().await;
    assert!(matches!(outcome, Err(StoreError::Unknown { .. })), "{outcome:?}");
    assert_eq!(asked.elapsed(), Duration::from_secs(2));
}

#[tokio::test]
async fn a_store_that_is_not_there_is_not_written_to() {
    let client = etcd_client::Client::connect(["http://127.0.0.1:1"], Some(crate::store::connect_options()))
        .await
        .expect("the first call connects");
    let settings = crate::store::Settings {
        retry_for: Duration::from_millis(300),
        ..Default::default()
    };
    let store = crate::store::Store::with_settings(&client, "nowhere", settings);
    let outcome = store.guarded().put(&Key::Leader, &leader("a")).run().await;
    assert!(matches!(outcome, Err(StoreError::NotSent { .. })), "{outcome:?}");
}

suite!(
    the_size_is_looked_at,
    what_was_not_sent_is_sent_again_and_what_may_have_been_is_not,
    long_lists_come_in_pages_at_one_revision,
);
