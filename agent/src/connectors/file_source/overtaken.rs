//! Files that were rotated away before they were read: a path was rotated twice or more between two looks.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use super::{
    claims::Claims,
    discover::Patterns,
    open_file::{Inode, Stat},
};

/// A file that once had the path, and bytes of it that nobody has read; 0: it is compressed, so that is not known.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Overtaken {
    pub(super) name: String,
    pub(super) bytes: u64,
}

/// The rotated files beside `path` that were written after the one which was left, without the one that has the path now.
/// Those that `patterns` name are read by themselves.
pub(super) fn find(
    path: &Path,
    left: &(Inode, Stat),
    patterns: &Patterns,
    claims: &Claims,
) -> Vec<Overtaken> {
    let present = fs::metadata(path).map(|meta| Inode::from(&meta)).ok();
    let known = |inode: Inode| Some(inode) == present || inode == left.0;
    let Some(entries) = path.parent().and_then(|dir| fs::read_dir(dir).ok()) else {
        return Vec::new();
    };
    let mut found: Vec<_> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().to_str()?.to_owned();
            let meta = entry.metadata().ok()?;
            let unread = meta.is_file()
                && meta.len() > 0
                && !known(Inode::from(&meta))
                && is_rotated(path, &name)
                && !patterns.covers(&entry.path())
                && !claims.covers(&entry.path());
            let compressed = Path::new(&name)
                .extension()
                .is_some_and(|x| x == "gz" || x == "zst" || x == "xz" || x == "bz2");
            let bytes = if compressed { 0 } else { meta.len() };
            let modified = (meta.mtime(), meta.mtime_nsec());
            // The clock of file systems is coarse. What compresses a file gives the result its time, the one that was left
            // included.
            let later = modified > left.1.modified || (modified == left.1.modified && !compressed);
            (later && unread).then_some(Overtaken { name, bytes })
        })
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

/// Whether rotation gives such names: the path's own name, with or without its extension, a mark, and a number or date.
fn is_rotated(path: &Path, name: &str) -> bool {
    let names = [path.file_name(), path.file_stem()];
    names
        .into_iter()
        .flatten()
        .filter_map(|n| n.to_str())
        .any(|base| {
            let mut rest = name.strip_prefix(base).unwrap_or_default().chars();
            rest.next().is_some_and(|mark| matches!(mark, '.' | '-' | '_'))
                && rest.next().is_some_and(|digit| digit.is_ascii_digit())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_rotation_gives() {
        let path = Path::new("/var/log/app.log");
        for name in [
            "app.log.1",
            "app.log-20261121",
            "app.log.2.gz",
            "app-2026-11-21.log",
            "app.1.log",
        ] {
            assert!(is_rotated(path, name), "{name}");
        }
        for name in [
            "app.log",
            "app.log.bak",
            "app.logs",
            "apple.log.1",
            "app.log1",
            "other.1",
            "app.log.",
        ] {
            assert!(!is_rotated(path, name), "{name}");
        }
    }
}
