//! The agent: runs the tasks that the control plane assigns to it, and reports what has become of them.

pub mod connectors;
