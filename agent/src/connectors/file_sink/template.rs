//! `{topic}` and `{queue}` in a path.

use std::path::{Path, PathBuf};

use gantry_connector::{ConnectorError, SinkPartition};

const NAMES: [&str; 2] = ["topic", "queue"];

/// Checks the path as it is configured; `partitions` is how many queues the connector reads, if that is known.
pub(super) fn check(path: &Path, partitions: Option<u32>) -> Result<(), ConnectorError> {
    let text = path.to_string_lossy();
    for name in placeholders(&text) {
        if !NAMES.contains(&name) {
            return Err(ConnectorError::user(format!("path {text} contains {{{name}}}"))
                .fix("use {topic} and {queue}; nothing else stands for a name"));
        }
    }
    if text.ends_with('/') || path.file_name().is_none() {
        return Err(ConnectorError::user(format!("path {text} is a directory"))
            .fix("name a file in it, for example {topic}-{queue}.log"));
    }
    if partitions.is_some_and(|n| n > 1) && !placeholders(&text).any(|name| name == "queue") {
        return Err(ConnectorError::user(format!(
            "path {text} names one file, but the connector reads {} queues",
            partitions.unwrap_or(0)
        ))
        .fix("add {queue} to the path, so that each queue has a file of its own"));
    }
    Ok(())
}

/// The file of a queue.
pub(super) fn render(path: &Path, partition: &SinkPartition) -> Result<PathBuf, ConnectorError> {
    for name in [&partition.topic, &partition.queue] {
        if name.is_empty() || name.contains(['/', '\0']) || matches!(&**name, "." | "..") {
            return Err(
                ConnectorError::user(format!("{name:?} cannot be part of a file name"))
                    .fix("write a path without {topic} and {queue}, one connector for each queue"),
            );
        }
    }
    let text = path
        .to_string_lossy()
        .replace("{topic}", &partition.topic)
        .replace("{queue}", &partition.queue);
    Ok(text.into())
}

/// The directory that must exist; those below it, whose names depend on the queue, are created.
pub(super) fn base(path: &Path) -> PathBuf {
    let parent = path.parent().unwrap_or(path);
    parent
        .components()
        .take_while(|c| placeholders(&c.as_os_str().to_string_lossy()).next().is_none())
        .collect()
}

fn placeholders(text: &str) -> impl Iterator<Item = &str> {
    text.split('{')
        .skip(1)
        .filter_map(|rest| rest.split_once('}'))
        .map(|(name, _)| name)
}

#[cfg(test)]
mod tests {
    use gantry_connector::testkit::partitions;

    use super::*;

    fn checked(path: &str, n: u32) -> Result<(), String> {
        check(Path::new(path), Some(n)).map_err(|e| e.to_string())
    }

    #[test]
    fn several_queues_need_several_files() {
        assert_eq!(checked("/out/a.log", 1), Ok(()));
        assert_eq!(checked("/out/{queue}.log", 2), Ok(()));
        assert_eq!(
            checked("/out/{topic}.log", 2),
            Err("path /out/{topic}.log names one file, but the connector reads 2 queues".into())
        );
        assert!(check(Path::new("/out/a.log"), None).is_ok());
    }

    #[test]
    fn only_known_names_stand_for_something() {
        assert_eq!(
            checked("/out/{date}.log", 1),
            Err("path /out/{date}.log contains {date}".into())
        );
        assert_eq!(checked("/out/{.log", 1), Ok(()));
        assert!(checked("/out/", 1).is_err());
    }

    #[test]
    fn names_are_filled_in() {
        let p = &partitions(2)[1];
        let file = |path| render(Path::new(path), p).unwrap();
        assert_eq!(
            file("/out/{topic}/{queue}.log"),
            Path::new("/out/orders/broker-a-1.log")
        );
        assert_eq!(base(Path::new("/out/{topic}/x/{queue}.log")), Path::new("/out"));
        assert_eq!(base(Path::new("/out/x/{queue}.log")), Path::new("/out/x"));
        let evil = SinkPartition {
            topic: "../etc".into(),
            ..p.clone()
        };
        assert!(render(Path::new("/out/{topic}"), &evil).is_err());
    }
}
