//! What whole-system tests stand on: real servers on free ports of this machine, and waiting with a bound.
//!
//! A test is a plain `#[test]` that calls [`run`]. It gets a [`WorkDir`] for everything it writes, starts the servers
//! that it needs, and waits with [`wait::eventually`]: never with a bare sleep, and never without a limit.
//! [`Etcd`] and [`RocketMq`] are the real programs, [`Gantry`] is the command that users get. Each ends with the value
//! that stands for it. `tests/run` installs the servers and says where they are.

pub mod certs;
pub mod cli;
pub mod cluster;
pub mod collector;
pub mod connectors;
pub mod drill;
pub mod env;
pub mod gantry;
pub mod guide;
pub mod lines;
pub mod parts;
pub mod ports;
pub mod process;
pub mod scrape;
pub mod servers;
pub mod wait;
mod work;

pub use cli::Cli;
pub use cluster::Cluster;
pub use collector::Collector;
pub use gantry::Gantry;
pub use guide::Guide;
pub use parts::Parts;
pub use ports::Ports;
pub use process::{Process, Signal};
pub use scrape::Scrape;
pub use servers::etcd::Etcd;
pub use servers::rocketmq::RocketMq;
pub use work::{WorkDir, run};
