use std::{io, path::PathBuf};

use thiserror::Error;

/// Why an agent could not start or had to end.
#[derive(Debug, Error)]
pub enum AgentError {
    /// A setting is missing or malformed.
    #[error("{0}")]
    Config(String),
    /// Another process on this machine holds the name.
    #[error(
        "another process on this machine runs as agent '{name}' (it holds {path}); give this one another --name"
    )]
    NameTaken {
        /// The name.
        name: String,
        /// Its lock file.
        path: PathBuf,
    },
    /// The lock file cannot be used.
    #[error("cannot use the lock file {path}")]
    Lock {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The control plane refused the agent for good.
    #[error("the control plane refused agent '{name}': {message}")]
    Refused {
        /// The name.
        name: String,
        /// What it said.
        message: String,
    },
    /// The system gives no thread for connectors.
    #[error("cannot start a thread for connectors")]
    Threads(#[source] io::Error),
    /// The address for metrics cannot be listened on.
    #[error("cannot listen on {address} for metrics")]
    Metrics {
        /// The address.
        address: std::net::SocketAddr,
        /// Why.
        source: io::Error,
    },
}
