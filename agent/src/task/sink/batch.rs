//! Batches for a sink. They are not copied before a write: if one has to be written again, or a record of it is wanted, it
//! is read again from the bus by its offsets.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use gantry_bus::{Bus, BusError, BusErrorKind, InMessage, PullRequest, Pulled, Queue};
use gantry_connector::SinkRecord;

use super::reader::Chunk;
use crate::task::convert;

/// What a batch is made of.
#[derive(Clone, Debug, Default)]
pub(super) struct Batch {
    pub(super) runs: Vec<Run>,
    /// Queue index and offset of each record.
    pub(super) records: Vec<(u32, u64)>,
    /// Bytes it counts for in memory.
    pub(super) weight: usize,
}

/// A stretch of a queue in a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// Index of the queue.
    pub(super) index: usize,
    /// Offset of the first record; `next` if there is none.
    pub(super) from: u64,
    /// Where the queue goes on after it.
    pub(super) next: u64,
    /// Number of records.
    pub(super) count: usize,
}

/// Takes whole chunks from the front, at least one, until the limits are reached.
pub(super) fn assemble(
    chunks: &mut VecDeque<Chunk>,
    most_records: usize,
    most_bytes: usize,
) -> (Batch, Vec<SinkRecord>) {
    let mut batch = Batch::default();
    let mut records = Vec::new();
    while let Some(chunk) = chunks.front() {
        let fits =
            records.len() + chunk.messages.len() <= most_records && batch.weight + chunk.weight <= most_bytes;
        if !fits && !batch.runs.is_empty() {
            break;
        }
        let Some(chunk) = chunks.pop_front() else { break };
        let from = chunk.messages.first().map_or(chunk.next, |m| m.offset);
        batch.runs.push(Run {
            index: chunk.index,
            from,
            next: chunk.next,
            count: chunk.messages.len(),
        });
        batch.weight += chunk.weight;
        let index = chunk.index as u32;
        batch
            .records
            .extend(chunk.messages.iter().map(|m| (index, m.offset)));
        records.extend(chunk.messages.into_iter().map(|m| convert::to_record(m, index)));
    }
    (batch, records)
}

/// Reads the same batch again.
pub(super) async fn fetch(
    bus: Arc<dyn Bus>,
    queues: Arc<[Queue]>,
    batch: Batch,
) -> Result<Vec<SinkRecord>, BusError> {
    let mut records = Vec::with_capacity(batch.records.len());
    for run in &batch.runs {
        let mut offset = run.from;
        while offset < run.next && run.count > 0 {
            let pulled = pull(
                &*bus,
                &queues[run.index],
                offset,
                (run.next - offset).min(1024) as u32,
            )
            .await?;
            // Only the bus may say that there is nothing up to there: an empty answer says nothing.
            if pulled.next_offset <= offset {
                return Err(nothing_at(&queues[run.index], offset));
            }
            offset = pulled.next_offset;
            let wanted = pulled.messages.into_iter().take_while(|m| m.offset < run.next);
            records.extend(wanted.map(|m| convert::to_record(m, run.index as u32)));
        }
    }
    // Retention may have taken some meanwhile: what is left is still to be written.
    Ok(records)
}

/// Reads one message again.
pub(super) async fn fetch_one(bus: &dyn Bus, queue: &Queue, offset: u64) -> Result<InMessage, BusError> {
    let found = pull(bus, queue, offset, 1)
        .await?
        .messages
        .into_iter()
        .find(|m| m.offset == offset);
    found.ok_or_else(|| nothing_at(queue, offset))
}

fn nothing_at(queue: &Queue, offset: u64) -> BusError {
    let message = format!("queue {queue} gave no message at {offset}");
    BusError::new(BusErrorKind::Unavailable, message)
}

async fn pull(bus: &dyn Bus, queue: &Queue, offset: u64, max_messages: u32) -> Result<Pulled, BusError> {
    let request = PullRequest {
        queue: queue.clone(),
        offset,
        max_messages,
        wait: Duration::ZERO,
    };
    bus.pull(request).await
}

#[cfg(test)]
mod tests {
    use gantry_bus::{Bounds, OutMessage, memory::MemoryBus};

    use super::*;

    fn chunk(index: usize, offsets: std::ops::Range<u64>) -> Chunk {
        let message = |offset| InMessage {
            offset,
            key: None,
            tag: None,
            properties: vec![],
            body: "x".into(),
            born_time_ms: 0,
            store_time_ms: 0,
        };
        let (next, weight) = (offsets.end, offsets.clone().count() * 10);
        Chunk {
            index,
            messages: offsets.map(message).collect(),
            next,
            bounds: Bounds::default(),
            weight,
        }
    }

    #[test]
    fn batches_are_whole_chunks_within_the_limits() {
        let mut chunks = VecDeque::from([chunk(0, 0..3), chunk(1, 5..7), chunk(0, 3..4), chunk(0, 4..20)]);
        let (batch, records) = assemble(&mut chunks, 6, 1000);
        assert_eq!(
            batch
                .runs
                .iter()
                .map(|r| (r.index, r.from, r.next))
                .collect::<Vec<_>>(),
            [(0, 0, 3), (1, 5, 7), (0, 3, 4)]
        );
        assert_eq!((records.len(), batch.records[3], batch.weight), (6, (1, 5), 60));
        // One that is larger than the limits goes alone.
        assert_eq!(assemble(&mut chunks, 6, 1000).1.len(), 16);
    }

    #[tokio::test]
    async fn the_same_batch_is_read_again() {
        let bus = MemoryBus::new();
        bus.create("t", 1);
        for n in 0..3000 {
            bus.append(
                "t",
                0,
                OutMessage {
                    body: n.to_string().into(),
                    ..Default::default()
                },
            );
        }
        let run = Run {
            index: 0,
            from: 5,
            next: 2500,
            count: 2495,
        };
        let batch = Batch {
            runs: vec![run],
            records: vec![],
            weight: 0,
        };
        let again = fetch(Arc::new(bus.clone()), [bus.queue("t", 0)].into(), batch)
            .await
            .unwrap();
        assert_eq!(
            (again.len(), again[0].offset, again[2494].offset),
            (2495, 5, 2499)
        );
        assert_eq!(fetch_one(&bus, &bus.queue("t", 0), 7).await.unwrap().body, "7");
    }

    #[tokio::test]
    async fn what_the_bus_does_not_give_now_is_not_taken_for_gone() {
        let bus = MemoryBus::new();
        bus.create("t", 1);
        for _ in 0..5 {
            bus.append("t", 0, OutMessage::default());
        }
        let run = Run {
            index: 0,
            from: 0,
            next: 8,
            count: 8,
        };
        let batch = Batch {
            runs: vec![run],
            records: vec![],
            weight: 0,
        };
        let error = fetch(Arc::new(bus.clone()), [bus.queue("t", 0)].into(), batch)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), BusErrorKind::Unavailable, "{error}");
    }
}
