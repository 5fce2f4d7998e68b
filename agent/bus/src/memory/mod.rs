//! A bus in memory with the rules of RocketMQ (offsets, bounds, long polls, what it refuses), and faults for tests.
//!
//! Time is tokio's, so that everything works with a paused clock.
//!
//! ```
//! # use gantry_bus::{Bus, memory::{Fault, MemoryBus}};
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let bus = MemoryBus::new();
//! bus.create("orders", 4);
//! bus.fault(Fault::not_stored().times(1));
//! let queue = bus.route("orders").await.unwrap()[0].clone();
//! let batch = || vec![gantry_bus::OutMessage { body: "x".into(), ..Default::default() }];
//! assert!(bus.send(&queue, batch()).await.is_err());
//! assert_eq!(bus.send(&queue, batch()).await.unwrap(), 0);
//! assert_eq!(bus.messages("orders", 0).len(), 1);
//! # })
//! ```

mod bus;
mod factory;
mod fault;
#[cfg(test)]
mod tests;
mod topics;

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{BusError, InMessage, OutMessage, Queue, clock};
pub use factory::MemoryBusFactory;
pub use fault::{Call, Fault, FaultHandle};

/// The bus in memory. Clones share everything. Messages live as long as the last clone.
#[derive(Clone)]
pub struct MemoryBus(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    started: Instant,
    started_at_ms: i64,
}

#[derive(Default)]
struct State {
    topics: topics::Topics,
    faults: Vec<fault::Active>,
}

impl Default for MemoryBus {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryBus {
    /// An empty bus. Messages are stamped with the time of day at this call plus what tokio's clock has run since.
    pub fn new() -> Self {
        Self::starting_at(clock::wall_ms())
    }

    /// An empty bus whose time of day is this now (milliseconds since 1970): the same in every run with a paused clock.
    pub fn starting_at(time_ms: i64) -> Self {
        Self(Arc::new(Shared {
            state: Mutex::default(),
            started: Instant::now(),
            started_at_ms: time_ms,
        }))
    }

    /// Creates the topic, or adds queues to it up to this count.
    pub fn create(&self, topic: &str, queues: u32) {
        self.0.state.lock().topics.create(topic, queues);
    }

    /// Deletes the topic with all its messages and mirrored offsets; pulls that wait fail with `TopicMissing`.
    pub fn delete(&self, topic: &str) {
        self.0.state.lock().topics.delete(topic);
    }

    /// Appends one message past all faults, as another producer would. Returns its offset.
    ///
    /// # Panics
    /// If there is no such queue.
    pub fn append(&self, topic: &str, queue: u32, message: OutMessage) -> u64 {
        let now_ms = self.now_ms();
        let mut state = self.0.state.lock();
        existing(state.topics.log_mut(&self.queue(topic, queue))).append(vec![message], now_ms)
    }

    /// Drops the messages below the offset, as retention does.
    ///
    /// # Panics
    /// If there is no such queue.
    pub fn trim(&self, topic: &str, queue: u32, min: u64) {
        existing(self.0.state.lock().topics.log_mut(&self.queue(topic, queue))).trim(min);
    }

    /// What the queue holds, in offset order.
    ///
    /// # Panics
    /// If there is no such queue.
    pub fn messages(&self, topic: &str, queue: u32) -> Vec<InMessage> {
        existing(self.0.state.lock().topics.log(&self.queue(topic, queue)))
            .messages()
            .to_vec()
    }

    /// The offset that was last mirrored for the group.
    pub fn mirrored(&self, group: &str, topic: &str, queue: u32) -> Option<u64> {
        self.0
            .state
            .lock()
            .topics
            .mirrored
            .get(&(group.into(), self.queue(topic, queue)))
            .copied()
    }

    /// Puts a fault in force. Several work together; of those that fail a call the oldest decides how.
    pub fn fault(&self, fault: Fault) -> FaultHandle {
        let active = fault::Active::new(fault);
        let handle = FaultHandle(active.state.clone());
        let mut state = self.0.state.lock();
        state.faults.push(active);
        state.topics.wake_all();
        handle
    }

    /// Ends all faults.
    pub fn heal(&self) {
        self.0.state.lock().faults.clear();
    }

    /// The queue with this id of a topic, whether it exists or not.
    pub fn queue(&self, topic: &str, id: u32) -> Queue {
        Queue {
            topic: topic.into(),
            broker: topics::BROKER.into(),
            id,
        }
    }

    /// The bus's time of day, in milliseconds since 1970.
    pub fn now_ms(&self) -> i64 {
        self.0.started_at_ms + self.0.started.elapsed().as_millis() as i64
    }
}

/// Test code asked for something by name: a missing one is a mistake in the test.
fn existing<T>(found: Result<T, BusError>) -> T {
    found.unwrap_or_else(|error| panic!("{error}"))
}
