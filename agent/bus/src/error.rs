use std::fmt;

/// What a bus error means to the caller; the caller branches on this alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BusErrorKind {
    /// The broker or name server cannot be reached, answers too late, or refuses for the moment (read-only, busy,
    /// disk full). Whether a send took effect is unknown. Try again under back-pressure; never skip a record for it.
    Unavailable,
    /// The topic has no route. It may be created at any moment, so this is tried again like `Unavailable`.
    TopicMissing,
    /// The topic exists and this queue is not (or no longer) among its queues.
    QueueMissing,
    /// This message can never be sent: too large, or refused by its content. Only this one may be skipped.
    MessageRejected,
    /// The offset is below the queue's minimum or above its maximum.
    OffsetOutOfRange,
    /// Credentials or permissions are refused, or a name that RocketMQ does not take. Nothing helps but a change of
    /// configuration.
    Denied,
}

/// An error of the bus. `Display` says what happened and to what; `source` has the cause.
#[derive(Debug)]
pub struct BusError {
    kind: BusErrorKind,
    what: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl BusError {
    /// `what` names the operation and the topic, queue or address, without the cause.
    pub fn new(kind: BusErrorKind, what: impl Into<String>) -> Self {
        Self {
            kind,
            what: what.into(),
            source: None,
        }
    }

    /// The same with the error that caused it.
    pub fn caused_by(
        kind: BusErrorKind,
        what: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self {
            kind,
            what: what.into(),
            source: Some(source.into()),
        }
    }

    /// What the caller branches on.
    pub fn kind(&self) -> BusErrorKind {
        self.kind
    }
}

impl fmt::Display for BusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for BusError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|e| e as _)
    }
}
