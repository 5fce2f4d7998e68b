//! Files that were rotated away before they were read: a path was rotated twice or more between two looks.

use std::{
    cmp::Reverse,
    fs::{self, DirEntry},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::{
    claims::Claims,
    config::Compression,
    discover::Patterns,
    open_file::{Inode, Stat},
};

/// A file that once had the path, and bytes of it that nobody has read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Overtaken {
    pub(super) path: PathBuf,
    /// 0: it is compressed, so that is not known.
    pub(super) bytes: u64,
    /// It surely had the path, and its content can be read.
    pub(super) readable: bool,
}

/// What the name of a rotated file says about the path it had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rotated {
    /// The whole name of the path and more: no other program writes under such a name.
    Surely,
    /// The name without its extension: another program may have its own file under such a name.
    Perhaps,
}

/// The rotated files beside `path` that were written after the one which was left, without the one that has the path now;
/// the oldest first. Those that `patterns` name are read by themselves.
pub(super) fn find(
    path: &Path,
    left: &(Inode, Stat),
    compression: Compression,
    patterns: &Patterns,
    claims: &Claims,
) -> Vec<Overtaken> {
    let present = fs::metadata(path).map(|meta| Inode::from(&meta)).ok();
    let known = |inode: Inode| Some(inode) == present || inode == left.0;
    let mut found: Vec<_> = beside(path)
        .filter_map(|entry| {
            let rotated = rotated(path, entry.file_name().to_str()?)?;
            let meta = entry.metadata().ok()?;
            let at = entry.path();
            let unread = meta.is_file()
                && meta.len() > 0
                && !known(Inode::from(&meta))
                && !patterns.covers(&at)
                && !patterns.excludes(&at)
                && !claims.covers(&at);
            let packed = packing(&at);
            let modified = (meta.mtime(), meta.mtime_nsec());
            let later = is_later(modified, packed.is_some(), &left.1);
            (later && unread).then(|| {
                let file = Overtaken {
                    bytes: if packed.is_some() { 0 } else { meta.len() },
                    readable: rotated == Rotated::Surely && is_readable(packed, compression),
                    path: at,
                };
                (modified, file)
            })
        })
        .collect();
    found.sort_by_cached_key(|(modified, file)| (*modified, age(path, &file.path)));
    found.into_iter().map(|(_, file)| file).collect()
}

/// Whether the file would be found again by [`find`] after the one that was left, if it were not known to have been read.
pub(super) fn may_come_again(path: &Path, entry: &DirEntry, left: &Stat) -> bool {
    let name = entry.file_name();
    name.to_str().is_some_and(|name| rotated(path, name).is_some())
        && entry.metadata().is_ok_and(|meta| {
            is_later(
                (meta.mtime(), meta.mtime_nsec()),
                packing(&entry.path()).is_some(),
                left,
            )
        })
}

/// The gzip files beside `path` that surely had it once.
pub(super) fn compressed(path: &Path) -> impl Iterator<Item = PathBuf> {
    beside(path)
        .filter(|entry| {
            entry.file_name().to_str().and_then(|name| rotated(path, name)) == Some(Rotated::Surely)
        })
        .map(|entry| entry.path())
        .filter(|at| packing(at) == Some("gz"))
}

pub(super) fn beside(path: &Path) -> impl Iterator<Item = DirEntry> {
    let entries = path.parent().and_then(|dir| fs::read_dir(dir).ok());
    entries.into_iter().flatten().flatten()
}

/// The clock of file systems is coarse. What compresses a file gives the result its time, the one that was left included.
fn is_later(modified: (i64, i64), packed: bool, left: &Stat) -> bool {
    modified > left.modified || (modified == left.modified && !packed)
}

fn packing(path: &Path) -> Option<&'static str> {
    let extension = path.extension()?;
    ["gz", "zst", "xz", "bz2"]
        .into_iter()
        .find(|known| extension == *known)
}

fn is_readable(packed: Option<&str>, compression: Compression) -> bool {
    match packed {
        None => true,
        Some("gz") => compression != Compression::None,
        Some(_) => false,
    }
}

/// Whether rotation gives such names: the path's own name, with or without its extension, a mark, and a number or date.
fn rotated(path: &Path, name: &str) -> Option<Rotated> {
    let follows = |base: Option<&str>| {
        let mut rest = base
            .and_then(|base| name.strip_prefix(base))
            .unwrap_or_default()
            .chars();
        rest.next().is_some_and(|mark| matches!(mark, '.' | '-' | '_'))
            && rest.next().is_some_and(|digit| digit.is_ascii_digit())
    };
    if follows(path.file_name().and_then(|n| n.to_str())) {
        Some(Rotated::Surely)
    } else if follows(path.file_stem().and_then(|n| n.to_str())) {
        Some(Rotated::Perhaps)
    } else {
        None
    }
}

/// Orders files of one time, the oldest first: of app.log.2 and app.log.1 the first is older, of dates the lower one.
fn age(path: &Path, at: &Path) -> (Reverse<u32>, PathBuf) {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    let rest = at
        .file_name()
        .and_then(|n| n.to_str())
        .and_then(|n| n.strip_prefix(name))
        .unwrap_or_default();
    let digits: String = rest.chars().skip(1).take_while(char::is_ascii_digit).collect();
    // Longer ones are dates and times.
    let counted = digits.len() <= 4;
    (
        Reverse(if counted { digits.parse().unwrap_or(0) } else { 0 }),
        at.to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_rotation_gives() {
        let path = Path::new("/var/log/app.log");
        for (name, says) in [
            ("app.log.1", Some(Rotated::Surely)),
            ("app.log-20261121", Some(Rotated::Surely)),
            ("app.log.2.gz", Some(Rotated::Surely)),
            ("app-2026-11-21.log", Some(Rotated::Perhaps)),
            ("app.1.log", Some(Rotated::Perhaps)),
            ("app.log", None),
            ("app.log.bak", None),
            ("app.logs", None),
            ("apple.log.1", None),
            ("app.log1", None),
            ("other.1", None),
            ("app.log.", None),
        ] {
            assert_eq!(rotated(path, name), says, "{name}");
        }
    }

    #[test]
    fn of_one_time_the_higher_number_and_the_lower_date_are_older() {
        let sorted = |names: &[&str]| {
            let mut paths: Vec<_> = names.iter().map(PathBuf::from).collect();
            paths.sort_by_cached_key(|at| age(Path::new("a"), at));
            paths.iter().map(|p| p.display().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(sorted(&["a.1", "a.10", "a.2.gz"]), ["a.10", "a.2.gz", "a.1"]);
        assert_eq!(
            sorted(&["a-20261122", "a-20261121"]),
            ["a-20261121", "a-20261122"]
        );
    }
}
