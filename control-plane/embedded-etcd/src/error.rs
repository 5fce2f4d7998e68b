use std::path::PathBuf;

/// Why a store could not be opened or served.
///
/// Calls through the client never return this; they return the statuses that etcd returns.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process, or another [`Store`](crate::Store) of this one, holds the file.
    #[error("the store {} is already open; only one process may use it at a time", path.display())]
    AlreadyOpen {
        /// The file that is locked.
        path: PathBuf,
    },
    /// The file was written by a newer release. Run that release, or one newer than it.
    #[error("the store {} has format {found}; this release reads up to {supported}", path.display())]
    NewerFormat {
        /// The file in question.
        path: PathBuf,
        /// The format found in it.
        found: i64,
        /// The highest format this release reads.
        supported: i64,
    },
    /// The file exists but does not hold what a store writes. Restore it from a copy.
    #[error("the store {} cannot be read: {reason}", path.display())]
    Corrupt {
        /// The file in question.
        path: PathBuf,
        /// What was wrong with it.
        reason: String,
    },
    /// The file or its directory cannot be created, read or written.
    #[error("the store {} cannot be opened", path.display())]
    Storage {
        /// The file in question.
        path: PathBuf,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The listener failed while the store was served on it.
    #[error("the etcd endpoint failed")]
    Serve(#[source] tonic::transport::Error),
}
