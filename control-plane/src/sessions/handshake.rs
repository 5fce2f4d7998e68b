//! From a stream's first message to an accepted session.

use std::{sync::Arc, time::Duration};

use futures::{Stream, StreamExt};
use gantry_proto::{
    agent::v1::{Hello, OpenSessionRequest, RunningTask, Welcome, open_session_request::Message as Request},
    error::{Reason, Refusal},
    v1::Plugin,
};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};
use tonic::Status;

use super::{
    Sessions,
    hello::{self, Known, Verdict},
    inventory::Collector,
    registry::Attachment,
};
use crate::{
    clock::timestamp,
    domain::{hash::plugin_hash, stored},
    store::{
        StoreError,
        codec::FORMAT,
        sessions::{AgentKeys, Expected, SessionWrite},
    },
};

/// Hello and inventory come within this.
const PATIENCE: Duration = Duration::from_secs(10);
/// Tries of the transaction, each on what the last one found.
const TRIES: usize = 5;

/// A session whose keys are written.
pub(super) struct Accepted {
    /// The agent.
    pub agent: Arc<str>,
    /// Its instance.
    pub instance_uid: Arc<str>,
    /// The stream.
    pub serial: u64,
    /// Revisions of the session's keys.
    pub keys: Expected,
    /// What it runs from before.
    pub inventory: Vec<RunningTask>,
    /// Tells why the stream has to end.
    pub closed: oneshot::Receiver<Refusal>,
}

/// Reads hello and inventory. None: the stream ended before.
pub(super) async fn read<S>(input: &mut S) -> Result<Option<(Hello, Vec<RunningTask>)>, Refusal>
where
    S: Stream<Item = Result<OpenSessionRequest, Status>> + Unpin,
{
    timeout(PATIENCE, read_all(input))
        .await
        .unwrap_or_else(|_| Err(malformed("hello and inventory did not come within 10 s")))
}

async fn read_all<S>(input: &mut S) -> Result<Option<(Hello, Vec<RunningTask>)>, Refusal>
where
    S: Stream<Item = Result<OpenSessionRequest, Status>> + Unpin,
{
    let Some(first) = next(input).await else {
        return Ok(None);
    };
    let Some(Request::Hello(hello)) = first else {
        return Err(malformed("the first message must be a hello"));
    };
    hello::check(&hello)?;
    let mut inventory = Collector::new(hello.inventory_chunks);
    while !inventory.is_complete() {
        match next(input).await {
            None => return Ok(None),
            Some(Some(Request::Inventory(chunk))) => inventory.push(chunk)?,
            Some(_) => return Err(malformed("the inventory must follow the hello")),
        }
    }
    Ok(Some((hello, inventory.finish())))
}

async fn next<S>(input: &mut S) -> Option<Option<Request>>
where
    S: Stream<Item = Result<OpenSessionRequest, Status>> + Unpin,
{
    match input.next().await {
        Some(Ok(request)) => Some(request.message),
        Some(Err(_)) | None => None,
    }
}

/// Judges a hello and writes its session.
pub(super) async fn accept(
    sessions: &Sessions,
    hello: Hello,
    inventory: Vec<RunningTask>,
) -> Result<Accepted, Refusal> {
    if sessions.registry().open() >= sessions.settings().max_sessions {
        return Err(Refusal::new(
            Reason::TooManySessions,
            "this replica takes no more sessions; dial another one",
        ));
    }
    if sessions.mirror().revision() == 0 || !sessions.lease().is_fresh() {
        return Err(unavailable(
            "this replica is cut off from the store; dial another one",
        ));
    }
    let agent: Arc<str> = hello.agent.as_str().into();
    let plugins: Vec<_> = hello.plugins.iter().map(plugin_record).collect();
    let known_plugins = sessions.mirror().snapshot();
    sessions
        .store()
        .put_plugins(&known_plugins, &plugins)
        .await
        .map_err(|e| store_refusal(&e))?;
    drop(known_plugins);

    let mut known = sessions
        .store()
        .read_agent(&agent)
        .await
        .map_err(|e| store_refusal(&e))?;
    for _ in 0..TRIES {
        let gone = match hello::judge(&hello, values(&known)) {
            Verdict::Refuse(refusal) => return Err(refusal),
            Verdict::Accept { gone } => gone,
        };
        let Some(lease) = sessions.lease().id() else {
            return Err(unavailable("this replica has no lease now; dial another one"));
        };
        let (instance, session) = records(sessions, &hello, gone);
        let heard = Instant::now();
        match sessions
            .store()
            .write_session(&agent, known.expected(), &instance, &session, lease)
            .await
        {
            Ok(SessionWrite::Written(keys)) => {
                let (close, closed) = oneshot::channel();
                let serial = sessions.next_serial();
                let attachment = Attachment {
                    serial,
                    instance,
                    session,
                    keys,
                    lease,
                    heard,
                    close: Some(close),
                    writing: false,
                };
                if !sessions.registry().attach(&agent, attachment, superseded) {
                    return Err(superseded());
                }
                let instance_uid = hello.instance_uid.as_str().into();
                return Ok(Accepted {
                    agent,
                    instance_uid,
                    serial,
                    keys,
                    inventory,
                    closed,
                });
            }
            Ok(SessionWrite::Conflict(present)) => known = present,
            Err(error) => {
                if error == StoreError::LeaseGone {
                    sessions.lease().check();
                }
                return Err(store_refusal(&error));
            }
        }
    }
    Err(Refusal::new(
        Reason::Overloaded,
        "other hellos of the agent keep coming first; dial again",
    ))
}

/// The answer to an accepted hello.
pub(super) fn welcome(sessions: &Sessions) -> Result<Welcome, Refusal> {
    let settings = sessions.settings();
    sessions.mirror().read(|snapshot| {
        let Some(store_id) = &snapshot.store_id else {
            return Err(unavailable("the store has no identity yet; dial again"));
        };
        let addresses = snapshot.replicas.values().map(|r| r.agent_address.clone());
        Ok(Welcome {
            heartbeat_interval: Some(settings.heartbeat.into()),
            lease: Some(settings.lease.into()),
            store_id: store_id.id.clone(),
            replica: settings.replica.clone(),
            addresses: addresses.filter(|a| !a.is_empty()).collect(),
        })
    })
}

fn values(keys: &AgentKeys) -> Known<'_> {
    Known {
        session: keys.session.as_ref().map(|s| s.value.as_ref()),
        instance: keys.instance.as_ref().map(|i| i.value.as_ref()),
    }
}

fn records(sessions: &Sessions, hello: &Hello, gone: Vec<String>) -> (stored::Instance, stored::Session) {
    let instance = stored::Instance {
        format: FORMAT,
        instance_uid: hello.instance_uid.clone(),
        lock: hello.lock.clone(),
        start_counter: hello.start_counter,
        dial_counter: hello.dial_counter,
    };
    let plugin = |p: &Plugin| Some(format!("{}@{}", hello::plugin_id(&p.name)?, p.version));
    let session = stored::Session {
        format: FORMAT,
        instance_uid: hello.instance_uid.clone(),
        lock: hello.lock.clone(),
        start_counter: hello.start_counter,
        dial_counter: hello.dial_counter,
        gone,
        replica: sessions.settings().replica.clone(),
        silent: false,
        version: hello.version.clone(),
        host: hello.host.clone(),
        host_id: hello.host_id.clone(),
        labels: hello.labels.clone(),
        capacity: hello.capacity,
        plugins: hello.plugins.iter().filter_map(plugin).collect(),
        connect_time: Some(timestamp(sessions.clock().wall())),
    };
    (instance, session)
}

fn plugin_record(plugin: &Plugin) -> stored::PluginRecord {
    // What only the control plane knows is not part of what an agent brings.
    let plugin = Plugin {
        versions: Vec::new(),
        agents: Vec::new(),
        ..plugin.clone()
    };
    stored::PluginRecord {
        format: FORMAT,
        hash: plugin_hash(&plugin),
        plugin: Some(plugin),
    }
}

fn malformed(what: &str) -> Refusal {
    Refusal::new(Reason::InvalidField, what)
}

fn superseded() -> Refusal {
    Refusal::new(Reason::StaleHello, "a later hello of the agent was accepted")
}

fn unavailable(what: &str) -> Refusal {
    Refusal::new(Reason::StoreUnavailable, what)
}

/// A store error as agents are told it: dial another replica.
pub(super) fn store_refusal(error: &StoreError) -> Refusal {
    unavailable(&error.to_string())
}
