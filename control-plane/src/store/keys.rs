use std::{collections::BTreeMap, fmt, sync::Arc};

use gantry_proto::v1::{Value, value::Kind};
use sha2::{Digest, Sha256};

use crate::domain::{TaskId, Uid};

/// One line of the table of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// The key below `/gantry/{cluster}/`.
    pub key: &'static str,
    /// Message of `gantry.store.v1` that it holds.
    pub value: &'static str,
    /// Who writes it.
    pub writer: &'static str,
    /// Kept in memory by every replica.
    pub mirrored: bool,
}

const fn row(key: &'static str, value: &'static str, writer: &'static str, mirrored: bool) -> Row {
    Row {
        key,
        value,
        writer,
        mirrored,
    }
}

/// Every key there is. `{seq}` has 16 digits so that events sort by number; all other numbers are plain
/// decimals. Free text (principals, versions, ids) is escaped like in URLs, so that a `/` always ends a part.
#[rustfmt::skip]
pub const TABLE: [Row; 22] = [
    row("cluster/store_id",                   "StoreId",       "first leader; `gantry admin restored`",           true),
    row("cluster/format",                     "ClusterFormat", "leader",                                          true),
    row("leader",                             "Leader",        "the elected replica, on its lease",               true),
    row("replicas/{replica}",                 "Replica",       "itself, on its lease",                            true),
    row("agents/{agent}",                     "AgentSettings", "API",                                             true),
    row("instances/{agent}",                  "Instance",      "the serving replica, together with sessions/",    true),
    row("sessions/{agent}",                   "Session",       "the serving replica, on its lease",               true),
    row("plugins/{plugin}/{version}",         "PluginRecord",  "the serving replica, from hellos",                true),
    row("connectors/{name}",                  "Connector",     "API; removed by the leader",                      true),
    row("revisions/{uid}/{r}",                "Revision",      "API",                                             false),
    row("plans/{uid}/current",                "PlanPointer",   "leader",                                          true),
    row("plans/{uid}/{g}/{n}",                "PlannedTask",   "leader",                                          true),
    row("grants/{uid}/{n}",                   "Grant",         "leader",                                          true),
    row("wants/{uid}/{n}",                    "Want",          "leader",                                          true),
    row("statuses/{uid}/{n}",                 "Status",        "the serving replica, for the agent",              true),
    row("offsets/{uid}/head",                 "OffsetsHead",   "API",                                             false),
    row("offsets/{uid}/{epoch}/{partition}",  "OffsetRecord",  "commit path; API",                                false),
    row("retained/{uid}",                     "RetainedOffsets", "leader, with the end of a connector; API, when taken over", false),
    row("events/{uid}/{seq}",                 "EventRecord",   "whoever caused it",                               false),
    row("asks/{agent}/{id}",                  "AskRecord",     "whoever asks; leased 30 s",                       true),
    row("answers/{id}",                       "AnswerRecord",  "the serving replica, for the agent; leased 30 s", true),
    row("requests/{method}/{principal}/{id}", "RequestRecord", "API, with the effect; leased 1 h",                false),
];

/// A key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// cluster/store_id
    StoreId,
    /// cluster/format
    Format,
    /// leader
    Leader,
    /// replicas/{replica}
    Replica(Arc<str>),
    /// agents/{agent}
    Agent(Arc<str>),
    /// instances/{agent}
    Instance(Arc<str>),
    /// sessions/{agent}
    Session(Arc<str>),
    /// plugins/{plugin}/{version}
    Plugin(Arc<str>, Arc<str>),
    /// connectors/{name}
    Connector(Arc<str>),
    /// revisions/{uid}/{r}
    Revision(Uid, i64),
    /// plans/{uid}/current
    PlanPointer(Uid),
    /// plans/{uid}/{g}/{n}
    PlannedTask(Uid, i64, u32),
    /// grants/{uid}/{n}
    Grant(TaskId),
    /// wants/{uid}/{n}
    Want(TaskId),
    /// statuses/{uid}/{n}
    Status(TaskId),
    /// offsets/{uid}/head; absent until offsets are altered for the first time: epoch 0.
    OffsetsHead(Uid),
    /// offsets/{uid}/{epoch}/{partition}; the last part is a [`partition_key`].
    Offset(Uid, i64, Arc<str>),
    /// retained/{uid}
    Retained(Uid),
    /// events/{uid}/{seq}
    Event(Uid, i64),
    /// asks/{agent}/{id}
    Ask(Arc<str>, Arc<str>),
    /// answers/{id}
    Answer(Arc<str>),
    /// requests/{method}/{principal}/{id}
    Request(Arc<str>, Arc<str>, Arc<str>),
}

/// All keys below something.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Prefix {
    /// replicas/
    Replicas,
    /// connectors/
    Connectors,
    /// revisions/{uid}/
    Revisions(Uid),
    /// plans/{uid}/
    Plans(Uid),
    /// plans/{uid}/{g}/
    Plan(Uid, i64),
    /// grants/{uid}/
    Grants(Uid),
    /// wants/{uid}/
    Wants(Uid),
    /// statuses/{uid}/
    Statuses(Uid),
    /// offsets/{uid}/
    Offsets(Uid),
    /// offsets/{uid}/{epoch}/
    OffsetsEpoch(Uid, i64),
    /// retained/
    Retained,
    /// events/{uid}/
    Events(Uid),
    /// asks/{agent}/
    Asks(Arc<str>),
}

/// Turns keys into bytes and back, for one cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    root: Arc<str>,
}

impl Keys {
    /// Keys of the cluster with this name: everything is below `/gantry/{cluster}/`.
    pub fn new(cluster: &str) -> Self {
        Self {
            root: format!("/gantry/{}/", escape(cluster)).into(),
        }
    }

    /// The key as it is stored.
    pub fn path(&self, key: &Key) -> String {
        format!("{}{key}", self.root)
    }

    /// The prefix as it is stored; ends with `/`.
    pub fn prefix(&self, prefix: &Prefix) -> String {
        format!("{}{prefix}", self.root)
    }

    /// The key that is stored as `path`; None: not one of this cluster's, or of a later version.
    pub fn parse(&self, path: &[u8]) -> Option<Key> {
        let rest = std::str::from_utf8(path).ok()?.strip_prefix(&*self.root)?;
        let parts: Vec<&str> = rest.split('/').collect();
        Some(match *parts.as_slice() {
            ["cluster", "store_id"] => Key::StoreId,
            ["cluster", "format"] => Key::Format,
            ["leader"] => Key::Leader,
            ["replicas", replica] => Key::Replica(unescape(replica)?),
            ["agents", agent] => Key::Agent(unescape(agent)?),
            ["instances", agent] => Key::Instance(unescape(agent)?),
            ["sessions", agent] => Key::Session(unescape(agent)?),
            ["plugins", plugin, version] => Key::Plugin(unescape(plugin)?, unescape(version)?),
            ["connectors", name] => Key::Connector(unescape(name)?),
            ["revisions", uid, r] => Key::Revision(uid_of(uid)?, r.parse().ok()?),
            ["plans", uid, "current"] => Key::PlanPointer(uid_of(uid)?),
            ["plans", uid, g, n] => Key::PlannedTask(uid_of(uid)?, g.parse().ok()?, n.parse().ok()?),
            ["grants", uid, n] => Key::Grant(task(uid, n)?),
            ["wants", uid, n] => Key::Want(task(uid, n)?),
            ["statuses", uid, n] => Key::Status(task(uid, n)?),
            ["offsets", uid, "head"] => Key::OffsetsHead(uid_of(uid)?),
            ["offsets", uid, epoch, partition] => {
                Key::Offset(uid_of(uid)?, epoch.parse().ok()?, unescape(partition)?)
            }
            ["retained", uid] => Key::Retained(uid_of(uid)?),
            ["events", uid, seq] => Key::Event(uid_of(uid)?, seq.parse().ok()?),
            ["asks", agent, id] => Key::Ask(unescape(agent)?, unescape(id)?),
            ["answers", id] => Key::Answer(unescape(id)?),
            ["requests", method, principal, id] => {
                Key::Request(unescape(method)?, unescape(principal)?, unescape(id)?)
            }
            _ => return None,
        })
    }

    /// Ranges `[from, to)` that together hold every mirrored key and no other, in order.
    pub fn mirrored_ranges(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut left_out: Vec<&str> = TABLE
            .iter()
            .filter(|row| !row.mirrored)
            .filter_map(|row| row.key.split('/').next())
            .collect();
        left_out.sort_unstable();
        left_out.dedup();
        let mut mirrored: Vec<&str> = TABLE
            .iter()
            .filter(|row| row.mirrored)
            .filter_map(|row| row.key.split('/').next())
            .collect();
        mirrored.sort_unstable();
        let mut ranges = Vec::new();
        let mut from = self.root.to_string();
        let mut after = "";
        for name in left_out.iter().copied().chain(["~"]) {
            let to = format!("{}{name}/", self.root);
            if mirrored.iter().any(|m| *m > after && *m < name) {
                ranges.push((from.into_bytes(), to.clone().into_bytes()));
            }
            // '0' follows '/': everything below `name/` is skipped.
            from = format!("{}{name}0", self.root);
            after = name;
        }
        ranges
    }

    /// Key of an event as it is stored: where a range of events begins or ends.
    pub(crate) fn event(&self, uid: &Uid, seq: i64) -> String {
        self.path(&Key::Event(uid.clone(), seq.max(0)))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StoreId => f.write_str("cluster/store_id"),
            Self::Format => f.write_str("cluster/format"),
            Self::Leader => f.write_str("leader"),
            Self::Replica(replica) => write!(f, "replicas/{}", escape(replica)),
            Self::Agent(agent) => write!(f, "agents/{}", escape(agent)),
            Self::Instance(agent) => write!(f, "instances/{}", escape(agent)),
            Self::Session(agent) => write!(f, "sessions/{}", escape(agent)),
            Self::Plugin(plugin, version) => write!(f, "plugins/{}/{}", escape(plugin), escape(version)),
            Self::Connector(name) => write!(f, "connectors/{}", escape(name)),
            Self::Revision(uid, r) => write!(f, "{}{r}", Prefix::Revisions(uid.clone())),
            Self::PlanPointer(uid) => write!(f, "{}current", Prefix::Plans(uid.clone())),
            Self::PlannedTask(uid, g, n) => write!(f, "{}{n}", Prefix::Plan(uid.clone(), *g)),
            Self::Grant(TaskId { uid, n }) => write!(f, "{}{n}", Prefix::Grants(uid.clone())),
            Self::Want(TaskId { uid, n }) => write!(f, "{}{n}", Prefix::Wants(uid.clone())),
            Self::Status(TaskId { uid, n }) => write!(f, "{}{n}", Prefix::Statuses(uid.clone())),
            Self::OffsetsHead(uid) => write!(f, "{}head", Prefix::Offsets(uid.clone())),
            Self::Offset(uid, epoch, partition) => {
                write!(
                    f,
                    "{}{}",
                    Prefix::OffsetsEpoch(uid.clone(), *epoch),
                    escape(partition)
                )
            }
            Self::Retained(uid) => write!(f, "{}{}", Prefix::Retained, escape(&uid.0)),
            Self::Event(uid, seq) => write!(f, "{}{seq:016}", Prefix::Events(uid.clone())),
            Self::Ask(agent, id) => write!(f, "{}{}", Prefix::Asks(agent.clone()), escape(id)),
            Self::Answer(id) => write!(f, "answers/{}", escape(id)),
            Self::Request(method, principal, id) => {
                write!(
                    f,
                    "requests/{}/{}/{}",
                    escape(method),
                    escape(principal),
                    escape(id)
                )
            }
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Replicas => f.write_str("replicas/"),
            Self::Connectors => f.write_str("connectors/"),
            Self::Revisions(uid) => write!(f, "revisions/{}/", escape(&uid.0)),
            Self::Plans(uid) => write!(f, "plans/{}/", escape(&uid.0)),
            Self::Plan(uid, g) => write!(f, "plans/{}/{g}/", escape(&uid.0)),
            Self::Grants(uid) => write!(f, "grants/{}/", escape(&uid.0)),
            Self::Wants(uid) => write!(f, "wants/{}/", escape(&uid.0)),
            Self::Statuses(uid) => write!(f, "statuses/{}/", escape(&uid.0)),
            Self::Offsets(uid) => write!(f, "offsets/{}/", escape(&uid.0)),
            Self::OffsetsEpoch(uid, epoch) => write!(f, "offsets/{}/{epoch}/", escape(&uid.0)),
            Self::Retained => f.write_str("retained/"),
            Self::Events(uid) => write!(f, "events/{}/", escape(&uid.0)),
            Self::Asks(agent) => write!(f, "asks/{}/", escape(agent)),
        }
    }
}

/// A partition of a source or a queue of a sink, as connectors name it.
pub type Partition = BTreeMap<String, Value>;

/// Last part of an offset's key: the first 16 hex digits of the SHA-256 of the partition's canonical
/// encoding, which holds names in order, and names and values with their lengths and types.
pub fn partition_key(partition: &Partition) -> Arc<str> {
    let mut hash = Sha256::new();
    let mut part = |tag: u8, bytes: &[u8]| {
        hash.update([tag]);
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    for (name, value) in partition {
        part(b'k', name.as_bytes());
        match &value.kind {
            None => part(b'n', &[]),
            Some(Kind::Int64Value(v)) => part(b'i', &v.to_be_bytes()),
            Some(Kind::Uint64Value(v)) => part(b'u', &v.to_be_bytes()),
            Some(Kind::StringValue(v)) => part(b's', v.as_bytes()),
            Some(Kind::BytesValue(v)) => part(b'b', v),
            Some(Kind::BoolValue(v)) => part(b't', &[u8::from(*v)]),
        }
    }
    hash.finalize()
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect::<String>()
        .into()
}

fn uid_of(text: &str) -> Option<Uid> {
    Some(Uid(unescape(text)?))
}

fn task(uid: &str, n: &str) -> Option<TaskId> {
    Some(TaskId {
        uid: uid_of(uid)?,
        n: n.parse().ok()?,
    })
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~@:+".contains(&byte)
}

/// Nothing but plain characters and `%XX`; the empty text is `%`.
fn escape(text: &str) -> String {
    if text.is_empty() {
        return "%".to_owned();
    }
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if is_plain(byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

fn unescape(text: &str) -> Option<Arc<str>> {
    if text == "%" {
        return Some("".into());
    }
    if !text.contains('%') {
        return (!text.is_empty()).then(|| text.into());
    }
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let high = char::from(bytes.next()?).to_digit(16)?;
        let low = char::from(bytes.next()?).to_digit(16)?;
        out.push(u8::try_from(high * 16 + low).ok()?);
    }
    Some(String::from_utf8(out).ok()?.into())
}
