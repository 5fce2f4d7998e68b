use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use gantry_connector::{
    ConnectorError, Fields, Headers, Payload, Polled, Source, SourceContext, SourceRecord,
};

use super::Stubborn;

const IDLE: Duration = Duration::from_millis(100);

/// Sends numbered records. See [`super::StubbornSourcePlugin`].
#[derive(Default)]
pub(super) struct StubbornSource {
    stubborn: Stubborn,
    next: u64,
    end: u64,
}

#[async_trait]
impl Source for StubbornSource {
    async fn open(&mut self, context: SourceContext) -> Result<(), ConnectorError> {
        self.stubborn = Stubborn::read(&context.config)?;
        self.end = context.config.uint("records")?;
        if let Some(start) = context.positions.first() {
            self.next = next(&start.position)?;
        }
        self.stubborn.reaches("open").await
    }

    async fn poll(&mut self, _: usize) -> Result<Polled, ConnectorError> {
        if self.next >= self.end {
            self.stubborn.reaches("poll").await?;
            return Ok(Polled {
                idle_for: Some(IDLE),
                ..Polled::default()
            });
        }
        let partition = Arc::new(partition());
        let record = |number: u64| SourceRecord {
            partition: partition.clone(),
            position: position(number + 1),
            key: None,
            tag: None,
            value: Payload::Bytes(number.to_string().into()),
            headers: Headers::new(),
            timestamp_ms: None,
        };
        let records = (self.next..self.end).map(record).collect();
        self.next = self.end;
        Ok(Polled {
            records,
            ..Polled::default()
        })
    }

    async fn committed(&mut self, _: &[(Arc<Fields>, Fields)]) -> Result<(), ConnectorError> {
        self.stubborn.reaches("committed").await
    }

    async fn close(&mut self) -> Result<(), ConnectorError> {
        self.stubborn.reaches("close").await
    }
}

/// All that there is to read.
pub(super) fn partition() -> Fields {
    Fields::new().with("of", "numbers")
}

pub(super) fn position(next: u64) -> Fields {
    Fields::new().with("number", next)
}

/// The number that a position stands for.
pub(super) fn next(position: &Fields) -> Result<u64, ConnectorError> {
    position.uint("number").ok_or_else(|| {
        ConnectorError::user(format!("{position} is no position of stubborn-source")).fix("give number=N")
    })
}
