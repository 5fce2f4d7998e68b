use std::collections::HashMap;

use gantry_proto::error::Reason;
use thiserror::Error;
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// A field that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Path of the field, for example `connector.config.paths`.
    pub field: String,
    /// What is wrong, and what to do.
    pub description: String,
}

/// Why a call failed.
#[derive(Clone, Debug, Error)]
pub enum Error {
    /// The endpoint is no address.
    #[error("'{endpoint}' is not an endpoint: {why}")]
    Endpoint {
        /// What was given.
        endpoint: String,
        /// Why it cannot be used.
        why: String,
    },
    /// Nobody answers.
    #[error("the control plane at {endpoint} cannot be reached: {why}")]
    Unreachable {
        /// Where it was looked for.
        endpoint: String,
        /// The last error.
        why: String,
    },
    /// The control plane refused.
    #[error("{message}")]
    Refused {
        /// gRPC code.
        code: Code,
        /// Stable reason for programs, as in `ErrorInfo.reason`; empty if the answer had none.
        reason: String,
        /// A sentence for people.
        message: String,
        /// Values for programs.
        metadata: HashMap<String, String>,
        /// Fields that were refused.
        violations: Vec<Violation>,
        /// What must change first.
        preconditions: Vec<String>,
    },
}

impl Error {
    /// The reason, if the control plane gave a known one.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Refused { reason, .. } => Reason::parse(reason),
            _ => None,
        }
    }

    /// Whether the thing asked for does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(
            self,
            Self::Refused {
                code: Code::NotFound,
                ..
            }
        )
    }

    pub(crate) fn from_status(endpoint: &str, status: Status) -> Self {
        let info = status.get_details_error_info();
        // Without ErrorInfo the control plane did not speak: the transport, or something that is no control plane.
        let transport = std::error::Error::source(&status).is_some()
            || matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled);
        if info.is_none() && transport {
            return Self::Unreachable {
                endpoint: endpoint.to_owned(),
                why: transport_cause(&status),
            };
        }
        let (reason, metadata) = info.map(|i| (i.reason, i.metadata)).unwrap_or_default();
        let violations = status
            .get_details_bad_request()
            .map(|b| b.field_violations)
            .unwrap_or_default()
            .into_iter()
            .map(|v| Violation {
                field: v.field,
                description: v.description,
            })
            .collect();
        let preconditions = status
            .get_details_precondition_failure()
            .map(|p| p.violations)
            .unwrap_or_default()
            .into_iter()
            .map(|v| v.description)
            .collect();
        Self::Refused {
            code: status.code(),
            reason,
            message: status.message().to_owned(),
            metadata,
            violations,
            preconditions,
        }
    }
}

fn transport_cause(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut cause = std::error::Error::source(status);
    while let Some(e) = cause {
        text = e.to_string();
        cause = e.source();
    }
    text
}
