use std::path::{Path, PathBuf};

use crate::ConnectorError;

/// What the agent allows a task to touch, and what a task may know of where it runs.
#[derive(Clone, Debug, Default)]
pub struct Env {
    /// Files that connectors may read and write.
    pub paths: PathPolicy,
}

/// The roots below which file connectors may work. No root: nothing is allowed.
#[derive(Clone, Debug, Default)]
pub struct PathPolicy {
    roots: Vec<PathBuf>,
}

impl PathPolicy {
    /// Allows what lies below these directories, symbolic links resolved.
    pub fn new(roots: impl IntoIterator<Item = PathBuf>) -> Self {
        Self {
            roots: roots.into_iter().map(|r| r.canonicalize().unwrap_or(r)).collect(),
        }
    }

    /// The allowed roots.
    pub fn roots(&self) -> &[PathBuf] {
        &self.roots
    }

    /// The path with symbolic links resolved, if it is absolute and lies below an allowed root. Of a path that does not
    /// exist yet the deepest existing ancestor is resolved and the rest appended; `..` in that rest is refused.
    ///
    /// # Errors
    /// `User` when the path is relative or outside every root; `Environment` when an ancestor cannot be read.
    pub fn resolve(&self, path: &Path) -> Result<PathBuf, ConnectorError> {
        let shown = path.display();
        if !path.is_absolute() {
            return Err(ConnectorError::user(format!("path {shown} is relative"))
                .fix("give an absolute path: agents have no meaningful working directory"));
        }
        let mut existing = path;
        let mut rest = Vec::new();
        let resolved = loop {
            match existing.canonicalize() {
                Ok(p) => break p,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                    // What is created under the name of a link is created where the link leads to.
                    if existing.is_symlink() {
                        return Err(ConnectorError::user(format!(
                            "{} is a link that leads nowhere",
                            existing.display()
                        ))
                        .fix("remove the link, or create what it leads to"));
                    }
                    let (Some(name), Some(parent)) = (existing.file_name(), existing.parent()) else {
                        return Err(ConnectorError::user(format!(
                            "path {shown} contains '..' below a missing directory"
                        ))
                        .fix("write the path without '..'"));
                    };
                    rest.push(name);
                    existing = parent;
                }
                Err(e) => {
                    return Err(ConnectorError::environment(format!("cannot resolve {shown}")).because(e));
                }
            }
        };
        let full = rest.iter().rev().fold(resolved, |p, n| p.join(n));
        if self.roots.iter().any(|r| full.starts_with(r)) {
            return Ok(full);
        }
        let roots: Vec<_> = self.roots.iter().map(|r| r.display().to_string()).collect();
        Err(
            ConnectorError::user(format!("path {shown} is outside what this agent allows")).fix(
                if roots.is_empty() {
                    "start the agent with --allow-path DIR".into()
                } else {
                    format!(
                        "use a path below {}, or start the agent with --allow-path DIR",
                        roots.join(", ")
                    )
                },
            ),
        )
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;
    use crate::Domain;

    #[test]
    fn only_what_lies_below_a_root_after_links_is_allowed() {
        let (root, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (root, outside) = (
            root.path().canonicalize().unwrap(),
            outside.path().canonicalize().unwrap(),
        );
        let policy = PathPolicy::new([root.clone()]);
        fs::create_dir(root.join("sub")).unwrap();
        symlink(&outside, root.join("away")).unwrap();
        symlink(outside.join("missing"), root.join("dangling")).unwrap();
        symlink(root.join("sub"), outside.join("back")).unwrap();

        let allowed = |path: PathBuf, wanted: PathBuf| assert_eq!(policy.resolve(&path).unwrap(), wanted);
        allowed(root.join("a"), root.join("a"));
        allowed(root.join("sub/new/a"), root.join("sub/new/a"));
        allowed(outside.join("back/a"), root.join("sub/a"));
        allowed(root.join("sub/../a"), root.join("a"));

        for path in [
            outside.join("a"),
            root.join("away/a"),
            root.join("away"),
            root.join("dangling"),
            root.join("../a"),
            root.join("missing/../../a"),
            PathBuf::from("relative"),
        ] {
            let e = policy.resolve(&path).unwrap_err();
            assert_eq!(e.domain(), Domain::User, "{}", path.display());
            assert!(e.fix_text().is_some());
        }
        assert!(PathPolicy::default().resolve(&root).is_err());
    }
}
