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
