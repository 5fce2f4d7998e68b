mod declare;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use declare::{Apply, Changes, DeleteFiles, Export, Files, Prune};

/// The connector platform for Apache RocketMQ.
#[derive(Parser)]
#[command(name = "gantry", version, about, propagate_version = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Args, Clone)]
pub(crate) struct Global {
    /// Address of the control plane
    #[arg(
        long,
        global = true,
        env = "GANTRY_ENDPOINT",
        default_value = "http://127.0.0.1:7420",
        value_name = "URL"
    )]
    pub(crate) endpoint: String,
    /// How to print answers
    #[arg(short, long, global = true, value_enum, default_value = "table")]
    pub(crate) output: Output,
    /// Print without colours
    #[arg(long, global = true, env = "NO_COLOR", value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) no_color: bool,
    /// UUID that makes a repeated mutation take effect once
    #[arg(long, global = true, value_name = "UUID")]
    pub(crate) request_id: Option<String>,
    /// CA (PEM) that signed the control plane's certificate
    #[arg(long, global = true, env = "GANTRY_CA", value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// Client certificate (PEM)
    #[arg(
        long,
        global = true,
        env = "GANTRY_CERT",
        value_name = "FILE",
        requires = "key"
    )]
    pub(crate) cert: Option<PathBuf>,
    /// Key of the client certificate (PEM)
    #[arg(
        long,
        global = true,
        env = "GANTRY_KEY",
        value_name = "FILE",
        requires = "cert"
    )]
    pub(crate) key: Option<PathBuf>,
    /// File that holds the bearer token
    #[arg(long, global = true, env = "GANTRY_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Settings of the command, as TOML; flags and variables win over it
    #[arg(long, global = true, env = "GANTRY_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// How to log
    #[arg(
        long,
        global = true,
        env = "GANTRY_LOG_FORMAT",
        value_enum,
        default_value = "auto"
    )]
    pub(crate) log_format: LogFormat,
    /// What to log, as in `info,gantry=debug`
    #[arg(long, global = true, env = "GANTRY_LOG", value_name = "FILTER")]
    pub(crate) log: Option<String>,
    /// Send traces there by OTLP over gRPC
    #[arg(long, global = true, env = "GANTRY_OTLP_ENDPOINT", value_name = "URL")]
    pub(crate) otlp_endpoint: Option<String>,
    /// CA (PEM) that signed the certificate of the OTLP endpoint
    #[arg(long, global = true, env = "GANTRY_OTLP_CA", value_name = "FILE")]
    pub(crate) otlp_ca: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Table,
    Wide,
    Json,
    Yaml,
    Name,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Text on a terminal, JSON elsewhere is asked for with `json`
    Auto,
    Text,
    Json,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// See it work: move real files through RocketMQ and compare the result
    Demo(Demo),
    /// Run everything in one process, with embedded store and broker
    Dev(Dev),
    /// Run a replica of the control plane
    Server(Box<Server>),
    /// Run an agent
    Agent(AgentRole),
    /// Work with connectors
    #[command(subcommand, visible_alias = "connector")]
    Connectors(Connectors),
    /// Make connectors be as files define them: show what that changes, then do it
    Apply(Apply),
    /// Show what `apply` would change
    Diff(Changes),
    /// Stop and remove the connectors that files define
    Delete(DeleteFiles),
    /// Write the definitions of all connectors as files that `apply` takes
    Export(Export),
    /// See the plugins that agents have
    #[command(subcommand, visible_alias = "plugin")]
    Plugins(Plugins),
    /// Work with agents
    #[command(subcommand)]
    Agents(Agents),
    /// Work on the store itself
    #[command(subcommand)]
    Admin(Admin),
    /// Print a completion script
    Completion {
        /// The shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Print the version
    Version,
}

#[derive(Args)]
pub(crate) struct Demo {
    /// Files to move; files of this machine when left out
    #[arg(long, value_name = "PATH")]
    pub(crate) from: Vec<PathBuf>,
    /// Keep the results in this directory
    #[arg(long, value_name = "DIR")]
    pub(crate) to: Option<PathBuf>,
    /// Source tasks of the second job
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) tasks: u32,
}

#[derive(Args)]
pub(crate) struct Dev {
    /// Where data is kept
    #[arg(
        long,
        env = "GANTRY_DATA_DIR",
        default_value = "gantry-data",
        value_name = "DIR"
    )]
    pub(crate) data_dir: PathBuf,
    /// Address for users; port 0 takes a free one
    #[arg(
        long,
        env = "GANTRY_LISTEN",
        default_value = "127.0.0.1:7420",
        value_name = "ADDR",
        // For a process that begins anew: the last one counts.
        overrides_with = "listen"
    )]
    pub(crate) listen: SocketAddr,
    /// RocketMQ name servers to use instead of the embedded broker
    #[arg(long, env = "GANTRY_NAMESRV", value_name = "HOST:PORT")]
    pub(crate) namesrv: Option<String>,
    /// Number of agents
    #[arg(long, env = "GANTRY_AGENTS", default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) agents: u32,
    /// Serve etcd's API of the embedded store there, for etcdctl
    #[arg(long, env = "GANTRY_EMBEDDED_ETCD_LISTEN", value_name = "ADDR")]
    pub(crate) embedded_etcd_listen: Option<SocketAddr>,
    /// Serve Prometheus metrics of the control plane there
    #[arg(long, env = "GANTRY_METRICS_LISTEN", value_name = "ADDR")]
    pub(crate) metrics_listen: Option<SocketAddr>,
    /// Serve Prometheus metrics of the agent there; of more agents each at the next port
    #[arg(long, env = "GANTRY_AGENT_METRICS_LISTEN", value_name = "ADDR")]
    pub(crate) agent_metrics_listen: Option<SocketAddr>,
    /// Serve users on an address other than loopback, without TLS and authentication
    #[arg(long, env = "GANTRY_INSECURE")]
    pub(crate) insecure: bool,
}

#[derive(Args)]
pub(crate) struct Server {
    /// Addresses of etcd
    #[arg(
        long,
        env = "GANTRY_ETCD",
        required = true,
        value_delimiter = ',',
        value_name = "URL[,URL...]"
    )]
    pub(crate) etcd: Vec<String>,
    /// Name of the cluster: everything is kept below /gantry/{cluster}/
    #[arg(long, env = "GANTRY_CLUSTER", default_value = "default", value_name = "NAME")]
    pub(crate) cluster: String,
    /// Name of this replica; made from host and port when left out
    #[arg(long, env = "GANTRY_REPLICA", value_name = "NAME")]
    pub(crate) replica: Option<String>,
    /// Address for users
    #[arg(
        long,
        env = "GANTRY_LISTEN",
        default_value = "127.0.0.1:7420",
        value_name = "ADDR"
    )]
    pub(crate) listen: SocketAddr,
    /// Address for agents
    #[arg(
        long,
        env = "GANTRY_AGENT_LISTEN",
        default_value = "127.0.0.1:7421",
        value_name = "ADDR"
    )]
    pub(crate) agent_listen: SocketAddr,
    /// Address under which agents reach this replica, if it is not --agent-listen
    #[arg(long, env = "GANTRY_AGENT_ADVERTISE", value_name = "URL")]
    pub(crate) agent_advertise: Option<String>,
    /// Default RocketMQ name servers of connectors
    #[arg(
        long,
        env = "GANTRY_NAMESRV",
        default_value = "127.0.0.1:9876",
        value_name = "HOST:PORT"
    )]
    pub(crate) namesrv: String,
    /// Create missing topics with so many queues unless a connector says otherwise; 0: never
    #[arg(
        long,
        env = "GANTRY_TOPIC_CREATE_QUEUES",
        default_value_t = 0,
        value_name = "N"
    )]
    pub(crate) topic_create_queues: u32,
    /// Heartbeat of agents; a lease is three of them
    #[arg(long, env = "GANTRY_HEARTBEAT", default_value = "3s", value_parser = duration, value_name = "DURATION")]
    pub(crate) heartbeat: Duration,
    /// Serve Prometheus metrics there
    #[arg(long, env = "GANTRY_METRICS_LISTEN", value_name = "ADDR")]
    pub(crate) metrics_listen: Option<SocketAddr>,
    #[command(flatten)]
    pub(crate) security: Security,
}

#[derive(Args, Clone)]
pub(crate) struct Security {
    /// Serve addresses other than loopback without TLS and authentication
    #[arg(long, env = "GANTRY_INSECURE")]
    pub(crate) insecure: bool,
    /// Certificate (PEM) to serve with
    #[arg(long, env = "GANTRY_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Key of the certificate (PEM)
    #[arg(long, env = "GANTRY_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Accept only users with a certificate of this CA (PEM)
    #[arg(
        long,
        env = "GANTRY_TLS_CLIENT_CA",
        value_name = "FILE",
        requires = "tls_cert"
    )]
    pub(crate) tls_client_ca: Option<PathBuf>,
    /// Accept only agents with a certificate of this CA (PEM)
    #[arg(
        long,
        env = "GANTRY_AGENT_TLS_CLIENT_CA",
        value_name = "FILE",
        requires = "tls_cert"
    )]
    pub(crate) agent_tls_client_ca: Option<PathBuf>,
    /// File with the bearer tokens of users, one `NAME TOKEN` a line
    #[arg(long, env = "GANTRY_TOKENS", value_name = "FILE")]
    pub(crate) tokens: Option<PathBuf>,
    /// File with the bearer tokens of agents, one `NAME TOKEN` a line
    #[arg(long, env = "GANTRY_AGENT_TOKENS", value_name = "FILE")]
    pub(crate) agent_tokens: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct AgentRole {
    /// Addresses of the control plane's replicas for agents
    #[arg(
        long,
        env = "GANTRY_SERVER",
        required = true,
        value_delimiter = ',',
        value_name = "URL[,URL...]"
    )]
    pub(crate) server: Vec<String>,
    /// Name of this agent; the host's name when left out
    #[arg(long, env = "GANTRY_NAME", value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Label, for agent selectors
    #[arg(long = "label", env = "GANTRY_LABELS", value_delimiter = ',', value_parser = key_value, value_name = "K=V")]
    pub(crate) labels: Vec<(String, String)>,
    /// Most tasks it takes; 0: no limit
    #[arg(long, env = "GANTRY_CAPACITY", default_value_t = 0, value_name = "N")]
    pub(crate) capacity: u32,
    /// Directory below which file connectors may work
    #[arg(
        long = "allow-path",
        env = "GANTRY_ALLOW_PATH",
        value_delimiter = ',',
        value_name = "DIR"
    )]
    pub(crate) allow_path: Vec<PathBuf>,
    /// Directory below which secret files may lie
    #[arg(
        long,
        env = "GANTRY_SECRETS_PATH",
        value_delimiter = ',',
        default_value = "/etc/gantry/secrets",
        value_name = "DIR"
    )]
    pub(crate) secrets_path: Vec<PathBuf>,
    /// Where the lock that makes the name unique on this host is kept
    #[arg(long, env = "GANTRY_LOCK_DIR", value_name = "DIR")]
    pub(crate) lock_dir: Option<PathBuf>,
    /// Serve Prometheus metrics there
    #[arg(long, env = "GANTRY_METRICS_LISTEN", value_name = "ADDR")]
    pub(crate) metrics_listen: Option<SocketAddr>,
}

#[derive(Subcommand)]
pub(crate) enum Connectors {
    /// List connectors
    List {
        /// Only those that match, as in `state=RUNNING AND labels.team=billing`
        #[arg(long, default_value = "", value_name = "EXPR")]
        filter: String,
        /// Go on with every change
        #[arg(short, long)]
        watch: bool,
    },
    /// Show a connector
    Get {
        /// Its name
        name: String,
        /// Go on with every change
        #[arg(short, long)]
        watch: bool,
    },
    /// What it is, whether it is well, if not why, and what can be done now
    Describe {
        /// Its name
        name: String,
    },
    /// Create a connector from a file or from flags
    Create(Create),
    /// Change a connector in an editor
    Edit {
        /// Its name
        name: String,
    },
    /// Check definitions without storing anything
    Validate {
        /// Definition file, YAML or JSON; `-`: standard input
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Stop a connector and remove it
    Delete {
        /// Its name
        name: String,
        /// Keep the offsets for 30 days
        #[arg(long)]
        keep_offsets: bool,
        /// Stop it first, from any state
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        wait: Wait,
    },
    /// Let no more record move; tasks keep their place
    Pause(Verb),
    /// Run a paused or stopped connector
    Resume(Verb),
    /// End the tasks; configuration and offsets stay
    Stop(Verb),
    /// Restart tasks
    Restart {
        /// Its name
        name: String,
        /// Only tasks that have failed
        #[arg(long, conflicts_with = "task")]
        only_failed: bool,
        /// Only this task
        #[arg(long, value_name = "N")]
        task: Option<u32>,
        #[command(flatten)]
        wait: Wait,
    },
    /// Show a connector's tasks
    Tasks {
        /// Its name
        name: String,
        /// Go on with every change
        #[arg(short, long)]
        watch: bool,
    },
    /// Show what happened to a connector
    Events {
        /// Its name
        name: String,
    },
    /// Show the definitions that a connector has had, newest first
    History {
        /// Its name
        name: String,
    },
    /// Show in which fields two of a connector's definitions differ
    Diff(Diff),
    /// Give a connector the definition of an earlier revision again; the target state stays
    Rollback(Rollback),
    /// Work with a connector's offsets
    #[command(subcommand)]
    Offsets(Offsets),
}

#[derive(Args)]
pub(crate) struct Diff {
    /// The connector's name
    pub(crate) name: String,
    /// Number of the revision that is taken as before; see `history`
    #[arg(value_name = "REV", value_parser = clap::value_parser!(i64).range(1..))]
    pub(crate) revision: i64,
    /// Number of the revision that is taken as after; the present definition when left out
    #[arg(value_name = "REV2", value_parser = clap::value_parser!(i64).range(1..))]
    pub(crate) other: Option<i64>,
}

#[derive(Args)]
pub(crate) struct Rollback {
    /// The connector's name
    pub(crate) name: String,
    /// Number of the revision; see `history`
    #[arg(value_name = "REV", value_parser = clap::value_parser!(i64).range(1..))]
    pub(crate) revision: i64,
    /// Only if the connector still has this etag
    #[arg(long, default_value = "", hide_default_value = true, value_name = "ETAG")]
    pub(crate) etag: String,
    /// Show what would change, store nothing
    #[arg(long)]
    pub(crate) validate_only: bool,
    #[command(flatten)]
    pub(crate) wait: Wait,
}

#[derive(Subcommand)]
pub(crate) enum Offsets {
    /// Show the committed positions, how old they are and how much there is to read after them
    Get {
        /// The connector's name
        name: String,
        /// Ask no agent how much there is to read
        #[arg(long)]
        no_lag: bool,
    },
    /// Set positions of a stopped connector: all that are named, or none
    #[command(visible_alias = "set")]
    Alter(AlterOffsets),
    /// Forget positions of a stopped connector: it reads from the beginning
    Reset {
        /// The connector's name
        name: String,
        /// Only this partition, as in `path=/var/log/a.log`; may be repeated
        #[arg(long = "partition", value_name = "K=V[,K=V]")]
        partitions: Vec<String>,
        /// Show what would change, store nothing
        #[arg(long)]
        validate_only: bool,
    },
    /// Show earlier positions, and how they were altered
    History {
        /// The connector's name
        name: String,
    },
    /// Take back the last alteration or reset of a stopped connector's offsets
    Undo {
        /// The connector's name
        name: String,
        /// Go back to the positions of this epoch; see `history`
        #[arg(long, value_name = "N")]
        epoch: Option<i64>,
        /// Show what would change, store nothing
        #[arg(long)]
        validate_only: bool,
    },
    /// List offsets of deleted connectors that were kept (`delete --keep-offsets`)
    Retained,
}

#[derive(Args)]
pub(crate) struct AlterOffsets {
    /// The connector's name
    pub(crate) name: String,
    /// The partition to alter, as in `path=/var/log/a.log` or `topic=t,broker=b,queue=0`; may be repeated. Without it all
    /// partitions are altered
    #[arg(long = "partition", value_name = "K=V[,K=V]")]
    pub(crate) partitions: Vec<String>,
    #[command(flatten)]
    pub(crate) target: OffsetTarget,
    /// Show what would change, store nothing
    #[arg(long)]
    pub(crate) validate_only: bool,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
pub(crate) struct OffsetTarget {
    /// To this position, as in `byte=170` or `offset=5`
    #[arg(long, value_name = "K=V[,K=V]", requires = "partitions")]
    pub(crate) to: Option<String>,
    /// To the first that can be read now
    #[arg(long)]
    pub(crate) to_earliest: bool,
    /// Behind everything that is there now
    #[arg(long)]
    pub(crate) to_latest: bool,
    /// To the first message that is not older: `2026-11-21T17:00:00Z`, or how long ago: `90m`
    #[arg(long, value_name = "TIME")]
    pub(crate) to_time: Option<String>,
    /// To what was committed then and is still remembered: `2026-11-21T17:00:00Z`, or how long ago: `90m`
    #[arg(long, value_name = "TIME")]
    pub(crate) to_committed: Option<String>,
    /// To what a file says, in the form of `offsets get -o yaml`; `-`: standard input
    #[arg(short, long, value_name = "FILE", conflicts_with = "partitions")]
    pub(crate) file: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct Create {
    /// Definition file, YAML or JSON, several documents allowed; `-`: standard input
    #[arg(short, long, value_name = "FILE", conflicts_with = "name")]
    pub(crate) file: Option<PathBuf>,
    /// Name of the new connector
    #[arg(required_unless_present = "file", requires = "plugin")]
    pub(crate) name: Option<String>,
    /// Its plugin
    #[arg(long, value_name = "PLUGIN", conflicts_with = "file")]
    pub(crate) plugin: Option<String>,
    /// A parameter of the plugin
    #[arg(long = "set", value_parser = key_value, value_name = "KEY=VALUE", conflicts_with = "file")]
    pub(crate) set: Vec<(String, String)>,
    /// The topic to write or read
    #[arg(long, value_name = "TOPIC", conflicts_with = "file")]
    pub(crate) topic: Option<String>,
    /// Most tasks
    #[arg(long, value_name = "N", conflicts_with = "file", value_parser = clap::value_parser!(i32).range(1..=1000))]
    pub(crate) tasks: Option<i32>,
    /// Create it paused
    #[arg(long, conflicts_with_all = ["file", "stopped"])]
    pub(crate) paused: bool,
    /// Create it stopped
    #[arg(long, conflicts_with = "file")]
    pub(crate) stopped: bool,
    /// Check everything, store nothing
    #[arg(long)]
    pub(crate) validate_only: bool,
    /// Go on where a deleted connector was left, whose offsets are kept under this uid
    #[arg(long, value_name = "UID")]
    pub(crate) adopt_offsets: Option<String>,
    #[command(flatten)]
    pub(crate) wait: Wait,
}

#[derive(Args)]
pub(crate) struct Verb {
    /// Name of the connector
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) wait: Wait,
}

#[derive(Args, Clone, Copy)]
pub(crate) struct Wait {
    /// Return when the tasks have followed
    #[arg(long)]
    pub(crate) wait: bool,
    /// Give up waiting after this long
    #[arg(long, default_value = "60s", value_parser = duration, value_name = "DURATION", requires = "wait")]
    pub(crate) timeout: Duration,
}

#[derive(Subcommand)]
pub(crate) enum Plugins {
    /// List plugins
    List,
    /// Show a plugin with its parameters
    #[command(visible_alias = "get")]
    Describe {
        /// Its name
        name: String,
    },
}

#[derive(Subcommand)]
pub(crate) enum Agents {
    /// List agents
    List {
        /// Go on with every change
        #[arg(short, long)]
        watch: bool,
    },
    /// Show an agent with its tasks
    #[command(visible_alias = "get")]
    Describe {
        /// Its name
        name: String,
    },
    /// Place no more tasks on an agent
    Cordon {
        /// Its name
        name: String,
    },
    /// End a cordon or a drain
    Uncordon {
        /// Its name
        name: String,
    },
    /// Move an agent's tasks elsewhere
    Drain {
        /// Its name
        name: String,
        #[command(flatten)]
        wait: Wait,
    },
    /// Place tasks anew although many agents were lost at once
    ReleaseBrake,
}

#[derive(Subcommand)]
pub(crate) enum Admin {
    /// After etcd was restored from a backup: tell agents and watches that it is not the store they know
    Restored(EtcdCluster),
}

#[derive(Args)]
pub(crate) struct EtcdCluster {
    /// Addresses of etcd
    #[arg(
        long,
        env = "GANTRY_ETCD",
        required = true,
        value_delimiter = ',',
        value_name = "URL[,URL...]"
    )]
    pub(crate) etcd: Vec<String>,
    /// Name of the cluster: everything is kept below /gantry/{cluster}/
    #[arg(long, env = "GANTRY_CLUSTER", default_value = "default", value_name = "NAME")]
    pub(crate) cluster: String,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("it must be KEY=VALUE".into()),
    }
}

pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let wrong = || "write a number and a unit, such as 500ms, 60s, 5m or 1h".to_owned();
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    number
        .checked_mul(millis)
        .map(Duration::from_millis)
        .ok_or_else(wrong)
}
