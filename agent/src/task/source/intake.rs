//! Takes polled records in: gives each its place in the acknowledgements, and finds those that can never be sent.

use std::{collections::HashMap, sync::Arc};

use gantry_connector::{Fields, SourceRecord};
use gantry_proto::v1::RecordCounts;

use crate::task::{
    acks::{Acks, Ticket},
    convert::{self, Outgoing},
};

/// Bytes that a record takes beside its content until it is acknowledged: the record, its position, its place in the
/// acknowledgements, and its message while it is sent.
const OVERHEAD: usize = 400;

/// Partitions of a run by what they are, and the records of theirs that are not done.
pub(super) struct Intake {
    pub(super) acks: Acks,
    uid: Arc<str>,
    /// Counts that are committed for partitions not seen yet.
    counts: HashMap<Fields, RecordCounts>,
    indices: HashMap<Arc<Fields>, u32>,
    prefixes: Vec<Box<str>>,
    last: Option<(Arc<Fields>, u32)>,
    most_bytes: usize,
}

impl Intake {
    pub(super) fn new(uid: Arc<str>, counts: HashMap<Fields, RecordCounts>, most_bytes: usize) -> Self {
        Self {
            acks: Acks::default(),
            uid,
            counts,
            indices: HashMap::new(),
            prefixes: Vec::new(),
            last: None,
            most_bytes,
        }
    }

    /// Takes a record in. `Err`: it is larger than allowed, by its size in bytes.
    pub(super) fn take(
        &mut self,
        record: SourceRecord,
    ) -> Result<Outgoing<Ticket>, (Outgoing<Ticket>, usize)> {
        let index = self.index(&record.partition);
        let ticket = self.acks.push(index, record.position);
        let SourceRecord {
            key,
            tag,
            value,
            headers,
            ..
        } = record;
        let text = |s: &Option<Box<str>>| s.as_ref().map_or(0, |s| s.len());
        let value = convert::value_bytes(value);
        let properties: usize = headers.iter().map(|(n, v)| n.len() + v.len() + 2).sum();
        let size = value.as_ref().map_or(0, |v| v.len()) + text(&key) + text(&tag) + properties;
        let out = Outgoing {
            ticket,
            key,
            tag,
            value,
            headers,
            weight: size + OVERHEAD,
        };
        if size > self.most_bytes {
            Err((out, size))
        } else {
            Ok(out)
        }
    }

    /// First part of the ids of the records of a partition.
    pub(super) fn prefix(&self, ticket: Ticket) -> &str {
        &self.prefixes[ticket.partition as usize]
    }

    fn index(&mut self, partition: &Arc<Fields>) -> u32 {
        if let Some((last, index)) = &self.last
            && Arc::ptr_eq(last, partition)
        {
            return *index;
        }
        let index = match self.indices.get(partition) {
            Some(index) => *index,
            None => {
                let counts = self.counts.remove(&**partition).unwrap_or_default();
                let index = self.acks.add_partition(partition.clone(), counts);
                self.indices.insert(partition.clone(), index);
                self.prefixes.push(convert::id_prefix(&self.uid, partition));
                index
            }
        };
        self.last = Some((partition.clone(), index));
        index
    }
}
