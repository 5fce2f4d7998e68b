//! Fault drills: real servers, replicas and agents under load, that are killed, frozen and cut off at moments that follow
//! from a seed, and an account at the end.
//!
//! A [`Site`] is everything that runs. Its [`Flow`]s carry numbered records from sources to sinks, [`Rolling`] creates,
//! changes and deletes other connectors meanwhile, and [`History`] sees every write to the store. A drill takes its
//! rounds from a [`schedule`](schedule::schedule), strikes, mends, waits until all is well, and closes the account.

pub mod audit;
pub mod feed;
pub mod flow;
pub mod gauge;
pub mod history;
pub mod proxy;
pub mod report;
pub mod rolling;
pub mod schedule;
mod site;

pub use flow::Flow;
pub use gauge::Gauge;
pub use history::{Held, History, View};
pub use report::{Report, Times};
pub use rolling::Rolling;
pub use schedule::{Fault, Pace, Round};
pub use site::{Setup, Site, Struck, drill};
