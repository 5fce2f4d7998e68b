use crate::{ConnectorError, Fields};

/// Where an operator wants a partition of a source to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// Exactly there. Written by a person: integers may come signed or unsigned.
    Position(Fields),
    /// At the first record that can be read now.
    Earliest,
    /// Behind everything that is there now.
    Latest,
    /// At the first record that is not older, milliseconds since 1970.
    Time(i64),
}

impl Start {
    /// The refusal of a plugin that cannot tell where that is.
    pub fn unknown_to(&self, plugin: &str) -> ConnectorError {
        let place = match self {
            Self::Position(_) => "this position",
            Self::Earliest => "its earliest position",
            Self::Latest => "its latest position",
            Self::Time(_) => "the position of a time",
        };
        ConnectorError::user(format!("{plugin} cannot tell {place}")).fix(
            "give the position itself; or reset the partition to read it from the beginning, or go back to what was \
             committed at a time",
        )
    }
}

/// How much there is to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lag {
    /// How much, in `unit`.
    pub amount: u64,
    /// `bytes`, `records`.
    pub unit: &'static str,
}
