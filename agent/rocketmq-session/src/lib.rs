//! RocketMQ's Rust client (`rocketmq-client-rust`) as the bus uses it: one instance, so one connection per address, behind
//! an object with two calls.
//!
//! Its producer sends. Everything else is a single request to an address, through the client's instance handles.
//!
//! The client is large, and asynchronous functions are compiled where they are polled. That is here: no dependant
//! compiles it again, or looks through its types, which are deeper than the compiler's default limit.

#![recursion_limit = "256"]

mod hook;
mod instance;
mod trouble;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use rocketmq_protocol::protocol::remoting_command::RemotingCommand;

pub use trouble::{CANNOT_CONNECT, CONNECTION_CLOSED, NoAnswer, QUEUE_FULL, REFUSES_TO_CONNECT};

/// A queue of a broker.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// Topic name.
    pub topic: &'a str,
    /// Name of the broker that holds the queue.
    pub broker: &'a Arc<str>,
    /// Queue id within that broker.
    pub queue: u32,
    /// Where the broker is, as `host:port`.
    pub address: &'a Arc<str>,
}

/// An instance of the client. Any number of calls may be in flight; all may be dropped while pending.
#[async_trait]
pub trait Session: Send + Sync {
    /// Sends the request to the address and returns the answer, whatever it says.
    async fn call(
        &self,
        address: &str,
        request: RemotingCommand,
        timeout: Duration,
    ) -> Result<RemotingCommand, NoAnswer>;

    /// Sends an encoded batch to a queue and returns the broker's answer, whatever it says.
    async fn send(
        &self,
        target: Target<'_>,
        batch: Bytes,
        timeout: Duration,
    ) -> Result<RemotingCommand, NoAnswer>;

    /// Ends the tasks and closes the connections, within seconds; calls in flight fail.
    async fn stop(&self);
}

/// An instance on the current tokio runtime, connected to nothing yet.
///
/// # Errors
/// If there is no tokio runtime, or the addresses are none. `namesrv`: `host:port`, several separated by `;`.
pub fn open(namesrv: &str) -> Result<Arc<dyn Session>, NoAnswer> {
    Ok(Arc::new(instance::Instance::new(namesrv)?))
}

/// A UNIQ_KEY as the client makes it for a message.
pub fn unique_id() -> String {
    rocketmq_model::common::message::message_client_id_setter::MessageClientIDSetter::create_uniq_id()
}
