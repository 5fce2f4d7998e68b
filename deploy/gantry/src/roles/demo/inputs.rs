//! What the demo moves: the user's files, or sizeable text files that every Debian machine has.

use std::path::{Path, PathBuf};

use crate::failure::{Exit, Failure};

/// More is not needed to see it work.
const MAX_DEFAULT: u64 = 64 << 20;
const MIN_DEFAULT: u64 = 2_000;

/// Files that are always there on Debian, and where more are found.
const FILES: &[&str] = &[
    "/var/lib/dpkg/status",
    "/var/lib/dpkg/available",
    "/usr/share/dict/words",
    "/etc/services",
];
const DIRECTORIES: &[&str] = &[
    "/var/lib/dpkg/info",
    "/usr/share/common-licenses",
    "/usr/share/perl",
    "/usr/share/i18n/charmaps",
    "/usr/share/misc",
];

/// The files to move, largest first.
pub(super) fn choose(from: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    if from.is_empty() { defaults() } else { given(from) }
}

fn given(from: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut files = Vec::new();
    for path in from {
        let shown = path.display().to_string();
        let bad = |what: String| {
            Failure::new(Exit::Refused, what)
                .at(shown.clone())
                .fix("give files or directories with --from")
        };
        let path = path
            .canonicalize()
            .map_err(|e| bad(format!("cannot read the input: {e}")))?;
        if path.is_dir() {
            let before = files.len();
            files.extend(text_files(&path));
            if files.len() == before {
                return Err(bad("the directory has no file that can be read".into()));
            }
        } else {
            // Not opened before it is known to be a file: a pipe would wait for its writer.
            let unreadable = |e| bad(format!("cannot read the input: {e}"));
            if !std::fs::metadata(&path).map_err(unreadable)?.is_file() {
                return Err(bad("the input is neither a file nor a directory".into()));
            }
            let length = std::fs::File::open(&path)
                .and_then(|f| f.metadata())
                .map_err(unreadable)?
                .len();
            files.push((length, path));
        }
    }
    if files.iter().all(|(length, _)| *length == 0) {
        return Err(Failure::new(
            Exit::Refused,
            "there is nothing to move: all input files are empty",
        )
        .at(files
            .iter()
            .map(|(_, p)| p.display().to_string())
            .collect::<Vec<_>>()
            .join(", "))
        .fix("give other files with --from"));
    }
    Ok(ordered(files))
}

fn defaults() -> Result<Vec<PathBuf>, Failure> {
    let mut files: Vec<(u64, PathBuf)> = FILES
        .iter()
        .filter_map(|f| Some((std::fs::metadata(f).ok()?.len(), PathBuf::from(f))))
        .collect();
    for directory in DIRECTORIES {
        files.extend(text_files(Path::new(directory)));
    }
    files.retain(|(length, path)| (MIN_DEFAULT..=MAX_DEFAULT).contains(length) && is_text(path));
    let mut files = ordered(files);
    files.truncate(4);
    if files.len() < 4 {
        return Err(
            Failure::new(Exit::Refused, "this machine has none of the usual text files")
                .fix("give files with --from PATH"),
        );
    }
    Ok(files)
}

/// As `file` would say of its beginning; false also for what cannot be read.
fn is_text(path: &Path) -> bool {
    use std::io::Read as _;
    let mut head = Vec::new();
    let read = std::fs::File::open(path).and_then(|f| f.take(4096).read_to_end(&mut head));
    read.is_ok() && !head.contains(&0)
}

fn text_files(directory: &Path) -> Vec<(u64, PathBuf)> {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|e| {
            let path = e.path().canonicalize().ok()?;
            let meta = std::fs::metadata(&path).ok()?;
            let packed = path
                .extension()
                .is_some_and(|x| x == "gz" || x == "xz" || x == "bz2");
            (meta.is_file() && !packed).then_some((meta.len(), path))
        })
        .collect()
}

fn ordered(mut files: Vec<(u64, PathBuf)>) -> Vec<PathBuf> {
    files.sort_by(|a, b| b.cmp(a));
    files.dedup();
    files.into_iter().map(|(_, path)| path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_is_named() {
        let failure = choose(&["/nonexistent/x".into()]).unwrap_err().to_string();
        assert!(failure.contains("/nonexistent/x"), "{failure}");
    }

    #[test]
    fn what_is_no_file_is_refused_and_not_waited_for() {
        let failure = choose(&["/dev/null".into()]).unwrap_err().to_string();
        assert!(failure.contains("neither a file nor a directory"), "{failure}");
    }

    #[test]
    fn a_directory_stands_for_its_files_largest_first() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), "1").unwrap();
        std::fs::write(dir.path().join("b"), "22").unwrap();
        let files = choose(&[dir.path().into()]).unwrap();
        assert!(files[0].ends_with("b") && files[1].ends_with("a"));
    }
}
