use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use gantry_connector::{
    ConnectorError, Fields, Headers, Payload, Polled, Source, SourceContext, SourceRecord,
};
use tokio::time::Instant;

use super::{config::Settings, content::Content, position};

/// Records at once, at most.
const BATCH: u64 = 10_000;
/// A record's share of the budget beside its bytes.
const RECORD_WEIGHT: usize = 64;

/// Makes records. See [`super::GeneratorSourcePlugin`].
#[derive(Default)]
pub(super) struct GeneratorSource {
    task: Option<Task>,
}

struct Task {
    content: Content,
    size: usize,
    sequences: Vec<Sequence>,
    /// Whose turn it is.
    turn: usize,
    pace: Option<Pace>,
}

struct Sequence {
    number: u32,
    partition: Arc<Fields>,
    next: u64,
    end: u64,
}

/// How many records may be made, at so many per second.
struct Pace {
    rate: f64,
    since: Instant,
    made: u64,
}

#[async_trait]
impl Source for GeneratorSource {
    async fn open(&mut self, context: SourceContext) -> Result<(), ConnectorError> {
        self.task = Some(Task::open(&context)?);
        Ok(())
    }

    async fn poll(&mut self, max_bytes: usize) -> Result<Polled, ConnectorError> {
        let task = self
            .task
            .as_mut()
            .ok_or_else(|| ConnectorError::task("generator-source is not open"))?;
        Ok(task.poll(max_bytes, Instant::now()))
    }

    async fn close(&mut self) -> Result<(), ConnectorError> {
        self.task = None;
        Ok(())
    }
}

impl Task {
    fn open(context: &SourceContext) -> Result<Self, ConnectorError> {
        let settings = Settings::read(&context.config)?;
        let mine = (0..settings.partitions).filter(|p| p % context.tasks.max(1) == context.task);
        let mut sequences: Vec<_> = mine
            .map(|number| Sequence {
                number,
                partition: Arc::new(position::partition(number)),
                next: 0,
                end: settings.count_of(number),
            })
            .collect();
        for start in &context.positions {
            let (number, next) = position::read(&start.partition, &start.position)?;
            if let Some(sequence) = sequences.iter_mut().find(|s| s.number == number) {
                sequence.next = next;
            }
        }
        let share = sequences.len() as f64 / f64::from(settings.partitions);
        let rate = settings.rate * share;
        let pace = (rate > 0.0).then(|| Pace {
            rate,
            since: Instant::now(),
            made: 0,
        });
        let content = Content::new(settings.seed, settings.size, settings.keys);
        Ok(Self {
            content,
            size: settings.size,
            sequences,
            turn: 0,
            pace,
        })
    }

    fn poll(&mut self, max_bytes: usize, now: Instant) -> Polled {
        let room = (max_bytes / (self.size + RECORD_WEIGHT)).max(1) as u64;
        let allowed = self.pace.as_mut().map_or(u64::MAX, |p| p.allowed(now));
        if self.sequences.iter().all(|s| s.next >= s.end) {
            return Polled {
                end: true,
                ..Polled::default()
            };
        }
        if allowed == 0 {
            let idle_for = self.pace.as_ref().map(|p| p.next_in(now));
            return Polled {
                idle_for,
                ..Polled::default()
            };
        }
        let turns = self.sequences.len();
        let order = (0..turns).map(|i| (self.turn + i) % turns);
        let turn = order
            .into_iter()
            .find(|i| self.sequences[*i].next < self.sequences[*i].end)
            .unwrap_or(0);
        self.turn = turn + 1;
        let s = &mut self.sequences[turn];
        let n = room.min(allowed).min(BATCH).min(s.end - s.next);
        let values = self.content.values(s.number, s.next..s.next + n);
        let records = (s.next..).zip(values).map(|(sequence, value)| SourceRecord {
            partition: s.partition.clone(),
            position: position::position(sequence + 1),
            key: self.content.key(s.number, sequence),
            tag: None,
            value: Payload::Bytes(value),
            headers: Headers::new(),
            timestamp_ms: None,
        });
        let records = records.collect();
        s.next += n;
        if let Some(pace) = &mut self.pace {
            pace.made += n;
        }
        Polled {
            records,
            ..Polled::default()
        }
    }
}

impl Pace {
    /// What was not made for more than a second is not made up for.
    fn allowed(&mut self, now: Instant) -> u64 {
        let due = (now - self.since).as_secs_f64() * self.rate + 1.0;
        let behind = due - self.made as f64;
        if behind > self.rate + 1.0 {
            self.since = now - Duration::from_secs(1);
            self.made = 0;
            return (self.rate as u64).max(1);
        }
        behind.max(0.0) as u64
    }

    fn next_in(&self, now: Instant) -> Duration {
        let due = Duration::from_secs_f64((self.made as f64 / self.rate).min(1e9));
        (self.since + due)
            .saturating_duration_since(now)
            .max(Duration::from_millis(1))
    }
}
