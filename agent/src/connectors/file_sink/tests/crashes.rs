use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::Arc,
};

use gantry_connector::{
    Env, PathPolicy, Sink, SinkPartition, SinkPlugin, SinkRecord,
    testkit::{SinkWorld, check_sink},
};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use super::{
    super::sink::FileSink,
    compliance::rendered,
    rig::{self, Patient},
    simulated::{SimDisk, Vices},
};

/// A machine that loses power; its files are in memory.
struct Machine {
    dir: TempDir,
    disk: SimDisk,
    rotate: bool,
}

impl Machine {
    fn new(seed: u64, vices: Vices, rotate: bool) -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            disk: SimDisk::new(seed, vices),
            rotate,
        }
    }

    fn path(&self, queue: &str) -> PathBuf {
        self.dir
            .path()
            .canonicalize()
            .unwrap()
            .join(format!("{queue}.log"))
    }
}

impl SinkWorld for Machine {
    fn plugin(&self) -> Arc<dyn SinkPlugin> {
        rig::plugin()
    }

    fn create(&self) -> Box<dyn Sink> {
        Box::new(Patient(Box::new(FileSink::new(self.disk.clone()))))
    }

    fn set_up(&mut self) -> (Map<String, Value>, Env) {
        self.disk.clear();
        let rotate_size = self.rotate.then_some("400B");
        let map = rig::map(json!({"path": self.path("{queue}"), "rotate_size": rotate_size}));
        (
            map,
            Env {
                paths: PathPolicy::new([self.dir.path().to_owned()]),
            },
        )
    }

    fn crash(&mut self) {
        self.disk.crash();
    }

    fn rendered(&self, record: &SinkRecord) -> Vec<u8> {
        rendered(record)
    }

    fn contents(&mut self, partition: &SinkPartition) -> Vec<u8> {
        self.disk.read(&self.path(&partition.queue))
    }

    fn exactly_once(&self) -> bool {
        true
    }
}

/// Runs the suite so often, and says how many crashes the file survived; none if something was missing or doubled.
fn survived(vices: Vices, rotate: bool, rounds: u64) -> Option<usize> {
    let each = |seed| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let mut machine = Machine::new(seed, vices, rotate);
        runtime.block_on(check_sink(&mut machine, seed * 1000));
        machine.disk.crashes()
    };
    catch_unwind(AssertUnwindSafe(|| (0..rounds).map(each).sum())).ok()
}

#[test]
fn after_hundreds_of_crashes_nothing_is_missing_or_doubled() {
    assert!(survived(Vices::default(), false, 3).is_some_and(|n| n > 200));
    assert!(survived(Vices::default(), true, 3).is_some_and(|n| n > 200));
}

#[test]
fn nor_when_the_disk_is_full_time_and_again() {
    let vices = Vices {
        fails: 6,
        ..Vices::default()
    };
    assert!(survived(vices, false, 3).is_some_and(|n| n > 200));
    assert!(survived(vices, true, 3).is_some_and(|n| n > 200));
}

#[test]
fn without_fdatasync_the_same_test_fails() {
    assert_eq!(
        survived(
            Vices {
                no_data_sync: true,
                ..Vices::default()
            },
            false,
            3
        ),
        None
    );
}

#[test]
fn without_fsync_of_the_directory_the_same_test_fails() {
    assert_eq!(
        survived(
            Vices {
                no_dir_sync: true,
                ..Vices::default()
            },
            true,
            3
        ),
        None
    );
}
