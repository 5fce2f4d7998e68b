//! The agent: runs the tasks that the control plane assigns to it, and reports what has become of them.
//!
//! [`Agent`] ties three actors together: the *session* (the link to the control plane: hello, heartbeats, pushes, status), the
//! *supervisor* (owns the tasks: starts, drains, restarts them) and the *commit stream*. A task's connector code runs on a
//! thread of its own; everything else on the runtime that [`Agent::run`] is called on.

mod agent;
#[cfg(test)]
mod agent_tests;
mod backoff;
mod clock;
mod config;
pub mod connectors;
mod desired;
mod error;
mod key;
mod lease;
mod lock;
mod metrics;
mod problem;
mod redact;
mod secrets;
mod session;
mod supervisor;
mod task;
#[cfg(test)]
mod testing;
mod trace;
mod wire;

pub use agent::Agent;
pub use clock::{Clock, SystemClock, TokioClock};
pub use config::{AgentConfig, Dial, HookLimits, Hooks, Limits, TlsOptions};
pub use error::AgentError;
pub use redact::Redactor;
