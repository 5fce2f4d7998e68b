//! file-sink: each record a line, each queue a file, every record once.

mod config;
mod disk;
mod errors;
mod output;
mod sink;
mod state;
mod template;
#[cfg(test)]
mod tests;

use async_trait::async_trait;
use gantry_connector::{
    Capabilities, Config, ConnectorError, Env, Finding, Kind, Locality, PluginInfo, Severity, Sink,
    SinkPlugin,
};

use self::{config::Settings, disk::RealDisk, sink::FileSink};

const DESCRIPTION: &str = "\
Writes each record as a line: its bytes and a newline, or no newline if the record says so (header gantry-eol=none, as file-source \
sends it), so that a file that was read by file-source is restored byte by byte. Each queue has a file of its own.

The length of the file is committed together with the position in the queue, after fdatasync. After a crash the file \
is cut back to the committed length and the records after it are written again: each record is there exactly \
once. For this the files belong to the connector: nobody else may write to them. Files that were renamed (rotated) after the last \
commit are taken back as well.

A file is rotated by size and by time to path.000001, path.000002 and so on; path itself is always the newest.

When the disk is full, the directory is missing or rights are missing, writing waits and goes on by itself. A \
failed fdatasync restarts the task, because nobody knows then what is durable.";

/// The plugin `file-sink`.
pub(super) struct FileSinkPlugin;

#[async_trait]
impl SinkPlugin for FileSinkPlugin {
    fn info(&self) -> PluginInfo {
        PluginInfo {
            name: "file-sink",
            version: env!("CARGO_PKG_VERSION"),
            kind: Kind::Sink,
            summary: "Lines in one file for each queue, exactly once",
            description: DESCRIPTION,
            spec: config::spec(),
            capabilities: Capabilities {
                exclusive: true,
                locality: Locality::Host,
            },
        }
    }

    async fn validate(&self, config: &Config, env: &Env) -> Vec<Finding> {
        let checked = Settings::read(config).and_then(|settings| look(&settings, env));
        checked.err().into_iter().map(finding).collect()
    }

    fn create(&self) -> Box<dyn Sink> {
        Box::new(FileSink::new(RealDisk))
    }
}

fn look(settings: &Settings, env: &Env) -> Result<(), ConnectorError> {
    template::check(&settings.path, None)?;
    let base = env.paths.resolve(&template::base(&settings.path))?;
    let meta = std::fs::metadata(&base).map_err(|e| errors::io("look at", &base.join("file"), e))?;
    if !meta.is_dir() {
        return Err(
            ConnectorError::user(format!("{} is not a directory", base.display())).fix("correct path"),
        );
    }
    if meta.permissions().readonly() {
        let denied = std::io::ErrorKind::PermissionDenied.into();
        return Err(errors::io("write into", &base, denied));
    }
    Ok(())
}

/// A directory that is missing may be created before the task starts; nothing else heals by itself.
fn finding(e: ConnectorError) -> Finding {
    let severity = if e.domain() == gantry_connector::Domain::Environment {
        Severity::Warning
    } else {
        Severity::Error
    };
    Finding {
        severity,
        param: "path".into(),
        message: e.chain(),
        fix: e.fix_text().unwrap_or_default().into(),
    }
}
