use std::{path::Path, sync::Arc};

use gantry_connector::{Fields, Gap, Headers, Payload, SourceRecord, Value};

use super::{super::eol, lines::Piece};

/// What one call of `poll` gathers.
pub(super) struct Batch {
    pub(super) records: Vec<SourceRecord>,
    pub(super) gaps: Vec<Gap>,
    weight: usize,
    max: usize,
}

/// A record's share of the budget beside its bytes, so that empty lines are bounded too.
const RECORD_WEIGHT: usize = 64;

/// What all records of a file have in common.
pub(super) struct Origin {
    pub(super) partition: Arc<Fields>,
    /// The field `file` of positions.
    pub(super) file: Value,
    pub(super) key: Option<Box<str>>,
}

impl Batch {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self {
            records: Vec::new(),
            gaps: Vec::new(),
            weight: 0,
            max: max_bytes.max(1),
        }
    }

    pub(super) fn set_max(&mut self, max_bytes: usize) {
        self.max = max_bytes.max(1);
    }

    pub(super) fn is_full(&self) -> bool {
        self.weight >= self.max
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty() && self.gaps.is_empty()
    }

    pub(super) fn push(&mut self, piece: Piece, origin: &Origin, max_line: usize) {
        let (bytes, next, ended) = match piece {
            Piece::Line { bytes, next, ended } => (bytes, next, ended),
            Piece::TooLong(amount) => {
                return self.gap(
                    origin,
                    amount,
                    format!("a line is longer than max_line_bytes ({max_line})"),
                );
            }
        };
        self.weight += bytes.len() + RECORD_WEIGHT;
        let mut headers = Headers::new();
        if !ended {
            headers.push(eol::HEADER, eol::NONE);
        }
        self.records.push(SourceRecord {
            partition: origin.partition.clone(),
            position: Fields::new().with("byte", next).with("file", origin.file.clone()),
            key: origin.key.clone(),
            tag: None,
            value: Payload::Bytes(bytes),
            headers,
            timestamp_ms: None,
        });
    }

    pub(super) fn gap(&mut self, origin: &Origin, amount: u64, reason: String) {
        self.gaps.push(Gap {
            partition: origin.partition.clone(),
            amount,
            unit: "bytes",
            reason,
        });
    }
}

impl Origin {
    pub(super) fn new(path: &Path, key_is_path: bool) -> Self {
        Self {
            partition: Arc::new(super::position::partition(path)),
            file: Value::Bool(false),
            key: key_is_path.then(|| path.to_string_lossy().into()),
        }
    }
}
