use std::{fs, time::Duration};

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

#[tokio::test(start_paused = true)]
async fn a_file_that_came_and_went_while_nobody_read_is_told() {
    let mut rig = Rig::new(config(&["a.log"]));
    rig.append("a.log", "1\n");
    rig.open().await;
    rig.settle().await;
    rig.append("a.log", "2\n");
    rig.rename("a.log", "a.log.1");
    rig.append("a.log", "never read\n");
    rig.rename("a.log.1", "a.log.2");
    rig.rename("a.log", "a.log.1");
    rig.append("a.log", "3\n");
    // Not every file beside it is a rotated one.
    rig.append("a.log.bak", "x\n");
    rig.restart().await;
    rig.settle().await;
    assert_eq!(rig.take(), ["1", "2", "3"]);
    assert_eq!(rig.gaps.len(), 1, "{:?}", rig.gaps);
    assert_eq!((rig.gaps[0].amount, rig.gaps[0].unit), (11, "bytes"));
    assert!(
        rig.gaps[0].reason.contains("a.log.1 had this path"),
        "{:?}",
        rig.gaps
    );
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
