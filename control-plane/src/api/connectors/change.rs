//! How every change of a connector is made: read, decide, write with an expectation; again when somebody else was faster.

use gantry_proto::{error::Refusal, name::ConnectorName, v1, v1::Connector};

use super::request::{Call, reused};
use crate::{
    api::{Shared, answers},
    domain::{Snapshot, Uid, Versioned, change::Stamp, stored},
    store::{
        connectors::{ConnectorOutcome, ConnectorWrite},
        retained::Adoption,
    },
};

/// A write that loses against others is decided anew so often.
const TRIES: u32 = 5;

/// What a decision rests on.
pub(super) struct Found<'a> {
    /// The connector now. None: there is none.
    pub(super) connector: Option<&'a Versioned<stored::Connector>>,
    /// Everything else, no older than the connector.
    pub(super) snapshot: &'a Snapshot,
}

/// What is decided.
pub(super) enum Step {
    /// Write this.
    Write(Box<Draft>),
    /// It is so already: the connector as it is, `changed = false`.
    Same,
    /// Write nothing and answer this.
    Answer(Box<Connector>),
}

/// What is to be written.
pub(super) struct Draft {
    /// The connector.
    pub(super) value: stored::Connector,
    /// Its definition is another one: keep it as a revision.
    pub(super) revised: bool,
    /// Type and text of the event that tells of it.
    pub(super) event: Option<(&'static str, String)>,
    /// Offsets that a new connector takes over.
    pub(super) adopts: Option<Adoption>,
}

/// What a change has come to.
pub(super) struct Answer {
    /// The connector. None: it is gone by now.
    pub(super) connector: Option<Connector>,
    /// Something was written, by this call or an earlier one of the same request.
    pub(super) changed: bool,
}

impl Answer {
    /// The connector, which must still be there.
    pub(super) fn present(self, name: &ConnectorName) -> Result<Connector, Refusal> {
        self.connector
            .ok_or_else(|| answers::no_connector(&name.to_string()))
    }
}

/// Time and trace of a call.
pub(super) fn stamp(shared: &Shared) -> Stamp {
    Stamp {
        time: shared.handles.now(),
        traceparent: crate::server::current_traceparent(),
    }
}

/// Makes a change. `decide` is called anew with what is there now whenever a write was lost against another one.
pub(super) async fn change(
    shared: &Shared,
    call: &Call,
    name: &ConnectorName,
    decide: impl Fn(Found<'_>) -> Result<Step, Refusal>,
) -> Result<Answer, Refusal> {
    if let Some(answer) = call.replayed(shared, name).await? {
        return Ok(answer);
    }
    let store = &shared.handles.store;
    for _ in 0..TRIES {
        let read = store.read_connector(name.id()).await;
        let (present, revision) = read.map_err(answers::store)?;
        shared.seen(revision).await?;
        let snapshot = shared.handles.mirror.snapshot();
        let found = Found {
            connector: present.as_ref(),
            snapshot: &snapshot,
        };
        let draft = match (decide(found)?, &present) {
            (Step::Write(draft), _) => *draft,
            (Step::Answer(connector), _) => return Ok(unchanged(Some(*connector))),
            (Step::Same, Some(present)) => return Ok(unchanged(Some(shown(shared, name, present).await))),
            (Step::Same, None) => return Ok(unchanged(None)),
        };
        let write = ConnectorWrite {
            name: name.id().into(),
            seen: present.map_or(0, |p| p.mod_revision),
            revision: draft.revised.then(|| revision_of(&draft.value, call)),
            value: draft.value,
            request: call.request.clone(),
        };
        let written = match &draft.adopts {
            None => store.write_connector(&write).await,
            Some(adoption) => store.create_adopting(&write, adoption).await,
        };
        match written.map_err(answers::store)? {
            ConnectorOutcome::Done {
                connector, changed, ..
            } => {
                let connector = match connector {
                    Some(done) => {
                        if let Some((kind, text)) = draft.event {
                            record_event(shared, name, &done, kind, text);
                        }
                        Some(shown(shared, name, &done).await)
                    }
                    None => None,
                };
                return Ok(Answer { connector, changed });
            }
            ConnectorOutcome::Reused => return Err(reused()),
            ConnectorOutcome::Conflict(_) => {}
        }
    }
    Err(answers::contended(&name.to_string()))
}

fn unchanged(connector: Option<Connector>) -> Answer {
    let changed = false;
    Answer { connector, changed }
}

/// Refuses an etag that is not the present one. Empty: the caller does not mind.
pub(super) fn check_etag(
    name: &ConnectorName,
    etag: &str,
    present: &Versioned<stored::Connector>,
) -> Result<(), Refusal> {
    let now = present.mod_revision.to_string();
    if etag.is_empty() || etag.trim_matches('"') == now {
        Ok(())
    } else {
        Err(answers::stale_etag(&name.to_string(), &now))
    }
}

/// The connector as users see it, once this replica has seen the write.
pub(super) async fn shown(
    shared: &Shared,
    name: &ConnectorName,
    written: &Versioned<stored::Connector>,
) -> Connector {
    // The write is done: a replica that lags answers with what was written, not with an error.
    let _ = shared.seen(written.mod_revision).await;
    let snapshot = shared.handles.mirror.snapshot();
    let view = shared.views.connector(&snapshot, name.id());
    view.unwrap_or_else(|| Connector {
        name: name.to_string(),
        uid: written.uid.clone(),
        etag: written.mod_revision.to_string(),
        generation: written.generation,
        delete_time: written.delete_time,
        ..written.definition.clone().unwrap_or_default()
    })
}

fn revision_of(value: &stored::Connector, call: &Call) -> stored::Revision {
    stored::Revision {
        definition: value.definition.clone(),
        principal: call.principal.0.clone(),
        time: value.update_time,
        request_id: call.request_id(),
        ..stored::Revision::default()
    }
}

/// Best effort, and never waited for.
pub(super) fn record_event(
    shared: &Shared,
    name: &ConnectorName,
    connector: &Versioned<stored::Connector>,
    kind: &str,
    message: String,
) {
    let store = shared.handles.store.clone();
    let (uid, created) = (Uid(connector.uid.as_str().into()), connector.create_revision);
    let name = name.id().to_owned();
    let event = v1::Event {
        time: Some(shared.handles.now()),
        r#type: kind.to_owned(),
        message,
        ..v1::Event::default()
    };
    tokio::spawn(async move {
        if let Err(error) = store.append_event(&name, created, &uid, &event).await {
            tracing::debug!(%error, connector = name, "an event was not stored");
        }
    });
}
