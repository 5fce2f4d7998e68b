use std::{path::PathBuf, time::Duration};

use gantry_connector::{Config, ConfigSpec, ConnectorError, Param, Rule};

/// The parameters.
pub(super) fn spec() -> ConfigSpec {
    ConfigSpec::new()
        .param(
            Param::path_list("paths")
                .doc("Files to read: absolute paths, or patterns with * ? [ab] and ** for any directories (below it, links to directories are not followed). Files that begin to match later are found.")
                .required()
                .min(1)
                .example("[\"/var/log/orders/*.log\"]"),
        )
        .param(
            Param::path_list("exclude")
                .doc("Patterns of files that are not read although they match paths, such as files of the past that were compressed.")
                .example("[\"/var/log/orders/*.gz\"]"),
        )
        .param(
            Param::one_of("start", ["beginning", "end"])
                .doc("Where files are read from that exist when the connector first starts. Files that come later are always read from their beginning.")
                .default("beginning"),
        )
        .param(
            Param::bool("follow")
                .doc("Wait for more at the end of a file. If false, the files that exist are read once to their end.")
                .default(true),
        )
        .param(
            Param::one_of("key", ["none", "path"])
                .doc("Key of the records. With path, all lines of a file go to one queue and keep their order.")
                .default("none"),
        )
        .param(
            Param::one_of("compression", ["auto", "none", "gzip"])
                .doc("auto: a file that begins like gzip is decompressed.")
                .default("auto"),
        )
        .param(
            Param::size("max_line_bytes")
                .doc("A longer line is dropped, counted and reported as a gap; it is held in memory up to this size.")
                .min(1)
                .max(1 << 30)
                .default("64MiB"),
        )
        .param(
            Param::duration("idle_flush")
                .doc("A last line without newline is sent after the file has not grown for so long. What follows it later is a record of its own.")
                .default("5s"),
        )
        .param(
            Param::duration("poll_interval")
                .doc("How often files that were read to their end are looked at. The longer none of a task's files has grown the less often, down to every 2 s.")
                .min(1)
                .default("200ms"),
        )
        .param(
            Param::duration("scan_interval")
                .doc("How often new files are looked for.")
                .min(1)
                .default("1s"),
        )
        .param(
            Param::duration("rotate_wait")
                .doc("When another file has taken the path, the old one must not have grown for so long before it is left.")
                .default("1s"),
        )
        .param(
            Param::bool("shared_storage")
                .doc("The paths lead to the same files on every agent, so that tasks may move between hosts.")
                .default(false),
        )
        .rule(Rule::only_when("start", "follow", true))
        .rule(Rule::only_when("idle_flush", "follow", true))
        .rule(Rule::only_when("poll_interval", "follow", true))
        .rule(Rule::only_when("scan_interval", "follow", true))
        .rule(Rule::only_when("rotate_wait", "follow", true))
}

/// The parameters of a task.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) paths: Vec<PathBuf>,
    pub(super) exclude: Vec<PathBuf>,
    pub(super) from_end: bool,
    pub(super) follow: bool,
    pub(super) key_is_path: bool,
    pub(super) compression: Compression,
    pub(super) max_line: usize,
    pub(super) idle_flush: Duration,
    pub(super) poll_interval: Duration,
    pub(super) scan_interval: Duration,
    pub(super) rotate_wait: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    Auto,
    None,
    Gzip,
}

impl Settings {
    pub(super) fn read(config: &Config) -> Result<Self, ConnectorError> {
        Ok(Self {
            paths: config.paths("paths")?,
            exclude: config.opt_paths("exclude")?.unwrap_or_default(),
            from_end: config.str("start")? == "end",
            follow: config.bool("follow")?,
            key_is_path: config.str("key")? == "path",
            compression: match config.str("compression")? {
                "none" => Compression::None,
                "gzip" => Compression::Gzip,
                _ => Compression::Auto,
            },
            max_line: usize::try_from(config.size("max_line_bytes")?).unwrap_or(usize::MAX),
            idle_flush: config.duration("idle_flush")?,
            poll_interval: config.duration("poll_interval")?,
            scan_interval: config.duration("scan_interval")?,
            rotate_wait: config.duration("rotate_wait")?,
        })
    }
}
