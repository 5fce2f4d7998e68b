use std::sync::Arc;

use gantry_agent::{Agent, AgentConfig, TlsOptions, connectors};
use gantry_bus::rocketmq::RocketmqFactory;

use super::{chain, signals};
use crate::{
    args::{AgentRole, Global},
    failure::{Exit, Failure},
    render::out,
    telemetry,
};

/// An agent: needs nothing but the control plane's addresses.
pub(crate) async fn agent(global: &Global, role: AgentRole) -> Result<(), Failure> {
    let name = match role.name {
        Some(name) => name,
        None => host_name()?,
    };
    let telemetry = telemetry::start(global, "gantry-agent", &name, "info")?;
    let stop = signals::shutdown()?;
    if global.ca.is_none()
        && let Some(server) = role.server.iter().find(|s| s.starts_with("https://"))
    {
        return Err(Failure::usage("no CA is given for an https address")
            .at(server.clone())
            .fix("give the CA that signed the control plane's certificate with --ca or GANTRY_CA"));
    }
    let mut config = AgentConfig::new(
        role.server,
        name,
        Arc::new(RocketmqFactory::new()),
        connectors::builtin(),
    );
    config.labels = role.labels.into_iter().collect();
    config.capacity = role.capacity;
    config.allow_paths = role.allow_path;
    config.secrets_paths = role.secrets_path;
    config.redactor = telemetry.redactor();
    if let Some(dir) = role.lock_dir {
        config.lock_dir = dir;
    }
    config.metrics_listen = role.metrics_listen;
    config.tls = tls(global)?;
    config.token = match &global.token_file {
        None => None,
        Some(path) => Some(
            String::from_utf8_lossy(&read(path, "--token-file")?)
                .trim()
                .to_owned(),
        ),
    };
    let agent = Agent::build(config).await.map_err(|e| {
        let failure = Failure::new(Exit::Refused, chain(&e));
        match e {
            gantry_agent::AgentError::Lock { .. } => {
                failure.fix("name a directory in which this user may write with --lock-dir")
            }
            _ => failure,
        }
    })?;
    if let Some(address) = agent.metrics_address() {
        out(&format!("metrics on http://{address}/metrics"))?;
    }
    agent
        .run(stop)
        .await
        .map_err(|e| Failure::new(Exit::Refused, chain(&e)))
}

fn read(path: &std::path::Path, flag: &str) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|e| {
        Failure::usage(format!("cannot read the file of {flag}: {e}"))
            .at(path.display().to_string())
            .fix(format!("give a file that can be read with {flag}"))
    })
}

fn tls(global: &Global) -> Result<Option<TlsOptions>, Failure> {
    if global.ca.is_none() && global.cert.is_none() {
        return Ok(None);
    }
    let identity = match (&global.cert, &global.key) {
        (Some(cert), Some(key)) => Some((read(cert, "--cert")?, read(key, "--key")?)),
        _ => None,
    };
    let ca = global.ca.as_deref().map(|path| read(path, "--ca")).transpose()?;
    let ca = ca.unwrap_or_default();
    Ok(Some(TlsOptions {
        ca,
        identity,
        domain: None,
    }))
}

/// The host's name as an agent id.
fn host_name() -> Result<String, Failure> {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let id: String = host
        .trim()
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    let id = id.trim_matches('-').to_owned();
    let id = if id.starts_with(|c: char| c.is_ascii_lowercase()) {
        id
    } else {
        format!("agent-{id}")
    };
    let id: String = id.chars().take(63).collect();
    if id.len() > "agent-".len() || !id.starts_with("agent-") {
        return Ok(id.trim_end_matches('-').to_owned());
    }
    Err(Failure::usage("this host has no name that could be the agent's").fix("give --name"))
}
