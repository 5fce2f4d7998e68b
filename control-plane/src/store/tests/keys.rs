use crate::{
    domain::{TaskId, Uid},
    store::{Key, Keys, TABLE, partition_key, tests::world::map},
};

fn samples() -> Vec<Key> {
    let uid = || Uid("0123456789abcdef".into());
    let task = || TaskId { uid: uid(), n: 12 };
    vec![
        Key::StoreId,
        Key::Format,
        Key::Leader,
        Key::Replica("replica-1".into()),
        Key::Agent("agent-1".into()),
        Key::Instance("agent-1".into()),
        Key::Session("agent-1".into()),
        Key::Plugin("file-source".into(), "1.2.3+a/b".into()),
        Key::Connector("orders".into()),
        Key::Revision(uid(), 7),
        Key::PlanPointer(uid()),
        Key::PlannedTask(uid(), 3, 999),
        Key::Grant(task()),
        Key::Want(task()),
        Key::Status(task()),
        Key::OffsetsHead(uid()),
        Key::Offset(uid(), 2, "00ff".into()),
        Key::Retained(uid()),
        Key::Event(uid(), 42),
        Key::Ask("agent-1".into(), "ask/1".into()),
        Key::Answer("".into()),
        Key::Request("CreateConnector".into(), "CN=Jürgen, O=a/b%c".into(), "id".into()),
    ]
}

#[test]
fn every_key_is_read_back_from_what_is_stored() {
    let keys = Keys::new("prod");
    assert_eq!(samples().len(), TABLE.len());
    for (key, row) in samples().into_iter().zip(TABLE) {
        let path = keys.path(&key);
        assert_eq!(keys.parse(path.as_bytes()), Some(key.clone()), "{path}");
        let parts = |text: &str| text.split('/').count();
        assert_eq!(
            parts(&key.to_string()),
            parts(row.key),
            "{path} is not of the form {}",
            row.key
        );
        assert_eq!(key.to_string().split('/').next(), row.key.split('/').next());
    }
}

#[test]
fn keys_of_other_clusters_and_versions_are_left_alone() {
    let keys = Keys::new("prod");
    for path in [
        "/gantry/prod2/leader",
        "/gantry/prod/later/x",
        "/gantry/prod/grants/x/y",
        "/gantry/prod/grants//1",
    ] {
        assert_eq!(keys.parse(path.as_bytes()), None, "{path}");
    }
    assert_eq!(keys.parse(b"/gantry/prod/answers/%zz"), None);
    assert_eq!(keys.parse(b"\xff\xfe"), None);
}

#[test]
fn the_watched_ranges_hold_what_is_mirrored_and_nothing_else() {
    let keys = Keys::new("prod");
    let ranges = keys.mirrored_ranges();
    for (key, row) in samples().into_iter().zip(TABLE) {
        let path = keys.path(&key).into_bytes();
        let inside = ranges
            .iter()
            .filter(|(from, to)| *from <= path && path < *to)
            .count();
        assert_eq!(inside, usize::from(row.mirrored), "{key}");
    }
    assert_eq!(ranges.len(), 4);
    let other = Keys::new("prod2").path(&Key::Leader).into_bytes();
    assert!(!ranges.iter().any(|(from, to)| *from <= other && other < *to));
}

#[test]
fn partitions_have_keys_that_never_change() {
    // Stored: a change of the encoding would lose every offset.
    assert_eq!(&*partition_key(&map("file", 1)), "569c77f1dcb8759e");
    assert_ne!(partition_key(&map("file", 1)), partition_key(&map("file", 2)));
    assert_ne!(partition_key(&map("file", 1)), partition_key(&map("fil", 1)));
}

#[test]
fn events_sort_by_number() {
    let keys = Keys::new("prod");
    let path = |seq| keys.path(&Key::Event(Uid("u".into()), seq));
    assert!(path(9) < path(10) && path(99_999) < path(100_000));
}
