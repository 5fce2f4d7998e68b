use std::{fs, io::Write, path::Path, sync::Arc};

use flate2::{Compression, write::GzEncoder};
use gantry_connector::{
    Env, SourcePlugin,
    testkit::{SourceWorld, check_source},
};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use super::rig;

/// A few files of every sort.
struct World {
    dir: TempDir,
    follow: bool,
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn fill(dir: &Path) {
    let write = |name: &str, bytes: &[u8]| fs::write(dir.join(name), bytes).unwrap();
    write("plain.log", "one\ntwo\n\nzwölf\r\n日本語\nlast\n".as_bytes());
    write("empty.log", b"");
    write("binary.log", b"\xff\xfe\n\0\n\xc3");
    write("unfinished.log", b"a\nno newline");
    write("one.log", b"\n");
    let long = (0..300)
        .map(|i| format!("line {i} {}\n", "x".repeat(i * 7 % 500)))
        .collect::<String>();
    write("long.log", long.as_bytes());
    let members = [
        gzip(b"first\nsec"),
        gzip(b"ond\n"),
        gzip(b""),
        gzip("dritte Zeile é\nend".as_bytes()),
    ];
    write("members.log.gz", &members.concat());
}

impl SourceWorld for World {
    fn plugin(&self) -> Arc<dyn SourcePlugin> {
        rig::arc_plugin()
    }

    fn set_up(&mut self) -> (Map<String, Value>, Env) {
        // Reading changes nothing, and positions name inodes: the files stay the same.
        let pattern = self.dir.path().join("*");
        let Value::Object(map) = json!({"paths": [pattern], "follow": self.follow}) else {
            unreachable!()
        };
        (map, rig::env(self.dir.path()))
    }

    fn records(&self) -> usize {
        6 + 3 + 2 + 1 + 300 + 4
    }
}

fn world(follow: bool) -> World {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    World { dir, follow }
}

#[tokio::test(start_paused = true)]
async fn a_following_task_keeps_the_contract() {
    check_source(&mut world(true), 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_task_that_reads_once_keeps_the_contract() {
    check_source(&mut world(false), 2).await;
}
