//! The wire: what users, agents and the control plane say to each other, generated from the files beside this crate,
//! and what all of them must agree on (resource names, error details, field masks). No policy.

pub mod digest;
pub mod error;
pub mod json;
pub mod name;

// The nesting is that of the packages: generated code refers to other packages by relative path.
mod gantry {
    #[allow(missing_docs, clippy::all, unreachable_pub)]
    pub mod v1 {
        tonic::include_proto!("gantry.v1");
        include!(concat!(env!("OUT_DIR"), "/gantry.v1.serde.rs"));
    }
    pub mod agent {
        #[allow(missing_docs, clippy::all, unreachable_pub)]
        pub mod v1 {
            tonic::include_proto!("gantry.agent.v1");
            include!(concat!(env!("OUT_DIR"), "/gantry.agent.v1.serde.rs"));
        }
    }
}

/// Messages of other packages that ours refer to.
pub mod google {
    /// `google.rpc`: status and error details.
    #[allow(missing_docs, clippy::all, unreachable_pub, rustdoc::all)]
    pub mod rpc {
        tonic::include_proto!("google.rpc");
        include!(concat!(env!("OUT_DIR"), "/google.rpc.serde.rs"));
    }
}

/// Spoken between agents and the control plane; version 1 is `agent::v1`.
pub use gantry::agent;
/// The API for users, version 1.
pub use gantry::v1;
/// Well-known types that the messages use.
pub use pbjson_types::{FieldMask, Struct, Timestamp, Value as StructValue, value as struct_value};

/// Encoded descriptors of all packages, for reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
