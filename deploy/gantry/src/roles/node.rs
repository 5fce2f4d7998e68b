//! Everything in one process: embedded store, embedded broker unless another is named, control plane, agents.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use gantry_agent::{Agent, AgentConfig, Redactor, connectors};
use gantry_bus::rocketmq::RocketmqFactory;
use gantry_control_plane::{ControlPlane, ControlPlaneConfig, server::ListenerConfig};
use gantry_embedded_etcd::Store;
use gantry_embedded_rocketmq::{EmbeddedRocketmq, Options};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{anew, chain, listen, server::serve_replica};
use crate::failure::{Exit, Failure};

/// How to run everything in one process.
pub(super) struct NodeConfig {
    pub(super) data_dir: PathBuf,
    pub(super) listen: SocketAddr,
    pub(super) namesrv: Option<String>,
    pub(super) agents: u32,
    pub(super) etcd_listen: Option<SocketAddr>,
    pub(super) metrics_listen: Option<SocketAddr>,
    pub(super) agent_metrics_listen: Option<SocketAddr>,
    pub(super) insecure: bool,
    pub(super) redactor: Redactor,
    /// Begin anew when an agent gives itself up, instead of ending.
    pub(super) begins_anew: bool,
}

impl NodeConfig {
    /// Free port, embedded broker.
    pub(super) fn embedded(data_dir: PathBuf, agents: u32, redactor: Redactor) -> Self {
        Self {
            data_dir,
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            namesrv: None,
            agents,
            etcd_listen: None,
            metrics_listen: None,
            agent_metrics_listen: None,
            insecure: false,
            redactor,
            begins_anew: false,
        }
    }
}

impl NodeConfig {
    /// Users are served without TLS and authentication, and the store is not protected at all.
    fn check(&self) -> Result<(), Failure> {
        let users = ListenerConfig::default().check(self.listen, self.insecure);
        users.map_err(|e| {
            Failure::usage(chain(&e)).at("--listen").fix(
                "listen on 127.0.0.1, run `gantry server` with TLS and tokens, or give --insecure, if everybody who can \
                 reach it may do everything",
            )
        })?;
        match self.etcd_listen {
            Some(address) if !address.ip().is_loopback() => Err(Failure::usage(format!(
                "{address} is not a loopback address, and whoever reaches the store may change everything"
            ))
            .at("--embedded-etcd-listen")
            .fix("listen on 127.0.0.1")),
            _ => Ok(()),
        }
    }
}

/// The address of the `n`th agent, from 1, if the first one has `first`. Port 0 takes a free one for each.
fn nth(first: SocketAddr, n: u32) -> SocketAddr {
    let step = u16::try_from(n - 1).unwrap_or(u16::MAX);
    let port = match first.port() {
        0 => 0,
        port => port.saturating_add(step),
    };
    SocketAddr::new(first.ip(), port)
}

/// The running parts.
pub(super) struct Node {
    endpoint: String,
    etcd_endpoint: Option<SocketAddr>,
    metrics: Vec<(String, SocketAddr)>,
    running: JoinHandle<()>,
}

impl Node {
    /// Starts everything; returns when connectors can be created.
    pub(super) async fn start(config: NodeConfig, stop: CancellationToken) -> Result<Self, Failure> {
        config.check()?;
        let dir = &config.data_dir;
        std::fs::create_dir_all(dir).map_err(|e| {
            Failure::new(Exit::Refused, format!("cannot make the data directory: {e}"))
                .at(dir.display().to_string())
                .fix("choose another one with --data-dir")
        })?;
        let (listener, address) = listen(config.listen, "--listen").await?;
        let (agent_listener, agent_address) =
            listen(SocketAddr::from(([127, 0, 0, 1], 0)), "--agent-listen").await?;
        let store = open_store(dir)?;
        let broker = match &config.namesrv {
            Some(_) => None,
            None => Some(start_broker(dir).await?),
        };
        let namesrv = match (&broker, &config.namesrv) {
            (Some(broker), _) => broker.namesrv_addr(),
            (None, Some(given)) => given.clone(),
            (None, None) => String::new(),
        };
        let etcd_endpoint = match config.etcd_listen {
            None => None,
            Some(address) => {
                let (listener, bound) = listen(address, "--embedded-etcd-listen").await?;
                let (served, stopped) = (store.clone(), stop.clone());
                tokio::spawn(async move {
                    if let Err(error) = served.serve(listener, stopped.cancelled_owned()).await {
                        tracing::error!(error = %chain(&error), "the embedded etcd's listener ended");
                    }
                });
                Some(bound)
            }
        };
        let client = store
            .client()
            .await
            .map_err(|e| Failure::new(Exit::Refused, format!("the embedded store does not answer: {e}")))?;
        let control = ControlPlaneConfig {
            address: format!("http://{address}"),
            agent_address: format!("http://{agent_address}"),
            default_namesrv: namesrv,
            default_topic_queues: 4,
            ..ControlPlaneConfig::new("dev", "dev", rand::random())
        };
        let replica = ControlPlane::start(control, &client);
        let mut shown = Vec::new();
        let metrics = match config.metrics_listen {
            None => None,
            Some(address) => {
                let (listener, address) = listen(address, "--metrics-listen").await?;
                shown.push(("the control plane".to_owned(), address));
                Some(listener)
            }
        };
        // Agents stop first: their last commits and goodbyes need the rest.
        let control_stop = CancellationToken::new();
        let served = serve_replica(
            replica,
            (listener, ListenerConfig::default()),
            (agent_listener, ListenerConfig::default()),
            metrics,
            control_stop.clone(),
        );
        let serving = tokio::spawn(served);
        let bus = Arc::new(RocketmqFactory::new());
        let mut agents = Vec::new();
        for n in 1..=config.agents {
            let server = format!("http://{agent_address}");
            let mut agent = AgentConfig::new(
                vec![server],
                format!("dev-{n}"),
                bus.clone(),
                connectors::builtin(),
            );
            agent.allow_paths = vec!["/".into()];
            agent.lock_dir = dir.join("agents");
            if config.begins_anew {
                agent.hooks.abort = anew::hook(address, stop.clone());
            }
            agent.redactor = config.redactor.clone();
            agent.metrics_listen = config.agent_metrics_listen.map(|first| nth(first, n));
            let agent = Agent::build(agent)
                .await
                .map_err(|e| Failure::new(Exit::Refused, chain(&e)))?;
            shown.extend(
                agent
                    .metrics_address()
                    .map(|address| (format!("dev-{n}"), address)),
            );
            let stop = stop.clone();
            agents.push(tokio::spawn(async move {
                if let Err(error) = agent.run(stop).await {
                    tracing::error!(error = %chain(&error), "an agent ended");
                }
            }));
        }
        let running = tokio::spawn(async move {
            stop.cancelled().await;
            for agent in agents {
                let _ = agent.await;
            }
            control_stop.cancel();
            if let Ok(Err(failure)) = serving.await {
                tracing::error!(%failure, "the control plane ended");
            }
            if let Some(broker) = broker {
                broker.stop().await;
            }
            store.shutdown().await;
        });
        let node = Self {
            endpoint: format!("http://{address}"),
            etcd_endpoint,
            metrics: shown,
            running,
        };
        node.ready(config.agents).await?;
        Ok(node)
    }

    /// Where users find the API.
    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Where `etcdctl` finds the store, if it is served.
    pub(super) fn etcd_endpoint(&self) -> Option<SocketAddr> {
        self.etcd_endpoint
    }

    /// Whose metrics are served where.
    pub(super) fn metrics(&self) -> &[(String, SocketAddr)] {
        &self.metrics
    }

    /// Returns when everything has stopped, or when the time is over.
    pub(super) async fn stopped(self, patience: Duration) {
        if tokio::time::timeout(patience, self.running).await.is_err() {
            crate::render::note(&format!("not everything stopped within {patience:?}"));
        }
    }

    async fn ready(&self, agents: u32) -> Result<(), Failure> {
        let client = gantry_client::Client::connect(&self.endpoint).await?;
        let mut watch = client.watch_agents();
        let mut ready = std::collections::BTreeSet::new();
        let all = async {
            while ready.len() < agents as usize {
                if let gantry_client::Step::Upserted(agent) = watch.next().await?
                    && agent.state() == gantry_client::v1::agent::State::Ready
                {
                    ready.insert(agent.name.clone());
                }
            }
            Ok(())
        };
        match tokio::time::timeout(Duration::from_secs(60), all).await {
            Ok(done) => done,
            Err(_) => Err(
                Failure::new(Exit::Refused, "the agents did not become ready within 60 s")
                    .at(self.endpoint.clone())
                    .fix("start again with --log debug and look at what is printed"),
            ),
        }
    }
}

fn open_store(dir: &std::path::Path) -> Result<Store, Failure> {
    Store::open(dir.join("etcd.redb")).map_err(|e| {
        Failure::new(
            Exit::Refused,
            format!("cannot open the embedded store: {}", chain(&e)),
        )
        .at(dir.display().to_string())
        .fix("stop the other process that uses this directory, or choose another with --data-dir")
    })
}

async fn start_broker(dir: &std::path::Path) -> Result<EmbeddedRocketmq, Failure> {
    let directory = dir.join("rocketmq");
    EmbeddedRocketmq::start(&directory, Options::default()).await.map_err(|e| {
        Failure::new(Exit::Refused, format!("cannot start the embedded RocketMQ: {}", chain(&e)))
            .at(directory.display().to_string())
            .fix("choose another directory with --data-dir (the demo's is below TMPDIR), or name a RocketMQ cluster with --namesrv HOST:PORT")
    })
}
