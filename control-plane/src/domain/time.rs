//! Points in time as stored, in milliseconds since 1970. Where they come from is the caller's business.

use pbjson_types::{Duration, Timestamp};

/// Milliseconds since 1970.
pub fn millis(t: &Timestamp) -> i64 {
    t.seconds
        .saturating_mul(1_000)
        .saturating_add(i64::from(t.nanos) / 1_000_000)
}

/// The stored form.
pub fn timestamp(ms: i64) -> Timestamp {
    Timestamp {
        seconds: ms.div_euclid(1_000),
        nanos: (ms.rem_euclid(1_000) * 1_000_000) as i32,
    }
}

/// Milliseconds of a span; negative spans are negative.
pub fn span_millis(d: &Duration) -> i64 {
    d.seconds
        .saturating_mul(1_000)
        .saturating_add(i64::from(d.nanos) / 1_000_000)
}

/// A span of so many seconds.
pub fn seconds(s: i64) -> Duration {
    Duration { seconds: s, nanos: 0 }
}
