//! A batch as RocketMQ's brokers take it (the format of Java's `MessageDecoder.encodeMessages`). Pure.
//!
//! ```text
//! per message: total size 4 | magic 4 = 0 | body CRC 4 = 0 | flag 4 = 0 | body length 4 | body | properties length 2 | properties
//! properties:  name 0x01 value 0x02 ...
//! ```
//!
//! Written here and given to the client as a finished batch, because the client keeps properties in a hash table and so
//! loses their order. Bodies are sent as they are: neither the Rust nor the Java client compresses the messages of a
//! batch. Each message gets the UNIQ_KEY that the client would make, by which RocketMQ's tools find it.

use bytes::{BufMut, Bytes, BytesMut};

use super::ids::Ids;
use crate::{BusError, OutMessage, Queue, check};

const FIXED_BYTES: usize = 22;
const NAME_END: u8 = 1;
const VALUE_END: u8 = 2;

/// The request body for the batch, or `MessageRejected` if no broker would take it. `ids` makes the UNIQ_KEYs
/// of as many messages.
pub(super) fn encode(
    queue: &Queue,
    batch: &[OutMessage],
    ids: impl FnOnce(usize) -> Ids,
) -> Result<Bytes, BusError> {
    check::batch(queue, batch)?;
    let mut ids = ids(batch.len());
    let bytes = |message: &OutMessage| FIXED_BYTES + check::MAX_UNIQ_KEY_BYTES + message.weight();
    let mut out = BytesMut::with_capacity(batch.iter().map(bytes).sum());
    for message in batch {
        put(&mut out, message, ids.next());
    }
    Ok(out.freeze())
}

/// Lengths fit their fields: `check::batch` has bounded them.
fn put(out: &mut BytesMut, message: &OutMessage, id: &[u8]) {
    let start = out.len();
    out.put_bytes(0, 16);
    out.put_u32(message.body.len() as u32);
    out.put_slice(&message.body);
    let properties = out.len();
    out.put_u16(0);
    put_property(out, b"UNIQ_KEY", id);
    for (name, value) in [("KEYS", &message.key), ("TAGS", &message.tag)] {
        if let Some(value) = value {
            put_property(out, name.as_bytes(), value.as_bytes());
        }
    }
    for (name, value) in &message.properties {
        put_property(out, name.as_bytes(), value.as_bytes());
    }
    let property_bytes = (out.len() - properties - 2) as u16;
    out[properties..properties + 2].copy_from_slice(&property_bytes.to_be_bytes());
    let total = (out.len() - start) as u32;
    out[start..start + 4].copy_from_slice(&total.to_be_bytes());
}

fn put_property(out: &mut BytesMut, name: &[u8], value: &[u8]) {
    out.put_slice(name);
    out.put_u8(NAME_END);
    out.put_slice(value);
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

    /// The same keys each time.
    fn ids(_: usize) -> Ids {
        Ids::starting_at(7, "0123XXXX".into())
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
        let mut keys = ids(2);
        let (first, second) = (keys.next().to_vec(), keys.next().to_vec());
        let first = [
            &b"UNIQ_KEY\x01"[..],
            &first,
            b"\x02KEYS\x01k\x02TAGS\x01g\x02p\x01v\x02",
        ]
        .concat();
        let second = [&b"UNIQ_KEY\x01"[..], &second, b"\x02"].concat();
        let bytes = encode(&queue(), &[message, plain], ids).unwrap();
        let mut expected = vec![0, 0, 0, 24 + first.len() as u8];
        expected.extend([0; 12]);
        expected.extend([0, 0, 0, 2, b'a', b'b', 0, first.len() as u8]);
        expected.extend(&first);
        expected.extend([0, 0, 0, 23 + second.len() as u8]);
        expected.extend([0; 12]);
        expected.extend([0, 0, 0, 1, b'c', 0, second.len() as u8]);
        expected.extend(&second);
        assert_eq!(bytes, expected);
    }

    #[test]
    fn what_no_broker_takes_is_rejected() {
        let large = OutMessage {
            body: vec![0; 4 * 1024 * 1024].into(),
            ..OutMessage::default()
        };
        assert_eq!(
            encode(&queue(), &[large], ids).unwrap_err().kind(),
            BusErrorKind::MessageRejected
        );
        assert_eq!(
            encode(&queue(), &[OutMessage::default()], ids)
                .unwrap_err()
                .kind(),
            BusErrorKind::MessageRejected
        );
    }
}
