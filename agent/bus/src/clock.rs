//! The only place that asks the system for the time.

/// Time of day in milliseconds since 1970.
#[allow(
    clippy::disallowed_methods,
    reason = "this is the module that asks the system"
)]
pub(crate) fn wall_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |now| now.as_millis() as i64)
}
