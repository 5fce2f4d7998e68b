//! Stored values in bytes. Each message begins with `format`, the version of its meaning.
//!
//! A value of a higher format than this version knows is read (what was added is skipped) but never
//! rewritten, because what was skipped would be lost: see [`rewritable`].

use prost::Message;

use super::{Key, StoreError};
use crate::domain::stored;

/// The highest format that this version reads and writes, of every message.
pub const FORMAT: u32 = 1;

/// A message that is stored under a key of its own.
pub trait Stored: Message + Default {
    /// Name of the message in `gantry.store.v1`.
    const NAME: &'static str;
    /// The format in which the value was written; 0 in one that was not stored yet.
    fn format(&self) -> u32;
    /// Sets the format.
    fn set_format(&mut self, format: u32);
}

macro_rules! stored_messages {
    ($($name:ident),+ $(,)?) => {
        $(impl Stored for stored::$name {
            const NAME: &'static str = stringify!($name);
            fn format(&self) -> u32 {
                self.format
            }
            fn set_format(&mut self, format: u32) {
                self.format = format;
            }
        })+
        /// Names of all stored messages.
        pub const MESSAGES: &[&str] = &[$(stringify!($name)),+];
    };
}

stored_messages!(
    StoreId,
    ClusterFormat,
    Leader,
    Replica,
    AgentSettings,
    Instance,
    Session,
    PluginRecord,
    Connector,
    Revision,
    PlannedTask,
    PlanPointer,
    Grant,
    Want,
    Status,
    OffsetsHead,
    OffsetRecord,
    RetainedOffsets,
    EventRecord,
    AskRecord,
    AnswerRecord,
    RequestRecord,
);

/// Encodes a value in the present format, whatever format it says it has.
pub fn encode<T: Stored + Clone>(value: &T) -> Vec<u8> {
    if value.format() == FORMAT {
        return value.encode_to_vec();
    }
    let mut value = value.clone();
    value.set_format(FORMAT);
    value.encode_to_vec()
}

/// Decodes what `key` holds. A higher format is accepted.
///
/// # Errors
/// [`StoreError::Corrupt`].
pub fn decode<T: Stored>(key: &Key, bytes: &[u8]) -> Result<T, StoreError> {
    let corrupt = |message: String| StoreError::Corrupt {
        key: key.to_string(),
        message,
    };
    let value = T::decode(bytes).map_err(|error| corrupt(error.to_string()))?;
    if value.format() == 0 {
        return Err(corrupt(format!("{} without a format", T::NAME)));
    }
    Ok(value)
}

/// What is stored is what was sent. Not by bytes: maps may be encoded in any order.
pub(crate) fn same<T: Stored + Clone + PartialEq>(found: &T, sent: &T) -> bool {
    let mut sent = sent.clone();
    sent.set_format(FORMAT);
    *found == sent
}

/// Checks that what a key holds now may be replaced by this version.
///
/// # Errors
/// [`StoreError::NewerFormat`].
pub fn rewritable<T: Stored>(key: &Key, present: &T) -> Result<(), StoreError> {
    if present.format() > FORMAT {
        return Err(StoreError::NewerFormat {
            key: key.to_string(),
            format: present.format(),
        });
    }
    Ok(())
}
