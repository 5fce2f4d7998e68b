//! Tests against real servers and whole clusters. One program, so that it is linked once; a module is a suite of `tests/run`.

mod admin;
mod api;
mod bad_input;
mod crash;
mod declarative;
mod demo;
mod dev;
mod distributed;
mod faults;
mod grpcurl;
mod lifecycle;
mod offsets;
mod queues;
mod security;
mod servers;
mod telemetry;
mod validation;
