use std::{fs, os::unix::fs::symlink, time::Duration};

use gantry_connector::{Domain, Fields, Severity, SourcePlugin};
use serde_json::json;

use super::{
    super::FileSourcePlugin,
    compliance::gzip,
    rig::{Rig, checked, config, env, place, text, written},
};

#[tokio::test(start_paused = true)]
async fn lines_arrive_as_the_file_grows() {
    let mut rig = Rig::new(config(&["a.log"]));
    rig.open().await;
    rig.settle().await;
    assert!(rig.take().is_empty());
    rig.append("a.log", "one\ntw");
    rig.settle().await;
    assert_eq!(rig.take(), ["one"]);
    rig.append("a.log", "o\n\nthree\r\n");
    rig.settle().await;
    assert_eq!(rig.take(), ["two", "", "three\r"]);
}

#[tokio::test(start_paused = true)]
async fn an_unfinished_line_is_sent_after_a_while_and_goes_on_as_a_new_record() {
    let mut rig = Rig::new(config(&["a.log"]));
    rig.append("a.log", "one\ntw");
    rig.open().await;
    rig.settle().await;
    assert_eq!(rig.records.len(), 1);
    rig.run(Duration::from_secs(6)).await;
    assert_eq!(rig.records.len(), 2);
    rig.append("a.log", "o\n");
    rig.restart().await;
    rig.settle().await;
    assert_eq!(written(&rig.records), b"one\ntwo\n");
    assert_eq!(rig.take(), ["one", "tw", "o"]);
}

#[tokio::test(start_paused = true)]
async fn a_read_that_does_not_follow_ends() {
    let mut rig = Rig::new(json!({"paths": ["*.log"], "follow": false}));
    rig.append("a.log", "1\n2");
    rig.append("b.log", "");
    rig.open().await;
    rig.run(Duration::from_secs(1)).await;
    assert!(rig.ended);
    assert_eq!(written(&rig.records), b"1\n2");
    rig.append("a.log", "3\n");
    rig.append("c.log", "4\n");
    rig.run(Duration::from_secs(10)).await;
    assert_eq!(rig.take(), ["1", "2"]);
}

#[tokio::test(start_paused = true)]
async fn a_file_that_must_be_there_and_is_not_is_waited_for() {
    let mut rig = Rig::new(json!({"paths": ["a.log"], "follow": false}));
    rig.open().await;
    let e = rig.poll(1000).await.unwrap_err();
    assert_eq!(e.domain(), Domain::Environment);
    assert!(e.to_string().ends_with("a.log does not exist"), "{e}");
    rig.append("a.log", "1\n");
    rig.run(Duration::from_secs(1)).await;
    assert!(rig.ended);
    assert_eq!(rig.take(), ["1"]);
}

#[tokio::test(start_paused = true)]
async fn new_files_are_found_and_read_from_their_beginning() {
    let mut rig = Rig::new(json!({"paths": ["**/*.log"], "start": "end", "exclude": ["**/no*"]}));
    rig.append("old.log", "before\n");
    rig.open().await;
    rig.settle().await;
    fs::create_dir(rig.path("sub")).unwrap();
    rig.append("sub/new.log", "first\n");
    rig.append("sub/not.log", "x\n");
    rig.append("old.log", "after\n");
    rig.settle().await;
    let mut seen = rig.take();
    seen.sort();
    assert_eq!(seen, ["after", "first"]);
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_vanishes_is_reported_and_comes_back() {
    let mut rig = Rig::new(config(&["logs/*.log"]));
    fs::create_dir(rig.path("logs")).unwrap();
    rig.append("logs/a.log", "1\n");
    rig.open().await;
    rig.settle().await;
    rig.rename("logs", "gone");
    tokio::time::advance(Duration::from_secs(2)).await;
    let e = rig.poll(1000).await.unwrap_err();
    assert_eq!(e.domain(), Domain::Environment);
    assert!(e.to_string().ends_with("logs does not exist"), "{e}");
    rig.poll(1000).await.unwrap_err();
    rig.append("gone/a.log", "2\n");
    rig.append("gone/b.log", "3\n");
    let polled = rig.poll(1000).await.unwrap();
    assert_eq!(
        polled.records.iter().map(text).collect::<Vec<_>>(),
        ["2"],
        "the open file is still read"
    );
    rig.rename("gone", "logs");
    rig.settle().await;
    assert_eq!(rig.take(), ["1", "3"]);
}

#[tokio::test(start_paused = true)]
async fn an_overlong_line_is_a_counted_gap() {
    let mut rig = Rig::new(json!({"paths": ["a.log"], "max_line_bytes": 1000}));
    rig.append(
        "a.log",
        format!("ok\n{}\n{}\nend\n", "x".repeat(1001), "y".repeat(1000)),
    );
    rig.append("a.log", format!("{}\nreally\n", "z".repeat(600_000)));
    rig.open().await;
    rig.settle().await;
    let gaps: Vec<_> = rig.gaps.iter().map(|g| g.amount).collect();
    assert_eq!(gaps, [1002, 600_001]);
    assert_eq!(
        rig.take().iter().map(String::len).collect::<Vec<_>>(),
        [2, 1000, 3, 6]
    );
}

#[tokio::test(start_paused = true)]
async fn compressed_files_may_grow_and_be_unfinished() {
    let mut rig = Rig::new(config(&["a.gz"]));
    let whole = gzip(&"some line\n".repeat(1000).into_bytes());
    rig.append("a.gz", &whole[..whole.len() / 2]);
    rig.open().await;
    rig.settle().await;
    let some = rig.records.len();
    rig.append("a.gz", &whole[whole.len() / 2..]);
    rig.settle().await;
    assert!(some < 1000);
    assert_eq!(rig.records.len(), 1000);
    rig.append("a.gz", gzip(b"another\nmember\n"));
    rig.restart().await;
    rig.settle().await;
    assert_eq!(rig.take().split_off(1000), ["another", "member"]);
}

#[tokio::test(start_paused = true)]
async fn damaged_compressed_data_is_reported_and_harms_no_other_file() {
    let mut rig = Rig::new(config(&["*.gz"]));
    let mut bad = gzip(b"line\n");
    let n = bad.len();
    bad[n - 8] ^= 0xff;
    rig.append("a.gz", &bad);
    rig.append("b.gz", gzip(b"good\n"));
    rig.open().await;
    let mut texts = Vec::new();
    let mut errors = 0;
    for _ in 0..10 {
        match rig.poll(1000).await {
            Ok(polled) => {
                texts.extend(polled.records.iter().map(text));
                tokio::time::sleep(polled.idle_for.unwrap_or_default()).await;
            }
            Err(e) => {
                assert_eq!(e.domain(), Domain::Environment);
                assert!(e.to_string().ends_with("a.gz"), "{e}");
                errors += 1;
            }
        }
    }
    assert!(texts.contains(&"good".to_owned()) && errors > 0, "{texts:?}");
    assert_eq!(texts.len(), 2, "{texts:?}");
}

#[tokio::test(start_paused = true)]
async fn a_person_may_set_a_byte_that_exists() {
    let mut rig = Rig::new(config(&["a.log", "b.gz"]));
    rig.append("a.log", "zwölf\neleven\n");
    rig.append("b.gz", gzip(b"one\ntwo\n"));
    let (a, b) = (rig.path("a.log"), rig.path("b.gz"));
    let byte = |n: u64| Fields::new().with("byte", n);
    rig.try_open(vec![place(a.clone(), byte(7)), place(b.clone(), byte(4))])
        .await
        .unwrap();
    rig.settle().await;
    assert_eq!(rig.take(), ["eleven", "two"]);

    let e = rig.try_open(vec![place(a.clone(), byte(15))]).await.unwrap_err();
    assert_eq!(e.domain(), Domain::User);
    assert!(e.to_string().ends_with("the file has only 14 bytes"), "{e}");

    rig.try_open(vec![place(b, byte(9)), place(a, byte(14))])
        .await
        .unwrap();
    assert_eq!(rig.poll(1000).await.unwrap_err().domain(), Domain::User);
}

#[tokio::test(start_paused = true)]
async fn nothing_outside_of_the_allowed_roots_is_read() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "x\n").unwrap();
    let mut rig = Rig::new(config(&["*.log"]));
    symlink(outside.path().join("secret"), rig.path("a.log")).unwrap();
    let e = rig.try_open(vec![]).await.unwrap_err();
    assert_eq!(e.domain(), Domain::User);
    assert!(e.chain().contains("outside"), "{}", e.chain());

    fs::remove_file(rig.path("a.log")).unwrap();
    rig.open().await;
    symlink(outside.path().join("secret"), rig.path("b.log")).unwrap();
    rig.append("c.log", "fine\n");
    tokio::time::advance(Duration::from_secs(2)).await;
    let polled = rig.poll(1000).await.unwrap();
    assert_eq!(polled.records.iter().map(text).collect::<Vec<_>>(), ["fine"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_a_regular_file_does_not_make_it_wait() {
    let mut rig = Rig::new(config(&["pipe", "a.log"]));
    std::os::unix::net::UnixListener::bind(rig.path("pipe")).unwrap();
    rig.append("a.log", "1\n");
    rig.open().await;
    assert_eq!(rig.poll(1000).await.unwrap().records.len(), 1);
    let e = rig.poll(1000).await.unwrap_err();
    assert_eq!(e.domain(), Domain::Environment);
    assert!(e.to_string().ends_with("/pipe"), "{e}");
}

#[tokio::test(start_paused = true)]
async fn many_files_are_read_with_few_open() {
    let mut rig = Rig::new(config(&["*.log"]));
    for i in 0..1500 {
        rig.append(&format!("{i:04}.log"), format!("line {i}\n"));
    }
    rig.open().await;
    rig.settle().await;
    assert_eq!(rig.records.len(), 1500);
    rig.append("1234.log", "more\n");
    rig.append("0001.log", "more\n");
    rig.settle().await;
    assert_eq!(rig.take().split_off(1500), ["more", "more"]);
}

#[tokio::test]
async fn validation_tells_what_will_fail() {
    let rig = Rig::new(config(&[]));
    rig.append("a.log", "");
    rig.append("a.log.1", "");
    fs::create_dir(rig.path("dir")).unwrap();
    let findings = async |value: serde_json::Value| {
        let config = checked(&value, rig.dir.path());
        let found = FileSourcePlugin.validate(&config, &env(rig.dir.path())).await;
        let each = found.into_iter().map(|f| {
            assert!(!f.fix.is_empty());
            (
                f.severity,
                f.message.replace(&rig.dir.path().display().to_string(), ""),
            )
        });
        each.collect::<Vec<_>>()
    };
    use Severity::{Error, Warning};
    let is = |severity, text: &str| vec![(severity, text.to_owned())];
    assert_eq!(findings(json!({"paths": ["a.log"]})).await, []);
    assert_eq!(
        findings(json!({"paths": ["b.log"]})).await,
        is(Warning, "/b.log does not exist")
    );
    assert_eq!(
        findings(json!({"paths": ["b.log"], "follow": false})).await,
        is(Error, "/b.log does not exist")
    );
    assert_eq!(
        findings(json!({"paths": ["dir"]})).await,
        is(Error, "/dir is a directory")
    );
    assert_eq!(
        findings(json!({"paths": ["x*"]})).await,
        is(Warning, "no file matches")
    );
    assert_eq!(
        findings(json!({"paths": ["no/x*"]})).await,
        is(Warning, "/no does not exist")
    );
    assert_eq!(
        findings(json!({"paths": ["a.log*"]})).await,
        is(Warning, "both /a.log and /a.log.1 are read")
    );
    let outside = findings(json!({"paths": ["/etc/*.conf"]})).await;
    assert!(
        outside.iter().all(|(s, m)| *s == Error && m.contains("outside")),
        "{outside:?}"
    );
    assert!(!outside.is_empty());
}

#[tokio::test]
async fn tasks_are_as_many_as_there_is_work_for() {
    let rig = Rig::new(config(&[]));
    let tasks = async |value: serde_json::Value| {
        let config = checked(&value, rig.dir.path());
        FileSourcePlugin
            .plan_tasks(&config, 4, &env(rig.dir.path()))
            .await
            .unwrap()
            .len()
    };
    assert_eq!(tasks(json!({"paths": ["a", "b"]})).await, 2);
    assert_eq!(tasks(json!({"paths": ["a", "b", "c", "d", "e"]})).await, 4);
    assert_eq!(tasks(json!({"paths": ["a", "*.log"]})).await, 4);
}
