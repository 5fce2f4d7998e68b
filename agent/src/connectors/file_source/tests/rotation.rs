use std::{fs, io::Write as _, time::Duration};

use flate2::{Compression, write::GzEncoder};

use super::rig::{Rig, config, written};

const BANNER: &str = "=====================================================\n";

#[tokio::test(start_paused = true)]
async fn after_a_rename_the_old_file_is_read_to_its_end_first() {
    let mut rig = Rig::new(config(&["a.log"]));
    rig.append("a.log", "1\n");
    rig.open().await;
    rig.settle().await;
    rig.append("a.log", "2\n");
    rig.rename("a.log", "a.log.1");
    rig.append("a.log", "4\n");
    rig.append("a.log.1", "3");
    rig.settle().await;
    assert_eq!(written(&rig.records), b"1\n2\n34\n");
    assert_eq!(rig.take(), ["1", "2", "3", "4"]);
}

#[tokio::test(start_paused = true)]
async fn a_writer_may_be_late_to_go_over_to_the_new_file() {
    let mut rig = Rig::new(config(&["a.log"]));
    rig.append("a.log", "1\n");
    rig.open().await;
    rig.settle().await;
    rig.rename("a.log", "a.log.1");
    rig.append("a.log", "3\n");
    rig.run(Duration::from_millis(700)).await;
    rig.append("a.log.1", "2\n");
    rig.settle().await;
    assert_eq!(rig.take(), ["1", "2", "3"]);
}

#[tokio::test(start_paused = true)]
async fn the_file_is_found_again_that_was_renamed_while_nobody_read() {
    let mut rig = Rig::new(config(&["a.log"]));
    rig.append("a.log", "1\n");
    rig.open().await;
    rig.settle().await;
    rig.append("a.log", "2\n");
    rig.rename("a.log", "a.log.1");
    rig.append("a.log", "3\n");
    rig.restart().await;
    rig.settle().await;
    assert_eq!(rig.take(), ["1", "2", "3"]);
    assert!(rig.gaps.is_empty());
}

/// Rotates as logrotate does: every file gets the next number.
fn rotate(rig: &Rig, keep: u32) {
    for (n, packed) in (1..keep).rev().flat_map(|n| [(n, ""), (n, ".gz")]) {
        let from = format!("a.log.{n}{packed}");
        if rig.path(&from).exists() {
            rig.rename(&from, &format!("a.log.{}{packed}", n + 1));
        }
    }
    rig.rename("a.log", "a.log.1");
}

#[tokio::test(start_paused = true)]
async fn files_that_came_and_went_while_nobody_read_are_read_in_their_order() {
    let mut rig = Rig::new(config(&["a.log"]));
    rig.append("a.log", "1\n");
    rig.open().await;
    rig.settle().await;
    for n in [2, 3, 4] {
        rig.append("a.log", format!("{n}\nlast of {n}"));
        rotate(&rig, 9);
    }
    rig.append("a.log", "5\n");
    // Not every file beside it is a rotated one.
    rig.append("a.log.bak", "x\n");
    rig.restart().await;
    rig.settle().await;
    let wanted = ["1", "2", "last of 2", "3", "last of 3", "4", "last of 4", "5"];
    assert_eq!(rig.take(), wanted);
    assert!(rig.gaps.is_empty(), "{:?}", rig.gaps);
}

#[tokio::test(start_paused = true)]
async fn a_restart_among_overtaken_files_repeats_none() {
    let mut rig = Rig::new(config(&["a.log"]));
    rig.append("a.log", "0\n");
    rig.open().await;
    rig.settle().await;
    for n in 1..6 {
        rig.append("a.log", format!("{n} a\n{n} b\n"));
        rotate(&rig, 9);
    }
    rig.append("a.log", "6\n");
    rig.restart().await;
    // One record at a time, and a crash after each.
    for _ in 0..40 {
        let had = rig.records.len();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(4);
        while rig.records.len() == had && tokio::time::Instant::now() < deadline {
            let polled = rig.poll(1).await.unwrap();
            rig.records.extend(polled.records);
            tokio::time::sleep(polled.idle_for.unwrap_or_default()).await;
        }
        rig.restart().await;
    }
    let mut wanted = vec!["0".to_owned()];
    wanted.extend((1..6).flat_map(|n| [format!("{n} a"), format!("{n} b")]));
    wanted.push("6".to_owned());
    assert_eq!(rig.take(), wanted);
}

#[tokio::test(start_paused = true)]
async fn what_only_looks_like_a_rotated_file_is_told_and_not_read() {
    let mut rig = Rig::new(config(&["a.log"]));
    rig.append("a.log", "1\n");
    rig.open().await;
    rig.settle().await;
    rig.rename("a.log", "a.log.1");
    rig.append("a.2.log", "of another\n");
    rig.append("a.log.2.zst", "packed");
    rig.append("a.log", "2\n");
    rig.restart().await;
    rig.settle().await;
    assert_eq!(rig.take(), ["1", "2"]);
    let told: Vec<_> = rig
        .gaps
        .iter()
        .map(|g| (g.amount, g.unit, g.reason.split(' ').next().unwrap()))
        .collect();
    assert!(told.contains(&(11, "bytes", "a.2.log")), "{:?}", rig.gaps);
}

#[tokio::test(start_paused = true)]
async fn a_file_that_was_rotated_and_compressed_while_nobody_read_is_continued() {
    let mut rig = Rig::new(config(&["a.log"]));
    let banner = BANNER.repeat(30);
    rig.append("a.log", format!("first\n{banner}"));
    rig.open().await;
    rig.settle().await;
    let before = rig.take_records().pop().unwrap();
    rig.append("a.log", "late\n");
    for n in [1, 2] {
        rotate(&rig, 9);
        compress(&rig, "a.log.1");
        rig.append("a.log", format!("then {n}\n"));
    }
    rig.records.push(before);
    rig.restart().await;
    rig.records.clear();
    rig.settle().await;
    assert_eq!(rig.take(), ["late", "then 1", "then 2"]);
    assert!(rig.gaps.is_empty(), "{:?}", rig.gaps);
}

#[tokio::test(start_paused = true)]
async fn a_damaged_rotated_file_keeps_no_later_one_from_being_read() {
    let mut rig = Rig::new(config(&["a.log"]));
    rig.append("a.log", "1\n");
    rig.open().await;
    rig.settle().await;
    rotate(&rig, 9);
    rig.append("a.log", "2\n".repeat(5000));
    rotate(&rig, 9);
    compress(&rig, "a.log.1");
    let packed = rig.path("a.log.1.gz");
    let mut bytes = fs::read(&packed).unwrap();
    let end = bytes.len() - 8;
    bytes[end..].fill(0x55);
    fs::write(&packed, bytes).unwrap();
    rig.append("a.log", "3\n");
    rig.restart().await;
    rig.settle().await;
    assert_eq!(rig.take().last().unwrap(), "3");
    assert_eq!(rig.gaps.len(), 1, "{:?}", rig.gaps);
    assert!(rig.gaps[0].reason.contains("damaged"), "{:?}", rig.gaps);
}

/// As `gzip` does: another file, with the time of the one that it replaces.
fn compress(rig: &Rig, name: &str) {
    let content = fs::read(rig.path(name)).unwrap();
    let modified = fs::metadata(rig.path(name)).unwrap().modified().unwrap();
    let target = fs::File::create(rig.path(&format!("{name}.gz"))).unwrap();
    let mut packed = GzEncoder::new(target, Compression::default());
    packed.write_all(&content).unwrap();
    packed.finish().unwrap().set_modified(modified).unwrap();
    fs::remove_file(rig.path(name)).unwrap();
}

#[tokio::test(start_paused = true)]
async fn files_that_all_begin_alike_are_not_taken_for_each_other() {
    let mut rig = Rig::new(config(&["a.log"]));
    let banner = BANNER.repeat(30);
    rig.append("a.log", format!("{banner}1\n"));
    rig.open().await;
    rig.settle().await;
    rig.append("a.log", "2\n");
    rig.rename("a.log", "a.log.1");
    rig.append("a.log", format!("{banner}3\n4\n5\n"));
    rig.restart().await;
    rig.settle().await;
    assert_eq!(
        written(&rig.records),
        format!("{banner}1\n2\n{banner}3\n4\n5\n").into_bytes()
    );
}

#[tokio::test(start_paused = true)]
async fn a_copied_file_is_continued_where_it_was_left() {
    let mut rig = Rig::new(config(&["a.log"]));
    rig.append("a.log", "1\n2\n");
    rig.open().await;
    rig.settle().await;
    fs::copy(rig.path("a.log"), rig.path("copy")).unwrap();
    fs::remove_file(rig.path("a.log")).unwrap();
    rig.append("a.log", "");
    rig.append("copy", "3\n");
    rig.rename("copy", "a.log");
    rig.restart().await;
    rig.settle().await;
    assert_eq!(rig.take(), ["1", "2", "3"]);
}

#[tokio::test(start_paused = true)]
async fn another_file_under_the_same_path_starts_anew_and_says_so() {
    let mut rig = Rig::new(config(&["a.log"]));
    rig.append("a.log", "old 1\nold 2\n");
    rig.open().await;
    rig.settle().await;
    fs::remove_file(rig.path("a.log")).unwrap();
    rig.append("a.log", "something else that is longer\n");
    rig.restart().await;
    rig.settle().await;
    assert_eq!(rig.take(), ["old 1", "old 2", "something else that is longer"]);
    assert_eq!(rig.gaps.iter().map(|g| g.amount).collect::<Vec<_>>(), [0]);
}

#[tokio::test(start_paused = true)]
async fn rotated_files_that_match_too_are_not_read_twice() {
    let mut rig = Rig::new(config(&["a.log*"]));
    rig.append("a.log", "1\n");
    rig.append("a.log.1", "0\n");
    rig.open().await;
    rig.settle().await;
    for n in 2..6 {
        for old in (1..n).rev() {
            rig.rename(&format!("a.log.{old}"), &format!("a.log.{}", old + 1));
        }
        rig.rename("a.log", "a.log.1");
        rig.append("a.log", format!("{n}\n"));
        if n % 2 == 0 {
            rig.settle().await;
        }
        rig.restart().await;
        rig.settle().await;
        rig.restart().await;
    }
    rig.settle().await;
    let mut seen = rig.take();
    seen.sort();
    assert_eq!(seen, ["0", "1", "2", "3", "4", "5"]);
}

#[tokio::test(start_paused = true)]
async fn a_truncated_file_is_read_anew() {
    let mut rig = Rig::new(config(&["a.log"]));
    rig.append("a.log", "1\n2\nbegin");
    rig.open().await;
    rig.settle().await;
    rig.truncate("a.log");
    rig.append("a.log", "3\n");
    rig.settle().await;
    assert_eq!(written(&rig.records), b"1\n2\nbegin3\n");
    assert!(rig.gaps.is_empty(), "all that was cut off had been read");
}

#[tokio::test(start_paused = true)]
async fn a_file_that_was_written_anew_and_longer_is_read_anew() {
    let mut rig = Rig::new(config(&["a.log"]));
    rig.append("a.log", "1\n2\n");
    rig.open().await;
    rig.settle().await;
    rig.truncate("a.log");
    rig.append("a.log", "3\n4\n5\n6\n");
    rig.settle().await;
    assert_eq!(rig.take(), ["1", "2", "3", "4", "5", "6"]);
    assert!(rig.gaps.is_empty(), "the new bytes are not the old ones");
}

#[tokio::test(start_paused = true)]
async fn bytes_that_were_cut_off_unread_are_counted() {
    let mut rig = Rig::new(config(&["a.log"]));
    rig.append("a.log", "0123456789abcde\n".repeat(100_000));
    rig.open().await;
    let polled = rig.poll(100_000).await.unwrap();
    rig.records.extend(polled.records);
    rig.truncate("a.log");
    rig.append("a.log", "after\n");
    rig.settle().await;
    let read: usize = rig
        .records
        .iter()
        .map(|r| super::rig::bytes(r).len() + 1)
        .sum::<usize>()
        - 6;
    assert_eq!(
        rig.gaps.iter().map(|g| g.amount as usize).sum::<usize>(),
        1_600_000 - read
    );
    assert_eq!(rig.take().last().unwrap(), "after");
}

#[tokio::test(start_paused = true)]
async fn a_file_truncated_while_nobody_read_is_read_anew() {
    let mut rig = Rig::new(config(&["a.log"]));
    rig.append("a.log", "1\n2\n3\n");
    rig.open().await;
    rig.settle().await;
    rig.truncate("a.log");
    rig.append("a.log", "4\n");
    rig.restart().await;
    rig.settle().await;
    assert_eq!(rig.take(), ["1", "2", "3", "4"]);
}

#[tokio::test(start_paused = true)]
async fn a_deleted_file_is_let_go_and_may_come_again() {
    let mut rig = Rig::new(config(&["*.log"]));
    rig.append("a.log", "1\n");
    rig.open().await;
    rig.settle().await;
    fs::remove_file(rig.path("a.log")).unwrap();
    rig.run(Duration::from_secs(10)).await;
    rig.append("a.log", "1\n");
    rig.settle().await;
    assert_eq!(rig.take(), ["1", "1"]);
}
