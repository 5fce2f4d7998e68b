use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use gantry_connector::testkit::Rng;
use parking_lot::Mutex;

use super::super::disk::{Disk, Identity, OutFile};

/// What a disk does wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Vices {
    /// `fdatasync` does nothing.
    pub(super) no_data_sync: bool,
    /// `fsync` of directories does nothing.
    pub(super) no_dir_sync: bool,
    /// One call in so many fails; 0 for none. A failing write has written a part.
    pub(super) fails: usize,
}

/// A file system in memory. At a crash, of what was not synced any part may be lost.
#[derive(Clone)]
pub(super) struct SimDisk(Arc<Mutex<State>>);

struct State {
    files: Vec<Content>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    /// Changes of names that were not synced, in order.
    pending: Vec<Change>,
    rng: Rng,
    vices: Vices,
    crashes: usize,
}

#[derive(Clone, Default)]
struct Content {
    now: Vec<u8>,
    durable: Vec<u8>,
}

#[derive(Clone)]
enum Change {
    Add(PathBuf, usize),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf),
}

fn apply(names: &mut BTreeMap<PathBuf, usize>, change: &Change) {
    match change {
        Change::Add(path, file) => drop(names.insert(path.clone(), *file)),
        Change::Remove(path) => drop(names.remove(path)),
        Change::Rename(from, to) => {
            if let Some(file) = names.remove(from) {
                names.insert(to.clone(), file);
            }
        }
    }
}

impl SimDisk {
    pub(super) fn new(seed: u64, vices: Vices) -> Self {
        Self(Arc::new(Mutex::new(State {
            files: vec![],
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            pending: vec![],
            rng: Rng::new(seed),
            vices,
            crashes: 0,
        })))
    }

    /// Empties it.
    pub(super) fn clear(&self) {
        let mut s = self.0.lock();
        s.files.clear();
        s.names.clear();
        s.durable_names.clear();
        s.pending.clear();
    }

    /// How often it has crashed.
    pub(super) fn crashes(&self) -> usize {
        self.0.lock().crashes
    }

    /// The machine loses power.
    pub(super) fn crash(&self) {
        let s = &mut *self.0.lock();
        s.crashes += 1;
        let kept = s.rng.below(s.pending.len() + 1);
        for change in &s.pending[..kept] {
            apply(&mut s.durable_names, change);
        }
        s.pending.clear();
        s.names = s.durable_names.clone();
        for file in &mut s.files {
            let mut left = match s.rng.below(3) {
                0 => file.durable.clone(),
                _ => file.now.clone(),
            };
            // Lengths and blocks reach the disk apart from each other: there may be zeros, and there may be less.
            let synced = file.durable.len().min(left.len());
            let cut = synced + s.rng.below(left.len() - synced + 1);
            if s.rng.one_in(2) {
                left[cut..].fill(0);
            } else {
                left.truncate(cut);
            }
            (file.now, file.durable) = (left.clone(), left);
        }
    }

    /// The files whose name begins so, in order of name, the shortest last.
    pub(super) fn read(&self, path: &Path) -> Vec<u8> {
        let s = self.0.lock();
        let begins = |p: &Path| p.to_string_lossy().starts_with(&format!("{}.", path.display()));
        let rotated = s.names.iter().filter(|(p, _)| begins(p)).map(|(_, f)| *f);
        rotated
            .chain(s.names.get(path).copied())
            .flat_map(|f| s.files[f].now.clone())
            .collect()
    }

    fn fault(&self) -> io::Result<()> {
        let s = &mut *self.0.lock();
        if s.vices.fails > 0 && s.rng.one_in(s.vices.fails) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn change(&self, change: Change) {
        let s = &mut *self.0.lock();
        apply(&mut s.names, &change);
        s.pending.push(change);
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path) -> io::Result<Box<dyn OutFile>> {
        self.fault()?;
        let found = self.0.lock().names.get(path).copied();
        let file = match found {
            Some(file) => file,
            None => {
                let file = self.0.lock().files.len();
                self.0.lock().files.push(Content::default());
                self.change(Change::Add(path.to_owned(), file));
                file
            }
        };
        Ok(Box::new(SimFile {
            disk: self.clone(),
            file,
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.fault()?;
        self.change(Change::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.fault()?;
        self.change(Change::Remove(path.to_owned()));
        Ok(())
    }

    fn stat(&self, path: &Path) -> io::Result<Option<(u64, Identity)>> {
        self.fault()?;
        let s = self.0.lock();
        Ok(s.names
            .get(path)
            .map(|f| (s.files[*f].now.len() as u64, (0, *f as u64))))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.fault()?;
        let s = self.0.lock();
        let names = s
            .names
            .keys()
            .filter(|p| p.parent() == Some(dir))
            .filter_map(|p| p.file_name());
        Ok(names.map(|n| n.to_string_lossy().into_owned()).collect())
    }

    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        let s = &mut *self.0.lock();
        if !s.vices.no_dir_sync {
            s.durable_names = s.names.clone();
            s.pending.clear();
        }
        Ok(())
    }
}

struct SimFile {
    disk: SimDisk,
    file: usize,
}

impl OutFile for SimFile {
    fn write_at(&mut self, bytes: &[u8], at: u64) -> io::Result<()> {
        let fault = self.disk.fault();
        let s = &mut *self.disk.0.lock();
        let part = if fault.is_ok() {
            bytes.len()
        } else {
            s.rng.below(bytes.len() + 1)
        };
        let content = &mut s.files[self.file].now;
        let end = at as usize + part;
        content.resize(content.len().max(end), 0);
        content[at as usize..end].copy_from_slice(&bytes[..part]);
        fault
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.disk.fault()?;
        self.disk.0.lock().files[self.file].now.resize(length as usize, 0);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let s = &mut *self.disk.0.lock();
        if !s.vices.no_data_sync {
            s.files[self.file].durable = s.files[self.file].now.clone();
        }
        Ok(())
    }

    fn identity(&self) -> Identity {
        (0, self.file as u64)
    }
}
