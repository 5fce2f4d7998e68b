use std::{io, path::PathBuf};

use crate::space::LEAST_AVAILABLE_PERCENT;

/// Why name server and broker did not start. `source` has the cause.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The directory cannot be made, read or written.
    #[error("the directory {} cannot be used", dir.display())]
    Directory {
        /// The directory.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process, or another instance in this one, runs on the directory.
    #[error("the directory {} is in use by another embedded RocketMQ", dir.display())]
    DirectoryInUse {
        /// The directory.
        dir: PathBuf,
    },
    /// The directory's file system is too full for a broker to accept messages.
    #[error(
        "the disk is too full for RocketMQ: {} of the file system of {} are available, and a broker accepts nothing \
         when less than {} % of it are; free {} or use another directory",
        gigabytes(*available), dir.display(), LEAST_AVAILABLE_PERCENT, gigabytes(*short)
    )]
    DiskFull {
        /// The directory.
        dir: PathBuf,
        /// What is available, in bytes.
        available: u64,
        /// What has to be freed, in bytes.
        short: u64,
    },
    /// A port that was asked for is taken, or one that belongs to it.
    #[error("port {port} on 127.0.0.1 is taken (needed for: {part})")]
    PortTaken {
        /// The port.
        port: u16,
        /// What it is for.
        part: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// No free ports were found.
    #[error("no free ports on 127.0.0.1 were found")]
    NoFreePorts {
        /// What the system said last.
        source: io::Error,
    },
    /// A server failed to start.
    #[error("the embedded RocketMQ {part} did not start")]
    Failed {
        /// Which one.
        part: &'static str,
        /// What it said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl StartError {
    pub(crate) fn failed(
        part: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Failed {
            part,
            source: source.into(),
        }
    }
}

/// Rounded up to a tenth: who frees as much as is said has freed enough.
fn gigabytes(bytes: u64) -> String {
    format!("{:.1} GB", (bytes as f64 / 1e8).ceil() / 10.0)
}
