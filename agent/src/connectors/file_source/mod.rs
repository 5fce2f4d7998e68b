//! file-source: lines of files, from the exact byte where it was left, through rotation and truncation.

mod batch;
mod claims;
mod config;
mod decide;
mod discover;
mod lines;
mod offsets;
mod open_file;
mod opening;
mod overtaken;
mod position;
mod reader;
mod source;
#[cfg(test)]
mod tests;
mod trouble;
mod validate;

use async_trait::async_trait;
use gantry_connector::{
    Capabilities, Config, ConnectorError, Env, Fields, Finding, Kind, Lag, Locality, PluginInfo, Source,
    SourcePlugin, Start, StartPosition,
};

use self::{config::Settings, discover::Patterns, source::FileSource};

const DESCRIPTION: &str = "\
Reads files line by line and sends each line as a record, without its newline and otherwise byte by byte: nothing is \
decoded, and a carriage return stays. Files may grow, be rotated (by renaming or by copying and truncating) and be \
compressed with gzip; new files that match are found.

A position is the number of bytes read (byte, of the decompressed content) and which file they are of (file: inode, length \
and hash of its first 1024 bytes, and the files that were under the path before). A file is continued at the exact \
byte; another file under the same path is read from its beginning after the rest of the earlier one, also if the earlier one \
was renamed and compressed meanwhile. Files that had the path for so short a time, or while nobody read, that they were \
renamed unread are read in between, the oldest first, if they have its whole name and a number or date after it, as in \
app.log.1 or app.log-20261121.gz; others that may have had it are reported as a gap. Bytes that were cut off before they \
could be read are reported as a gap too.

A last line without newline is sent after idle_flush, when its file is left, and at the end of a read that does not \
follow. It has the header gantry-eol=none, by which file-sink restores the file byte by byte; what follows it later is a \
record of its own.

Files are divided among the tasks by a hash of their path. The order within a file is kept if all its lines go to \
one queue (key: path).";

/// The plugin `file-source`.
pub(super) struct FileSourcePlugin;

#[async_trait]
impl SourcePlugin for FileSourcePlugin {
    fn info(&self) -> PluginInfo {
        PluginInfo {
            name: "file-source",
            version: env!("CARGO_PKG_VERSION"),
            kind: Kind::Source,
            summary: "Lines of files that may grow, rotate and be compressed",
            description: DESCRIPTION,
            spec: config::spec(),
            capabilities: Capabilities {
                exclusive: false,
                locality: Locality::Host,
            },
        }
    }

    async fn validate(&self, config: &Config, env: &Env) -> Vec<Finding> {
        validate::validate(config, env)
    }

    async fn plan_tasks(
        &self,
        config: &Config,
        tasks_max: u32,
        _: &Env,
    ) -> Result<Vec<Config>, ConnectorError> {
        let settings = Settings::read(config)?;
        let patterns = Patterns::new(&settings.paths, &settings.exclude)?;
        let files = u32::try_from(patterns.literal().count()).unwrap_or(u32::MAX);
        let tasks = if patterns.is_open() {
            tasks_max
        } else {
            tasks_max.min(files)
        };
        Ok(vec![config.clone(); tasks.max(1) as usize])
    }

    async fn start_at(
        &self,
        config: &Config,
        partition: &Fields,
        start: &Start,
        env: &Env,
    ) -> Result<StartPosition, ConnectorError> {
        offsets::start_at(config, partition, start, env)
    }

    async fn lag(
        &self,
        config: &Config,
        position: &StartPosition,
        env: &Env,
    ) -> Result<Option<Lag>, ConnectorError> {
        offsets::lag(config, position, env)
    }

    fn create(&self) -> Box<dyn Source> {
        Box::new(FileSource::default())
    }
}
