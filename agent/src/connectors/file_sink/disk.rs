use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::Path,
};

/// What the sink needs of a file system; tests have one that forgets what was not synced.
pub(super) trait Disk: Send {
    /// Opens for writing, creates what does not exist, and keeps every other writer out until it is dropped.
    fn open(&self, path: &Path) -> io::Result<Box<dyn OutFile>>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Size and identity; none if there is nothing.
    fn stat(&self, path: &Path) -> io::Result<Option<(u64, Identity)>>;
    /// Names in a directory.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Creates a directory durably, unless it exists.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Makes names durable: what was created, renamed and removed in the directory.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// A file that is written.
pub(super) trait OutFile: Send {
    fn write_at(&mut self, bytes: &[u8], at: u64) -> io::Result<()>;
    fn truncate(&mut self, length: u64) -> io::Result<()>;
    /// Makes content and length durable.
    fn sync(&mut self) -> io::Result<()>;
    fn identity(&self) -> Identity;
}

/// Tells a file from another under the same path.
pub(super) type Identity = (u64, u64);

/// The file system of the machine.
pub(super) struct RealDisk;

struct RealFile {
    file: File,
    identity: Identity,
}

impl Disk for RealDisk {
    fn open(&self, path: &Path) -> io::Result<Box<dyn OutFile>> {
        // The path is resolved: a link that has come meanwhile is not followed. A pipe must not make the open wait.
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .custom_flags(flags)
            .open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(e)) if e.kind() == io::ErrorKind::Unsupported => {}
            Err(TryLockError::Error(e)) => return Err(e),
        }
        let meta = file.metadata()?;
        Ok(Box::new(RealFile {
            file,
            identity: (meta.dev(), meta.ino()),
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn stat(&self, path: &Path) -> io::Result<Option<(u64, Identity)>> {
        match fs::metadata(path) {
            Ok(m) => Ok(Some((m.len(), (m.dev(), m.ino())))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let names = fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().into_string().ok()));
        names.filter_map(Result::transpose).collect()
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        match fs::create_dir(dir) {
            Ok(()) => self.sync_dir(dir.parent().unwrap_or(dir)),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(e) => Err(e),
        }
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }
}

impl OutFile for RealFile {
    fn write_at(&mut self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, at)
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn identity(&self) -> Identity {
        self.identity
    }
}
