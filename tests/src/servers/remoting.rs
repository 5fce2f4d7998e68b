//! A few calls of RocketMQ's own protocol, spoken byte for byte.
//!
//! They are for tests: a second pair of eyes that shares no code with the client under test, and which needs 1 ms where
//! RocketMQ's own tools need 1.5 s to start.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const CALL: Duration = Duration::from_secs(10);

const SEND_MESSAGE: i32 = 10;
const PULL_MESSAGE: i32 = 11;
const UPDATE_CONSUMER_OFFSET: i32 = 15;
const UPDATE_AND_CREATE_TOPIC: i32 = 17;
const UPDATE_BROKER_CONFIG: i32 = 25;
const GET_MAX_OFFSET: i32 = 30;
const GET_ROUTE_OF_TOPIC: i32 = 105;
const GET_CLUSTER: i32 = 106;
const UPDATE_AND_CREATE_GROUP: i32 = 200;
const DELETE_TOPIC_IN_BROKER: i32 = 215;
const DELETE_TOPIC_IN_NAMESRV: i32 = 216;

const SUCCESS: i64 = 0;
const PULL_NOT_FOUND: i64 = 19;

/// A message as the broker stores it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its place in the queue.
    pub offset: i64,
    /// What was sent.
    pub body: Vec<u8>,
    /// Keys, tags and whatever else was sent with it, and what the broker has added.
    pub properties: BTreeMap<String, String>,
}

struct Answer {
    code: i64,
    remark: String,
    fields: Value,
    body: Vec<u8>,
}

/// Asks a name server whether it knows a broker.
pub async fn has_broker(namesrv: &str) -> Result<()> {
    let body = call(namesrv, GET_CLUSTER, json!({}), &[])
        .await?
        .succeeded()?
        .body;
    let body = String::from_utf8_lossy(&body);
    ensure!(body.contains("\"brokerAddrs\""), "it knows no broker: {body}");
    Ok(())
}

/// Asks a name server whether it can tell where a topic is.
pub async fn has_route(namesrv: &str, topic: &str) -> Result<()> {
    call(namesrv, GET_ROUTE_OF_TOPIC, json!({ "topic": topic }), &[])
        .await?
        .succeeded()?;
    Ok(())
}

/// Makes a topic of `queues` queues, or changes it to that many.
pub async fn create_topic(broker: &str, topic: &str, queues: u32) -> Result<()> {
    let fields = json!({
        "topic": topic,
        "defaultTopic": "TBW102",
        "readQueueNums": queues.to_string(),
        "writeQueueNums": queues.to_string(),
        // May be read and written.
        "perm": "6",
        "topicFilterType": "SINGLE_TAG",
        "topicSysFlag": "0",
        "order": "false",
    });
    call(broker, UPDATE_AND_CREATE_TOPIC, fields, &[])
        .await?
        .succeeded()?;
    Ok(())
}

/// Deletes a topic with its messages, as RocketMQ's own tool does: at the broker, then at the name server.
pub async fn delete_topic(namesrv: &str, broker: &str, topic: &str) -> Result<()> {
    for (address, code) in [
        (broker, DELETE_TOPIC_IN_BROKER),
        (namesrv, DELETE_TOPIC_IN_NAMESRV),
    ] {
        call(address, code, json!({ "topic": topic }), &[])
            .await?
            .succeeded()?;
    }
    Ok(())
}

/// Changes a setting of a broker that runs.
pub async fn configure(broker: &str, setting: &str, value: &str) -> Result<()> {
    let body = format!("{setting}={value}\n");
    call(broker, UPDATE_BROKER_CONFIG, json!({}), body.as_bytes())
        .await?
        .succeeded()?;
    Ok(())
}

/// Sends one message, and says at which offset of the queue the broker has stored it.
pub async fn send(broker: &str, topic: &str, queue: u32, key: &str, body: &[u8]) -> Result<i64> {
    let fields = json!({
        "producerGroup": "gantry-tests",
        "topic": topic,
        "defaultTopic": "TBW102",
        "defaultTopicQueueNums": "4",
        "queueId": queue.to_string(),
        "sysFlag": "0",
        "bornTimestamp": "0",
        "flag": "0",
        "properties": format!("KEYS\u{1}{key}\u{2}"),
        "reconsumeTimes": "0",
        "unitMode": "false",
    });
    let answer = call(broker, SEND_MESSAGE, fields, body).await?.succeeded()?;
    number(&answer.fields, "queueOffset")
}

/// The offset that the next message of a queue will get: how many were ever sent to it.
pub async fn end_offset(broker: &str, topic: &str, queue: u32) -> Result<i64> {
    let fields = json!({ "topic": topic, "queueId": queue.to_string() });
    number(
        &call(broker, GET_MAX_OFFSET, fields, &[])
            .await?
            .succeeded()?
            .fields,
        "offset",
    )
}

/// Makes a consumer group.
pub async fn create_group(broker: &str, group: &str) -> Result<()> {
    let body = serde_json::to_vec(&json!({ "groupName": group }))?;
    call(broker, UPDATE_AND_CREATE_GROUP, json!({}), &body)
        .await?
        .succeeded()?;
    Ok(())
}

/// Says for a consumer group, which exists, which message of a queue it will read next.
pub async fn commit(broker: &str, group: &str, topic: &str, queue: u32, offset: i64) -> Result<()> {
    let fields = json!({
        "consumerGroup": group,
        "topic": topic,
        "queueId": queue.to_string(),
        "commitOffset": offset.to_string(),
    });
    call(broker, UPDATE_CONSUMER_OFFSET, fields, &[])
        .await?
        .succeeded()?;
    Ok(())
}

/// Every message of a queue, from `offset` on. No consumer group's position changes.
pub async fn read(broker: &str, topic: &str, queue: u32, mut offset: i64) -> Result<Vec<Message>> {
    // The subscription is part of the request.
    const WITH_SUBSCRIPTION: u8 = 4;
    let mut messages = Vec::new();
    loop {
        let fields = json!({
            "consumerGroup": "gantry-tests",
            "topic": topic,
            "queueId": queue.to_string(),
            "queueOffset": offset.to_string(),
            "maxMsgNums": "1024",
            "sysFlag": WITH_SUBSCRIPTION.to_string(),
            "commitOffset": "0",
            "suspendTimeoutMillis": "0",
            "subscription": "*",
            "subVersion": "0",
            "expressionType": "TAG",
        });
        let answer = call(broker, PULL_MESSAGE, fields, &[]).await?;
        if answer.code == PULL_NOT_FOUND {
            return Ok(messages);
        }
        let answer = answer.succeeded()?;
        let mut rest = &answer.body[..];
        while !rest.is_empty() {
            messages.push(decode(&mut rest).context("a stored message cannot be decoded")?);
        }
        offset = number(&answer.fields, "nextBeginOffset")?;
    }
}

impl Answer {
    fn succeeded(self) -> Result<Self> {
        ensure!(
            self.code == SUCCESS,
            "answered with code {}: {}",
            self.code,
            self.remark
        );
        Ok(self)
    }
}

async fn call(address: &str, code: i32, fields: Value, body: &[u8]) -> Result<Answer> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        let header = serde_json::to_vec(&json!({
            "code": code,
            "language": "OTHER",
            "version": 0,
            "opaque": 1,
            "flag": 0,
            "extFields": fields,
            "serializeTypeCurrentRPC": "JSON",
        }))?;
        let mut frame = Vec::new();
        frame.extend(u32::try_from(4 + header.len() + body.len())?.to_be_bytes());
        // The highest byte would say how the header is encoded; 0 is JSON.
        frame.extend(u32::try_from(header.len())?.to_be_bytes());
        frame.extend(&header);
        frame.extend(body);
        stream.write_all(&frame).await?;

        let length = stream.read_u32().await? as usize;
        let header_length = (stream.read_u32().await? & 0x00ff_ffff) as usize;
        ensure!(
            header_length + 4 <= length,
            "a frame of {length} bytes cannot hold its header"
        );
        let mut header = vec![0; header_length];
        stream.read_exact(&mut header).await?;
        let mut body = vec![0; length - 4 - header_length];
        stream.read_exact(&mut body).await?;
        let mut header: Value = serde_json::from_slice(&header)?;
        Ok(Answer {
            code: header["code"].as_i64().context("an answer without a code")?,
            remark: header["remark"].as_str().unwrap_or_default().to_owned(),
            fields: header["extFields"].take(),
            body,
        })
    };
    let answer = timeout(CALL, exchange)
        .await
        .unwrap_or_else(|_| bail!("no answer within {CALL:?}"));
    answer.with_context(|| format!("call {code} of {address}"))
}

fn number(fields: &Value, name: &str) -> Result<i64> {
    let value = fields[name]
        .as_str()
        .with_context(|| format!("no field `{name}` in {fields}"))?;
    Ok(value.parse()?)
}

/// Takes one message of the broker's storage format from the front of `rest`.
fn decode(rest: &mut &[u8]) -> Result<Message> {
    const COMPRESSED: u32 = 1;
    // Total size, magic code, checksum, queue, flag.
    take(rest, 4 * 5)?;
    let offset = i64::from_be_bytes(take(rest, 8)?.try_into()?);
    // Position in the commit log.
    take(rest, 8)?;
    let flags = u32::from_be_bytes(take(rest, 4)?.try_into()?);
    ensure!(
        flags & COMPRESSED == 0,
        "message {offset} is compressed, which this reader does not know"
    );
    // When and where it was made and stored, how often it was redelivered, its transaction.
    take(rest, 8 + 8 + 8 + 8 + 4 + 8)?;
    let length = u32::from_be_bytes(take(rest, 4)?.try_into()?);
    let body = take(rest, length as usize)?.to_vec();
    let length = take(rest, 1)?[0];
    // The topic.
    take(rest, length.into())?;
    let length = u16::from_be_bytes(take(rest, 2)?.try_into()?);
    let properties = std::str::from_utf8(take(rest, length.into())?)?;
    let properties = properties
        .split('\u{2}')
        .filter_map(|pair| pair.split_once('\u{1}'));
    let properties = properties
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    Ok(Message {
        offset,
        body,
        properties,
    })
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8]> {
    rest.split_off(..length)
        .with_context(|| format!("{length} bytes are wanted, {} are there", rest.len()))
}
