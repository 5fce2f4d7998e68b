use gantry_connector::{Domain, Fields, Lag, SourcePlugin, Start, StartPosition};
use serde_json::json;

use super::{
    super::{FileSourcePlugin, position::Head},
    rig::{checked, env},
};

#[tokio::test]
async fn positions_are_checked_against_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.log");
    std::fs::write(&path, "one\ntwo\n").unwrap();
    std::fs::write(dir.path().join("z.gz"), super::compliance::gzip(b"one\ntwo\n")).unwrap();
    let config = checked(&json!({"paths": ["*.log", "*.gz"]}), dir.path());
    let env = env(dir.path());
    let partition = |name: &str| Fields::new().with("path", dir.path().join(name).to_str().unwrap());
    let at = async |name: &str, start: Start| {
        let found = FileSourcePlugin
            .start_at(&config, &partition(name), &start, &env)
            .await;
        found
            .map(|s| s.position.uint("byte").unwrap())
            .map_err(|e| e.domain())
    };
    let byte = |byte: i64| Start::Position(Fields::new().with("byte", byte));
    assert_eq!(at("a.log", byte(4)).await, Ok(4));
    assert_eq!(at("a.log", byte(8)).await, Ok(8));
    assert_eq!(at("a.log", byte(9)).await, Err(Domain::User), "beyond the end");
    assert_eq!(at("a.log", byte(-1)).await, Err(Domain::User));
    assert_eq!(at("a.txt", byte(0)).await, Err(Domain::User), "not read");
    assert_eq!(at("elsewhere.log", byte(100)).await, Ok(100), "on another host");
    assert_eq!(at("a.log", Start::Earliest).await, Ok(0));
    assert_eq!(at("a.log", Start::Latest).await, Ok(8));
    assert_eq!(at("z.gz", Start::Latest).await, Err(Domain::User));
    assert_eq!(at("z.gz", byte(5000)).await, Ok(5000), "of the content");
    assert_eq!(at("a.log", Start::Time(0)).await, Err(Domain::User));

    // What a committed position says of its file is held against it.
    let inode = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(&path).unwrap());
    let of = |inode: u64, head: &str, byte: u64| {
        let file = format!("inode={inode} head={head}");
        Start::Position(Fields::new().with("byte", byte).with("file", file))
    };
    let (right, wrong) = (Head::of(b"one\n").to_string(), Head::of(b"two\n").to_string());
    assert_eq!(at("a.log", of(inode, &right, 4)).await, Ok(4));
    assert_eq!(at("a.log", of(inode, &wrong, 4)).await, Err(Domain::User));
    assert_eq!(at("a.log", of(inode, &right, 9)).await, Err(Domain::User));
    assert_eq!(
        at("a.log", of(inode + 1, &wrong, 9)).await,
        Ok(9),
        "it was renamed"
    );

    // Stored unsigned, however it was written: the same position is the same value.
    let (at_path, start) = (partition("a.log"), byte(4));
    let stored = FileSourcePlugin.start_at(&config, &at_path, &start, &env).await;
    assert_eq!(stored.unwrap().position, Fields::new().with("byte", 4u64));

    let lag = async |name: &str| {
        let at = StartPosition {
            partition: partition(name),
            position: Fields::new().with("byte", 3u64),
        };
        FileSourcePlugin.lag(&config, &at, &env).await.unwrap()
    };
    let (amount, unit) = (5, "bytes");
    assert_eq!(lag("a.log").await, Some(Lag { amount, unit }));
    assert_eq!((lag("z.gz").await, lag("elsewhere.log").await), (None, None));
}
