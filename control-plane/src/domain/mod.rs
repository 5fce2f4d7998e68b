//! What the control plane talks about. No I/O, no clock, no randomness.

pub mod catalog;
pub mod change;
pub mod code;
pub mod declare;
pub mod diff;
pub mod filter;
pub mod hash;
pub mod lifecycle;
pub mod mask;
mod normalise;
pub mod offsets;
mod reason;
mod snapshot;
pub mod spec;
pub mod status;
pub mod time;
pub mod validate;
pub mod version;
pub mod view;

pub use normalise::normalise;
pub use reason::{Reason, Reasons};
pub use snapshot::{Snapshot, TaskId, Uid, Versioned};
pub use validate::Violation;

/// Stored forms; plain data that the whole control plane works on.
#[allow(missing_docs, clippy::all, unreachable_pub, rustdoc::all)]
pub mod stored {
    tonic::include_proto!("gantry.store.v1");
}
