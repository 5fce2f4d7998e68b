use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use super::{open_file::Inode, position::Done};

/// Left files that are remembered over all paths.
const REMEMBERED: usize = 4096;

/// Which files are being read, and which were read and left, over all paths of a task: a file that is renamed to a name
/// that is read too must not be read twice.
#[derive(Debug, Default)]
pub(super) struct Claims {
    held: HashMap<Inode, PathBuf>,
    done: Vec<Done>,
}

impl Claims {
    /// The file is read for this path.
    pub(super) fn hold(&mut self, inode: Inode, path: &Path) {
        self.held.insert(inode, path.to_owned());
    }

    /// The file is not read any more.
    pub(super) fn release(&mut self, inode: Inode) {
        self.held.remove(&inode);
    }

    /// Whether it is read for another path than this one.
    pub(super) fn held_by_other(&self, inode: Inode, path: &Path) -> bool {
        self.held.get(&inode).is_some_and(|p| p != path)
    }

    /// Whether the file at that path is read for another path, or has been read.
    pub(super) fn covers(&self, path: &Path) -> bool {
        let Ok(meta) = std::fs::metadata(path) else {
            return false;
        };
        let inode = Inode::from(&meta);
        self.held_by_other(inode, path) || self.finished(inode).is_some_and(|done| done.byte == meta.len())
    }

    /// How many files are held.
    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    /// The file was read to its end and left.
    pub(super) fn finish(&mut self, done: Done) {
        self.done.retain(|d| d.inode != done.inode);
        if self.done.len() == REMEMBERED {
            self.done.remove(0);
        }
        self.done.push(done);
    }

    /// How the file was left, if it was.
    pub(super) fn finished(&self, inode: Inode) -> Option<&Done> {
        self.done.iter().rev().find(|d| d.inode == inode.1)
    }
}
