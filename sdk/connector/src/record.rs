use bytes::Bytes;

use crate::Structured;

/// What a record carries. Connectors that only move bytes never touch the structured form and pay nothing for it.
#[derive(Clone, Debug, PartialEq)]
pub enum Payload {
    /// No value at all, as distinct from an empty one (a deletion, in many systems).
    Null,
    /// Bytes, uninterpreted; may be empty.
    Bytes(Bytes),
    /// A value with its schema.
    Structured(Box<Structured>),
}

impl Payload {
    /// Bytes this counts for in a memory budget.
    pub fn weight(&self) -> usize {
        match self {
            Self::Null => 0,
            Self::Bytes(b) => b.len(),
            Self::Structured(s) => s.weight(),
        }
    }
}

/// Named text values that travel with a record, in order, as RocketMQ user properties.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Headers(Vec<(Box<str>, Box<str>)>);

impl Headers {
    /// No headers; allocates nothing.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Appends a header.
    pub fn push(&mut self, name: impl Into<Box<str>>, value: impl Into<Box<str>>) {
        self.0.push((name.into(), value.into()));
    }

    /// The first header of that name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| &**n == name).map(|(_, v)| &**v)
    }

    /// All headers in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(n, v)| (&**n, &**v))
    }

    /// Gives the pairs away.
    pub fn into_pairs(self) -> Vec<(Box<str>, Box<str>)> {
        self.0
    }
}

impl From<Vec<(Box<str>, Box<str>)>> for Headers {
    fn from(pairs: Vec<(Box<str>, Box<str>)>) -> Self {
        Self(pairs)
    }
}
