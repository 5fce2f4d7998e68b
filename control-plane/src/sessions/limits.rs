//! How many sessions a replica takes.

/// Without a limit of the system.
const UNLIMITED: usize = 100_000;
/// Descriptors that are needed for everything else.
const RESERVED: usize = 256;

/// As many as the process may have open files, less what it needs otherwise; half of the rest is left to users.
pub fn default_max_sessions() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    sessions_within(open_files(&limits))
}

fn sessions_within(open_files: Option<usize>) -> usize {
    open_files.map_or(UNLIMITED, |files| {
        (files.saturating_sub(RESERVED) / 2).clamp(16, UNLIMITED)
    })
}

/// The soft limit in the text of `/proc/{pid}/limits`. None: there is none.
fn open_files(limits: &str) -> Option<usize> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_of_open_files_counts() {
        let text =
            "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024      524288   files\n";
        assert_eq!(open_files(text), Some(1024));
        assert_eq!(sessions_within(Some(1024)), 384);
        assert_eq!(open_files("Max open files   unlimited unlimited files"), None);
        assert_eq!(sessions_within(None), UNLIMITED);
        assert_eq!(sessions_within(Some(64)), 16);
    }
}
