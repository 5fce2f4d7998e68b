use std::{collections::BTreeMap, fmt, io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use gantry_bus::BusFactory;
use gantry_connector::Plugin;
use tokio::io::DuplexStream;

use crate::{
    clock::{Clock, SystemClock},
    lock,
    redact::Redactor,
};

/// What an agent is told at its start.
#[derive(Clone)]
pub struct AgentConfig {
    /// Addresses of the control plane for agents: `http://host:port` or `https://host:port`. At least one.
    pub servers: Vec<String>,
    /// Id of the agent: `[a-z]([-a-z0-9]*[a-z0-9])?`, at most 63 characters. One process per name.
    pub name: String,
    /// Labels, for `agent_selector`.
    pub labels: BTreeMap<String, String>,
    /// Most tasks it takes; 0: no limit.
    pub capacity: u32,
    /// Directories below which file connectors may work. None: they may nowhere.
    pub allow_paths: Vec<PathBuf>,
    /// Directories below which files with secrets may lie.
    pub secrets_paths: Vec<PathBuf>,
    /// Learns every secret that is resolved. Whoever writes the process's log gives it one of which the log has a clone.
    pub redactor: Redactor,
    /// Where the lock file is.
    pub lock_dir: PathBuf,
    /// How to secure the link. None: `http` addresses only.
    pub tls: Option<TlsOptions>,
    /// Sent with every call as `authorization: Bearer ...`.
    pub token: Option<String>,
    /// Where Prometheus may ask for metrics. None: nowhere.
    pub metrics_listen: Option<SocketAddr>,
    /// The message bus.
    pub bus: Arc<dyn BusFactory>,
    /// What it can run.
    pub plugins: Vec<Plugin>,
    /// Seeds all randomness (jitter). Production takes one at random.
    pub seed: u64,
    /// Limits of the data plane.
    pub limits: Limits,
    /// How it is tied to its process. Tests replace parts of it.
    pub hooks: Hooks,
}

/// Keys and certificates of the link to the control plane, PEM.
#[derive(Clone, Default)]
pub struct TlsOptions {
    /// Certificates of the authorities to trust. None is trusted by itself: empty, no `https` address can be reached.
    pub ca: Vec<u8>,
    /// The agent's own certificate and key.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
    /// Name that the server's certificate must carry; None: that of the address.
    pub domain: Option<String>,
}

/// Sizes and times of the data plane.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes that the records of one source task may take in memory. A larger record is admitted alone.
    pub source_memory: usize,
    /// Bytes that the messages of one sink task may take in memory. A larger one is admitted alone.
    pub sink_memory: usize,
    /// Most records in one send.
    pub send_records: usize,
    /// Most records in one write of a sink.
    pub write_records: usize,
    /// Most bytes in one write of a sink.
    pub write_bytes: usize,
    /// How often positions are committed while records move.
    pub commit_interval: Duration,
    /// How often a sink is flushed while records move.
    pub flush_interval: Duration,
    /// A sink is flushed earlier after so many bytes.
    pub flush_bytes: usize,
    /// How long the broker may hold a pull of an idle queue.
    pub pull_wait: Duration,
    /// How many tasks may be starting at once.
    pub parallel_starts: usize,
    /// How often the route of a topic is looked at.
    pub route_interval: Duration,
    /// A task is STALLED when something waits and nothing has moved for so long: longer than the intervals of commits and
    /// flushes.
    pub stalled_after: Duration,
    /// Time limits of connector code.
    pub hooks: HookLimits,
}

/// How long connector code may take. Past it its thread is given up.
#[derive(Clone, Debug)]
pub struct HookLimits {
    /// `open`.
    pub open: Duration,
    /// `write` and `flush` of a sink, each.
    pub write: Duration,
    /// How long `poll` of a source may keep its thread. Waiting (`.await`) counts for nothing.
    pub poll: Duration,
    /// `committed` of a source.
    pub committed: Duration,
    /// `close`; also: until a source lets go of `poll`.
    pub close: Duration,
    /// `validate`, `plan_tasks`, `start_at` and `lag`: the calls for one question together.
    pub ask: Duration,
    /// Threads of tasks that may be given up before the process aborts.
    pub leaked_threads: usize,
    /// Threads of questions to one plugin that may be given up before it is asked nothing more.
    pub leaked_asks: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            source_memory: 8 << 20,
            sink_memory: 32 << 20,
            send_records: 4000,
            write_records: 8192,
            write_bytes: 8 << 20,
            commit_interval: Duration::from_secs(1),
            flush_interval: Duration::from_secs(1),
            flush_bytes: 64 << 20,
            pull_wait: Duration::from_secs(10),
            parallel_starts: 16,
            route_interval: Duration::from_secs(30),
            stalled_after: Duration::from_secs(8),
            hooks: HookLimits {
                open: Duration::from_secs(60),
                write: Duration::from_secs(300),
                poll: Duration::from_secs(300),
                committed: Duration::from_secs(60),
                close: Duration::from_secs(10),
                ask: Duration::from_secs(10),
                leaked_threads: 8,
                leaked_asks: 4,
            },
        }
    }
}

/// How the agent is tied to its process.
#[derive(Clone)]
pub struct Hooks {
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Called with the reason when nothing but the end of the process makes tasks end. The default aborts.
    pub abort: Arc<dyn Fn(&str) + Send + Sync>,
    /// Runs connector code on the shared runtime instead of threads of its own: only for tests with a paused clock, which
    /// no other thread follows. Code that blocks then blocks the agent.
    pub inline_connectors: bool,
    /// Opens the connection to an address of the control plane in place of TCP: for tests and simulations in one process.
    pub dial: Option<Dial>,
}

/// Opens a connection to an address.
pub type Dial = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<DuplexStream>> + Send + Sync>;

impl Default for Hooks {
    fn default() -> Self {
        Self {
            clock: Arc::new(SystemClock),
            abort: Arc::new(|reason| {
                tracing::error!(reason, "aborting the process");
                std::process::abort();
            }),
            inline_connectors: false,
            dial: None,
        }
    }
}

impl AgentConfig {
    /// An agent with that name, everything else by default.
    pub fn new(
        servers: Vec<String>,
        name: impl Into<String>,
        bus: Arc<dyn BusFactory>,
        plugins: Vec<Plugin>,
    ) -> Self {
        Self {
            servers,
            name: name.into(),
            labels: BTreeMap::new(),
            capacity: 0,
            allow_paths: Vec::new(),
            secrets_paths: vec!["/etc/gantry/secrets".into()],
            redactor: Redactor::default(),
            lock_dir: lock::default_dir(),
            tls: None,
            token: None,
            metrics_listen: None,
            bus,
            plugins,
            seed: rand::random(),
            limits: Limits::default(),
            hooks: Hooks::default(),
        }
    }
}

/// Keys and tokens are left out.
impl fmt::Debug for AgentConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentConfig")
            .field("servers", &self.servers)
            .field("name", &self.name)
            .field("labels", &self.labels)
            .field("capacity", &self.capacity)
            .field("allow_paths", &self.allow_paths)
            .field("secrets_paths", &self.secrets_paths)
            .field("lock_dir", &self.lock_dir)
            .field("metrics_listen", &self.metrics_listen)
            .finish_non_exhaustive()
    }
}
