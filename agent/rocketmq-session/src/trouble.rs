//! What an error of RocketMQ's client means for the call. Pure.

use rocketmq_client_rust::ClientError;
use rocketmq_error::{self as known, Error, SharedError, ViewValueRef, fields};

/// [`NoAnswer::why`]: nothing was sent, it may be tried again at once.
pub const QUEUE_FULL: &str = "too many requests are in flight";
/// [`NoAnswer::why`]: the next call makes a new connection.
pub const CONNECTION_CLOSED: &str = "the connection was closed";
/// [`NoAnswer::why`]: an attempt failed.
pub const CANNOT_CONNECT: &str = "cannot connect";
/// [`NoAnswer::why`]: its circuit breaker is open; nothing is tried for 30 s.
pub const REFUSES_TO_CONNECT: &str = "the client refuses to connect after failures";

/// Why there is no answer.
#[derive(Debug)]
pub struct NoAnswer {
    /// In words, to follow "no answer from ADDRESS: ".
    pub why: &'static str,
    /// What the client said, if it knows more than that.
    pub source: Option<SharedError>,
    /// Nothing was written, so the call has had no effect.
    pub unsent: bool,
    /// The connection may be gone.
    pub doubtful: bool,
}

impl NoAnswer {
    /// Nothing was done, whatever the state of the connection.
    pub fn unsent(why: &'static str, source: Option<SharedError>) -> Self {
        Self {
            why,
            source,
            unsent: true,
            doubtful: false,
        }
    }

    /// There was one, but it passed by unseen.
    pub(crate) fn unseen() -> Self {
        Self {
            unsent: false,
            ..Self::unsent("the client did not show it", None)
        }
    }
}

impl From<ClientError> for NoAnswer {
    fn from(error: ClientError) -> Self {
        let has_cause = std::error::Error::source(&**error.shared_error()).is_some();
        let any = |of: &[&'static known::ErrorDescriptor]| of.iter().any(|one| error.is(one));
        let (why, unsent, doubtful) = if any(&[
            &known::CORE_OPERATION_TIMED_OUT,
            &known::TRANSPORT_RESPONSE_TIMEOUT,
        ]) {
            ("no answer in time", false, true)
        } else if any(&[&known::TRANSPORT_ADMISSION_QUEUE_SATURATED]) {
            (QUEUE_FULL, true, false)
        } else if any(&[
            &known::CLIENT_LIFECYCLE_NOT_STARTED,
            &known::CLIENT_LIFECYCLE_SHUTTING_DOWN,
        ]) {
            ("the client is being replaced", false, false)
        } else if any(&[&known::TRANSPORT_CONNECTION_TIMEOUT, &known::TRANSPORT_DNS_FAILED]) {
            (CANNOT_CONNECT, true, true)
        } else {
            match (phase(error.shared_error()), has_cause) {
                // Its circuit breaker is open: nothing was tried, so there is no cause.
                (Some("connect"), false) => (REFUSES_TO_CONNECT, true, true),
                (Some("endpoint_validation" | "connect" | "before_write"), true) => {
                    (CANNOT_CONNECT, true, true)
                }
                (Some("before_write"), false) => (CONNECTION_CLOSED, true, true),
                (Some(_), false) => (CONNECTION_CLOSED, false, true),
                (Some(_), true) => ("the connection failed", false, true),
                (None, _) => ("the client failed", false, false),
            }
        };
        let tells_more = has_cause || why == "the client failed";
        Self {
            why,
            source: tells_more.then(|| error.into_shared_error()),
            unsent,
            doubtful,
        }
    }
}

/// How far the request came, as the client noted it.
fn phase(error: &Error) -> Option<&str> {
    let view = error.diagnostic_view().ok()?;
    view.fields().find_map(|field| match field.value() {
        ViewValueRef::Text(text) if field.name() == fields::PHASE.schema().name() => Some(text),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use std::io;

    use rocketmq_error::ErrorContext;

    use super::*;

    fn connection(phase: &str, cause: Option<io::ErrorKind>) -> NoAnswer {
        let kind = &known::TRANSPORT_CONNECTION_FAILED;
        let error = match cause {
            Some(cause) => Error::caused_by(kind, io::Error::from(cause)),
            None => Error::new(kind),
        };
        let context = ErrorContext::new().with_text(fields::PHASE, phase);
        ClientError::from_error(error.with_context(context)).into()
    }

    #[test]
    fn a_failed_connection_is_told_by_its_phase_and_cause() {
        let refused = Some(io::ErrorKind::ConnectionRefused);
        for (phase, cause, why, unsent) in [
            ("connect", refused, CANNOT_CONNECT, true),
            ("connect", None, REFUSES_TO_CONNECT, true),
            ("before_write", None, CONNECTION_CLOSED, true),
            ("closed", None, CONNECTION_CLOSED, false),
            ("awaiting_response", None, CONNECTION_CLOSED, false),
            (
                "write",
                Some(io::ErrorKind::BrokenPipe),
                "the connection failed",
                false,
            ),
        ] {
            let told = connection(phase, cause);
            assert_eq!(
                (told.why, told.unsent, told.doubtful),
                (why, unsent, true),
                "{phase}"
            );
            assert_eq!(told.source.is_some(), cause.is_some(), "{phase}");
        }
    }

    #[test]
    fn other_errors_are_told_by_their_kind() {
        for (error, why, unsent, doubtful) in [
            (ClientError::timeout("x", 1), "no answer in time", false, true),
            (
                ClientError::from_error(Error::new(&known::TRANSPORT_ADMISSION_QUEUE_SATURATED)),
                QUEUE_FULL,
                true,
                false,
            ),
            (
                ClientError::not_started(),
                "the client is being replaced",
                false,
                false,
            ),
            (
                ClientError::illegal_argument("x"),
                "the client failed",
                false,
                false,
            ),
        ] {
            let told = NoAnswer::from(error);
            assert_eq!((told.why, told.unsent, told.doubtful), (why, unsent, doubtful));
        }
    }
}
