use gantry_proto::v1::Event;

use super::{Expect, Key, Prefix, Store, StoreError, codec::FORMAT};
use crate::domain::{Uid, stored};

/// Events kept for each connector.
const KEPT: i64 = 100;
/// Tries when others append at the same time.
const TRIES: u32 = 5;

impl Store {
    /// Appends an event of a connector that still exists, and drops the oldest beyond 100. Sets the event's
    /// sequence. Best effort: an event may be lost when a replica dies, and written twice when an answer is
    /// lost.
    ///
    /// `created` is the `create_revision` of the connector's key. Returns the event's sequence, or None if
    /// the connector is gone.
    ///
    /// # Errors
    /// [`StoreError::NoSpace`] while the store is nearly full. Others as of any write.
    pub async fn append_event(
        &self,
        connector: &str,
        created: i64,
        uid: &Uid,
        event: &Event,
    ) -> Result<Option<i64>, StoreError> {
        self.check_room()?;
        let alive = Key::Connector(connector.into());
        let mut last = self.last_under(&Prefix::Events(uid.clone())).await?;
        for _ in 0..TRIES {
            let sequence = match last.as_ref().and_then(|raw| raw.key.as_ref()) {
                Some(Key::Event(_, sequence)) => sequence + 1,
                _ => 1,
            };
            let key = Key::Event(uid.clone(), sequence);
            let record = stored::EventRecord {
                format: FORMAT,
                event: Some(Event {
                    sequence,
                    ..event.clone()
                }),
            };
            let (oldest, kept) = (
                self.keys().event(uid, 0),
                self.keys().event(uid, sequence - KEPT + 1),
            );
            let outcome = self
                .guarded()
                .expect(&Expect::CreateRevision(alive.clone(), created))
                .expect(&Expect::Absent(key.clone()))
                .put(&key, &record)
                .delete_range(oldest, kept)
                .or_read(&alive)
                .run()
                .await?;
            if outcome.applied {
                return Ok(Some(sequence));
            }
            if outcome
                .read(0)
                .is_none_or(|connector| connector.create_revision != created)
            {
                return Ok(None);
            }
            last = self.last_under(&Prefix::Events(uid.clone())).await?;
        }
        Err(StoreError::unknown("other events are appended at the same time"))
    }

    /// A connector's events, oldest first.
    ///
    /// # Errors
    /// As of any read.
    pub async fn list_events(&self, uid: &Uid) -> Result<Vec<Event>, StoreError> {
        let page = self.list(&Prefix::Events(uid.clone())).await?;
        let event = |raw: &super::Raw| {
            Ok(raw
                .decode::<stored::EventRecord>()?
                .event
                .clone()
                .unwrap_or_default())
        };
        page.values.iter().map(event).collect()
    }
}
