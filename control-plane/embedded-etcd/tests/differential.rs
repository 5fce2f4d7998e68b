//! The same random calls to a real etcd and to the embedded store get the same answers, the same watches see the same
//! events, and both end in the same state.

mod support;

use std::fmt::{Debug, Write};
use std::path::Path;
use std::time::Duration;

use etcd_client::proto::{PbEvent, PbResponseHeader, PbTxnOpResponse, PbTxnResponse};
use etcd_client::{
    Client, Compare, CompareOp, DeleteOptions, Error, GetOptions, LeaseGrantOptions, LeaseTimeToLiveOptions,
    PutOptions, SortOrder, SortTarget, Txn, TxnOp, WatchFilterType, WatchOptions, WatchStream,
};
use gantry_embedded_etcd::Store;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::watch;

const HISTORIES: u64 = 10;
const OPERATIONS: usize = 5_000;
/// These many of the histories run on a file, which costs a commit per write.
const HISTORIES_ON_DISK: u64 = 2;
/// etcd sorts longer lists in no particular order among equals.
const KEYS: usize = 12;
const LEASES: i64 = 6;
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

#[derive(Clone, Debug)]
enum Op {
    Put(Put),
    Get(Get),
    Delete(Delete),
    Txn(Transaction),
    Compact(i64),
    Grant { id: i64, ttl: i64 },
    Revoke(i64),
    TimeToLive(i64),
    Leases,
}

#[derive(Clone, Debug)]
struct Put {
    key: String,
    value: String,
    lease: i64,
    prev_key: bool,
    ignore_value: bool,
    ignore_lease: bool,
}

#[derive(Clone, Debug)]
enum Keys {
    One(String),
    Prefix(String),
    From(String),
    Between(String, String),
}

#[derive(Clone, Debug)]
struct Get {
    keys: Keys,
    revision: i64,
    limit: i64,
    sort: (SortTarget, SortOrder),
    keys_only: bool,
    count_only: bool,
    mod_revisions: (i64, i64),
    create_revisions: (i64, i64),
}

#[derive(Clone, Debug)]
struct Delete {
    keys: Keys,
    prev_key: bool,
}

#[derive(Clone, Debug)]
struct Transaction {
    compares: Vec<Compare>,
    success: Vec<Op>,
    failure: Vec<Op>,
}

struct Generator {
    random: StdRng,
    revision: i64,
}

impl Generator {
    fn one_in(&mut self, n: u32) -> bool {
        self.random.random_range(0..n) == 0
    }

    fn key_number(index: usize) -> String {
        format!("{}/{}", ["a", "ab", "b"][index % 3], index / 3)
    }

    fn key(&mut self) -> String {
        Self::key_number(self.random.random_range(0..KEYS))
    }

    fn prefix(&mut self) -> String {
        ["a", "ab", "b", "a/", "ab/", "c"][self.random.random_range(0..6)].to_owned()
    }

    fn keys(&mut self) -> Keys {
        match self.random.random_range(0..10) {
            0..=4 => Keys::One(self.key()),
            5..=7 => Keys::Prefix(self.prefix()),
            8 => Keys::From(self.key()),
            // Half of these are empty: the end lies before the start.
            _ => Keys::Between(self.key(), self.key()),
        }
    }

    /// A revision around the newest one, so that some are compacted and some in the future.
    fn revision(&mut self, back: i64) -> i64 {
        self.revision - self.random.random_range(0..back) + 2
    }

    fn maybe_revision(&mut self) -> i64 {
        if self.one_in(6) { self.revision(40) } else { 0 }
    }

    fn lease(&mut self) -> i64 {
        self.random.random_range(1..=LEASES)
    }

    fn put(&mut self) -> Put {
        let ignore_value = self.one_in(12);
        let ignore_lease = self.one_in(12);
        Put {
            key: self.key(),
            // Rarely both are given, which is an error.
            value: if ignore_value && !self.one_in(5) {
                String::new()
            } else {
                self.random.random_range(0..100).to_string()
            },
            lease: if self.one_in(4) && (!ignore_lease || self.one_in(5)) {
                self.lease()
            } else {
                0
            },
            prev_key: self.one_in(2),
            ignore_value,
            ignore_lease,
        }
    }

    fn get(&mut self) -> Get {
        let target = [
            SortTarget::Key,
            SortTarget::Version,
            SortTarget::Create,
            SortTarget::Mod,
            SortTarget::Value,
        ][self.random.random_range(0..5)];
        let order = [SortOrder::None, SortOrder::Ascend, SortOrder::Descend][self.random.random_range(0..3)];
        Get {
            keys: self.keys(),
            revision: if self.one_in(3) { self.revision(12) } else { 0 },
            limit: if self.one_in(3) {
                self.random.random_range(0..4)
            } else {
                0
            },
            sort: (target, order),
            keys_only: self.one_in(5),
            count_only: self.one_in(6),
            mod_revisions: (self.maybe_revision(), self.maybe_revision()),
            create_revisions: (self.maybe_revision(), self.maybe_revision()),
        }
    }

    fn delete(&mut self) -> Delete {
        Delete {
            keys: self.keys(),
            prev_key: self.one_in(2),
        }
    }

    fn compare(&mut self) -> Compare {
        let key = self.key();
        let op = [
            CompareOp::Equal,
            CompareOp::Greater,
            CompareOp::Less,
            CompareOp::NotEqual,
        ][self.random.random_range(0..4)];
        let revision = if self.one_in(4) { 0 } else { self.revision(8) };
        let compare = match self.random.random_range(0..5) {
            0 => Compare::version(key, op, revision % 4),
            1 => Compare::create_revision(key, op, revision),
            2 => Compare::mod_revision(key, op, revision),
            3 => Compare::lease(key, op, self.lease()),
            _ => Compare::value(key, op, self.random.random_range(0..100).to_string()),
        };
        if self.one_in(4) {
            compare.with_prefix()
        } else {
            compare
        }
    }

    fn in_transaction(&mut self, depth: u32) -> Op {
        match self.random.random_range(0..10) {
            0..=3 => Op::Put(self.put()),
            4..=6 => Op::Get(self.get()),
            7 | 8 => {
                let mut delete = self.delete();
                // etcd takes "from this key on" for no overlap with any put, and then stops for good at a put that
                // ignores the value of the key that it has just deleted.
                while matches!(delete.keys, Keys::From(_)) {
                    delete = self.delete();
                }
                Op::Delete(delete)
            }
            _ if depth < 2 => Op::Txn(self.transaction(depth + 1)),
            _ => Op::Put(self.put()),
        }
    }

    fn transaction(&mut self, depth: u32) -> Transaction {
        let compares = (0..self.random.random_range(0..3))
            .map(|_| self.compare())
            .collect();
        let mut branch = || -> Vec<Op> {
            (0..self.random.random_range(0..4))
                .map(|_| self.in_transaction(depth))
                .collect()
        };
        Transaction {
            compares,
            success: branch(),
            failure: branch(),
        }
    }

    fn next(&mut self) -> Op {
        match self.random.random_range(0..100) {
            0..=24 => Op::Put(self.put()),
            25..=44 => Op::Get(self.get()),
            45..=54 => Op::Delete(self.delete()),
            55..=84 => Op::Txn(self.transaction(0)),
            85 | 86 => Op::Compact(self.revision(20)),
            87..=90 => Op::Grant {
                id: self.lease(),
                ttl: self.random.random_range(1_000..2_000),
            },
            91 | 92 => Op::Revoke(self.lease()),
            93..=97 => Op::TimeToLive(self.lease()),
            _ => Op::Leases,
        }
    }
}

fn put_options(put: &Put) -> PutOptions {
    let mut options = PutOptions::new().with_lease(put.lease);
    if put.prev_key {
        options = options.with_prev_key();
    }
    if put.ignore_value {
        options = options.with_ignore_value();
    }
    if put.ignore_lease {
        options = options.with_ignore_lease();
    }
    options
}

fn get_request(get: &Get) -> (String, GetOptions) {
    let mut options = GetOptions::new()
        .with_revision(get.revision)
        .with_limit(get.limit)
        .with_sort(get.sort.0, get.sort.1)
        .with_min_mod_revision(get.mod_revisions.0)
        .with_max_mod_revision(get.mod_revisions.1)
        .with_min_create_revision(get.create_revisions.0)
        .with_max_create_revision(get.create_revisions.1);
    if get.keys_only {
        options = options.with_keys_only();
    }
    if get.count_only {
        options = options.with_count_only();
    }
    match get.keys.clone() {
        Keys::One(key) => (key, options),
        Keys::Prefix(key) => (key, options.with_prefix()),
        Keys::From(key) => (key, options.with_from_key()),
        Keys::Between(key, end) => (key, options.with_range(end)),
    }
}

fn delete_request(delete: &Delete) -> (String, DeleteOptions) {
    let mut options = DeleteOptions::new();
    if delete.prev_key {
        options = options.with_prev_key();
    }
    match delete.keys.clone() {
        Keys::One(key) => (key, options),
        Keys::Prefix(key) => (key, options.with_prefix()),
        Keys::From(key) => (key, options.with_from_key()),
        Keys::Between(key, end) => (key, options.with_range(end)),
    }
}

fn txn_request(txn: &Transaction) -> Txn {
    let ops = |ops: &[Op]| -> Vec<TxnOp> {
        ops.iter()
            .map(|op| match op {
                Op::Put(put) => TxnOp::put(put.key.clone(), put.value.clone(), Some(put_options(put))),
                Op::Get(get) => {
                    let (key, options) = get_request(get);
                    TxnOp::get(key, Some(options))
                }
                Op::Delete(delete) => {
                    let (key, options) = delete_request(delete);
                    TxnOp::delete(key, Some(options))
                }
                Op::Txn(txn) => TxnOp::txn(txn_request(txn)),
                other => unreachable!("{other:?} is no operation of a transaction"),
            })
            .collect()
    };
    Txn::new()
        .when(txn.compares.clone())
        .and_then(ops(&txn.success))
        .or_else(ops(&txn.failure))
}

/// Only the revision of a header is comparable.
fn plain(header: &mut Option<PbResponseHeader>) {
    if let Some(header) = header {
        *header = PbResponseHeader {
            revision: header.revision,
            ..PbResponseHeader::default()
        };
    }
}

fn plain_txn(response: &mut PbTxnResponse) {
    plain(&mut response.header);
    for op in &mut response.responses {
        match &mut op.response {
            Some(PbTxnOpResponse::ResponseRange(response)) => plain(&mut response.header),
            Some(PbTxnOpResponse::ResponsePut(response)) => plain(&mut response.header),
            Some(PbTxnOpResponse::ResponseDeleteRange(response)) => plain(&mut response.header),
            Some(PbTxnOpResponse::ResponseTxn(response)) => plain_txn(response),
            None => {}
        }
    }
}

fn answer<T: Debug>(result: Result<T, Error>) -> String {
    match result {
        Ok(response) => format!("{response:?}"),
        Err(Error::GRpcStatus(status)) => format!("{:?}: {}", status.code(), status.message()),
        Err(error) => format!("{error:?}"),
    }
}

async fn run(client: &mut Client, op: Op) -> String {
    match op {
        Op::Put(put) => {
            let options = put_options(&put);
            let result = client.put(put.key, put.value, Some(options)).await;
            answer(result.map(|mut response| {
                plain(&mut response.0.header);
                response.0
            }))
        }
        Op::Get(get) => {
            let (key, options) = get_request(&get);
            let result = client.get(key, Some(options)).await;
            answer(result.map(|mut response| {
                plain(&mut response.0.header);
                response.0
            }))
        }
        Op::Delete(delete) => {
            let (key, options) = delete_request(&delete);
            let result = client.delete(key, Some(options)).await;
            answer(result.map(|mut response| {
                plain(&mut response.0.header);
                response.0
            }))
        }
        Op::Txn(txn) => {
            let result = client.txn(txn_request(&txn)).await;
            answer(result.map(|mut response| {
                plain_txn(&mut response.0);
                response.0
            }))
        }
        Op::Compact(revision) => answer(client.compact(revision, None).await.map(|mut response| {
            plain(&mut response.0.header);
            response.0
        })),
        Op::Grant { id, ttl } => {
            let options = LeaseGrantOptions::new().with_id(id);
            let result = client.lease_grant(ttl, Some(options)).await;
            answer(result.map(|mut response| {
                plain(&mut response.0.header);
                response.0
            }))
        }
        Op::Revoke(id) => answer(client.lease_revoke(id).await.map(|mut response| {
            plain(&mut response.0.header);
            response.0
        })),
        Op::TimeToLive(id) => {
            let options = LeaseTimeToLiveOptions::new().with_keys();
            let result = client.lease_time_to_live(id, Some(options)).await;
            answer(result.map(|mut response| {
                plain(&mut response.0.header);
                response.0.keys.sort();
                response.0.ttl = response.0.ttl.signum();
                response.0
            }))
        }
        Op::Leases => answer(client.leases().await.map(|mut response| {
            plain(&mut response.0.header);
            response.0.leases.sort_by_key(|lease| lease.id);
            response.0
        })),
    }
}

fn note(seen: &mut String, event: &PbEvent) -> i64 {
    writeln!(seen, "{event:?}").expect("writes to a string");
    event.kv.as_ref().map_or(0, |kv| kv.mod_revision)
}

/// What a watch delivers up to and including a revision that is only known later. Previous values are left out: etcd
/// reads them when it sends, and may find them compacted.
async fn live_events(mut stream: WatchStream, mut until: watch::Receiver<i64>) -> String {
    let mut seen = String::new();
    let mut last = 0;
    while last < *until.borrow() {
        let message = tokio::select! {
            message = stream.message() => message,
            _ = until.changed() => continue,
        };
        match message {
            Ok(Some(message)) if !message.canceled() => {
                for mut event in message.0.events {
                    event.prev_kv = None;
                    last = note(&mut seen, &event);
                }
            }
            other => return format!("{seen}ended: {other:?}"),
        }
    }
    seen
}

/// What a watch delivers up to and including revision `until`, or how it ended.
async fn events(stream: &mut WatchStream, until: i64) -> String {
    let mut seen = String::new();
    let mut last = 0;
    while last < until {
        match tokio::time::timeout(ANSWER_WITHIN, stream.message()).await {
            Ok(Ok(Some(message))) if message.canceled() => {
                let mut message = message.0;
                plain(&mut message.header);
                return format!("{seen}{message:?}");
            }
            Ok(Ok(Some(message))) => {
                for event in &message.0.events {
                    last = note(&mut seen, event);
                }
            }
            other => return format!("{seen}ended: {other:?}"),
        }
    }
    seen
}

async fn revision(client: &mut Client) -> i64 {
    let response = client.get("none", None).await.expect("an answer");
    response.header().expect("a header").revision()
}

async fn everything(client: &mut Client) -> String {
    let options = GetOptions::new().with_all_keys();
    let mut response = client.get("", Some(options)).await.expect("an answer");
    // A restart of the embedded store takes a revision.
    response.0.header = None;
    let mut state = format!("{response:?}");
    for id in 1..=LEASES {
        let options = LeaseTimeToLiveOptions::new().with_keys();
        let lease = client.lease_time_to_live(id, Some(options)).await;
        let mut lease = lease.expect("an answer").0;
        lease.keys.sort();
        write!(state, " {} {:?}", lease.granted_ttl, lease.keys).expect("writes to a string");
    }
    state
}

struct Differences(Vec<String>);

impl Differences {
    fn compare(&mut self, what: &dyn Debug, etcd: &str, embedded: &str) {
        if etcd != embedded {
            self.0
                .push(format!("{what:?}\n  etcd     {etcd}\n  embedded {embedded}"));
        }
    }
}

/// Runs one history; returns how many operations were compared.
async fn history(seed: u64, file: Option<&Path>, differences: &mut Differences) -> usize {
    let etcd = support::Etcd::start().await;
    let mut real = etcd.client();
    let open = || match file {
        Some(path) => Store::open(path).expect("a store"),
        None => Store::in_memory(),
    };
    let store = open();
    let mut embedded = store.client().await.expect("a client");

    let live = || Some(WatchOptions::new().with_prefix().with_prev_key());
    let mut real_live = real.watch("a", live()).await.expect("a watch");
    let mut embedded_live = embedded.watch("a", live()).await.expect("a watch");
    real_live.message().await.expect("created");
    embedded_live.message().await.expect("created");
    let (last_revision, last) = watch::channel(i64::MAX);
    let real_live = tokio::spawn(live_events(real_live, last.clone()));
    let embedded_live = tokio::spawn(live_events(embedded_live, last));

    let mut generator = Generator {
        random: StdRng::seed_from_u64(seed),
        revision: 1,
    };
    let mut compacted = 1;
    let mut compared = 0;
    for step in 0..OPERATIONS {
        let op = generator.next();
        let theirs = run(&mut real, op.clone()).await;
        let ours = run(&mut embedded, op.clone()).await;
        compared += 1;
        differences.compare(&(seed, step, &op), &theirs, &ours);
        if let Op::Compact(revision) = op
            && theirs.starts_with("CompactionResponse")
        {
            compacted = revision;
        }
        if step % 8 == 0 {
            generator.revision = revision(&mut real).await;
        }
    }

    // The last revisions put and then delete every key, so that every watch below has an event to wait for.
    let all = |op: &dyn Fn(String) -> TxnOp| -> Txn {
        let ops: Vec<_> = (0..KEYS).map(Generator::key_number).map(op).collect();
        Txn::new().and_then(ops)
    };
    let puts = all(&|key| TxnOp::put(key, "last", None));
    let deletes = all(&|key| TxnOp::delete(key, None));
    for client in [&mut real, &mut embedded] {
        client.txn(puts.clone()).await.expect("an answer");
    }
    let last_put = revision(&mut real).await;
    let states = (everything(&mut real).await, everything(&mut embedded).await);
    differences.compare(&(seed, "state"), &states.0, &states.1);
    for client in [&mut real, &mut embedded] {
        client.txn(deletes.clone()).await.expect("an answer");
    }
    let last = revision(&mut real).await;

    last_revision.send_replace(last);
    let both = async { (real_live.await, embedded_live.await) };
    let (theirs, ours) = tokio::time::timeout(ANSWER_WITHIN, both)
        .await
        .expect("both watches reach the last revision");
    let (theirs, ours) = (theirs.expect("no panic"), ours.expect("no panic"));
    differences.compare(&(seed, "live watch"), &theirs, &ours);

    for (key, prefix) in [("a", true), ("ab/", true), ("a/1", false), ("b", true)] {
        for start in [compacted - 1, compacted, compacted + 1, last - 20] {
            for filter in [
                None,
                Some(WatchFilterType::NoPut),
                Some(WatchFilterType::NoDelete),
            ] {
                let options = || {
                    let mut options = WatchOptions::new()
                        .with_start_revision(start.max(1))
                        .with_prev_key();
                    if prefix {
                        options = options.with_prefix();
                    }
                    if let Some(filter) = filter {
                        options = options.with_filters([filter]);
                    }
                    Some(options)
                };
                let until = match filter {
                    Some(WatchFilterType::NoDelete) => last_put,
                    _ => last,
                };
                let mut theirs = real.watch(key, options()).await.expect("a watch");
                let mut ours = embedded.watch(key, options()).await.expect("a watch");
                let theirs = events(&mut theirs, until).await;
                let ours = events(&mut ours, until).await;
                differences.compare(&(seed, "replay", key, start, filter), &theirs, &ours);
            }
        }
    }

    for client in [&mut real, &mut embedded] {
        client.txn(puts.clone()).await.expect("an answer");
        client
            .lease_grant(5_000, Some(LeaseGrantOptions::new().with_id(LEASES)))
            .await
            .ok();
        let leased = PutOptions::new().with_lease(LEASES);
        client
            .put("a/0", "leased", Some(leased))
            .await
            .expect("an answer");
    }
    store.shutdown().await;
    if file.is_some() {
        let store = open();
        let mut reopened = store.client().await.expect("a client");
        let states = (everything(&mut real).await, everything(&mut reopened).await);
        differences.compare(&(seed, "state after a restart"), &states.0, &states.1);
        store.shutdown().await;
    }
    compared
}

#[tokio::test]
async fn random_operations_get_the_answers_of_a_real_etcd() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut differences = Differences(Vec::new());
    let mut compared = 0;
    for seed in 0..HISTORIES {
        let path = directory.path().join(seed.to_string());
        let file = (seed < HISTORIES_ON_DISK).then_some(path.as_path());
        compared += Box::pin(history(seed, file, &mut differences)).await;
    }
    println!(
        "{compared} operations on {HISTORIES} histories, {} differences",
        differences.0.len()
    );
    let shown = differences.0.iter().take(10).cloned().collect::<Vec<_>>();
    assert!(shown.is_empty(), "{}", shown.join("\n"));
    assert_eq!(compared, OPERATIONS * usize::try_from(HISTORIES).expect("few"));
}
