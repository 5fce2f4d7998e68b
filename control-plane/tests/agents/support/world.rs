//! Replicas, and what users do.

use std::{collections::BTreeMap, convert::Infallible, sync::Arc, time::Duration};

use etcd_client::{Channel, Client, GetOptions};
use gantry_control_plane::{
    api::Api,
    clock::TokioClock,
    domain::{TaskId, Uid, stored},
    reconcile::Role,
    replica::{ControlPlane, ControlPlaneConfig},
    sessions::service::AgentService,
    store::{
        Key, Store,
        codec::Stored,
        connectors::{ConnectorOutcome, ConnectorWrite},
    },
};
use gantry_proto::v1::{
    Connector, Event, connector::TargetState, connector_service_client::ConnectorServiceClient, task::State,
};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tower::util::BoxCloneService;

use super::{Agent, cut::Cut, plugin};

pub(crate) const LEASE: Duration = Duration::from_secs(9);

/// Services by number of the replica; None: it is down.
pub(crate) type Services = Arc<Mutex<Vec<Option<AgentService>>>>;

pub(crate) struct World {
    etcd: gantry_embedded_etcd::Store,
    pub(crate) replicas: Vec<Option<ControlPlane>>,
    pub(crate) cuts: Vec<Cut>,
    pub(crate) services: Services,
    /// For what users do.
    pub(crate) store: Store,
    starts: u64,
    clock: TokioClock,
    session_max_age: Duration,
    /// Ends what serves users.
    end: CancellationToken,
}

/// Calls without a network.
pub(crate) type Users =
    ConnectorServiceClient<BoxCloneService<http::Request<Body>, http::Response<Body>, Infallible>>;

/// What a backup holds: keys and values, without what hangs on a lease.
pub(crate) struct Backup {
    values: Vec<(Vec<u8>, Vec<u8>)>,
    revision: i64,
}

impl World {
    /// A cluster with so many replicas, of which one leads.
    pub(crate) async fn new(replicas: usize) -> Self {
        Self::with_max_age(replicas, Duration::ZERO).await
    }

    /// The same, with an age limit of sessions.
    pub(crate) async fn with_max_age(replicas: usize, session_max_age: Duration) -> Self {
        let etcd = gantry_embedded_etcd::Store::in_memory();
        let store = Store::new(&etcd.client().await.unwrap(), "test");
        let mut world = Self {
            etcd,
            replicas: vec![None; replicas],
            cuts: (0..replicas).map(|_| Cut::default()).collect(),
            services: Arc::new(Mutex::new(vec![None; replicas])),
            store,
            starts: 0,
            clock: TokioClock::default(),
            session_max_age,
            end: CancellationToken::new(),
        };
        for number in 0..replicas {
            world.start(number).await;
        }
        world.leader().await;
        world
    }

    pub(crate) async fn start(&mut self, number: usize) {
        let transport = self.cuts[number].around(self.etcd.transport());
        let client = Client::from_channel(Channel::Custom(transport), None)
            .await
            .unwrap();
        self.starts += 1;
        let config = ControlPlaneConfig {
            agent_address: format!("replica-{number}"),
            default_namesrv: "ns:9876".into(),
            default_topic_queues: 4,
            max_sessions: Some(1000),
            session_max_age: self.session_max_age,
            clock: Arc::new(self.clock),
            ..ControlPlaneConfig::new("test", &format!("replica-{number}"), self.starts)
        };
        let replica = ControlPlane::start(config, &client);
        // It may be cut off.
        let _ = timeout(Duration::from_secs(1), replica.ready()).await;
        self.services.lock()[number] = Some(replica.agent_service());
        self.replicas[number] = Some(replica);
    }

    /// Stops a replica in order.
    pub(crate) async fn stop(&mut self, number: usize) {
        self.services.lock()[number] = None;
        if let Some(replica) = self.replicas[number].take() {
            replica.shutdown().await;
        }
    }

    /// Kills a replica: its streams break, its lease runs out.
    pub(crate) async fn kill(&mut self, number: usize) {
        self.cuts[number].cut();
        self.stop(number).await;
        self.cuts[number].heal();
    }

    pub(crate) fn replica(&self, number: usize) -> &ControlPlane {
        self.replicas[number].as_ref().unwrap()
    }

    /// What a snapshot of etcd would hold now.
    pub(crate) async fn backup(&self) -> Backup {
        let mut client = self.etcd.client().await.unwrap();
        let all = client
            .get("\0", Some(GetOptions::new().with_from_key()))
            .await
            .unwrap();
        let kept = all.kvs().iter().filter(|kv| kv.lease() == 0);
        Backup {
            values: kept.map(|kv| (kv.key().to_vec(), kv.value().to_vec())).collect(),
            revision: all.header().unwrap().revision(),
        }
    }

    /// etcd is stopped and comes back with what a backup held, its revision raised and under a new identity, as the
    /// runbook says.
    pub(crate) async fn restore(&mut self, backup: &Backup, store_id: &str) {
        for cut in &self.cuts {
            cut.cut();
        }
        let etcd = gantry_embedded_etcd::Store::in_memory();
        let mut client = etcd.client().await.unwrap();
        let present = self.etcd.client().await.unwrap().get("x", None).await.unwrap();
        let above = present.header().unwrap().revision().max(backup.revision) + 100;
        while client
            .put("bump", "", None)
            .await
            .unwrap()
            .header()
            .unwrap()
            .revision()
            < above
        {}
        for (key, value) in &backup.values {
            client.put(key.clone(), value.clone(), None).await.unwrap();
        }
        self.store = Store::new(&client, "test");
        let id = stored::StoreId {
            id: store_id.to_owned(),
            ..stored::StoreId::default()
        };
        let renamed = self.store.guarded().put(&Key::StoreId, &id).run().await;
        assert!(renamed.unwrap().applied);
        for cut in &self.cuts {
            cut.lead_to(etcd.transport());
            cut.heal();
        }
        std::mem::replace(&mut self.etcd, etcd).shutdown().await;
    }

    /// What users call, on a replica.
    pub(crate) fn users(&self, number: usize) -> Users {
        let api = Api::start(self.replica(number).clone(), self.end.clone());
        ConnectorServiceClient::new(BoxCloneService::new(api.connectors()))
    }

    /// etcd forgets a replica's lease, and all that hangs on it.
    pub(crate) async fn revoke(&self, number: usize) {
        let lease = self.replica(number).lease().id().unwrap();
        self.etcd
            .client()
            .await
            .unwrap()
            .lease_client()
            .revoke(lease)
            .await
            .unwrap();
    }

    /// Number of the replica that leads.
    pub(crate) async fn leader(&self) -> usize {
        let leads = |r: &Option<ControlPlane>| {
            r.as_ref()
                .is_some_and(|r| matches!(r.reconciler().role(), Role::Leader { .. }))
        };
        for _ in 0..600 {
            if let Some(number) = self.replicas.iter().position(leads) {
                return number;
            }
            sleep(Duration::from_millis(100)).await;
        }
        panic!("nobody leads");
    }

    /// An agent that dials the replicas in turn, beginning with `first`.
    pub(crate) fn agent(&self, name: &str, first: usize) -> Agent {
        Agent::start(name, self.services.clone(), first)
    }

    /// Creates a connector with so many tasks.
    pub(crate) async fn create(&self, name: &str, tasks: i32) -> Uid {
        let uid = Uid(format!("{:0>16}", name.replace('-', "")).into());
        let definition = Connector {
            plugin: plugin::NAME.into(),
            topic: "t".into(),
            tasks_max: tasks,
            target_state: TargetState::Running.into(),
            ..Connector::default()
        };
        let value = stored::Connector {
            format: 1,
            uid: uid.to_string(),
            definition: Some(definition.clone()),
            generation: 1,
            revision: 1,
            traceparent: "00-trace-span-01".into(),
            ..stored::Connector::default()
        };
        let revision = stored::Revision {
            definition: Some(definition),
            ..stored::Revision::default()
        };
        let write = ConnectorWrite {
            name: name.into(),
            seen: 0,
            value,
            revision: Some(revision),
            request: None,
        };
        let written = self.store.write_connector(&write).await.unwrap();
        assert!(matches!(written, ConnectorOutcome::Done { .. }));
        uid
    }

    /// Changes a connector as its user does.
    pub(crate) async fn change(&self, name: &str, change: impl Fn(&mut stored::Connector)) {
        loop {
            let present = self
                .store
                .read_connector(name)
                .await
                .unwrap()
                .0
                .expect("the connector exists");
            let mut value = (*present.value).clone();
            change(&mut value);
            let write = ConnectorWrite {
                name: name.into(),
                seen: present.mod_revision,
                value,
                revision: None,
                request: None,
            };
            if let ConnectorOutcome::Done { .. } = self.store.write_connector(&write).await.unwrap() {
                return;
            }
        }
    }

    pub(crate) async fn want(&self, name: &str, target: TargetState) {
        self.change(name, |c| {
            if let Some(definition) = &mut c.definition {
                definition.set_target_state(target);
            }
        })
        .await;
    }

    pub(crate) async fn restart(&self, name: &str, nonce: &str) {
        self.change(name, |c| c.restart_nonce = nonce.to_owned()).await;
    }

    pub(crate) async fn delete(&self, name: &str) {
        self.change(name, |c| {
            c.delete_time = Some(pbjson_types::Timestamp { seconds: 1, nanos: 0 })
        })
        .await;
    }

    pub(crate) async fn exists(&self, name: &str) -> bool {
        self.store.read_connector(name).await.unwrap().0.is_some()
    }

    pub(crate) async fn get<T: Stored + Clone>(&self, key: Key) -> Option<T> {
        self.store
            .get::<T>(&key)
            .await
            .unwrap()
            .0
            .map(|v| (*v.value).clone())
    }

    pub(crate) async fn fence(&self, task: &TaskId) -> i64 {
        let key = Key::Grant(task.clone());
        self.store
            .get::<stored::Grant>(&key)
            .await
            .unwrap()
            .0
            .map_or(0, |g| g.mod_revision)
    }

    pub(crate) async fn status(&self, task: &TaskId) -> Option<stored::Status> {
        self.get(Key::Status(task.clone())).await
    }

    pub(crate) async fn session(&self, agent: &str) -> Option<stored::Session> {
        self.get(Key::Session(agent.into())).await
    }

    /// Waits until every task of a connector is stored in this state.
    pub(crate) async fn tasks_are(&self, uid: &Uid, tasks: u32, state: State) {
        let ids: Vec<_> = (0..tasks).map(|n| TaskId { uid: uid.clone(), n }).collect();
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let mut states = BTreeMap::new();
            for id in &ids {
                states.insert(id.n, self.status(id).await.map(|s| s.state()));
            }
            if states.values().all(|s| *s == Some(state)) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "tasks of {uid} are {states:?}, not {state:?}"
            );
            sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) async fn event_types(&self, uid: &Uid) -> Vec<String> {
        let events: Vec<Event> = self.store.list_events(uid).await.unwrap();
        events.into_iter().map(|e| e.r#type).collect()
    }
}

/// True if it becomes so within that time.
pub(crate) async fn is_within(seconds: u64, condition: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    while !condition() {
        if Instant::now() >= deadline {
            return false;
        }
        sleep(Duration::from_millis(20)).await;
    }
    true
}

pub(crate) fn task(uid: &Uid, n: u32) -> TaskId {
    TaskId { uid: uid.clone(), n }
}
