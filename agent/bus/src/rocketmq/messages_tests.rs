use bytes::{BufMut, BytesMut};

use super::*;

struct Stored<'a> {
    magic: u32,
    flags: u32,
    offset: u64,
    body: &'a [u8],
    properties: &'a [u8],
}

impl Default for Stored<'_> {
    fn default() -> Self {
        Self {
            magic: MAGIC_V1,
            flags: 0,
            offset: 7,
            body: b"body",
            properties: b"",
        }
    }
}

fn stored(message: &Stored<'_>) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u32(0);
    out.put_u32(message.magic);
    out.put_bytes(9, 12);
    out.put_u64(message.offset);
    out.put_bytes(9, 8);
    out.put_u32(message.flags);
    out.put_i64(111);
    out.put_bytes(9, if message.flags & BORN_HOST_V6 == 0 { 8 } else { 20 });
    out.put_i64(222);
    out.put_bytes(9, if message.flags & STORE_HOST_V6 == 0 { 8 } else { 20 });
    out.put_bytes(9, 12);
    out.put_u32(message.body.len() as u32);
    out.put_slice(message.body);
    if message.magic == MAGIC_V2 {
        out.put_u16(5);
    } else {
        out.put_u8(5);
    }
    out.put_slice(b"topic");
    out.put_u16(message.properties.len() as u16);
    out.put_slice(message.properties);
    let total = out.len() as u32;
    out[..4].copy_from_slice(&total.to_be_bytes());
    out.freeze()
}

fn decode_one(message: &Stored<'_>) -> InMessage {
    decode(stored(message)).unwrap().remove(0)
}

#[test]
fn every_form_of_a_message_is_read() {
    for magic in [MAGIC_V1, MAGIC_V2] {
        for flags in [0, BORN_HOST_V6, STORE_HOST_V6, BORN_HOST_V6 | STORE_HOST_V6] {
            let message = decode_one(&Stored {
                magic,
                flags,
                ..Stored::default()
            });
            assert_eq!(
                (message.offset, message.born_time_ms, message.store_time_ms),
                (7, 111, 222)
            );
            assert_eq!(message.body, "body");
        }
    }
}

#[test]
fn several_messages_follow_each_other() {
    let mut both = stored(&Stored::default()).to_vec();
    both.extend(stored(&Stored {
        offset: 8,
        ..Stored::default()
    }));
    let offsets: Vec<u64> = decode(both.into())
        .unwrap()
        .iter()
        .map(|message| message.offset)
        .collect();
    assert_eq!(offsets, [7, 8]);
}

#[test]
fn key_and_tag_are_told_from_user_properties_and_those_of_rocketmq_left_out() {
    for properties in [
        &b"KEYS\x01a b\x02UNIQ_KEY\x01X\x02p\x01=\x02TAGS\x01g\x02WAIT\x01true\x02q\x01\xc3\xbc"[..],
        b"p\x01=\x02KEYS\x01a b\x02CLUSTER\x01c\x02TAGS\x01g\x02q\x01\xc3\xbc\x02",
    ] {
        let message = decode_one(&Stored {
            properties,
            ..Stored::default()
        });
        assert_eq!(
            (message.key.as_deref(), message.tag.as_deref()),
            (Some("a b"), Some("g"))
        );
        let expected = [("p".into(), "=".into()), ("q".into(), "\u{fc}".into())];
        assert_eq!(message.properties, expected);
    }
}

#[test]
fn a_compressed_body_is_decompressed() {
    let plain = b"x".repeat(10_000);
    for (number, method) in [
        (0, CompressionType::Zlib),
        (2, CompressionType::Zstd),
        (3, CompressionType::Zlib),
    ] {
        let body = CompressorFactory::get_compressor(method)
            .compress(&plain, 5)
            .unwrap();
        let flags = COMPRESSED | (number << COMPRESSION_SHIFT);
        assert_eq!(
            decode_one(&Stored {
                flags,
                body: &body,
                ..Stored::default()
            })
            .body,
            plain
        );
    }
}

#[test]
fn damaged_input_is_an_error_and_never_a_panic() {
    let good = stored(&Stored {
        properties: b"a\x01b\x02",
        ..Stored::default()
    });
    for length in 1..good.len() {
        assert!(decode(good.slice(..length)).is_err(), "{length}");
        let mut shortened = good[..length].to_vec();
        if length >= 4 {
            shortened[..4].copy_from_slice(&(length as u32).to_be_bytes());
            assert!(decode(shortened.into()).is_err(), "{length}");
        }
    }
    assert!(
        decode(stored(&Stored {
            magic: 1,
            ..Stored::default()
        }))
        .unwrap_err()
        .contains("magic")
    );
    assert!(
        decode(stored(&Stored {
            flags: INNER_BATCH,
            ..Stored::default()
        }))
        .unwrap_err()
        .contains("BatchCQ")
    );
    assert!(
        decode(stored(&Stored {
            flags: COMPRESSED,
            ..Stored::default()
        }))
        .unwrap_err()
        .contains("decompressed")
    );
}
