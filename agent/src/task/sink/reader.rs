//! Reads one queue ahead of the sink.

use std::{sync::Arc, time::Duration};

use gantry_bus::{Bounds, Bus, BusError, BusErrorKind, InMessage, PullRequest, Queue};
use tokio::{sync::mpsc, time::sleep};

use crate::{
    backoff::{Backoff, Jitter},
    task::{BUS, budget::Budget, convert},
};

/// Asked of one pull.
const PULL_MESSAGES: u32 = 1024;

/// What a reader found.
pub(super) enum Fetched {
    /// Messages, or only a step over what was filtered on the broker.
    Chunk(Chunk),
    /// A pull failed and is tried again.
    Failed(usize, BusError),
    /// The offset is not in the queue, or can never be read: the reader has ended.
    Lost(BusError),
    /// A queue that could not be asked at the start still cannot.
    Absent(Queue, BusError),
    /// It can be asked now.
    Back(Queue),
}

/// A stretch of a queue.
pub(super) struct Chunk {
    /// Index of the queue.
    pub(super) index: usize,
    pub(super) messages: Vec<InMessage>,
    /// Where the queue goes on after it.
    pub(super) next: u64,
    pub(super) bounds: Bounds,
    /// Bytes it counts for in memory.
    pub(super) weight: usize,
}

pub(super) struct Reader {
    pub(super) index: usize,
    pub(super) queue: Queue,
    pub(super) offset: u64,
    pub(super) bus: Arc<dyn Bus>,
    pub(super) budget: Arc<Budget>,
    pub(super) out: mpsc::Sender<Fetched>,
    pub(super) wait: Duration,
    pub(super) jitter: Jitter,
}

impl Reader {
    /// Reads until nobody wants it any more.
    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::new(BUS, self.jitter.clone());
        // What the next pull will probably bring is reserved before, so that many readers do not exceed the budget at once.
        let mut expected = 0;
        loop {
            self.budget.ready().await;
            let reserved = Reserved::new(&self.budget, expected);
            let request = PullRequest {
                queue: self.queue.clone(),
                offset: self.offset,
                max_messages: PULL_MESSAGES,
                wait: self.wait,
            };
            let result = self.bus.pull(request).await;
            drop(reserved);
            let fetched = match result {
                Ok(pulled) => {
                    backoff.reset();
                    let weight = pulled.messages.iter().map(convert::weight).sum();
                    (expected, self.offset) = (weight, pulled.next_offset);
                    self.budget.add(weight);
                    let (messages, bounds) = (pulled.messages, pulled.bounds);
                    Fetched::Chunk(Chunk {
                        index: self.index,
                        messages,
                        next: self.offset,
                        bounds,
                        weight,
                    })
                }
                Err(e) if matches!(e.kind(), BusErrorKind::OffsetOutOfRange | BusErrorKind::Denied) => {
                    let _ = self.out.send(Fetched::Lost(e)).await;
                    return;
                }
                Err(e) => {
                    let failed = self.out.send(Fetched::Failed(self.index, e)).await;
                    sleep(backoff.fail()).await;
                    match failed {
                        Ok(()) => continue,
                        Err(_) => return,
                    }
                }
            };
            if self.out.send(fetched).await.is_err() {
                return;
            }
        }
    }
}

/// Waits for a queue that could not be asked at the start.
pub(super) async fn wait_for(
    queue: Queue,
    bus: Arc<dyn Bus>,
    out: mpsc::Sender<Fetched>,
    mut backoff: Backoff,
) {
    loop {
        let found = match bus.bounds(&queue).await {
            Ok(_) => Fetched::Back(queue.clone()),
            Err(e) => Fetched::Absent(queue.clone(), e),
        };
        let is_back = matches!(found, Fetched::Back(_));
        if out.send(found).await.is_err() || is_back {
            return;
        }
        sleep(backoff.fail()).await;
    }
}

/// Bytes that are reserved until this is dropped.
struct Reserved<'a>(&'a Budget, usize);

impl<'a> Reserved<'a> {
    fn new(budget: &'a Budget, bytes: usize) -> Self {
        budget.add(bytes);
        Self(budget, bytes)
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.0.free(self.1);
    }
}
