//! What a drill says: also when it passes, where a test's own output is not shown.

use std::fmt::{self, Display};
use std::io::Write;
use std::time::Duration;

use super::schedule::seed;

/// Says what happens in a drill, line by line.
#[derive(Debug, Clone)]
pub struct Report {
    drill: &'static str,
}

impl Report {
    /// Begins with the seed.
    pub fn new(drill: &'static str, rounds: u32) -> Self {
        let report = Self { drill };
        report.say(format_args!(
            "{rounds} rounds; again with `tests/run --seed {} --rounds {rounds} -- {drill}`",
            seed()
        ));
        report
    }

    /// Says a line.
    pub fn say(&self, line: impl Display) {
        // Not `eprintln!`: the output of a test that passes is not shown otherwise.
        let _ = writeln!(std::io::stderr(), "{}: {line}", self.drill);
    }
}

/// How long something took, each time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Times(Vec<Duration>);

impl Times {
    /// More of them.
    pub fn extend(&mut self, times: impl IntoIterator<Item = Duration>) {
        self.0.extend(times);
    }

    /// The smallest that at least `percent` percent do not exceed.
    fn percentile(&self, percent: usize) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort();
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted.get(rank - 1).copied().unwrap_or_default()
    }
}

impl FromIterator<Duration> for Times {
    fn from_iter<T: IntoIterator<Item = Duration>>(times: T) -> Self {
        Self(times.into_iter().collect())
    }
}

impl Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |percent| self.percentile(percent).as_secs_f64();
        write!(
            f,
            "n {}: min {:.2} s, p50 {:.2} s, p90 {:.2} s, p99 {:.2} s, max {:.2} s",
            self.0.len(),
            at(0),
            at(50),
            at(90),
            at(99),
            at(100)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_times_that_were_measured() {
        let times: Times = (1..=200).rev().map(Duration::from_secs).collect();
        assert_eq!(
            times.to_string(),
            "n 200: min 1.00 s, p50 100.00 s, p90 180.00 s, p99 198.00 s, max 200.00 s"
        );
        let one: Times = [Duration::from_secs(3)].into_iter().collect();
        assert_eq!(one.percentile(50), one.percentile(99));
    }
}
