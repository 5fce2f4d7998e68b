//! Where tasks read and commit their positions.

use async_trait::async_trait;
use gantry_proto::agent::v1::{ReadOffsetsResponse, TaskCommit, TaskCommitResult};

use crate::{key::TaskKey, problem::Failure};

/// Why start positions could not be read.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// The right to commit has ended.
    Fenced,
    /// Try again.
    Unavailable(Failure),
}

/// The store of positions, as a task sees it.
#[async_trait]
pub(crate) trait OffsetStore: Send + Sync + 'static {
    /// Reads start positions, comparing the fence.
    async fn read(&self, key: &TaskKey, fence: i64) -> Result<ReadOffsetsResponse, ReadError>;

    /// Commits; answers once the outcome is known, however long that takes. May be dropped while pending.
    async fn commit(&self, commit: TaskCommit) -> TaskCommitResult;
}
