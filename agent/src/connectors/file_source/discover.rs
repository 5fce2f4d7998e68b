use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
};

use gantry_connector::ConnectorError;
use glob::{MatchOptions, Pattern, glob_with};
use walkdir::WalkDir;

use super::trouble::Trouble;

/// `*` stays within a directory and leaves hidden files out, as in a shell.
const OPTIONS: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: true,
};

/// Which files a connector reads.
#[derive(Debug)]
pub(super) struct Patterns {
    literal: BTreeSet<PathBuf>,
    globs: Vec<Glob>,
    exclude: Vec<Pattern>,
}

#[derive(Debug)]
struct Glob {
    pattern: Pattern,
    /// The directory that the pattern starts from.
    base: PathBuf,
    /// It has a `**`.
    deep: bool,
}

impl Patterns {
    /// A path that holds one of `*?[` is a pattern, unless a file of just that name exists.
    pub(super) fn new(paths: &[PathBuf], exclude: &[PathBuf]) -> Result<Self, ConnectorError> {
        let (globs, literal): (Vec<_>, Vec<_>) = paths.iter().partition(|p| is_pattern(p) && !p.exists());
        Ok(Self {
            literal: literal.into_iter().cloned().collect(),
            globs: globs
                .into_iter()
                .map(|p| {
                    compile(p).map(|pattern| Glob {
                        pattern,
                        base: base(p),
                        deep: p.components().any(|c| c.as_os_str() == "**"),
                    })
                })
                .collect::<Result<_, _>>()?,
            exclude: exclude.iter().map(|p| compile(p)).collect::<Result<_, _>>()?,
        })
    }

    /// Files that are named one by one.
    pub(super) fn literal(&self) -> impl Iterator<Item = &PathBuf> {
        self.literal.iter().filter(|p| !self.excludes(p))
    }

    /// Whether new files can begin to match.
    pub(super) fn is_open(&self) -> bool {
        !self.globs.is_empty()
    }

    /// The directories that the patterns start from.
    pub(super) fn bases(&self) -> impl Iterator<Item = &Path> {
        self.globs.iter().map(|g| g.base.as_path())
    }

    /// Whether the file would be read if it existed.
    pub(super) fn covers(&self, path: &Path) -> bool {
        let globs = || {
            self.globs
                .iter()
                .any(|g| g.pattern.matches_path_with(path, OPTIONS))
        };
        (self.literal.contains(path) || globs()) && !self.excludes(path)
    }

    pub(super) fn is_literal(&self, path: &Path) -> bool {
        self.literal.contains(path)
    }

    /// Whether the file is left out even if it matches.
    pub(super) fn excludes(&self, path: &Path) -> bool {
        self.exclude.iter().any(|e| e.matches_path_with(path, OPTIONS))
    }

    /// The regular files that match now, sorted; what could not be looked into is named.
    pub(super) fn matches(&self) -> (BTreeSet<PathBuf>, Vec<Trouble>) {
        let (mut found, mut troubles) = (BTreeSet::new(), Vec::new());
        for glob in &self.globs {
            if !glob.base.is_dir() {
                troubles.push(Trouble::missing(
                    &glob.base,
                    "create the directory, mount its file system, or correct paths; new files in it are found by themselves",
                ));
                continue;
            }
            for path in glob.paths() {
                match path {
                    Ok(path) if path.is_file() && !self.excludes(&path) => drop(found.insert(path)),
                    Ok(_) => {}
                    Err((path, e)) => troubles.push(Trouble::io("search", &path, e)),
                }
            }
        }
        (found, troubles)
    }
}

impl Glob {
    /// What is there that matches, and what could not be looked into.
    fn paths(&self) -> Box<dyn Iterator<Item = Result<PathBuf, (PathBuf, io::Error)>> + '_> {
        if self.deep {
            // Links to directories are not followed below a `**`: they may lead back.
            let entries = WalkDir::new(&self.base).min_depth(1).into_iter();
            return Box::new(entries.filter_map(|entry| match entry {
                Ok(entry) => {
                    let path = entry.into_path();
                    self.pattern.matches_path_with(&path, OPTIONS).then_some(Ok(path))
                }
                Err(e) => {
                    let path = e.path().unwrap_or(&self.base).to_owned();
                    Some(Err((path, e.into())))
                }
            }));
        }
        let paths = glob_with(self.pattern.as_str(), OPTIONS).into_iter().flatten();
        Box::new(paths.map(|path| path.map_err(|e| (e.path().to_owned(), e.into()))))
    }
}

/// Which of `tasks` reads the file. The same for every version of this program: tasks would swap files otherwise.
pub(super) fn task_of(path: &Path, tasks: u32) -> u32 {
    let bytes = path.as_os_str().as_encoded_bytes();
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h: u64, b| {
        (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3)
    });
    // The low bits of this hash depend on the last bytes only.
    let mixed = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    u32::try_from(mixed % u64::from(tasks.max(1))).unwrap_or(0)
}

pub(super) fn is_pattern(path: &Path) -> bool {
    path.as_os_str()
        .as_encoded_bytes()
        .iter()
        .any(|b| matches!(b, b'*' | b'?' | b'['))
}

fn base(pattern: &Path) -> PathBuf {
    let plain: PathBuf = pattern
        .components()
        .take_while(|c| !is_pattern(Path::new(c.as_os_str())))
        .collect();
    if plain == pattern {
        plain.parent().unwrap_or(&plain).to_owned()
    } else {
        plain
    }
}

fn compile(path: &Path) -> Result<Pattern, ConnectorError> {
    let text = path.to_string_lossy();
    Pattern::new(&text).map_err(|e| {
        ConnectorError::user(format!("{text} is not a pattern"))
            .because(e)
            .fix("use * and ? within a name, [ab] for one of some characters, ** as a whole directory name")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_task_of_a_file_never_changes() {
        let tasks: Vec<_> = (0..8)
            .map(|i| task_of(Path::new(&format!("/var/log/{i}.log")), 4))
            .collect();
        assert_eq!(tasks, [1, 2, 2, 2, 2, 3, 2, 0]);
        assert_eq!(task_of(Path::new("/a"), 1), 0);
    }

    #[test]
    fn files_spread_over_tasks() {
        let mut count = [0; 4];
        (0..4000).for_each(|i| count[task_of(Path::new(&format!("/data/part-{i:05}.csv")), 4) as usize] += 1);
        assert!(count.iter().all(|n| (800..1200).contains(n)), "{count:?}");
    }

    #[test]
    fn links_that_lead_back_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir(at("sub")).unwrap();
        std::fs::write(at("sub/a.log"), "").unwrap();
        for name in ["one", "two", "sub/three"] {
            std::os::unix::fs::symlink(dir.path(), at(name)).unwrap();
        }
        std::os::unix::fs::symlink(at("sub/a.log"), at("sub/b.log")).unwrap();
        let patterns = Patterns::new(&[at("**/*.log")], &[]).unwrap();
        let (found, troubles) = patterns.matches();
        assert_eq!(
            found.into_iter().collect::<Vec<_>>(),
            [at("sub/a.log"), at("sub/b.log")]
        );
        assert!(troubles.is_empty(), "{troubles:?}");
    }

    #[test]
    fn patterns_find_files_and_say_what_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("sub/deep")).unwrap();
        for name in [
            "a.log",
            "b.log",
            "b.log.gz",
            ".hidden.log",
            "x[1].log",
            "sub/c.log",
            "sub/deep/d.log",
        ] {
            std::fs::write(at(name), "").unwrap();
        }
        let found = |paths: &[&str], exclude: &[&str]| {
            let paths: Vec<_> = paths.iter().map(|p| at(p)).collect();
            let exclude: Vec<_> = exclude.iter().map(|p| at(p)).collect();
            let patterns = Patterns::new(&paths, &exclude).unwrap();
            let (mut all, troubles) = patterns.matches();
            all.extend(patterns.literal().cloned());
            assert!(all.iter().all(|p| patterns.covers(p)));
            let names: Vec<_> = all
                .iter()
                .map(|p| p.strip_prefix(dir.path()).unwrap().display().to_string())
                .collect();
            (names.join(" "), troubles.len())
        };
        assert_eq!(found(&["*.log"], &[]).0, "a.log b.log x[1].log");
        assert_eq!(
            found(&["**/*.log"], &[]).0,
            "a.log b.log sub/c.log sub/deep/d.log x[1].log"
        );
        assert_eq!(found(&["*/*"], &[]).0, "sub/c.log");
        assert_eq!(found(&["b*"], &["*.gz"]).0, "b.log");
        assert_eq!(found(&["x[1].log", "later.log"], &[]).0, "later.log x[1].log");
        assert_eq!(found(&["missing/*.log", "a*"], &[]), ("a.log".into(), 1));
        assert!(Patterns::new(&[at("a***b")], &[]).is_err());
    }
}
