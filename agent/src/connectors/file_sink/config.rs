use std::{path::PathBuf, time::Duration};

use gantry_connector::{Config, ConfigSpec, ConnectorError, Param};

/// The parameters.
pub(super) fn spec() -> ConfigSpec {
    ConfigSpec::new()
        .param(
            Param::path("path")
                .doc("File to write. {topic} and {queue} stand for the names of the queue whose records it takes; each queue has a file of its own.")
                .required()
                .example("/var/lib/orders/{topic}-{queue}.log"),
        )
        .param(
            Param::one_of("on_existing", ["append", "overwrite", "fail"])
                .doc("What to do with a file that is there when the connector writes to its path for the first time.")
                .default("append"),
        )
        .param(
            Param::one_of("on_missing", ["fail", "continue"])
                .doc("What to do when a file that was written has been removed or cut off by somebody else. continue: go on with what is left, in a new file if nothing is.")
                .default("fail"),
        )
        .param(
            Param::one_of("null_as", ["empty", "skip", "reject"])
                .doc("What a record without value becomes: an empty line, nothing, or an error of the record.")
                .default("empty"),
        )
        .param(
            Param::size("rotate_size")
                .doc("Before the file would grow beyond it, it is renamed to path.000001 (.000002, ...) and a new one is begun.")
                .min(1)
                .example("1GiB"),
        )
        .param(
            Param::duration("rotate_interval")
                .doc("A file that has been written to for so long is renamed likewise, when the next record or flush comes.")
                .min(1)
                .example("1h"),
        )
        .param(
            Param::bool("shared_storage")
                .doc("The path leads to the same files on every agent, so that tasks may move between hosts.")
                .default(false),
        )
}

/// The parameters of a task.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) path: PathBuf,
    pub(super) on_existing: OnExisting,
    pub(super) continue_if_missing: bool,
    pub(super) null_as: NullAs,
    pub(super) rotate_size: Option<u64>,
    pub(super) rotate_interval: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnExisting {
    Append,
    Overwrite,
    Fail,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NullAs {
    Empty,
    Skip,
    Reject,
}

impl Settings {
    pub(super) fn read(config: &Config) -> Result<Self, ConnectorError> {
        Ok(Self {
            path: config.path("path")?,
            on_existing: match config.str("on_existing")? {
                "overwrite" => OnExisting::Overwrite,
                "fail" => OnExisting::Fail,
                _ => OnExisting::Append,
            },
            continue_if_missing: config.str("on_missing")? == "continue",
            null_as: match config.str("null_as")? {
                "skip" => NullAs::Skip,
                "reject" => NullAs::Reject,
                _ => NullAs::Empty,
            },
            rotate_size: config.opt_size("rotate_size")?,
            rotate_interval: config.opt_duration("rotate_interval")?,
        })
    }
}
