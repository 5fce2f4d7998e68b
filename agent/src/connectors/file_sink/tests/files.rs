use std::{fs, os::unix::fs::symlink, path::PathBuf, time::Duration};

use bytes::Bytes;
use gantry_connector::{Domain, Payload, Severity, Sink, SinkPartition, SinkPlugin, testkit::partitions};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    super::{super::eol, FileSinkPlugin, disk::RealDisk, sink::FileSink},
    rig::{context, map, record},
};

struct Rig {
    dir: TempDir,
    config: Value,
    partitions: Vec<SinkPartition>,
    sink: FileSink,
}

impl Rig {
    fn new(more: Value) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = json!({"path": dir.path().join("out.log")});
        config.as_object_mut().unwrap().extend(map(more));
        Self {
            dir,
            config,
            partitions: partitions(1),
            sink: FileSink::new(RealDisk),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    async fn try_open(&mut self) -> Result<(), gantry_connector::ConnectorError> {
        self.sink.close().await?;
        self.sink = FileSink::new(RealDisk);
        self.sink
            .open(context(self.dir.path(), self.config.clone(), &self.partitions))
            .await
    }

    async fn open(&mut self) {
        self.try_open().await.unwrap();
        self.commit().await;
    }

    async fn commit(&mut self) {
        for (i, state) in self.sink.flush().await.unwrap().states {
            self.partitions[i as usize].state = Some(state);
        }
    }

    async fn write(&mut self, lines: &[&str]) {
        let batch = lines
            .iter()
            .map(|l| record(0, Bytes::copy_from_slice(l.as_bytes())))
            .collect();
        self.sink.write(batch).await.unwrap();
    }
}

#[tokio::test]
async fn lines_end_as_they_did_where_they_came_from() {
    let mut rig = Rig::new(json!({}));
    rig.open().await;
    let mut last = record(0, "no newline");
    last.headers.push(eol::HEADER, eol::NONE);
    rig.sink
        .write(vec![record(0, "one\r"), record(0, ""), last])
        .await
        .unwrap();
    assert_eq!(rig.read("out.log"), "one\r\n\nno newline");
}

#[tokio::test]
async fn an_unfinished_line_is_continued_only_from_where_it_came() {
    let part = |text: &'static str, id: &str, unended: bool| {
        let mut record = record(0, text);
        record.headers.push("gantry-id", id);
        if unended {
            record.headers.push(eol::HEADER, eol::NONE);
        }
        record
    };
    let mut rig = Rig::new(json!({}));
    rig.open().await;
    rig.sink
        .write(vec![part("be", "u-a-2", true), part("gun", "u-a-6", false)])
        .await
        .unwrap();
    rig.sink.write(vec![part("cut", "u-a-9", true)]).await.unwrap();
    rig.commit().await;
    rig.open().await;
    rig.sink
        .write(vec![part("other", "u-b-5", false), part("end", "u-b-9", true)])
        .await
        .unwrap();
    assert_eq!(rig.read("out.log"), "begun\ncut\nother\nend");
}

#[tokio::test]
async fn what_was_there_is_kept_overwritten_or_refused() {
    for (choice, wanted) in [("append", "old\nnew\n"), ("overwrite", "new\n")] {
        let mut rig = Rig::new(json!({"on_existing": choice}));
        fs::write(rig.path("out.log"), "old\n").unwrap();
        rig.open().await;
        rig.write(&["lost"]).await;
        // The crash comes before the first commit of a record.
        rig.open().await;
        rig.write(&["new"]).await;
        rig.commit().await;
        rig.open().await;
        assert_eq!(rig.read("out.log"), wanted);
    }
    let mut rig = Rig::new(json!({"on_existing": "fail"}));
    fs::write(rig.path("out.log"), "old\n").unwrap();
    let e = rig.try_open().await.unwrap_err();
    assert_eq!(e.domain(), Domain::User);
    fs::write(rig.path("out.log"), "").unwrap();
    rig.open().await;
}

#[tokio::test]
async fn null_becomes_what_is_configured() {
    for (choice, wanted, rejected) in [
        ("empty", "a\n\nb\n", 0),
        ("skip", "a\nb\n", 0),
        ("reject", "a\nb\n", 1),
    ] {
        let mut rig = Rig::new(json!({"null_as": choice}));
        rig.open().await;
        let mut null = record(0, "");
        null.value = Payload::Null;
        let report = rig
            .sink
            .write(vec![record(0, "a"), null, record(0, "b")])
            .await
            .unwrap();
        assert_eq!(rig.read("out.log"), wanted);
        assert_eq!(report.rejected.len(), rejected);
        assert!(
            report
                .rejected
                .iter()
                .all(|(i, e)| *i == 1 && e.domain() == Domain::Record)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn files_are_rotated_by_time_and_go_on_counting() {
    let mut rig = Rig::new(json!({"rotate_interval": "1h"}));
    fs::write(rig.path("out.log.000007"), "from long ago\n").unwrap();
    rig.open().await;
    rig.write(&["1"]).await;
    tokio::time::advance(Duration::from_secs(3599)).await;
    rig.write(&["2"]).await;
    tokio::time::advance(Duration::from_secs(1)).await;
    rig.write(&["3"]).await;
    tokio::time::advance(Duration::from_secs(3600)).await;
    rig.commit().await;
    tokio::time::advance(Duration::from_secs(36000)).await;
    rig.commit().await;
    assert_eq!(rig.read("out.log.000008"), "1\n2\n");
    assert_eq!(rig.read("out.log.000009"), "3\n");
    assert_eq!(rig.read("out.log"), "");
}

#[tokio::test]
async fn a_line_larger_than_a_file_may_be_is_written_whole() {
    let mut rig = Rig::new(json!({"rotate_size": 10}));
    rig.open().await;
    rig.write(&["0123456789abcdef", "1", "2", "0123456"]).await;
    assert_eq!(rig.read("out.log.000001"), "0123456789abcdef\n");
    assert_eq!(rig.read("out.log.000002"), "1\n2\n");
    assert_eq!(rig.read("out.log"), "0123456\n");
}

#[tokio::test]
async fn several_queues_in_one_file_are_refused() {
    let mut rig = Rig::new(json!({}));
    rig.partitions = partitions(2);
    let e = rig.try_open().await.unwrap_err();
    assert_eq!(e.domain(), Domain::User);
    assert!(e.fix_text().unwrap().contains("{queue}"), "{e:?}");

    rig.config["path"] = json!(rig.path("{queue}.log"));
    rig.open().await;
    rig.partitions[1].topic = "payments".into();
    rig.partitions[1].queue = rig.partitions[0].queue.clone();
    let e = rig.try_open().await.unwrap_err();
    assert!(e.fix_text().unwrap().contains("{topic}"), "{e:?}");
}

#[tokio::test]
async fn a_file_that_somebody_removes_is_noticed_before_anything_counts_as_done() {
    let mut rig = Rig::new(json!({}));
    rig.open().await;
    rig.write(&["1"]).await;
    rig.commit().await;
    rig.write(&["2"]).await;
    fs::rename(rig.path("out.log"), rig.path("away")).unwrap();
    let e = rig.sink.flush().await.unwrap_err();
    assert_eq!(e.domain(), Domain::Environment);
    assert!(e.to_string().contains("out.log was removed"), "{e}");
    fs::write(rig.path("out.log"), "another").unwrap();
    rig.sink.flush().await.unwrap_err();
    fs::rename(rig.path("away"), rig.path("out.log")).unwrap();
    rig.commit().await;

    fs::remove_dir_all(rig.dir.path()).unwrap();
    assert_eq!(rig.sink.flush().await.unwrap_err().domain(), Domain::Environment);
    let e = rig.try_open().await.unwrap_err();
    assert_eq!(e.domain(), Domain::Environment, "{}", e.chain());
    fs::create_dir(rig.dir.path()).unwrap();
    let e = rig.try_open().await.unwrap_err();
    assert_eq!(e.domain(), Domain::User);
    assert!(
        e.to_string()
            .contains("out.log does not exist, but 4 bytes were written"),
        "{e}"
    );
    rig.config["on_missing"] = json!("continue");
    rig.open().await;
    rig.write(&["3"]).await;
    fs::remove_file(rig.path("out.log")).unwrap();
    assert_eq!(rig.sink.flush().await.unwrap_err().domain(), Domain::Task);
    assert_eq!(rig.sink.write(vec![]).await.unwrap_err().domain(), Domain::Task);
    rig.open().await;
    rig.write(&["3"]).await;
    rig.commit().await;
    assert_eq!(rig.read("out.log"), "3\n");
}

#[tokio::test]
async fn a_missing_directory_is_waited_for() {
    let mut rig = Rig::new(json!({}));
    rig.config["path"] = json!(rig.path("sub/out.log"));
    let e = rig.try_open().await.unwrap_err();
    assert_eq!(e.domain(), Domain::Environment);
    assert!(e.fix_text().unwrap().contains("sub, or correct path"), "{e:?}");
    fs::create_dir(rig.path("sub")).unwrap();
    rig.open().await;
}

#[tokio::test]
async fn nobody_else_may_write_to_the_file() {
    let mut rig = Rig::new(json!({}));
    rig.open().await;
    let mut second = FileSink::new(RealDisk);
    let e = second
        .open(context(rig.dir.path(), rig.config.clone(), &partitions(1)))
        .await
        .unwrap_err();
    assert_eq!(e.domain(), Domain::Environment);
    assert!(e.fix_text().unwrap().contains("another task"), "{e:?}");
    rig.sink.close().await.unwrap();
    second
        .open(context(rig.dir.path(), rig.config.clone(), &partitions(1)))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_write_that_fails_leaves_no_part_of_itself() {
    let mut rig = Rig::new(json!({"rotate_size": 8}));
    rig.open().await;
    rig.write(&["1"]).await;
    // The next number is taken by a directory: the rotation in the middle of the batch cannot be done.
    fs::create_dir(rig.path("out.log.000002")).unwrap();
    let batch = || (2..12).map(|i| record(0, i.to_string())).collect::<Vec<_>>();
    rig.sink.write(batch()).await.unwrap_err();
    fs::remove_dir(rig.path("out.log.000002")).unwrap();
    rig.sink.write(batch()).await.unwrap();
    rig.commit().await;
    let names = ["out.log.000001", "out.log.000002", "out.log"];
    let all: String = names.iter().map(|n| rig.read(n)).collect();
    assert_eq!(all, (1..12).map(|i| format!("{i}\n")).collect::<String>());
}

#[tokio::test]
async fn nothing_outside_of_the_allowed_roots_is_written() {
    let outside = tempfile::tempdir().unwrap();
    let mut rig = Rig::new(json!({}));
    symlink(outside.path().join("x"), rig.path("out.log")).unwrap();
    let e = rig.try_open().await.unwrap_err();
    assert_eq!(
        (e.domain(), outside.path().join("x").exists()),
        (Domain::User, false)
    );
    symlink(outside.path(), rig.path("sub")).unwrap();
    rig.config["path"] = json!(rig.path("sub/out.log"));
    let e = rig.try_open().await.unwrap_err();
    assert_eq!(
        (e.domain(), e.to_string().contains("outside")),
        (Domain::User, true)
    );
}

#[tokio::test]
async fn validation_tells_what_will_fail() {
    let rig = Rig::new(json!({}));
    let findings = async |path: &str| {
        let c = context(rig.dir.path(), json!({"path": path}), &partitions(1));
        let found = FileSinkPlugin.validate(&c.config, &c.env).await;
        found.into_iter().map(|f| f.severity).collect::<Vec<_>>()
    };
    let at = |name: &str| rig.path(name).display().to_string();
    assert_eq!(findings(&at("a.log")).await, []);
    assert_eq!(findings(&at("{topic}/{queue}")).await, []);
    assert_eq!(findings(&at("missing/a.log")).await, [Severity::Warning]);
    assert_eq!(findings(&at("{date}.log")).await, [Severity::Error]);
    assert_eq!(findings("/etc/a.log").await, [Severity::Error]);
}
