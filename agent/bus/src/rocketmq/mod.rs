//! Apache RocketMQ as a bus, over RocketMQ's Rust client (`rocketmq-client-rust`, by `gantry-rocketmq-session`).
//!
//! Its producer sends. Everything else (pulls, offsets, routes, topics) are single requests to an address, through the client's
//! instance handles: no consumer of the client is used, since one registers each topic it pulls from and asks the
//! name server for the routes of all of them again each time, which a thousand tasks cannot afford.
//!
//! Two connections per broker, one of them for pulls, are shared by everything that uses the endpoint (and one more for
//! every 448 requests in flight), so that an idle task costs a pending request and nothing else. In the background
//! the client tells brokers every 30 s that the producer is there; it rebalances nothing.
//!
//! | module | what it does |
//! |---|---|
//! | `factory` | one bus per endpoint |
//! | `bus` | the calls of [`crate::Bus`] |
//! | `topics` | routes, creating topics |
//! | `mirror` | consumer offsets for RocketMQ's own tools |
//! | `calls` | one request and its answer, behind the gate |
//! | `gate` | knows whether an address can be reached, so that nobody calls one that cannot |
//! | `lanes` | as many instances of the client as the requests in flight need |
//! | `client` | an instance (`gantry-rocketmq-session`), built anew when it does not recover |
//! | `route` | the name server's answer, read (pure) |
//! | `batch`, `messages` | a batch written, a pull's answer read (pure) |
//! | `ids` | UNIQ_KEYs |
//! | `answer` | what a broker's answer means (pure) |

mod answer;
mod batch;
mod bus;
mod calls;
mod client;
mod factory;
mod gate;
mod ids;
mod lanes;
mod messages;
mod mirror;
mod route;
mod topics;

pub use bus::RocketmqBus;
pub use factory::RocketmqFactory;
