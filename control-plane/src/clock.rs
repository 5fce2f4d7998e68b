//! The only place that asks the system for the time.

use std::{sync::Arc, time::Duration};

use pbjson_types::Timestamp;

use crate::store::WallClock;

/// Tells the time. Tests give one that follows tokio's clock.
pub trait Clock: Send + Sync + 'static {
    /// Time since some fixed moment; never goes back and counts the time that the machine was suspended.
    fn now(&self) -> Duration;

    /// Time of day since 1970.
    fn wall(&self) -> Duration;
}

/// The system's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        boot_time()
    }

    #[allow(
        clippy::disallowed_methods,
        reason = "this is the module that asks the system"
    )]
    fn wall(&self) -> Duration {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default()
    }
}

#[cfg(target_os = "linux")]
const BOOT: libc::clockid_t = libc::CLOCK_BOOTTIME;
/// macOS's monotonic clock counts suspend.
#[cfg(not(target_os = "linux"))]
const BOOT: libc::clockid_t = libc::CLOCK_MONOTONIC;

fn boot_time() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    #[allow(
        unsafe_code,
        reason = "std has no clock that counts suspend; the pointer is to a local that outlives the call"
    )]
    let result = unsafe { libc::clock_gettime(BOOT, &mut time) };
    // It fails only for an unknown clock, and these exist on every system that this builds for.
    assert_eq!(result, 0, "the boot-time clock is missing");
    Duration::new(
        time.tv_sec.unsigned_abs(),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

/// Follows tokio's clock, so that a paused one stands still; the time of day begins at a fixed moment.
#[derive(Clone, Copy, Debug)]
pub struct TokioClock(tokio::time::Instant);

impl Default for TokioClock {
    fn default() -> Self {
        Self(tokio::time::Instant::now())
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    fn wall(&self) -> Duration {
        Duration::from_secs(1_700_000_000) + self.0.elapsed()
    }
}

/// A time of day as it is stored.
pub fn timestamp(wall: Duration) -> Timestamp {
    Timestamp {
        seconds: i64::try_from(wall.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(wall.subsec_nanos()).unwrap_or(0),
    }
}

/// The time of day as the store takes it.
pub fn wall_clock(clock: Arc<dyn Clock>) -> WallClock {
    Arc::new(move || timestamp(clock.wall()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_time_does_not_go_back() {
        let first = SystemClock.now();
        assert!(first > Duration::ZERO && SystemClock.now() >= first);
    }
}
