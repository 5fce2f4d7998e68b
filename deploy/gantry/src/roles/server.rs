use std::{net::SocketAddr, time::Duration};

use gantry_control_plane::{
    ControlPlane, ControlPlaneConfig, Front,
    server::{ListenerConfig, serve, serve_metrics},
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
    let _telemetry = telemetry::start(global, "gantry-server", "info")?;
    let stop = signals::shutdown()?;
    let users = secured(&server.security, server.security.tokens.as_deref())?;
    let agents = secured(&server.security, server.security.agent_tokens.as_deref())?;
    for (config, address) in [(&users, server.listen), (&agents, server.agent_listen)] {
        config.check(address, server.security.insecure).map_err(|e| {
            Failure::usage(chain(&e)).at(address.to_string()).fix(
                "give --tls-cert, --tls-key and --tokens / --agent-tokens or --tls-client-ca, or --insecure",
            )
        })?;
    }
    let (user_listener, address) = listen(server.listen, "--listen").await?;
    let (agent_listener, agent_address) = listen(server.agent_listen, "--agent-listen").await?;
    let metrics = match server.metrics_listen {
        None => None,
        Some(address) => Some(listen(address, "--metrics-listen").await?.0),
    };
    let client = connect(&server.etcd, &stop).await?;
    let Some(client) = client else { return Ok(()) };
    let scheme = if agents.tls.is_some() { "https" } else { "http" };
    let replica = server.replica.unwrap_or_else(|| default_name(address));
    let config = ControlPlaneConfig {
        address: format!(
            "{}://{address}",
            if users.tls.is_some() { "https" } else { "http" }
        ),
        agent_address: server
            .agent_advertise
            .unwrap_or_else(|| format!("{scheme}://{agent_address}")),
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
    out(&format!("agents on {scheme}://{agent_address}"))?;
    out(&format!(
        "ready on {}://{address}",
        if users.tls.is_some() { "https" } else { "http" }
    ))?;
    serve_replica(
        replica,
        (user_listener, users),
        (agent_listener, agents),
        metrics,
        stop,
    )
    .await
}

fn default_name(address: SocketAddr) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}-{}", host.trim(), address.port())
}

fn secured(security: &Security, tokens: Option<&std::path::Path>) -> Result<ListenerConfig, Failure> {
    let bad = |e: gantry_control_plane::server::ConfigError| {
        Failure::usage(chain(&e)).fix("mend the file that is named")
    };
    let mut config = ListenerConfig::default();
    if let (Some(cert), Some(key)) = (&security.tls_cert, &security.tls_key) {
        config = config
            .with_tls(cert, key, security.tls_client_ca.as_deref())
            .map_err(bad)?;
    }
    match tokens {
        Some(path) => config.with_token_file(path).map_err(bad),
        None => Ok(config),
    }
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
    let serving_users = serve(users, &user_config, front.users, front.calls.clone(), closed());
    let serving_agents = serve(agents, &agent_config, front.agents, front.calls, closed());
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
