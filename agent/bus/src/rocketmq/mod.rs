//! Apache RocketMQ as a bus, over RocketMQ's remoting protocol (`rocketmq-transport`, `rocketmq-protocol`).
//!
//! Two connections per broker, one of them for pulls, are shared by everything that uses the endpoint (and one more for
//! every 448 requests in flight), so that an idle task costs a pending request and nothing else. There are no client-side background
//! services: no heartbeats, no rebalancing, no route polling.
//!
//! | module | what it does |
//! |---|---|
//! | `factory` | one bus per endpoint |
//! | `bus` | the calls of [`crate::Bus`] |
//! | `topics` | routes, creating topics |
//! | `mirror` | consumer offsets for RocketMQ's own tools |
//! | `calls` | one request and its answer, behind the gate |
//! | `gate` | knows whether an address can be reached, so that nobody calls one that cannot |
//! | `lanes` | as many transports as the requests in flight need |
//! | `client` | RocketMQ's transport, built anew when it does not recover |
//! | `route` | the name server's answer, read (pure) |
//! | `batch`, `messages` | a batch written, a pull's answer read (pure) |
//! | `answer` | what a broker's answer means (pure) |

mod answer;
mod batch;
mod bus;
mod calls;
mod client;
mod factory;
mod gate;
mod lanes;
mod messages;
mod mirror;
mod route;
mod topics;

pub use bus::RocketmqBus;
pub use factory::RocketmqFactory;
