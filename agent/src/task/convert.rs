//! Between records and messages. Pure.

use bytes::Bytes;
use gantry_bus::{InMessage, OutMessage, properties};
use gantry_connector::{Datum, Fields, Headers, Payload, SchemaType, SinkRecord};
use serde_json::Value as Json;

/// Stands for an empty or a null value: RocketMQ refuses empty bodies.
const PLACEHOLDER: Bytes = Bytes::from_static(b"0");

/// A record on its way to a queue.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing<T> {
    /// Names it in the acknowledgements.
    pub(crate) ticket: T,
    pub(crate) key: Option<Box<str>>,
    pub(crate) tag: Option<Box<str>>,
    /// None: null.
    pub(crate) value: Option<Bytes>,
    pub(crate) headers: Headers,
    /// Bytes it counts for in memory.
    pub(crate) weight: usize,
}

/// The stable first part of the ids of a partition's records.
pub(crate) fn id_prefix(uid: &str, partition: &Fields) -> Box<str> {
    format!("{uid}-{:08x}-", fnv1a(partition.to_string().as_bytes()) as u32).into()
}

/// 64-bit FNV-1a: the same in every version and on every machine.
pub(crate) fn fnv1a(bytes: &[u8]) -> u64 {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| {
        (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3)
    });
    // The low bits of FNV alone are weak; both halves go into whatever part is used.
    hash ^ (hash >> 32)
}

/// The bytes of a payload; structured ones become JSON. None: null.
pub(crate) fn value_bytes(payload: Payload) -> Option<Bytes> {
    match payload {
        Payload::Null => None,
        Payload::Bytes(bytes) => Some(bytes),
        Payload::Structured(s) => Some(json(&s.schema.kind, &s.value).to_string().into()),
    }
}

/// The message of a record. `nth`: how many records before it have the same position.
pub(crate) fn to_message<T>(
    record: &Outgoing<T>,
    id_prefix: &str,
    position: &Fields,
    nth: u32,
) -> OutMessage {
    use std::fmt::Write;
    let mut id = String::with_capacity(id_prefix.len() + 24);
    id.push_str(id_prefix);
    // Writing to a String does not fail.
    let _ = write!(id, "{position}");
    if nth > 0 {
        let _ = write!(id, ".{nth}");
    }
    let mut properties = Vec::with_capacity(record.headers.iter().count() + 2);
    properties.push((properties::ID.into(), id.into_boxed_str()));
    let (body, kind) = match &record.value {
        None => (PLACEHOLDER, Some("null")),
        Some(value) if value.is_empty() => (PLACEHOLDER, Some("empty")),
        Some(value) => (value.clone(), None),
    };
    properties.extend(kind.map(|kind| (properties::VALUE.into(), kind.into())));
    properties.extend(record.headers.iter().map(|(n, v)| (n.into(), v.into())));
    OutMessage {
        key: record.key.clone(),
        tag: record.tag.clone(),
        properties,
        body,
    }
}

/// The record of a message.
pub(crate) fn to_record(message: InMessage, partition: u32) -> SinkRecord {
    let InMessage {
        offset,
        key,
        tag,
        mut properties,
        body,
        born_time_ms,
        ..
    } = message;
    let value = match properties.iter().position(|(n, _)| &**n == properties::VALUE) {
        Some(at) => match &*properties.remove(at).1 {
            "null" => Payload::Null,
            _ => Payload::Bytes(Bytes::new()),
        },
        None => Payload::Bytes(body),
    };
    SinkRecord {
        partition,
        offset,
        key,
        tag,
        value,
        headers: properties.into(),
        timestamp_ms: born_time_ms,
    }
}

/// Bytes that a message that was read counts for in memory.
pub(crate) fn weight(message: &InMessage) -> usize {
    let text = |s: &Option<Box<str>>| s.as_ref().map_or(0, |s| s.len());
    let properties: usize = message
        .properties
        .iter()
        .map(|(k, v)| k.len() + v.len() + 32)
        .sum();
    message.body.len() + text(&message.key) + text(&message.tag) + properties + 160
}

fn json(kind: &SchemaType, value: &Datum) -> Json {
    match (kind, value) {
        (_, Datum::Null) => Json::Null,
        (_, Datum::Bool(v)) => (*v).into(),
        (_, Datum::Int(v)) => (*v).into(),
        (_, Datum::Uint(v)) => (*v).into(),
        (_, Datum::Float(v)) => (*v).into(),
        (_, Datum::Str(v)) => (**v).into(),
        (_, Datum::Bytes(v)) => v.iter().map(|b| format!("{b:02x}")).collect::<String>().into(),
        (SchemaType::Array(of), Datum::Array(items)) => items.iter().map(|v| json(&of.kind, v)).collect(),
        (SchemaType::Map(of), Datum::Map(entries)) => Json::Object(
            entries
                .iter()
                .map(|(k, v)| (k.to_string(), json(&of.kind, v)))
                .collect(),
        ),
        (SchemaType::Struct(fields), Datum::Struct(values)) => Json::Object(
            fields
                .iter()
                .zip(values)
                .map(|(f, v)| (f.name.clone(), json(&f.schema.kind, v)))
                .collect(),
        ),
        // A value that is not of its schema's type: without the names that the schema would give.
        (_, Datum::Array(items) | Datum::Struct(items)) => items.iter().map(|v| json(kind, v)).collect(),
        (_, Datum::Map(entries)) => Json::Object(
            entries
                .iter()
                .map(|(k, v)| (k.to_string(), json(kind, v)))
                .collect(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outgoing(value: Option<&'static str>) -> Outgoing<()> {
        let mut headers = Headers::new();
        headers.push("h", "v");
        Outgoing {
            ticket: (),
            key: Some("k".into()),
            tag: None,
            value: value.map(Bytes::from),
            headers,
            weight: 1,
        }
    }

    fn there_and_back(value: Option<&'static str>) -> (OutMessage, SinkRecord) {
        let out = to_message(&outgoing(value), "u-0-", &Fields::new().with("byte", 7u64), 0);
        let read = InMessage {
            offset: 3,
            key: out.key.clone(),
            tag: None,
            properties: out.properties.clone(),
            body: out.body.clone(),
            born_time_ms: 1,
            store_time_ms: 2,
        };
        (out, to_record(read, 5))
    }

    #[test]
    fn values_headers_and_keys_survive() {
        for (value, payload) in [
            (Some("text"), Payload::Bytes("text".into())),
            (Some(""), Payload::Bytes(Bytes::new())),
            (None, Payload::Null),
        ] {
            let (out, back) = there_and_back(value);
            assert!(!out.body.is_empty());
            assert_eq!(back.value, payload);
            assert_eq!(
                (
                    back.key.as_deref(),
                    back.headers.get("h"),
                    back.partition,
                    back.offset
                ),
                (Some("k"), Some("v"), 5, 3)
            );
            assert_eq!(back.headers.get(properties::ID), Some("u-0-byte=7"));
            assert_eq!(back.headers.get(properties::VALUE), None);
        }
    }

    #[test]
    fn ids_are_stable_and_tell_records_of_one_position_apart() {
        let partition = Fields::new().with("path", "/a");
        assert_eq!(
            &*id_prefix("u", &partition),
            "u-00000000-".replace("00000000", &id_prefix("u", &partition)[2..10])
        );
        let position = Fields::new().with("byte", 1u64);
        let id = |nth| {
            to_message(&outgoing(None), "u-0-", &position, nth).properties[0]
                .1
                .clone()
        };
        assert_eq!((&*id(0), &*id(2)), ("u-0-byte=1", "u-0-byte=1.2"));
    }

    #[test]
    fn the_hash_never_changes() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325 ^ 0xcbf2_9ce4);
        assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c ^ 0xaf63_dc4c);
    }
}
