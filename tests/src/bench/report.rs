//! What was measured, as tables of text and as JSON.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::aims::Aim;
use crate::machine::{self, Machine};

/// A table.
#[derive(Debug, Default)]
pub(crate) struct Table {
    pub(crate) title: String,
    pub(crate) head: Vec<&'static str>,
    pub(crate) rows: Vec<Vec<String>>,
}

/// Everything that was measured.
#[derive(Debug)]
pub(crate) struct Report {
    machine: Machine,
    aims: Vec<Aim>,
    details: Vec<Value>,
}

impl Report {
    pub(crate) fn new(machine: Machine) -> Self {
        Self {
            machine,
            aims: Vec::new(),
            details: Vec::new(),
        }
    }

    /// Prints a table at once, keeps its figures for the JSON, and the aims for the end.
    pub(crate) fn add(&mut self, table: &Table, details: Value, aims: Vec<Aim>) {
        print!("\n{}", table.text());
        self.details.push(details);
        self.aims.extend(aims);
    }

    /// Where and of what the figures are.
    pub(crate) fn head(&self) -> String {
        self.machine.text()
    }

    /// The aims beside what was measured.
    pub(crate) fn tail(&self) -> String {
        let row = |aim: &Aim| {
            vec![
                aim.what.clone(),
                aim.aim(),
                aim.measured(),
                if aim.is_met() { "met" } else { "not met" }.into(),
            ]
        };
        let table = Table {
            title: "aims".into(),
            head: vec!["", "aim", "measured", ""],
            rows: self.aims.iter().map(row).collect(),
        };
        format!("\n{}load     {} at the end\n", table.text(), machine::load())
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "machine": self.machine.json(),
            "load_at_the_end": machine::load(),
            "measurements": self.details,
            "aims": self.aims.iter().map(Aim::json).collect::<Vec<_>>(),
        })
    }
}

impl Table {
    /// The first column to the left, the others to the right.
    pub(crate) fn text(&self) -> String {
        let head: Vec<String> = self.head.iter().map(|cell| (*cell).to_owned()).collect();
        let all: Vec<&Vec<String>> = std::iter::once(&head).chain(&self.rows).collect();
        let width = |column: usize| {
            let cells = all.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..head.len()).map(width).collect();
        let mut text = format!("{}\n", self.title);
        for row in all {
            let mut line = String::new();
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                // Writing to a String does not fail.
                let _ = match column {
                    0 => write!(line, "  {cell:<width$}"),
                    _ => write!(line, "  {cell:>width$}"),
                };
            }
            text += line.trim_end();
            text.push('\n');
        }
        text
    }
}

/// The middle of what was measured; the mean of the two in the middle, if there are two.
pub(crate) fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// The value below which this part of them is, between two of them in proportion.
pub(crate) fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else {
        return f64::NAN;
    };
    let at = part * last as f64;
    let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    low + (high - low) * at.fract()
}

/// Median, least and most: `0.95 (0.91-0.99)`; of one value itself.
pub(crate) fn spread(values: &[f64], digits: usize) -> String {
    let (least, most) = (quantile(values, 0.0), quantile(values, 1.0));
    if values.len() < 2 {
        return format!("{:.digits$}", median(values));
    }
    format!("{:.digits$} ({least:.digits$}-{most:.digits$})", median(values))
}

/// 1234567 as `1,234,567`.
pub(crate) fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes as millions of bytes.
pub(crate) fn mb(bytes: f64) -> String {
    format!("{:.0}", bytes / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_spreads() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0]), 2.5);
        assert_eq!(spread(&[1.0, 0.9, 0.95], 2), "0.95 (0.90-1.00)");
        assert_eq!(spread(&[1.0], 1), "1.0");
        let hundred: Vec<f64> = (1..=101).map(f64::from).collect();
        assert_eq!(quantile(&hundred, 0.99), 100.0);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn numbers_are_readable() {
        assert_eq!(grouped(1_234_567.4), "1,234,567");
        assert_eq!(grouped(999.0), "999");
    }

    #[test]
    fn columns_line_up() {
        let table = Table {
            title: "t".into(),
            head: vec!["", "records/s"],
            rows: vec![vec!["ä".into(), "1".into()], vec!["longer".into(), "12".into()]],
        };
        assert_eq!(
            table.text(),
            "t\n          records/s\n  ä               1\n  longer         12\n"
        );
    }
}
