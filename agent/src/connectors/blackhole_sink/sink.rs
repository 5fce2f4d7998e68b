use async_trait::async_trait;
use gantry_connector::{ConnectorError, Flushed, Sink, SinkContext, SinkRecord, WriteReport};

use super::config::Settings;

/// Throws records away. See [`super::BlackholeSinkPlugin`].
#[derive(Default)]
pub(super) struct BlackholeSink {
    settings: Settings,
    tries: u64,
    records: u64,
    bytes: u64,
}

#[async_trait]
impl Sink for BlackholeSink {
    async fn open(&mut self, context: SinkContext) -> Result<(), ConnectorError> {
        self.settings = Settings::read(&context.config)?;
        Ok(())
    }

    async fn write(&mut self, batch: Vec<SinkRecord>) -> Result<WriteReport, ConnectorError> {
        if !self.settings.delay.is_zero() {
            tokio::time::sleep(self.settings.delay).await;
        }
        self.tries += 1;
        if self.settings.fail_every > 0 && self.tries.is_multiple_of(self.settings.fail_every + 1) {
            return Err(
                ConnectorError::environment("the black hole is closed, as fail_every asks")
                    .fix("set fail_every to 0"),
            );
        }
        let rejects =
            |offset: u64| self.settings.reject_every > 0 && offset.is_multiple_of(self.settings.reject_every);
        let mut report = WriteReport::default();
        for (i, record) in batch.iter().enumerate() {
            if rejects(record.offset) {
                let e = ConnectorError::record(format!(
                    "offset {} is rejected, as reject_every asks",
                    record.offset
                ))
                .fix("set reject_every to 0");
                report.rejected.push((i, e));
            } else {
                self.records += 1;
                self.bytes += record.value.weight() as u64;
            }
        }
        Ok(report)
    }

    async fn flush(&mut self) -> Result<Flushed, ConnectorError> {
        Ok(Flushed::default())
    }

    async fn close(&mut self) -> Result<(), ConnectorError> {
        tracing::info!(records = self.records, bytes = self.bytes, "thrown away");
        Ok(())
    }
}
