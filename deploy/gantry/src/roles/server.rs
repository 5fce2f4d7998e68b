use std::{net::SocketAddr, path::Path, time::Duration};

use gantry_control_plane::{
    ControlPlane, ControlPlaneConfig, Front,
    server::{Callers, ConfigError, ListenerConfig, serve, serve_metrics},
    store::connect_options,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{chain, listen, signals};
use crate::{
    args::{Global, Security, Server},
    failure::{Exit, Failure},
    render::out,
    telemetry,
};

/// A replica of the control plane on a real etcd.
pub(crate) async fn server(global: &Global, server: Server) -> Result<(), Failure> {
    let instance = server
        .replica
        .clone()
        .unwrap_or_else(|| default_name(server.listen));
    let _telemetry = telemetry::start(global, "gantry-server", &instance, "info")?;
    let stop = signals::shutdown()?;
    let (users, agents) = secured(&server)?;
    let (user_listener, address) = listen(server.listen, "--listen").await?;
    let (agent_listener, agent_address) = listen(server.agent_listen, "--agent-listen").await?;
    let metrics = match server.metrics_listen {
        None => None,
        Some(address) => Some(listen(address, "--metrics-listen").await?),
    };
    let client = connect(&server.etcd, &stop).await?;
    let Some(client) = client else { return Ok(()) };
    let replica = server.replica.unwrap_or_else(|| default_name(address));
    let config = ControlPlaneConfig {
        address: format!("{}://{address}", users.scheme()),
        agent_address: server
            .agent_advertise
            .unwrap_or_else(|| advertised(agents.scheme(), agent_address)),
        heartbeat: server.heartbeat,
        lease: server.heartbeat * 3,
        default_namesrv: server.namesrv,
        default_topic_queues: server.topic_create_queues,
        ..ControlPlaneConfig::new(&server.cluster, &replica, rand::random())
    };
    let replica = ControlPlane::start(config, &client);
    tokio::select! {
        () = replica.ready() => {}
        () = stop.cancelled() => {
            replica.shutdown().await;
            return Ok(());
        }
    }
    out(&format!("agents on {}://{agent_address}", agents.scheme()))?;
    if let Some((_, address)) = &metrics {
        out(&format!("metrics on http://{address}/metrics"))?;
    }
    out(&format!("ready on {}://{address}", users.scheme()))?;
    serve_replica(
        replica,
        (user_listener, users),
        (agent_listener, agents),
        metrics.map(|(listener, _)| listener),
        stop,
    )
    .await
}

/// The address that other agents learn of this replica. Empty: none.
fn advertised(scheme: &str, address: SocketAddr) -> String {
    if address.ip().is_unspecified() {
        tracing::warn!(
            %address,
            "agents are not told of this replica, because nobody can dial this address; give --agent-advertise URL"
        );
        return String::new();
    }
    format!("{scheme}://{address}")
}

fn default_name(address: SocketAddr) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}-{}", host.trim(), address.port())
}

/// How users and agents are let in. What others could reach unprotected is refused.
fn secured(server: &Server) -> Result<(ListenerConfig, ListenerConfig), Failure> {
    let security = &server.security;
    let users = listener(
        security,
        security.tls_client_ca.as_deref(),
        security.tokens.as_deref(),
    );
    let agents = listener(
        security,
        security.agent_tls_client_ca.as_deref(),
        security.agent_tokens.as_deref(),
    );
    let (users, agents) = (users?, agents?);
    let exposed = |e: ConfigError, flag: &str, who: &str| {
        Failure::usage(chain(&e)).at(flag).fix(format!(
            "give --tls-cert and --tls-key, and {who}; or --insecure, if everybody who can reach it may do everything"
        ))
    };
    users
        .check(server.listen, security.insecure)
        .map_err(|e| exposed(e, "--listen", "--tokens or --tls-client-ca"))?;
    agents
        .check(server.agent_listen, security.insecure)
        .map_err(|e| exposed(e, "--agent-listen", "--agent-tls-client-ca or --agent-tokens"))?;
    Ok((users, agents))
}

fn listener(
    security: &Security,
    client_ca: Option<&Path>,
    tokens: Option<&Path>,
) -> Result<ListenerConfig, Failure> {
    let mut config = ListenerConfig::default();
    if let (Some(cert), Some(key)) = (&security.tls_cert, &security.tls_key) {
        config = config.with_tls(cert, key, client_ca).map_err(|e| unusable(&e))?;
    }
    match tokens {
        Some(path) => config.with_token_file(path).map_err(|e| unusable(&e)),
        None => Ok(config),
    }
}

/// A file that says how a listener is secured cannot be used.
fn unusable(error: &ConfigError) -> Failure {
    let (flag, fix) = match error {
        ConfigError::Exposed { .. } => ("--listen", "give --tls-cert and --tls-key"),
        ConfigError::Unreadable { .. } => ("the settings of TLS and tokens", "give a file that can be read"),
        ConfigError::Certificate { .. } => (
            "--tls-cert, --tls-key",
            "give a certificate chain and the key of its first certificate, both as PEM",
        ),
        ConfigError::ClientCa { .. } => (
            "--tls-client-ca, --agent-tls-client-ca",
            "give the CA's certificate as PEM",
        ),
        ConfigError::TokenLine { .. } | ConfigError::TokenTwice { .. } | ConfigError::NoToken { .. } => (
            "--tokens, --agent-tokens",
            "write a line `NAME TOKEN` for each caller; make a token with `openssl rand -hex 32`",
        ),
    };
    Failure::usage(chain(error)).at(flag).fix(fix)
}

/// Waits for etcd as long as it takes: a control plane that starts before its store is no error. None: told to stop.
async fn connect(
    addresses: &[String],
    stop: &CancellationToken,
) -> Result<Option<etcd_client::Client>, Failure> {
    let mut pause = Duration::from_millis(200);
    loop {
        let mut client = match etcd_client::Client::connect(addresses, Some(connect_options())).await {
            Ok(client) => client,
            Err(error) => {
                return Err(
                    Failure::usage(format!("cannot use the address of etcd: {}", chain(&error)))
                        .at(addresses.join(","))
                        .fix("give --etcd http://HOST:PORT[,...]"),
                );
            }
        };
        let answer = tokio::time::timeout(Duration::from_secs(3), client.get("gantry", None)).await;
        let why = match answer {
            Ok(Ok(_)) => return Ok(Some(client)),
            Ok(Err(error)) => chain(&error),
            Err(_) => "no answer within 3 s".into(),
        };
        tracing::warn!(
            etcd = addresses.join(","),
            error = why,
            "etcd cannot be reached; trying again"
        );
        tokio::select! {
            () = stop.cancelled() => return Ok(None),
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}

/// Serves users, agents and metrics until told to stop, then lets go of the replica's lease.
pub(super) async fn serve_replica(
    replica: ControlPlane,
    (users, user_config): (TcpListener, ListenerConfig),
    (agents, agent_config): (TcpListener, ListenerConfig),
    metrics: Option<TcpListener>,
    stop: CancellationToken,
) -> Result<(), Failure> {
    // Streams have no end of their own: watches end with `stop`, sessions with the replica, and then the listeners.
    let front = Front::new(&replica, stop.clone())
        .await
        .map_err(|e| Failure::new(Exit::Refused, chain(&e)))?;
    let closed = || stop.clone().cancelled_owned();
    // One that ends takes the others along: half a replica helps nobody.
    let serving_users = async {
        let calls = front.calls.clone();
        let served = serve(users, Callers::Users, &user_config, front.users, calls, closed()).await;
        stop.cancel();
        served
    };
    let serving_agents = async {
        let calls = front.calls.clone();
        let served = serve(
            agents,
            Callers::Agents,
            &agent_config,
            front.agents,
            calls,
            closed(),
        )
        .await;
        stop.cancel();
        served
    };
    let serving_metrics = async {
        if let Some(listener) = metrics {
            serve_metrics(listener, front.registry, closed()).await;
        }
    };
    let leaving = async {
        stop.cancelled().await;
        replica.shutdown().await;
    };
    let (users, agents, (), ()) = tokio::join!(serving_users, serving_agents, serving_metrics, leaving);
    match users.and(agents) {
        Ok(()) => Ok(()),
        Err(error) => Err(Failure::new(Exit::Refused, chain(&error))),
    }
}
