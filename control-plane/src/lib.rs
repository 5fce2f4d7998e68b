//! The control plane: keeps what users want in etcd, decides who runs what, and tells the agents.

pub mod api;
pub mod clock;
pub mod domain;
pub mod front;
pub mod metrics;
pub mod plan;
pub mod reconcile;
pub mod replica;
pub mod server;
pub mod sessions;
pub mod store;
mod trace;

pub use front::Front;
pub use replica::{ControlPlane, ControlPlaneConfig};
