//! What is aimed at, beside what was measured. Nothing fails because an aim is missed.

use serde_json::{Value, json};

use crate::report::{mb, median, spread};

/// Which side of the limit is good, and in what it is measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Limit {
    /// At least this part of the raw client's rate.
    PartOfRaw(f64),
    /// At most so many times what the raw client takes.
    TimesRaw(f64),
    /// At most so many bytes.
    Bytes(f64),
    /// At most this part of a core.
    Core(f64),
    /// At most so many seconds.
    Seconds(f64),
}

/// One aim. What counts is the median.
#[derive(Debug, Clone)]
pub(crate) struct Aim {
    pub(crate) what: String,
    pub(crate) limit: Limit,
    pub(crate) measured: Vec<f64>,
}

impl Aim {
    pub(crate) fn new(what: impl Into<String>, limit: Limit, measured: Vec<f64>) -> Self {
        Self {
            what: what.into(),
            limit,
            measured,
        }
    }

    pub(crate) fn is_met(&self) -> bool {
        let measured = median(&self.measured);
        match self.limit {
            Limit::PartOfRaw(least) => measured >= least,
            Limit::TimesRaw(most) | Limit::Bytes(most) | Limit::Core(most) | Limit::Seconds(most) => {
                measured <= most
            }
        }
    }

    pub(crate) fn aim(&self) -> String {
        match self.limit {
            Limit::PartOfRaw(least) => format!(">= {least:.2} of raw"),
            Limit::TimesRaw(most) => format!("<= {most:.1} x raw"),
            Limit::Bytes(most) => format!("<= {} MB", mb(most)),
            Limit::Core(most) => format!("<= {:.1} % of a core", most * 100.0),
            Limit::Seconds(most) => format!("<= {most:.1} s"),
        }
    }

    /// The median; if it was measured several times, also the least and the most.
    pub(crate) fn measured(&self) -> String {
        let scaled = |scale: f64| {
            self.measured
                .iter()
                .map(|value| value * scale)
                .collect::<Vec<_>>()
        };
        let (values, digits) = match self.limit {
            Limit::PartOfRaw(_) | Limit::TimesRaw(_) | Limit::Seconds(_) => (scaled(1.0), 2),
            Limit::Bytes(_) => (scaled(1e-6), 1),
            Limit::Core(_) => (scaled(100.0), 1),
        };
        spread(&values, digits)
    }

    pub(crate) fn json(&self) -> Value {
        json!({ "what": self.what, "aim": self.aim(), "measured": self.measured, "met": self.is_met() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_decides() {
        let aim = |limit, measured: &[f64]| Aim::new("x", limit, measured.to_vec());
        assert!(aim(Limit::PartOfRaw(0.85), &[0.5, 0.9, 1.0]).is_met());
        assert!(!aim(Limit::PartOfRaw(0.85), &[0.5, 0.8, 1.0]).is_met());
        assert!(aim(Limit::Bytes(24e6), &[23e6]).is_met());
        assert!(!aim(Limit::Core(0.02), &[0.021]).is_met());
        // Nothing measured is no success.
        assert!(!aim(Limit::Seconds(1.0), &[]).is_met());
        assert_eq!(aim(Limit::Core(0.02), &[0.015]).measured(), "1.5");
    }
}
