//! The messages in a pull's answer, as brokers store them (the format of Java's `MessageDecoder.decode`). Pure.
//!
//! ```text
//! total 4 | magic 4 | body CRC 4 | queue id 4 | flag 4 | queue offset 8 | log offset 8 | system flag 4 | born time 8
//! | born host 8 or 20 | store time 8 | store host 8 or 20 | retries 4 | transaction 8 | body length 4 | body
//! | topic length 1 or 2 | topic | properties length 2 | properties
//! ```

use bytes::{Buf, Bytes};
use rocketmq_model::common::compression::compression_type::CompressionType;
use rocketmq_protocol::common::compression::compressor_factory::CompressorFactory;

use crate::{InMessage, check};

const MAGIC_V1: u32 = 0xDAA3_20A7;
/// Topic length in two bytes.
const MAGIC_V2: u32 = 0xDAA3_20AB;
const COMPRESSED: u32 = 1;
const BORN_HOST_V6: u32 = 1 << 4;
const STORE_HOST_V6: u32 = 1 << 5;
const INNER_BATCH: u32 = 1 << 7;
const COMPRESSION_SHIFT: u32 = 8;
const COMPRESSION_MASK: u32 = 7;

/// The messages in the body, in its order. Bodies share its memory.
///
/// # Errors
/// What cannot be read, in words.
pub(super) fn decode(mut body: Bytes) -> Result<Vec<InMessage>, String> {
    let mut messages = Vec::new();
    while body.has_remaining() {
        let total = body.try_get_u32().map_err(|_| cut_off())? as usize;
        let rest = total
            .checked_sub(4)
            .filter(|rest| *rest <= body.len())
            .ok_or_else(cut_off)?;
        messages.push(read(body.split_to(rest))?);
    }
    Ok(messages)
}

fn cut_off() -> String {
    "a message is cut off".into()
}

fn read(mut from: Bytes) -> Result<InMessage, String> {
    let magic = from.try_get_u32().map_err(|_| cut_off())?;
    if magic != MAGIC_V1 && magic != MAGIC_V2 {
        return Err(format!("a message has the unknown magic number {magic:#x}"));
    }
    skip(&mut from, 12)?;
    let offset = from.try_get_u64().map_err(|_| cut_off())?;
    skip(&mut from, 8)?;
    let flags = from.try_get_u32().map_err(|_| cut_off())?;
    let born_time_ms = from.try_get_i64().map_err(|_| cut_off())?;
    skip(&mut from, if flags & BORN_HOST_V6 == 0 { 8 } else { 20 })?;
    let store_time_ms = from.try_get_i64().map_err(|_| cut_off())?;
    skip(&mut from, if flags & STORE_HOST_V6 == 0 { 8 } else { 20 })?;
    skip(&mut from, 12)?;
    let body_bytes = from.try_get_u32().map_err(|_| cut_off())? as usize;
    let body = take(&mut from, body_bytes)?;
    let topic_bytes = if magic == MAGIC_V2 {
        from.try_get_u16().map(usize::from)
    } else {
        from.try_get_u8().map(usize::from)
    };
    skip(&mut from, topic_bytes.map_err(|_| cut_off())?)?;
    let property_bytes = from.try_get_u16().map_err(|_| cut_off())?;
    let properties = take(&mut from, property_bytes.into())?;
    if flags & INNER_BATCH != 0 {
        return Err(format!(
            "offset {offset} holds a batch as one message: topics of type BatchCQ cannot be read"
        ));
    }
    let body = plain(body, flags).map_err(|why| format!("offset {offset}: {why}"))?;
    let mut message = InMessage {
        offset,
        key: None,
        tag: None,
        properties: Vec::new(),
        body,
        born_time_ms,
        store_time_ms,
    };
    read_properties(&properties, &mut message);
    Ok(message)
}

fn skip(from: &mut Bytes, bytes: usize) -> Result<(), String> {
    take(from, bytes).map(drop)
}

fn take(from: &mut Bytes, bytes: usize) -> Result<Bytes, String> {
    if from.len() < bytes {
        Err(cut_off())
    } else {
        Ok(from.split_to(bytes))
    }
}

/// The body, decompressed if the producer compressed it.
fn plain(body: Bytes, flags: u32) -> Result<Bytes, String> {
    if flags & COMPRESSED == 0 {
        return Ok(body);
    }
    let method = ((flags >> COMPRESSION_SHIFT) & COMPRESSION_MASK) as i32;
    let method =
        CompressionType::try_find_by_value(method).map_err(|_| format!("unknown compression {method}"))?;
    let plain = CompressorFactory::get_compressor(method).decompress(&body);
    plain.map_err(|error| format!("the body cannot be decompressed: {error}"))
}

fn read_properties(bytes: &[u8], message: &mut InMessage) {
    for property in bytes.split(|byte| *byte == 2) {
        let Some(end) = property.iter().position(|byte| *byte == 1) else {
            continue;
        };
        let name = String::from_utf8_lossy(&property[..end]);
        let value = || -> Box<str> { String::from_utf8_lossy(&property[end + 1..]).into() };
        match &*name {
            "KEYS" => message.key = Some(value()),
            "TAGS" => message.tag = Some(value()),
            name if check::is_reserved(name) => {}
            name => message.properties.push((name.into(), value())),
        }
    }
}

#[cfg(test)]
#[path = "messages_tests.rs"]
mod tests;
