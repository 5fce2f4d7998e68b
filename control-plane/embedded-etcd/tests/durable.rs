//! What was acknowledged is there after a restart, however the process ended.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use etcd_client::{Client, EventType, GetOptions, LeaseTimeToLiveOptions, PutOptions, WatchOptions};
use gantry_embedded_etcd::{Error, Store};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// Names the file that the child process is to serve.
const CHILD: &str = "GANTRY_EMBEDDED_ETCD_CHILD";
const LISTENING: &str = "listening on ";
const KILLS: u64 = 12;
const WRITERS: u64 = 16;
const WITHIN: Duration = Duration::from_secs(60);

/// Not a test: the process that the tests below start and kill.
#[tokio::test]
async fn child_process() {
    #[expect(
        clippy::disallowed_methods,
        reason = "how a test hands a path to itself, started again"
    )]
    let Ok(path) = std::env::var(CHILD) else {
        return;
    };
    let store = Store::open(path).expect("a store");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    println!("\n{LISTENING}{address}");
    let never = std::future::pending();
    store.serve(listener, never).await.expect("serves");
}

struct Served {
    process: Child,
    address: String,
}

impl Served {
    fn start(path: &Path) -> Self {
        let mut process = Command::new(std::env::current_exe().expect("this program"))
            .args(["child_process", "--exact", "--nocapture"])
            .env(CHILD, path)
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let output = BufReader::new(process.stdout.take().expect("its output"));
        let address = output
            .lines()
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix(LISTENING).map(str::to_owned))
            .expect("the process serves");
        Self { process, address }
    }

    async fn client(&self) -> Client {
        Client::connect([&self.address], None).await.expect("a client")
    }

    fn kill(mut self) {
        self.process.kill().expect("killed");
        self.process.wait().expect("ended");
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// What step `step` of a writer leaves in its key.
fn outcome(step: u64) -> Option<String> {
    (step % 4 != 3).then(|| step.to_string())
}

struct Writer {
    number: u64,
    /// Last step whose answer came.
    acknowledged: u64,
    revision: i64,
}

impl Writer {
    fn key(number: u64) -> String {
        format!("writer/{number}")
    }

    /// Writes until the server is gone. The step after the acknowledged one may have happened or not.
    async fn write(mut self, mut client: Client, count: Arc<AtomicU64>, wake: Arc<Notify>) -> Self {
        loop {
            let step = self.acknowledged + 1;
            let key = Self::key(self.number);
            let revision = match outcome(step) {
                Some(value) => client
                    .put(key, value, None)
                    .await
                    .map(|answer| answer.header().map_or(0, |header| header.revision())),
                None => client
                    .delete(key, None)
                    .await
                    .map(|answer| answer.header().map_or(0, |header| header.revision())),
            };
            let Ok(revision) = revision else {
                return self;
            };
            assert!(revision > self.revision, "revisions of one writer grow");
            self.revision = revision;
            self.acknowledged = step;
            count.fetch_add(1, Ordering::Relaxed);
            wake.notify_one();
        }
    }

    /// Compares with what the store has, and goes on from there.
    async fn check(&mut self, client: &mut Client) {
        let answer = client.get(Self::key(self.number), None).await.expect("an answer");
        let found = answer
            .kvs()
            .first()
            .map(|kv| kv.value_str().expect("text").to_owned());
        let last = [self.acknowledged, self.acknowledged + 1]
            .into_iter()
            .find(|step| *step == 0 && found.is_none() || outcome(*step) == found && *step > 0);
        let Some(last) = last else {
            panic!(
                "writer {} was told that step {} is written, and finds {found:?}",
                self.number, self.acknowledged
            );
        };
        self.acknowledged = last;
    }
}

#[tokio::test]
async fn no_acknowledged_write_is_lost_when_the_process_is_killed() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("store");
    let mut writers: Vec<_> = (0..WRITERS)
        .map(|number| Writer {
            number,
            acknowledged: 0,
            revision: 0,
        })
        .collect();
    let mut newest = 0;
    let mut leases = Vec::new();
    let mut total = 0;
    for kill in 0..=KILLS {
        let server = Served::start(&path);
        let mut client = server.client().await;
        let answer = client.get("none", None).await.expect("an answer");
        let revision = answer.header().expect("a header").revision();
        assert!(revision >= newest, "went back from {newest} to {revision}");
        for writer in &mut writers {
            writer.check(&mut client).await;
        }
        for lease in &leases {
            let state = client.lease_time_to_live(*lease, None).await;
            assert!(state.expect("an answer").ttl() > 0, "lease {lease} is lost");
        }
        if kill == KILLS {
            break;
        }
        let lease = client.lease_grant(3_600, None).await.expect("a lease").id();
        assert!(!leases.contains(&lease), "lease {lease} was given out twice");
        leases.push(lease);

        let count = Arc::new(AtomicU64::new(0));
        let wake = Arc::new(Notify::new());
        let mut running = JoinSet::new();
        for writer in writers.drain(..) {
            running.spawn(writer.write(client.clone(), count.clone(), wake.clone()));
        }
        let enough = 200 + 53 * kill;
        let waiting = async {
            while count.load(Ordering::Relaxed) < enough {
                wake.notified().await;
            }
        };
        tokio::time::timeout(WITHIN, waiting)
            .await
            .expect("writes are acknowledged");
        server.kill();
        writers = running.join_all().await;
        total += count.load(Ordering::Relaxed);
        newest = writers.iter().map(|w| w.revision).max().unwrap_or(newest);
    }
    println!("{KILLS} kills, {total} acknowledged writes, none lost, revision at least {newest}");
}

#[tokio::test]
async fn a_file_is_open_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("store");
    let server = Served::start(&path);
    let refused = Store::open(&path).expect_err("another process has it");
    assert!(matches!(refused, Error::AlreadyOpen { .. }), "{refused}");
    server.kill();

    let store = Store::open(&path).expect("free again");
    let refused = Store::open(&path).expect_err("this process has it");
    assert!(matches!(refused, Error::AlreadyOpen { .. }), "{refused}");
    store.shutdown().await;
    let store = Store::open(&path).expect("free after the shutdown");
    store.shutdown().await;
}

#[tokio::test]
async fn a_file_of_something_else_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("store");
    std::fs::write(&path, b"not a store, but long enough to be looked at").expect("written");
    let refused = Store::open(&path).expect_err("not a store");
    assert!(matches!(refused, Error::Storage { .. }), "{refused}");
}

#[tokio::test]
async fn a_restart_keeps_keys_leases_and_revisions() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("below/the/directory/store");
    let store = Store::open(&path).expect("a store");
    let mut client = store.client().await.expect("a client");
    let lease = client.lease_grant(100, None).await.expect("a lease").id();
    let leased = PutOptions::new().with_lease(lease);
    client.put("a", "1", None).await.expect("put");
    client.put("a", "2", None).await.expect("put");
    client.put("b", "3", Some(leased)).await.expect("put");
    client.put("c", "4", None).await.expect("put");
    client.delete("c", None).await.expect("deleted");
    let all = || Some(GetOptions::new().with_all_keys());
    let before = client.get("", all()).await.expect("an answer");
    store.shutdown().await;
    let stopped = client.put("d", "5", None).await.expect_err("shut down");
    assert!(stopped.to_string().contains("server stopped"), "{stopped}");
    let stopped = client.get("d", None).await.expect_err("shut down");
    assert!(stopped.to_string().contains("server stopped"), "{stopped}");

    let store = Store::open(&path).expect("a store");
    let mut client = store.client().await.expect("a client");
    let after = client.get("", all()).await.expect("an answer");
    assert_eq!(before.0.kvs, after.0.kvs);
    let revision = |answer: &etcd_client::GetResponse| answer.header().expect("header").revision();
    assert!(revision(&after) > revision(&before));
    let options = LeaseTimeToLiveOptions::new().with_keys();
    let state = client
        .lease_time_to_live(lease, Some(options))
        .await
        .expect("an answer");
    assert_eq!(state.granted_ttl(), 100);
    assert!(state.ttl() >= 98, "the time starts again in full");
    assert_eq!(state.keys(), [b"b"]);

    let old = GetOptions::new().with_revision(revision(&before));
    let compacted = client.get("a", Some(old)).await.expect_err("no history");
    assert!(compacted.to_string().contains("compacted"), "{compacted}");
    let put = client.put("a", "6", None).await.expect("put");
    assert_eq!(put.header().expect("header").revision(), revision(&after) + 1);
    client.lease_revoke(lease).await.expect("revoked");
    store.shutdown().await;

    let store = Store::open(&path).expect("a store");
    let mut client = store.client().await.expect("a client");
    assert_eq!(client.get("b", None).await.expect("an answer").count(), 0);
    assert_eq!(
        client.get("a", None).await.expect("an answer").kvs()[0].version(),
        3
    );
    store.shutdown().await;
}

#[tokio::test]
async fn a_lease_that_ended_does_not_come_back() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("store");
    let store = Store::open(&path).expect("a store");
    let mut client = store.client().await.expect("a client");
    let mut watch = client.watch("k", None).await.expect("a watch");
    watch.message().await.expect("no error").expect("created");
    let lease = client.lease_grant(1, None).await.expect("a lease").id();
    let leased = PutOptions::new().with_lease(lease);
    client.put("k", "v", Some(leased)).await.expect("put");
    watch.message().await.expect("no error").expect("the put");
    let deleted = tokio::time::timeout(WITHIN, watch.message())
        .await
        .expect("in time");
    let deleted = deleted.expect("no error").expect("the delete");
    assert_eq!(deleted.events()[0].event_type(), EventType::Delete);
    store.shutdown().await;

    let store = Store::open(&path).expect("a store");
    let mut client = store.client().await.expect("a client");
    assert!(client.leases().await.expect("an answer").leases().is_empty());
    assert_eq!(client.get("k", None).await.expect("an answer").count(), 0);
    store.shutdown().await;
}

#[tokio::test]
async fn after_a_restart_a_watch_goes_on_only_if_it_had_seen_everything() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("store");
    let store = Store::open(&path).expect("a store");
    let mut client = store.client().await.expect("a client");
    client.put("k", "1", None).await.expect("put");
    let deleted = client.delete("k", None).await.expect("deleted");
    let last = deleted.header().expect("a header").revision();
    store.shutdown().await;

    let store = Store::open(&path).expect("a store");
    let mut client = store.client().await.expect("a client");
    let from = |revision| Some(WatchOptions::new().with_start_revision(revision));
    let mut late = client.watch("k", from(last)).await.expect("a watch");
    late.message().await.expect("no error").expect("created");
    let message = late.message().await.expect("no error").expect("canceled");
    assert!(message.canceled());
    let mut again = client
        .watch("k", from(message.compact_revision()))
        .await
        .expect("a watch");
    let mut resumed = client.watch("k", from(last + 1)).await.expect("a watch");
    client.put("k", "2", None).await.expect("put");
    for stream in [&mut again, &mut resumed] {
        stream.message().await.expect("no error").expect("created");
        let message = stream.message().await.expect("no error").expect("an event");
        assert_eq!(message.events()[0].kv().expect("a key").value(), b"2");
    }
    store.shutdown().await;
}

#[tokio::test]
async fn many_waiting_writes_share_a_commit() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("store");
    let store = Store::open(&path).expect("a store");
    let client = store.client().await.expect("a client");
    let mut writes = JoinSet::new();
    for number in 0..2_000 {
        let mut client = client.clone();
        writes.spawn(async move {
            let key = format!("key/{:02}", number % 50);
            client.put(key, vec![b'v'; 1_000], None).await
        });
    }
    let all = tokio::time::timeout(WITHIN, writes.join_all());
    for answer in all.await.expect("no write waits for ever") {
        answer.expect("put");
    }
    let mut maintenance = client.maintenance_client();
    let status = maintenance.status().await.expect("a status");
    assert!(
        status.db_size() < 8 << 20,
        "2 MB of writes to 50 KB of keys took {} bytes",
        status.db_size()
    );
    maintenance.defragment().await.expect("defragmented");
    let answer = client.kv_client().get("key/00", None).await.expect("an answer");
    assert_eq!(answer.kvs()[0].version(), 40);
    store.shutdown().await;
}
