//! The lock file: one process per agent name and machine, and a counter of its starts.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use gantry_proto::agent::v1::LockIdentity;
use sha2::{Digest, Sha256};

use crate::AgentError;

/// A held lock. It is let go when this is dropped, or with the process.
pub(crate) struct AgentLock {
    _file: File,
    /// Tells lock files apart.
    pub(crate) identity: LockIdentity,
    /// Greater than at every earlier start under this lock.
    pub(crate) start_counter: u64,
}

impl AgentLock {
    /// Takes the lock of that name and raises its start counter. A counter that was lost (the file is new) begins at the
    /// time of day, so that it is greater than one that an earlier file of the same inode may have had.
    ///
    /// # Errors
    /// `NameTaken` if another process holds it; `Lock` if the file cannot be used.
    pub(crate) fn take(dir: &Path, name: &str, wall: Duration) -> Result<Self, AgentError> {
        let path = dir.join(format!("gantry-agent-{name}.lock"));
        let failed = |source| AgentError::Lock {
            path: path.clone(),
            source,
        };
        fs::create_dir_all(dir).map_err(failed)?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(AgentError::NameTaken {
                    name: name.into(),
                    path,
                });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let start_counter = raise(&mut file, wall).map_err(failed)?;
        let meta = file.metadata().map_err(failed)?;
        let identity = LockIdentity {
            boot_id: boot_id(),
            device: meta.dev(),
            inode: meta.ino(),
        };
        Ok(Self {
            _file: file,
            identity,
            start_counter,
        })
    }
}

fn raise(file: &mut File, wall: Duration) -> io::Result<u64> {
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    let next = text
        .trim()
        .parse::<u64>()
        .map_or(wall.as_secs(), |last| last.saturating_add(1));
    file.seek(SeekFrom::Start(0))?;
    // Never shorter than before, so that a crash between the two leaves a number that is not smaller.
    file.write_all(format!("{next}\n").as_bytes())?;
    file.sync_all()?;
    Ok(next)
}

/// Where lock files are by default: a directory that is this user's and empty after a boot.
#[allow(
    clippy::disallowed_methods,
    reason = "a setting of the system, read once where the configuration is filled in"
)]
pub(crate) fn default_dir() -> PathBuf {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR")
        .map(PathBuf::from)
        .filter(|d| d.is_dir());
    // Elsewhere a directory of that name may be another user's.
    let own = || {
        let uid = fs::metadata("/proc/self").map_or(0, |meta| meta.uid());
        std::env::temp_dir().join(format!("gantry-{uid}"))
    };
    runtime.map_or_else(own, |dir| dir.join("gantry"))
}

fn boot_id() -> String {
    first_line("/proc/sys/kernel/random/boot_id").unwrap_or_default()
}

/// Host name and an id that tells hosts of equal name apart; derived from the machine's id, which stays private.
pub(crate) fn host() -> (String, String) {
    let name = first_line("/proc/sys/kernel/hostname")
        .or_else(|| first_line("/etc/hostname"))
        .unwrap_or_else(|| "unknown".into());
    let machine = first_line("/etc/machine-id").unwrap_or_else(|| name.clone());
    let hash = Sha256::digest(format!("gantry host {machine}"));
    (name, hash.iter().take(16).map(|b| format!("{b:02x}")).collect())
}

fn first_line(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    text.lines()
        .next()
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_grows_and_the_name_is_exclusive() {
        let dir = tempfile::tempdir().unwrap();
        let take = |name| AgentLock::take(dir.path(), name, Duration::from_secs(1000));
        let first = take("a").unwrap();
        assert_eq!(first.start_counter, 1000);
        assert!(matches!(take("a"), Err(AgentError::NameTaken { .. })));
        let other = take("b").unwrap();
        assert_ne!(other.identity, first.identity);
        let identity = first.identity.clone();
        drop(first);
        let second = take("a").unwrap();
        assert_eq!((second.start_counter, second.identity.clone()), (1001, identity));
    }
}
