//! What is stored outlives the process that stored it: each message has a file for each format, which never
//! changes.

mod samples;

use std::{fmt::Debug, fs, path::PathBuf};

use crate::{
    domain::stored,
    store::{
        Key, StoreError,
        codec::{self, FORMAT, MESSAGES, Stored},
    },
};

fn directory(format: u32) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("testdata/stored/v{format}"))
}

#[derive(Default)]
struct Names {
    checked: Vec<&'static str>,
    written: Vec<&'static str>,
}

/// Compares a message with its files: the bytes, and what they mean. Files that are missing are written.
fn golden<T: Stored + Clone + PartialEq + Debug>(names: &mut Names, mut sample: T) {
    sample.set_format(FORMAT);
    names.checked.push(T::NAME);
    let (bytes, text) = (codec::encode(&sample), meaning(&sample));
    let file = |extension: &str| directory(FORMAT).join(format!("{}.{extension}", T::NAME));
    let (Ok(golden_bytes), Ok(golden_text)) = (fs::read(file("bin")), fs::read_to_string(file("txt"))) else {
        fs::create_dir_all(directory(FORMAT)).expect("a directory");
        fs::write(file("bin"), bytes).expect("a file");
        fs::write(file("txt"), text).expect("a file");
        return names.written.push(T::NAME);
    };
    let read: T = codec::decode(&Key::Leader, &golden_bytes).expect("what was stored can be read");
    assert_eq!(
        meaning(&read),
        golden_text,
        "{} is read as something else",
        T::NAME
    );
    assert_eq!(read, sample, "{} is read as something else", T::NAME);
    assert_eq!(bytes, golden_bytes, "{} is stored as something else", T::NAME);
}

/// What a message says, without fields that are not set: those that are added later change nothing.
fn meaning(message: &impl Debug) -> String {
    let text = format!("{message:#?}");
    let unset = ["0,", "None,", "false,", "\"\",", "[],", "{},", "Unspecified,"];
    let set = text.lines().filter(|line| {
        line.split_once(": ")
            .is_none_or(|(_, value)| !unset.contains(&value))
    });
    set.map(|line| format!("{line}\n")).collect()
}

#[test]
fn what_was_stored_is_read_and_stored_as_it_was() {
    let mut names = Names::default();
    samples::compare(&mut names);
    assert_eq!(names.checked, MESSAGES, "a stored message has no sample");
    assert!(
        names.written.is_empty(),
        "had no golden file; look at it and commit it: {:?}",
        names.written
    );
}

#[test]
fn a_later_format_is_read_but_never_rewritten() {
    let mut later = stored::StoreId {
        format: FORMAT + 1,
        id: "0123".to_owned(),
    };
    // A field that this version does not know: number 100, a varint.
    let bytes = [prost::Message::encode_to_vec(&later), vec![0xa0, 0x06, 7]].concat();
    let read: stored::StoreId = codec::decode(&Key::StoreId, &bytes).expect("it is read");
    assert_eq!(read, later);
    let refused = codec::rewritable(&Key::StoreId, &read);
    assert_eq!(
        refused,
        Err(StoreError::NewerFormat {
            key: "cluster/store_id".to_owned(),
            format: FORMAT + 1
        })
    );
    later.set_format(FORMAT);
    assert_eq!(codec::rewritable(&Key::StoreId, &later), Ok(()));
}

#[test]
fn garbage_is_an_error_that_names_the_key() {
    for bytes in [&b"\xff\xff\xff"[..], b"", b"\x12\x04abc"] {
        let error = codec::decode::<stored::StoreId>(&Key::StoreId, bytes).expect_err("it is garbage");
        assert!(
            matches!(&error, StoreError::Corrupt { key, .. } if key == "cluster/store_id"),
            "{error}"
        );
    }
}
