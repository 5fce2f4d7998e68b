use std::{collections::BTreeSet, fs, io, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use gantry_connector::{
    ConnectorError, Fields, Headers, Payload, Polled, Source, SourceContext, SourceRecord,
};

use super::{config, position};

const IDLE: Duration = Duration::from_millis(50);

/// Reads and deletes. See [`super::DestructiveSourcePlugin`].
#[derive(Default)]
pub(super) struct DestructiveSource {
    directory: PathBuf,
    partition: Arc<Fields>,
    next: u64,
}

#[async_trait]
impl Source for DestructiveSource {
    async fn open(&mut self, context: SourceContext) -> Result<(), ConnectorError> {
        let directory = config::directory(&context.config)?;
        let partition = position::partition(&directory);
        for start in &context.positions {
            self.next = position::read(&partition, start)?;
        }
        self.directory = context.env.paths.resolve(&directory)?;
        self.partition = Arc::new(partition);
        Ok(())
    }

    async fn poll(&mut self, max_bytes: usize) -> Result<Polled, ConnectorError> {
        let mut polled = Polled::default();
        let mut bytes = 0;
        let first = self.numbers()?;
        for number in complete(&first, self.numbers()?).range(self.next..) {
            if bytes >= max_bytes {
                break;
            }
            let value = fs::read(self.path(*number)).map_err(|e| self.failed("read", e))?;
            bytes += value.len() + 1;
            polled.records.push(SourceRecord {
                partition: self.partition.clone(),
                position: position::position(number + 1),
                key: None,
                tag: None,
                value: Payload::Bytes(value.into()),
                headers: Headers::new(),
                timestamp_ms: None,
            });
        }
        self.next = polled
            .records
            .last()
            .and_then(|r| position::next(&r.position))
            .unwrap_or(self.next);
        polled.idle_for = polled.records.is_empty().then_some(IDLE);
        Ok(polled)
    }

    async fn committed(&mut self, positions: &[(Arc<Fields>, Fields)]) -> Result<(), ConnectorError> {
        for next in positions.iter().filter_map(|(_, p)| position::next(p)) {
            for number in self.numbers()?.range(..next) {
                fs::remove_file(self.path(*number)).map_err(|e| self.failed("delete", e))?;
            }
        }
        Ok(())
    }
}

impl DestructiveSource {
    fn path(&self, number: u64) -> PathBuf {
        self.directory.join(number.to_string())
    }

    fn numbers(&self) -> Result<BTreeSet<u64>, ConnectorError> {
        let entries = fs::read_dir(&self.directory).map_err(|e| self.failed("list", e))?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        Ok(names
            .filter_map(|name| name.parse().ok().filter(|n: &u64| n.to_string() == name))
            .collect())
    }

    fn failed(&self, doing: &str, e: io::Error) -> ConnectorError {
        ConnectorError::environment(format!("cannot {doing} files in {}", self.directory.display()))
            .because(e)
    }
}

/// What is surely there of a directory in which files appear in the order of their numbers. One that appears while the
/// directory is listed may be left out although a later one is not; a listing that begins after another has ended has all
/// that the other has seen, and all before these.
fn complete(first: &BTreeSet<u64>, mut second: BTreeSet<u64>) -> BTreeSet<u64> {
    match first.last() {
        None => BTreeSet::new(),
        Some(last) => {
            second.split_off(&last.saturating_add(1));
            second
        }
    }
}

#[cfg(test)]
mod tests {
    use super::complete;

    #[test]
    fn what_appears_while_it_is_listed_waits_for_the_next_time() {
        // 5 and 7 appeared during the first listing, which missed 5; 9 during the second, which missed 8.
        let found = complete(&[3, 4, 7].into(), [3, 4, 5, 7, 9].into());
        assert_eq!(found, [3, 4, 5, 7].into());
        assert!(complete(&[].into(), [1].into()).is_empty());
    }
}
