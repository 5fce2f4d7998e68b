//! What processes and the machine have used, from `/proc`.

use std::fs;

use anyhow::{Context, Result};

/// Ticks of a second in `/proc`: the same on every Linux that Rust supports.
const TICKS: f64 = 100.0;

/// Resident memory of a process in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Now.
    pub now: u64,
    /// The most since its start.
    pub peak: u64,
}

/// Seconds of CPU that a process has used, in user and in kernel mode, to a hundredth.
pub fn cpu(pid: u32) -> Result<f64> {
    let stat = read(&format!("/proc/{pid}/stat"))?;
    process_seconds(&stat).with_context(|| format!("/proc/{pid}/stat is not understood: {stat}"))
}

/// Resident memory of a process.
pub fn memory(pid: u32) -> Result<Memory> {
    let status = read(&format!("/proc/{pid}/status"))?;
    let field = |name| {
        field_kb(&status, name)
            .map(|kb| kb * 1024)
            .with_context(|| format!("/proc/{pid}/status has no {name}"))
    };
    Ok(Memory {
        now: field("VmRSS:")?,
        peak: field("VmHWM:")?,
    })
}

/// Seconds that all cores together were not idle since the machine's start; what other machines took of its host counts.
pub fn machine() -> Result<f64> {
    let stat = read("/proc/stat")?;
    machine_seconds(&stat).context("/proc/stat is not understood")
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("reading {path}"))
}

fn process_seconds(stat: &str) -> Option<f64> {
    // The name is in parentheses and may hold spaces and parentheses itself. utime and stime are the 14th and 15th.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut times = fields.split(' ').skip(11).map(|ticks| ticks.parse::<u64>().ok());
    Some((times.next()?? + times.next()??) as f64 / TICKS)
}

fn machine_seconds(stat: &str) -> Option<f64> {
    // user nice system idle iowait irq softirq steal
    let fields = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = fields
        .split_whitespace()
        .take(8)
        .map_while(|ticks| ticks.parse().ok())
        .collect();
    let [user, nice, system, _, _, irq, softirq, steal] = ticks[..] else {
        return None;
    };
    Some((user + nice + system + irq + softirq + steal) as f64 / TICKS)
}

fn field_kb(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 900 0 0 0 150 25 9 9 20 0 1 0 55 1 1";
        assert_eq!(process_seconds(stat), Some(1.75));
        let stat = "cpu  100 20 30 4000 50 6 7 8 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n";
        assert_eq!(machine_seconds(stat), Some(1.71));
        let status = "Name:\tx\nVmHWM:\t  2048 kB\nVmRSS:\t  1024 kB\n";
        assert_eq!(field_kb(status, "VmHWM:"), Some(2048));
        assert_eq!(field_kb(status, "VmSwap:"), None);
    }

    #[test]
    fn this_process_has_used_something() {
        let pid = std::process::id();
        let memory = memory(pid).unwrap();
        assert!(memory.now > 0 && memory.peak >= memory.now);
        assert!(cpu(pid).unwrap() <= machine().unwrap());
    }
}
