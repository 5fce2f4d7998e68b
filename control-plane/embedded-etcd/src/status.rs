//! The errors of etcd's API, with etcd's exact codes and texts: clients compare both.

use tonic::{Code, Status};

fn etcd(code: Code, message: &str) -> Status {
    Status::new(code, format!("etcdserver: {message}"))
}

pub(crate) fn empty_key() -> Status {
    etcd(Code::InvalidArgument, "key is not provided")
}

pub(crate) fn key_not_found() -> Status {
    etcd(Code::InvalidArgument, "key not found")
}

pub(crate) fn value_provided() -> Status {
    etcd(Code::InvalidArgument, "value is provided")
}

pub(crate) fn lease_provided() -> Status {
    etcd(Code::InvalidArgument, "lease is provided")
}

pub(crate) fn too_many_operations() -> Status {
    etcd(Code::InvalidArgument, "too many operations in txn request")
}

pub(crate) fn duplicate_key() -> Status {
    etcd(Code::InvalidArgument, "duplicate key given in txn request")
}

pub(crate) fn invalid_sort() -> Status {
    etcd(Code::InvalidArgument, "invalid sort option")
}

pub(crate) fn request_too_large() -> Status {
    etcd(Code::InvalidArgument, "request is too large")
}

/// What etcd's gRPC layer says before etcd itself sees the request, hence without the prefix.
pub(crate) fn message_too_large(size: usize, max: usize) -> Status {
    Status::resource_exhausted(format!(
        "grpc: received message larger than max ({size} vs. {max})"
    ))
}

pub(crate) fn compacted() -> Status {
    etcd(Code::OutOfRange, "mvcc: required revision has been compacted")
}

pub(crate) fn future_revision() -> Status {
    etcd(Code::OutOfRange, "mvcc: required revision is a future revision")
}

pub(crate) fn lease_not_found() -> Status {
    etcd(Code::NotFound, "requested lease not found")
}

pub(crate) fn lease_exists() -> Status {
    etcd(Code::FailedPrecondition, "lease already exists")
}

pub(crate) fn lease_ttl_too_large() -> Status {
    etcd(Code::OutOfRange, "too large lease TTL")
}

pub(crate) fn stopped() -> Status {
    etcd(Code::Unavailable, "server stopped")
}

/// The disk refused a commit. Nothing is written any more until the process is started again.
pub(crate) fn storage_failed(cause: &str) -> Status {
    etcd(Code::Unavailable, &format!("storage failed: {cause}"))
}

/// A call of etcd that the embedded store does not have.
pub(crate) fn not_embedded(call: &str) -> Status {
    etcd(
        Code::Unimplemented,
        &format!("{call} is not available in the embedded store"),
    )
}
