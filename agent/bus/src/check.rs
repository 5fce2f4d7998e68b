//! What RocketMQ accepts as topic and as message. Pure; both buses use it, so that what a test accepts a broker accepts.

use crate::{BusError, BusErrorKind, OutMessage, Queue};

/// What a broker takes in one request by default (`maxMessageSize`), in bytes. It counts a batch as it will be stored.
const MAX_REQUEST_BYTES: usize = 4 * 1024 * 1024;

/// What a message takes in the broker's log besides body, topic and properties: 91 bytes of fields, and a little
/// that brokers add as properties.
const STORED_FIXED_BYTES: usize = 107 + MAX_UNIQ_KEY_BYTES;

/// What the property UNIQ_KEY takes that the bus adds to each message: name, separators, and 32 characters, or
/// 56 where the host has an IPv6 address alone.
pub(crate) const MAX_UNIQ_KEY_BYTES: usize = 66;

/// A batch of this weight ([`OutMessage::weight`]) is within the broker's limit even if its messages are one byte
/// each and the topic's name is the longest possible.
pub(crate) const MAX_BATCH_WEIGHT: usize = 900_000;

/// Properties are stored with a signed 16-bit length. 1 KiB is left to what client and broker add.
const MAX_PROPERTY_BYTES: usize = i16::MAX as usize - 1024;

/// The longest topic name a broker takes, in bytes.
const MAX_TOPIC_BYTES: usize = 127;

/// Property names RocketMQ uses itself, sorted: those its clients refuse and those it adds or acts upon.
const RESERVED: [&str; 75] = [
    "1ST_POP_TIME",
    "ARRIVE_TIME",
    "BORN_TIMESTAMP",
    "BUYER_ID",
    "CHECK_IMMUNITY_TIME_IN_SECONDS",
    "CLUSTER",
    "CONSUME_START_TIME",
    "CORRECTION_FLAG",
    "CORRELATION_ID",
    "DELAY",
    "DLQ_ORIGIN_MESSAGE_ID",
    "DLQ_ORIGIN_TOPIC",
    "DUP_INFO",
    "EXTEND_UNIQ_INFO",
    "E_T",
    "INNER_BASE",
    "INNER_MULTI_DISPATCH",
    "INNER_MULTI_QUEUE_OFFSET",
    "INNER_NUM",
    "INSTANCE_ID",
    "KEYS",
    "MAX_OFFSET",
    "MAX_RECONSUME_TIMES",
    "MIN_OFFSET",
    "MQ2_FLAG",
    "MSG_REGION",
    "MSG_TYPE",
    "ORIGIN_GROUP",
    "ORIGIN_MESSAGE_ID",
    "PGROUP",
    "POP_CK",
    "POP_CK_OFFSET",
    "PROPERTY_FORWARD_QUEUE_ID",
    "PUSH_REPLY_TIME",
    "REAL_QID",
    "REAL_TOPIC",
    "RECONSUME_TIME",
    "REDIRECT",
    "REPLY_TO_CLIENT",
    "RETRY_TOPIC",
    "TAGS",
    "TIMER_DELAY_LEVEL",
    "TIMER_DELAY_MS",
    "TIMER_DELAY_SEC",
    "TIMER_DELIVERY_TOKEN",
    "TIMER_DELIVER_MS",
    "TIMER_DEL_UNIQKEY",
    "TIMER_DEQUEUE_MS",
    "TIMER_ENQUEUE_MS",
    "TIMER_FORMAT_VERSION",
    "TIMER_GENERATION",
    "TIMER_ID",
    "TIMER_LANE",
    "TIMER_ORIGINAL_DELIVER_MS",
    "TIMER_OUT_MS",
    "TIMER_OWNER_EPOCH",
    "TIMER_POLICY_FINGERPRINT",
    "TIMER_ROLL_LABEL",
    "TIMER_ROLL_TIMES",
    "TRACE_CONTEXT",
    "TRACE_ON",
    "TRANSACTION_CHECK_TIMES",
    "TRANSFER_FLAG",
    "TRANS_OFFSET",
    "TRAN_MSG",
    "TRAN_PREPARED_QUEUE_OFFSET",
    "TTL",
    "UNIQ_KEY",
    "WAIT",
    "_SYS_MSG_PRIORITY_",
    "__BORNHOST",
    "__CRC32#",
    "__LITE_TOPIC",
    "__STARTDELIVERTIME",
    "__transactionId__",
];

/// Names under these prefixes are RocketMQ's too.
const RESERVED_PREFIXES: [&str; 1] = ["__RMQ."];

/// Whether RocketMQ keeps this property name for itself.
pub(crate) fn is_reserved(name: &str) -> bool {
    RESERVED.binary_search(&name).is_ok() || RESERVED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// `Denied` unless a broker takes the name: letters, digits, `%`, `|`, `_`, `-`, at most 127 bytes.
pub(crate) fn topic_name(topic: &str) -> Result<(), BusError> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'%' | b'|' | b'_' | b'-');
    if topic.is_empty() || topic.len() > MAX_TOPIC_BYTES || !topic.bytes().all(allowed) {
        return Err(BusError::new(
            BusErrorKind::Denied,
            format!(
                "topic name {topic:?} is not 1 to {MAX_TOPIC_BYTES} of the characters A-Z a-z 0-9 % | _ -"
            ),
        ));
    }
    Ok(())
}

/// `MessageRejected`, naming the first message at fault and why, unless a broker takes each of them and all together.
pub(crate) fn batch(queue: &Queue, batch: &[OutMessage]) -> Result<(), BusError> {
    let rejected = |what: String| Err(BusError::new(BusErrorKind::MessageRejected, what));
    if batch.is_empty() {
        return rejected(format!("send to {queue}: the batch is empty"));
    }
    let mut bytes = 0;
    for (at, message) in batch.iter().enumerate() {
        if let Err(why) = message_fault(queue, message) {
            return rejected(format!("send to {queue}: message {at} of the batch: {why}"));
        }
        bytes += stored_bytes(queue, message);
    }
    if bytes > MAX_REQUEST_BYTES {
        return rejected(format!(
            "send to {queue}: {} message(s) of {bytes} bytes together are over the limit of {MAX_REQUEST_BYTES} bytes",
            batch.len()
        ));
    }
    Ok(())
}

fn stored_bytes(queue: &Queue, message: &OutMessage) -> usize {
    STORED_FIXED_BYTES + queue.topic.len() + message.body.len() + property_bytes(message)
}

fn property_bytes(message: &OutMessage) -> usize {
    let named = |name: &str, value: &Option<Box<str>>| value.as_ref().map_or(0, |v| name.len() + v.len() + 2);
    named("KEYS", &message.key)
        + named("TAGS", &message.tag)
        + message
            .properties
            .iter()
            .map(|(k, v)| k.len() + v.len() + 2)
            .sum::<usize>()
}

fn message_fault(queue: &Queue, message: &OutMessage) -> Result<(), String> {
    if message.body.is_empty() {
        return Err("the body is empty".into());
    }
    let bytes = stored_bytes(queue, message);
    if bytes > MAX_REQUEST_BYTES {
        return Err(format!(
            "{bytes} bytes are over the limit of {MAX_REQUEST_BYTES} bytes"
        ));
    }
    for (name, value) in [("KEYS", &message.key), ("TAGS", &message.tag)] {
        if let Some(value) = value {
            value_fault(name, value)?;
        }
    }
    for (at, (name, value)) in message.properties.iter().enumerate() {
        if name.is_empty() {
            return Err(format!("property {at} has an empty name"));
        }
        if is_reserved(name) {
            return Err(format!("property {name:?} is reserved by RocketMQ"));
        }
        if has_separator(name) {
            return Err(format!(
                "the name of property {name:?} contains the character U+0001 or U+0002"
            ));
        }
        if message.properties[..at]
            .iter()
            .any(|(earlier, _)| earlier == name)
        {
            return Err(format!("property {name:?} is given twice"));
        }
        value_fault(name, value)?;
    }
    let bytes = property_bytes(message);
    if bytes > MAX_PROPERTY_BYTES {
        return Err(format!(
            "{bytes} bytes of properties are over the limit of {MAX_PROPERTY_BYTES} bytes"
        ));
    }
    Ok(())
}

fn value_fault(name: &str, value: &str) -> Result<(), String> {
    if value.is_empty() {
        return Err(format!("the value of property {name:?} is empty"));
    }
    if has_separator(value) {
        return Err(format!(
            "the value of property {name:?} contains the character U+0001 or U+0002"
        ));
    }
    Ok(())
}

/// RocketMQ separates properties by these characters and has no way to escape them.
fn has_separator(text: &str) -> bool {
    text.bytes().any(|b| matches!(b, 1 | 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(properties: &[(&str, &str)]) -> OutMessage {
        OutMessage {
            properties: properties
                .iter()
                .map(|(k, v)| ((*k).into(), (*v).into()))
                .collect(),
            body: "x".into(),
            ..OutMessage::default()
        }
    }

    fn why(message: OutMessage) -> String {
        let queue = Queue {
            topic: "t".into(),
            broker: "b".into(),
            id: 0,
        };
        let error = batch(
            &queue,
            &[
                OutMessage {
                    body: "x".into(),
                    ..OutMessage::default()
                },
                message,
            ],
        )
        .unwrap_err();
        assert_eq!(error.kind(), BusErrorKind::MessageRejected);
        error.to_string()
    }

    #[test]
    fn the_reserved_names_are_sorted() {
        assert!(RESERVED.is_sorted());
    }

    #[test]
    fn a_refusal_names_message_and_property() {
        assert!(
            why(message(&[("a", "b"), ("UNIQ_KEY", "v")]))
                .contains("message 1 of the batch: property \"UNIQ_KEY\"")
        );
        assert!(why(message(&[("__RMQ.TRANSIENT.x", "v")])).contains("__RMQ.TRANSIENT.x"));
        assert!(why(message(&[("p", "a\u{1}b")])).contains("\"p\" contains the character"));
        assert!(why(message(&[("p", "")])).contains("\"p\" is empty"));
        assert!(why(message(&[("p", "1"), ("p", "2")])).contains("given twice"));
        assert!(why(message(&[("p", &"v".repeat(40_000))])).contains("bytes of properties"));
        assert!(why(OutMessage::default()).contains("body is empty"));
        let large = OutMessage {
            body: vec![0; MAX_REQUEST_BYTES].into(),
            ..OutMessage::default()
        };
        assert!(why(large).contains("over the limit"));
    }

    #[test]
    fn a_batch_may_not_be_too_large_as_a_whole() {
        let queue = Queue {
            topic: "t".into(),
            broker: "b".into(),
            id: 0,
        };
        let half = OutMessage {
            body: vec![0; MAX_REQUEST_BYTES / 2].into(),
            ..OutMessage::default()
        };
        batch(&queue, std::slice::from_ref(&half)).unwrap();
        assert!(
            batch(&queue, &[half.clone(), half])
                .unwrap_err()
                .to_string()
                .contains("2 message(s)")
        );
    }

    #[test]
    fn a_batch_of_the_largest_weight_is_accepted_whatever_its_messages() {
        let queue = Queue {
            topic: "t".repeat(MAX_TOPIC_BYTES).into(),
            broker: "b".into(),
            id: 0,
        };
        for body in [1, 100, 1000, 100_000] {
            let message = OutMessage {
                body: vec![0; body].into(),
                ..OutMessage::default()
            };
            batch(
                &queue,
                &vec![message.clone(); MAX_BATCH_WEIGHT / message.weight()],
            )
            .unwrap();
        }
    }

    #[test]
    fn topic_names() {
        for good in ["a", "Orders-1_x%y|z", &"t".repeat(127)] {
            topic_name(good).unwrap();
        }
        for bad in ["", "a b", "a.b", "ü", &"t".repeat(128)] {
            assert_eq!(topic_name(bad).unwrap_err().kind(), BusErrorKind::Denied, "{bad}");
        }
    }
}
