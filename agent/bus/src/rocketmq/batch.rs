//! A batch as RocketMQ's brokers take it (the format of Java's `MessageDecoder.encodeMessages`). Pure.
//!
//! ```text
//! per message: total size 4 | magic 4 = 0 | body CRC 4 = 0 | flag 4 = 0 | body length 4 | body | properties length 2 | properties
//! properties:  name 0x01 value 0x02 ...
//! ```
//!
//! Bodies are sent as they are: neither the Rust nor the Java client compresses the messages of a batch. The client-made
//! UNIQ_KEY is left out: it would cost 42 bytes and an index entry per message, and brokers and consumers
//! fall back to the message's own id, which is unique as well.

use bytes::{BufMut, Bytes, BytesMut};

use crate::{BusError, OutMessage, Queue, check};

const FIXED_BYTES: usize = 22;
const NAME_END: u8 = 1;
const VALUE_END: u8 = 2;

/// The request body for the batch, or `MessageRejected` if no broker would take it.
pub(super) fn encode(queue: &Queue, batch: &[OutMessage]) -> Result<Bytes, BusError> {
    check::batch(queue, batch)?;
    let capacity = batch.iter().map(|message| FIXED_BYTES + message.weight()).sum();
    let mut out = BytesMut::with_capacity(capacity);
    for message in batch {
        put(&mut out, message);
    }
    Ok(out.freeze())
}

/// Lengths fit their fields: `check::batch` has bounded them.
fn put(out: &mut BytesMut, message: &OutMessage) {
    let start = out.len();
    out.put_bytes(0, 16);
    out.put_u32(message.body.len() as u32);
    out.put_slice(&message.body);
    let properties = out.len();
    out.put_u16(0);
    for (name, value) in [("KEYS", &message.key), ("TAGS", &message.tag)] {
        if let Some(value) = value {
            put_property(out, name, value);
        }
    }
    for (name, value) in &message.properties {
        put_property(out, name, value);
    }
    let property_bytes = (out.len() - properties - 2) as u16;
    out[properties..properties + 2].copy_from_slice(&property_bytes.to_be_bytes());
    let total = (out.len() - start) as u32;
    out[start..start + 4].copy_from_slice(&total.to_be_bytes());
}

fn put_property(out: &mut BytesMut, name: &str, value: &str) {
    out.put_slice(name.as_bytes());
    out.put_u8(NAME_END);
    out.put_slice(value.as_bytes());
    out.put_u8(VALUE_END);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BusErrorKind;

    fn queue() -> Queue {
        Queue {
            topic: "t".into(),
            broker: "b".into(),
            id: 0,
        }
    }

    #[test]
    fn the_bytes_are_those_of_the_java_client() {
        let message = OutMessage {
            key: Some("k".into()),
            tag: Some("g".into()),
            properties: vec![("p".into(), "v".into())],
            body: "ab".into(),
        };
        let plain = OutMessage {
            body: "c".into(),
            ..OutMessage::default()
        };
        let bytes = encode(&queue(), &[message, plain]).unwrap();
        let properties = b"KEYS\x01k\x02TAGS\x01g\x02p\x01v\x02";
        let mut expected = vec![
            0,
            0,
            0,
            24 + properties.len() as u8,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
        ];
        expected.extend([0, 0, 0, 2, b'a', b'b', 0, properties.len() as u8]);
        expected.extend(properties);
        expected.extend([
            0, 0, 0, 23, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, b'c', 0, 0,
        ]);
        assert_eq!(bytes, expected);
    }

    #[test]
    fn what_no_broker_takes_is_rejected() {
        let large = OutMessage {
            body: vec![0; 4 * 1024 * 1024].into(),
            ..OutMessage::default()
        };
        assert_eq!(
            encode(&queue(), &[large]).unwrap_err().kind(),
            BusErrorKind::MessageRejected
        );
        assert_eq!(
            encode(&queue(), &[OutMessage::default()]).unwrap_err().kind(),
            BusErrorKind::MessageRejected
        );
    }
}
