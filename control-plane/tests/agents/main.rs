//! Replicas of the control plane and scripted agents: on etcd in memory, with a paused clock, without sockets.

mod chaos;
mod liveness;
mod names;
mod replicas;
mod restored;
mod sessions;
mod splits;
mod support;
mod tasks;
mod users;
