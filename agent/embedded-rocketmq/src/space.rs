//! Whether the disk has the space without which the broker accepts nothing.

use std::path::Path;

use crate::StartError;

/// The broker refuses messages, and does not start, when less of the file system is available. It cannot be told to
/// do with less, and what is reserved for root is not available to it.
pub(crate) const LEAST_AVAILABLE_PERCENT: u64 = 10;

/// A file system's size and what of it an ordinary user may still fill, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Space {
    pub(crate) total: u64,
    pub(crate) available: u64,
}

impl Space {
    fn of(dir: &Path) -> std::io::Result<Self> {
        let stat = rustix::fs::statvfs(dir)?;
        Ok(Self {
            total: stat.f_blocks.saturating_mul(stat.f_frsize),
            available: stat.f_bavail.saturating_mul(stat.f_frsize),
        })
    }

    /// Bytes that have to be freed before the broker starts; 0: it starts.
    pub(crate) fn short(self) -> u64 {
        let least = u128::from(self.total) * u128::from(LEAST_AVAILABLE_PERCENT);
        u64::try_from(least.div_ceil(100))
            .unwrap_or(u64::MAX)
            .saturating_sub(self.available)
    }
}

/// Refuses a directory whose file system is too full. One that tells nothing of its size is not refused.
pub(crate) fn check(dir: &Path) -> Result<(), StartError> {
    let Ok(space) = Space::of(dir) else { return Ok(()) };
    match space.short() {
        0 => Ok(()),
        short => Err(StartError::DiskFull {
            dir: dir.to_path_buf(),
            available: space.available,
            short,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_has_to_be_available() {
        let space = |available| Space {
            total: 1_000,
            available,
        };
        assert_eq!(space(1_000).short(), 0);
        assert_eq!(space(100).short(), 0);
        assert_eq!(space(99).short(), 1);
        assert_eq!(space(0).short(), 100);
        let huge = Space {
            total: u64::MAX,
            available: u64::MAX,
        };
        assert_eq!(huge.short(), 0);
    }

    #[test]
    fn the_error_says_how_much_to_free() {
        let error = StartError::DiskFull {
            dir: "/data".into(),
            available: 3_000_000_000,
            short: 1_500_000_001,
        };
        let said = error.to_string();
        for part in ["/data", "3.0 GB", "10 %", "1.6 GB"] {
            assert!(said.contains(part), "{said}");
        }
    }
}
