use thiserror::Error;

/// Why a call to the store gave no result. Says whether something may have been written.
///
/// A transaction whose expectations were not met is no error: see [`TxnOutcome`](super::TxnOutcome).
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StoreError {
    /// etcd cannot be reached or has no leader. Nothing was written; again later.
    #[error("the store cannot be reached: {message}")]
    NotSent {
        /// What the client said.
        message: String,
    },
    /// No answer in time, or the answer was lost. A write may have happened, or may still happen: read, then
    /// decide.
    #[error("it is not known whether the store has done it: {message}")]
    Unknown {
        /// What the client said.
        message: String,
    },
    /// The revision that was asked for is no longer kept: list anew.
    #[error("the store no longer keeps that revision")]
    Compacted,
    /// The answer is larger than the client takes: ask for less.
    #[error("the store's answer is too large")]
    AnswerTooLarge,
    /// A limit of what may be stored is exceeded. Nothing was written; the same again is refused again.
    #[error("{what} has {size}, at most {limit} are allowed")]
    TooLarge {
        /// What is too large.
        what: String,
        /// Its size, in the limit's unit.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// The request as a whole is larger than etcd takes (1.5 MiB unless configured). Nothing was written.
    #[error("the request is larger than the store takes: {message}")]
    RequestTooLarge {
        /// What etcd said.
        message: String,
    },
    /// The store is full. Nothing was written; somebody has to make room.
    #[error("the store is full")]
    NoSpace,
    /// The store's credentials do not allow this. Nothing was written; somebody has to act.
    #[error("the store refuses access: {message}")]
    Denied {
        /// What etcd said.
        message: String,
    },
    /// The lease has ended. Nothing was written; again on a new lease.
    #[error("the lease has ended")]
    LeaseGone,
    /// The key holds a format of a later version, which this process must not rewrite. Nothing was written.
    #[error("{key} has format {format}, which is newer than this version of Gantry knows")]
    NewerFormat {
        /// The key.
        key: String,
        /// Its format.
        format: u32,
    },
    /// The key holds something that cannot be decoded.
    #[error("{key} cannot be decoded: {message}")]
    Corrupt {
        /// The key.
        key: String,
        /// Why.
        message: String,
    },
    /// The request was malformed: an error in this program. Nothing was written.
    #[error("the store refuses the request: {message}")]
    Invalid {
        /// What is wrong.
        message: String,
    },
}

impl StoreError {
    /// The same call may succeed later without anybody changing anything.
    pub fn is_temporary(&self) -> bool {
        matches!(
            self,
            Self::NotSent { .. } | Self::Unknown { .. } | Self::LeaseGone
        )
    }

    /// A write that ended with this error may have happened, or may still happen.
    pub fn may_have_been_written(&self) -> bool {
        matches!(self, Self::Unknown { .. } | Self::AnswerTooLarge)
    }

    pub(crate) fn unknown(message: impl Into<String>) -> Self {
        Self::Unknown {
            message: message.into(),
        }
    }
}

impl From<etcd_client::Error> for StoreError {
    fn from(error: etcd_client::Error) -> Self {
        match error {
            etcd_client::Error::GRpcStatus(status) => classify(&status),
            etcd_client::Error::TransportError(_)
            | etcd_client::Error::IoError(_)
            | etcd_client::Error::WatchError(_)
            | etcd_client::Error::Internal(_) => Self::unknown(error.to_string()),
            etcd_client::Error::LeaseKeepAliveError(message) => {
                if message.contains("not found") {
                    Self::LeaseGone
                } else {
                    Self::Unknown { message }
                }
            }
            _ => Self::Invalid {
                message: error.to_string(),
            },
        }
    }
}

/// etcd's codes alone do not tell what happened; its texts do (each was seen on 3.4, 3.5 and 3.6).
fn classify(status: &tonic::Status) -> StoreError {
    use tonic::Code;
    let message = status.message().to_owned();
    let says = |text: &str| message.contains(text);
    // Refused before it was proposed to the cluster.
    if says("tcp connect error") || says("no leader") || says("not leader") || says("too many requests") {
        return StoreError::NotSent { message };
    }
    if says("has been compacted") {
        return StoreError::Compacted;
    }
    if says("decoded message length too large") {
        return StoreError::AnswerTooLarge;
    }
    if says("requested lease not found") {
        return StoreError::LeaseGone;
    }
    if says("database space exceeded") {
        return StoreError::NoSpace;
    }
    if says("request is too large") || says("received message larger than max") {
        return StoreError::RequestTooLarge { message };
    }
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown | Code::Internal => {
            StoreError::Unknown { message }
        }
        Code::PermissionDenied | Code::Unauthenticated => StoreError::Denied { message },
        _ => StoreError::Invalid { message },
    }
}
