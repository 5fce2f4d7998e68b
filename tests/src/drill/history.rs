//! Everything that was written to the store during a drill, in the store's own order, seen from outside.

mod listing;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use etcd_client::{Client, EventType, WatchOptions};
use gantry_control_plane::domain::{TaskId, Uid, stored};
use gantry_control_plane::store::codec::{self, Stored};
use gantry_control_plane::store::{Key, Keys, connect_options};
use gantry_proto::v1::task::State;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

const CLUSTER: &str = "default";
/// Followed too, so that it can be told whether all before it has been seen.
const MARK: &str = "/gantry-drill/mark";
const ALL: &str = "/gantry";
const LOOK: Duration = Duration::from_millis(100);
const AGAIN: Duration = Duration::from_millis(50);
/// A watch that has said nothing for so long although it was asked is opened anew.
const SILENCE: Duration = Duration::from_secs(3);

/// A key was written or deleted.
#[derive(Debug, Clone)]
pub struct Change {
    /// The revision of the store with which it happened.
    pub revision: i64,
    /// When this process learned of it.
    pub at: Instant,
    /// It may have happened well before: the harness had lost the store and has just found it again.
    pub late: bool,
    /// The key.
    pub key: Key,
    /// What it holds since; None: it was deleted.
    pub value: Option<Vec<u8>>,
}

impl Change {
    /// What the key holds since; None: it was deleted.
    pub fn decoded<T: Stored>(&self) -> Result<Option<T>> {
        let Some(value) = &self.value else {
            return Ok(None);
        };
        Ok(Some(codec::decode(&self.key, value)?))
    }
}

/// What the store holds, and how it came to be.
#[derive(Debug, Default)]
pub struct View {
    revision: i64,
    changes: Vec<Change>,
    now: BTreeMap<Key, (i64, Vec<u8>)>,
}

/// A task that somebody may run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The revision of the right to commit.
    pub fence: i64,
    /// Whose it is.
    pub agent: String,
    /// The process.
    pub instance: String,
    /// What the agent said last, under this right.
    pub state: Option<State>,
    /// How often the agent has restarted it.
    pub restarts: i32,
    /// What is wrong with it.
    pub problem: String,
}

impl View {
    /// The revision up to which everything has been seen.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// Every change so far, in order.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// What a key holds, and since which revision.
    pub fn get<T: Stored>(&self, key: &Key) -> Result<Option<(i64, T)>> {
        let Some((revision, value)) = self.now.get(key) else {
            return Ok(None);
        };
        Ok(Some((*revision, codec::decode(key, value)?)))
    }

    /// Every key that exists.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.now.keys()
    }

    /// The uid of a connector.
    pub fn uid(&self, name: &str) -> Result<Uid> {
        let found = self.get::<stored::Connector>(&Key::Connector(name.into()))?;
        let (_, connector) = found.with_context(|| format!("there is no connector {name}"))?;
        Ok(Uid(connector.uid.as_str().into()))
    }

    /// The name of the replica that leads, if one does.
    pub fn leader(&self) -> Result<Option<String>> {
        let found = self.get::<stored::Leader>(&Key::Leader)?;
        Ok(found.map(|(_, leader)| leader.replica))
    }

    /// The session of an agent, if it has one.
    pub fn session(&self, agent: &str) -> Result<Option<stored::Session>> {
        let found = self.get(&Key::Session(agent.into()))?;
        Ok(found.map(|(_, session)| session))
    }

    /// The tasks of a connector that somebody may run.
    pub fn held(&self, uid: &Uid) -> Result<BTreeMap<TaskId, Held>> {
        let mut held = BTreeMap::new();
        for key in self.now.keys() {
            let Key::Grant(id) = key else { continue };
            if id.uid != *uid {
                continue;
            }
            let (fence, grant) = self
                .get::<stored::Grant>(key)?
                .context("a key that exists holds something")?;
            let status = self.get::<stored::Status>(&Key::Status(id.clone()))?;
            let status = status.map(|(_, s)| s).filter(|s| s.fence == fence);
            held.insert(
                id.clone(),
                Held {
                    fence,
                    agent: grant.agent,
                    instance: grant.instance_uid,
                    state: status.as_ref().map(|s| s.state()),
                    restarts: status.as_ref().map_or(0, |s| s.restarts),
                    problem: status
                        .and_then(|s| s.problem)
                        .map(|p| p.message)
                        .unwrap_or_default(),
                },
            );
        }
        Ok(held)
    }

    /// The tasks of a connector, all of which run. `Err` says which ones do not.
    pub fn running(&self, uid: &Uid) -> Result<BTreeMap<TaskId, Held>> {
        let pointer = self.get::<stored::PlanPointer>(&Key::PlanPointer(uid.clone()))?;
        let (_, pointer) = pointer.context("it has no plan")?;
        let held = self.held(uid)?;
        ensure!(
            pointer.plan_generation > 0 && held.len() == pointer.tasks as usize,
            "{} of {} tasks are held: {held:?}",
            held.len(),
            pointer.tasks
        );
        for (id, task) in &held {
            ensure!(task.state == Some(State::Running), "{id} is {task:?}");
        }
        Ok(held)
    }

    /// The present epoch's offsets of a connector.
    pub fn offsets(&self, uid: &Uid) -> Result<Vec<stored::OffsetRecord>> {
        let head = self.get::<stored::OffsetsHead>(&Key::OffsetsHead(uid.clone()))?;
        let present = head.map_or(0, |(_, head)| head.epoch);
        let mut offsets = Vec::new();
        for key in self.now.keys() {
            if let Key::Offset(of, epoch, _) = key
                && of == uid
                && *epoch == present
            {
                offsets.extend(self.get(key)?.map(|(_, record)| record));
            }
        }
        Ok(offsets)
    }

    fn apply(&mut self, change: Change) {
        match &change.value {
            Some(value) => self
                .now
                .insert(change.key.clone(), (change.revision, value.clone())),
            None => self.now.remove(&change.key),
        };
        self.changes.push(change);
    }
}

/// Follows the store until it is dropped. A store that is away for a while is followed on from where it was.
#[derive(Debug)]
pub struct History {
    view: Arc<Mutex<View>>,
    seen: watch::Receiver<i64>,
    endpoints: Vec<String>,
    following: JoinHandle<()>,
}

impl History {
    /// Begins with an empty store.
    pub async fn follow(endpoints: Vec<String>) -> Result<Self> {
        let view = Arc::new(Mutex::new(View::default()));
        let (said, seen) = watch::channel(0);
        let follower = Follower {
            view: view.clone(),
            said,
            keys: Keys::new(CLUSTER),
            endpoints: endpoints.clone(),
        };
        let following = tokio::spawn(follower.run());
        Ok(Self {
            view,
            seen,
            endpoints,
            following,
        })
    }

    /// What has been seen so far. Not to be held for long.
    pub fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at every change, and in between, until `check` answers `Ok`, at most for `limit`.
    pub async fn wait<T>(
        &self,
        limit: Duration,
        what: &str,
        mut check: impl FnMut(&View) -> Result<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + limit;
        let mut seen = self.seen.clone();
        loop {
            seen.borrow_and_update();
            let last = match check(&self.view()) {
                Ok(found) => return Ok(found),
                Err(last) => last,
            };
            if Instant::now() >= deadline {
                bail!("waited {limit:?} in vain until {what}; last seen: {last:#}");
            }
            // Not everything that is waited for is a change of the store.
            if let Ok(changed) = timeout(LOOK, seen.changed()).await {
                changed.context("the store is no longer followed")?;
            }
        }
    }

    /// Waits until everything has been seen that was in the store when this was called.
    pub async fn catch_up(&self, limit: Duration) -> Result<()> {
        let mark = async {
            loop {
                let put = async {
                    let mut client = Client::connect(&self.endpoints, Some(connect_options())).await?;
                    let put = client.put(MARK, "", None).await?;
                    anyhow::Ok(put.header().map_or(0, |header| header.revision()))
                };
                if let Ok(Ok(revision)) = timeout(SILENCE, put).await {
                    return revision;
                }
                sleep(AGAIN).await;
            }
        };
        let mark = timeout(limit, mark).await.context("the store takes no write")?;
        let what = format!("revision {mark} has been seen");
        self.wait(limit, &what, |view| {
            ensure!(view.revision >= mark, "{}", view.revision);
            Ok(())
        })
        .await
    }
}

impl Drop for History {
    fn drop(&mut self) {
        self.following.abort();
    }
}

struct Follower {
    view: Arc<Mutex<View>>,
    said: watch::Sender<i64>,
    keys: Keys,
    endpoints: Vec<String>,
}

impl Follower {
    async fn run(self) {
        loop {
            // Whatever ends a watch, another one goes on after the last revision that was seen whole.
            let _ = self.watch().await;
            sleep(AGAIN).await;
        }
    }

    async fn watch(&self) -> Result<()> {
        let mut client = Client::connect(&self.endpoints, Some(connect_options())).await?;
        let from = self.view.lock().unwrap_or_else(PoisonError::into_inner).revision + 1;
        let options = WatchOptions::new().with_prefix().with_start_revision(from);
        // What the store has by now comes late.
        let found = timeout(SILENCE, client.get(MARK, None)).await??;
        let found = found.header().map_or(0, |header| header.revision());
        let mut stream = timeout(SILENCE, client.watch(ALL, Some(options))).await??;
        loop {
            let message = match timeout(SILENCE, stream.message()).await {
                Ok(message) => message?,
                Err(_) => {
                    stream.request_progress().await?;
                    timeout(SILENCE, stream.message()).await??
                }
            };
            let message = message.context("the watch has ended")?;
            ensure!(!message.canceled(), "cancelled: {}", message.cancel_reason());
            let at = Instant::now();
            let mut view = self.view.lock().unwrap_or_else(PoisonError::into_inner);
            for event in message.events() {
                let kv = event.kv().context("an event has a key")?;
                view.revision = view.revision.max(kv.mod_revision());
                // The mark, and what a later version may have added.
                let Some(key) = self.keys.parse(kv.key()) else {
                    continue;
                };
                let value = match event.event_type() {
                    EventType::Put => Some(kv.value().to_vec()),
                    EventType::Delete => None,
                };
                view.apply(Change {
                    revision: kv.mod_revision(),
                    at,
                    late: kv.mod_revision() <= found,
                    key,
                    value,
                });
            }
            let revision = view.revision;
            drop(view);
            self.said.send_replace(revision);
        }
    }
}
