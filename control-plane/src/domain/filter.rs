//! Filters of lists and watches, the part of AIP-160 that connectors need: AND, OR, NOT, parentheses, `=`, `!=`, `:` on
//! name, plugin, kind, state, target_state, labels.*. As in AIP-160, OR binds tighter than AND.
//!
//! `=` compares whole texts, in which `*` stands for any characters; `:` finds a part of a text, or for `labels:k` and
//! `labels.k:*` whether the label is there. `!=` is NOT `=`: it holds where there is no such label.

mod eval;
mod lexer;
mod parser;
#[cfg(test)]
mod tests;

use gantry_proto::v1;
use thiserror::Error;

/// A filter that was understood.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Filter {
    /// None: matches everything.
    expression: Option<Expression>,
}

/// Why a filter was not understood.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message} at character {at}")]
pub struct FilterError {
    /// Where, in characters from 1.
    pub at: usize,
    /// What is wrong.
    pub message: String,
}

#[derive(Debug, Clone, PartialEq)]
enum Expression {
    All(Vec<Self>),
    Any(Vec<Self>),
    Not(Box<Self>),
    Is(Field, Pattern),
}

#[derive(Debug, Clone, PartialEq)]
enum Field {
    Name,
    Plugin,
    Kind,
    State,
    TargetState,
    Label(String),
}

#[derive(Debug, Clone, PartialEq)]
enum Pattern {
    /// The whole text; `*` stands for any characters.
    Whole(String),
    /// Some part of the text.
    Part(String),
    /// Anything, as long as it is there.
    Present,
}

impl Filter {
    /// Understands a filter; an empty one matches everything.
    ///
    /// # Errors
    /// [`FilterError`].
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        parser::parse(text).map(|expression| Self { expression })
    }

    /// Does a connector, as it is shown to users, match?
    pub fn matches(&self, connector: &v1::Connector) -> bool {
        self.expression.as_ref().is_none_or(|e| e.matches(connector))
    }
}
