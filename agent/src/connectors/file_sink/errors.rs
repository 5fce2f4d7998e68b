use std::{io, path::Path};

use gantry_connector::ConnectorError;

/// The file system does not do it; it is tried again.
pub(super) fn io(doing: &str, path: &Path, e: io::Error) -> ConnectorError {
    let shown = path.display();
    let fix = match e.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            "make room for the file; writing goes on by itself".to_owned()
        }
        io::ErrorKind::NotFound => {
            let dir = path.parent().unwrap_or(path).display();
            format!("create the directory {dir}, or correct path; writing goes on by itself")
        }
        io::ErrorKind::PermissionDenied => {
            "let the agent's user write the file and its directory; writing goes on by itself".to_owned()
        }
        io::ErrorKind::WouldBlock => {
            "another task or agent writes this file: give each connector a path of its own, and several topics {topic}".to_owned()
        }
        _ => "bring the file system back; writing goes on by itself".to_owned(),
    };
    ConnectorError::environment(format!("cannot {doing} {shown}"))
        .because(e)
        .fix(fix)
}

/// After a failed sync nobody knows which of the bytes are durable: all since the last commit are written again.
pub(super) fn sync(path: &Path, e: io::Error) -> ConnectorError {
    ConnectorError::task(format!("cannot make {} durable", path.display()))
        .because(e)
        .fix("look after the file system; the task starts again from the last commit")
}

pub(super) fn exists(path: &Path) -> ConnectorError {
    ConnectorError::user(format!("{} exists and is not empty", path.display()))
        .fix("move it away, or set on_existing to append or overwrite")
}

pub(super) fn missing(path: &Path, found: Option<u64>, committed: u64) -> ConnectorError {
    let has = match found {
        Some(length) => format!("has {length} bytes"),
        None => "does not exist".to_owned(),
    };
    ConnectorError::user(format!(
        "{} {has}, but {committed} bytes were written and committed: somebody else has removed, replaced or cut it",
        path.display()
    ))
    .fix("put the file back, or set on_missing to continue to go on without it")
}

pub(super) fn removed(path: &Path, goes_on: bool) -> ConnectorError {
    let what = format!("{} was removed or replaced while it was written", path.display());
    if goes_on {
        return ConnectorError::task(what)
            .fix("the task starts again with a new file, because on_missing is continue");
    }
    ConnectorError::environment(what)
        .fix("put that very file back; or set on_missing to continue, which begins a new one, and restart the connector")
}
