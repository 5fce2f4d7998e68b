use async_trait::async_trait;
use gantry_connector::{ConnectorError, Flushed, Sink, SinkContext, SinkRecord, WriteReport};

use super::Stubborn;

/// Counts records. See [`super::StubbornSinkPlugin`].
#[derive(Default)]
pub(super) struct StubbornSink {
    stubborn: Stubborn,
    records: u64,
}

#[async_trait]
impl Sink for StubbornSink {
    async fn open(&mut self, context: SinkContext) -> Result<(), ConnectorError> {
        self.stubborn = Stubborn::read(&context.config)?;
        self.stubborn.reaches("open").await
    }

    async fn write(&mut self, batch: Vec<SinkRecord>) -> Result<WriteReport, ConnectorError> {
        self.stubborn.reaches("write").await?;
        self.records += batch.len() as u64;
        Ok(WriteReport::default())
    }

    async fn flush(&mut self) -> Result<Flushed, ConnectorError> {
        self.stubborn.reaches("flush").await?;
        Ok(Flushed::default())
    }

    async fn close(&mut self) -> Result<(), ConnectorError> {
        tracing::info!(records = self.records, "counted");
        self.stubborn.reaches("close").await
    }
}
