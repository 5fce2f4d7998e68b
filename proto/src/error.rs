//! Errors on the wire: one table of reasons, one way to build a `Status`, one way to read it back.

use std::{collections::HashMap, time::Duration};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// `ErrorInfo.domain` of every error.
pub const DOMAIN: &str = "gantry";

/// Clients fail on larger trailers, so all details together stay below this many bytes.
pub const MAX_DETAILS: usize = 4096;

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = ($text:literal, $code:ident);)+) => {
        /// Why a call was refused: `ErrorInfo.reason`, stable, for programs.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[doc = $doc])+ $name,)+ }

        impl Reason {
            /// The text on the wire.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }

            /// The code that goes with it, always the same.
            pub fn code(self) -> Code {
                match self { $(Self::$name => Code::$code,)+ }
            }

            /// From the text on the wire.
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$name),)+ _ => None }
            }
        }
    };
}

reasons! {
    /// A field is malformed, missing, out of range or unknown. BadRequest lists them all.
    InvalidField = ("INVALID_FIELD", InvalidArgument);
    /// A page token was not made by this call with this filter.
    InvalidPageToken = ("INVALID_PAGE_TOKEN", InvalidArgument);
    /// The filter cannot be parsed, or names an unknown field.
    InvalidFilter = ("INVALID_FILTER", InvalidArgument);
    /// A limit of storage.md is exceeded; metadata names it.
    LimitExceeded = ("LIMIT_EXCEEDED", InvalidArgument);
    /// The request id was used for another request.
    RequestIdReused = ("REQUEST_ID_REUSED", InvalidArgument);
    /// No such connector.
    ConnectorNotFound = ("CONNECTOR_NOT_FOUND", NotFound);
    /// No such task.
    TaskNotFound = ("TASK_NOT_FOUND", NotFound);
    /// The connector never had that revision, or it is no longer kept.
    RevisionNotFound = ("REVISION_NOT_FOUND", NotFound);
    /// No such plugin, or no such version of it.
    PluginNotFound = ("PLUGIN_NOT_FOUND", NotFound);
    /// No such agent.
    AgentNotFound = ("AGENT_NOT_FOUND", NotFound);
    /// No offsets are kept under that uid.
    RetainedOffsetsNotFound = ("RETAINED_OFFSETS_NOT_FOUND", NotFound);
    /// The name is taken.
    ConnectorExists = ("CONNECTOR_EXISTS", AlreadyExists);
    /// The name is taken by a connector that is being deleted.
    Deleting = ("DELETING", AlreadyExists);
    /// Another process has the agent's name.
    AgentNameTaken = ("AGENT_NAME_TAKEN", AlreadyExists);
    /// The etag is not the present one. Redo the read-modify-write.
    EtagMismatch = ("ETAG_MISMATCH", Aborted);
    /// Somebody else wrote at the same time, repeatedly. Redo the read-modify-write.
    Contended = ("CONTENDED", Aborted);
    /// The connector's state does not allow the action; metadata has state, action, allowed.
    ActionNotAllowed = ("ACTION_NOT_ALLOWED", FailedPrecondition);
    /// The offsets were never altered, or what they were before is no longer kept.
    NothingToUndo = ("NOTHING_TO_UNDO", FailedPrecondition);
    /// A fence that is no longer valid.
    Fenced = ("FENCED", FailedPrecondition);
    /// A later hello of the same process was accepted before.
    StaleHello = ("STALE_HELLO", FailedPrecondition);
    /// History no longer reaches back to the token, or the store is another one. Start over.
    ResumeTokenExpired = ("RESUME_TOKEN_EXPIRED", OutOfRange);
    /// The store cannot be reached. Retry the call.
    StoreUnavailable = ("STORE_UNAVAILABLE", Unavailable);
    /// This replica is behind the token. Retry the call.
    ReplicaBehind = ("REPLICA_BEHIND", Unavailable);
    /// Only the leader can do this; metadata has its address.
    NotLeader = ("NOT_LEADER", Unavailable);
    /// No agent could tell what only a plugin's code, or RocketMQ, can; the message says why. Retry the call.
    NotAnswered = ("NOT_ANSWERED", Unavailable);
    /// Too many calls at once. Retry the call.
    Overloaded = ("OVERLOADED", Unavailable);
    /// The replica is stopping. Dial another one.
    ShuttingDown = ("SHUTTING_DOWN", Unavailable);
    /// The store is nearly full: creates and updates are refused.
    StoreFull = ("STORE_FULL", ResourceExhausted);
    /// More sessions than this replica takes.
    TooManySessions = ("TOO_MANY_SESSIONS", ResourceExhausted);
    /// No token, or a wrong one.
    Unauthenticated = ("UNAUTHENTICATED", Unauthenticated);
    /// A defect; the log has more under the request's trace.
    Internal = ("INTERNAL", Internal);
}

/// A refusal on its way to becoming a `Status`.
#[derive(Clone, Debug)]
pub struct Refusal {
    // Boxed, so that a `Result` with it stays small.
    parts: Box<Parts>,
}

#[derive(Clone, Debug)]
struct Parts {
    reason: Reason,
    message: String,
    metadata: HashMap<String, String>,
    violations: Vec<(String, String)>,
    preconditions: Vec<(String, String, String)>,
    retry_after: Option<Duration>,
    resource: Option<(String, String)>,
}

impl Refusal {
    /// A refusal; the message is a sentence for people that names the thing concerned.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        let parts = Parts {
            reason,
            message: message.into(),
            metadata: HashMap::new(),
            violations: Vec::new(),
            preconditions: Vec::new(),
            retry_after: None,
            resource: None,
        };
        Self {
            parts: Box::new(parts),
        }
    }

    /// With a value for programs.
    pub fn with(mut self, key: &str, value: impl Into<String>) -> Self {
        self.parts.metadata.insert(key.to_owned(), value.into());
        self
    }

    /// With a violated field: its path, and what is wrong with it and what to do.
    pub fn field(mut self, path: impl Into<String>, description: impl Into<String>) -> Self {
        self.parts.violations.push((path.into(), description.into()));
        self
    }

    /// With a precondition that is not met: its type, what it concerns, and what must change.
    pub fn precondition(
        mut self,
        kind: impl Into<String>,
        subject: impl Into<String>,
        description: impl Into<String>,
    ) -> Self {
        self.parts
            .preconditions
            .push((kind.into(), subject.into(), description.into()));
        self
    }

    /// With the time after which a retry makes sense.
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.parts.retry_after = Some(after);
        self
    }

    /// With the resource concerned: its type and name.
    pub fn resource(mut self, kind: &str, name: impl Into<String>) -> Self {
        self.parts.resource = Some((kind.to_owned(), name.into()));
        self
    }

    /// Why.
    pub fn reason(&self) -> Reason {
        self.parts.reason
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let r = *refusal.parts;
        let mut details = ErrorDetails::new();
        let mut metadata = r.metadata;
        let mut budget = MAX_DETAILS
            .saturating_sub(512 + metadata.iter().map(|(k, v)| k.len() + v.len() + 8).sum::<usize>());
        let mut omitted = 0usize;
        for (path, description) in r.violations {
            let size = path.len() + description.len() + 16;
            if size <= budget {
                budget -= size;
                details.add_bad_request_violation(path, description);
            } else {
                omitted += 1;
            }
        }
        for (kind, subject, description) in r.preconditions {
            let size = kind.len() + subject.len() + description.len() + 16;
            if size <= budget {
                budget -= size;
                details.add_precondition_failure_violation(kind, subject, description);
            } else {
                omitted += 1;
            }
        }
        if omitted > 0 {
            metadata.insert("omitted".into(), omitted.to_string());
        }
        if let Some((kind, name)) = r.resource {
            details.set_resource_info(kind, name, "", "");
        }
        let retry = match (r.retry_after, r.reason.code()) {
            (None, Code::Unavailable) => Some(Duration::from_millis(500)),
            (given, _) => given,
        };
        if let Some(after) = retry {
            details.set_retry_info(Some(after));
        }
        details.set_error_info(r.reason.as_str(), DOMAIN, metadata);
        Status::with_error_details(r.reason.code(), r.message, details)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_stay_below_the_limit_and_say_what_was_left_out() {
        let mut refusal = Refusal::new(Reason::InvalidField, "many violations");
        for i in 0..500 {
            refusal = refusal.field(format!("config.key{i}"), "is not a parameter of this plugin");
        }
        let status = Status::from(refusal);
        assert!(
            status.details().len() <= MAX_DETAILS,
            "{}",
            status.details().len()
        );
        let shown = status.get_details_bad_request().unwrap().field_violations.len();
        let info = status.get_details_error_info().unwrap();
        assert_eq!(shown + info.metadata["omitted"].parse::<usize>().unwrap(), 500);
        assert_eq!(Reason::parse(&info.reason), Some(Reason::InvalidField));
    }

    #[test]
    fn unavailable_always_says_when_to_retry() {
        let status = Status::from(Refusal::new(Reason::StoreUnavailable, "etcd cannot be reached"));
        assert_eq!(status.code(), Code::Unavailable);
        assert!(status.get_details_retry_info().is_some());
    }
}
