//! Alter, reset, undo: read, settle, compare, write a new epoch; again when somebody else was faster.

use gantry_proto::{
    error::{Reason, Refusal},
    name::{ConnectorName, parse_offsets_name},
    v1::{
        AlterConnectorOffsetsRequest, AlterConnectorOffsetsResponse, AlteredOffset, OffsetChange,
        ResetConnectorOffsetsRequest, UndoConnectorOffsetsRequest, connector::Kind,
    },
};
use prost::Message;

use super::{
    super::{
        change::record_event,
        lifecycle::allowed,
        request::{Call, reused},
    },
    asking,
};
use crate::{
    api::{Shared, answers, paging::MAX_PAGE_BYTES, principal::Principal},
    domain::{
        Snapshot, Uid, Versioned, Violation,
        lifecycle::Action,
        offsets::{self, Fields},
        stored::{self, OffsetRecord},
    },
    store::{
        ListedOffsets,
        connectors::ConnectorOutcome,
        offset_epochs::{self, EpochOutcome, NewEpoch},
    },
};

/// An alteration that loses against others is decided anew so often.
const TRIES: u32 = 5;

/// What is to become of the offsets.
enum Order {
    Alter {
        changes: Vec<OffsetChange>,
        others: Option<OffsetChange>,
    },
    /// Empty: all.
    Reset(Vec<Fields>),
    /// None: to the epoch before the present.
    Undo(Option<i64>),
}

impl Order {
    /// As it is stored.
    fn kind(&self) -> &'static str {
        match self {
            Self::Alter { .. } => "ALTER",
            Self::Reset(_) => "RESET",
            Self::Undo(_) => "UNDO",
        }
    }

    fn event(&self) -> &'static str {
        match self {
            Self::Alter { .. } => "OFFSETS_ALTERED",
            Self::Reset(_) => "OFFSETS_RESET",
            Self::Undo(_) => "OFFSETS_UNDONE",
        }
    }
}

pub(in crate::api::connectors) async fn alter(
    shared: &Shared,
    principal: Principal,
    mut request: AlterConnectorOffsetsRequest,
) -> Result<AlterConnectorOffsetsResponse, Refusal> {
    let id = std::mem::take(&mut request.request_id);
    let call = Call::new("AlterConnectorOffsets", principal, &id, None, &request)?;
    let order = Order::Alter {
        changes: request.changes,
        others: request.others,
    };
    rewrite(shared, &call, &request.name, &order, request.validate_only).await
}

pub(in crate::api::connectors) async fn reset(
    shared: &Shared,
    principal: Principal,
    mut request: ResetConnectorOffsetsRequest,
) -> Result<AlterConnectorOffsetsResponse, Refusal> {
    let id = std::mem::take(&mut request.request_id);
    let call = Call::new("ResetConnectorOffsets", principal, &id, None, &request)?;
    let order = Order::Reset(request.partitions.into_iter().map(|p| p.fields).collect());
    rewrite(shared, &call, &request.name, &order, request.validate_only).await
}

pub(in crate::api::connectors) async fn undo(
    shared: &Shared,
    principal: Principal,
    mut request: UndoConnectorOffsetsRequest,
) -> Result<AlterConnectorOffsetsResponse, Refusal> {
    let id = std::mem::take(&mut request.request_id);
    let call = Call::new("UndoConnectorOffsets", principal, &id, None, &request)?;
    let order = Order::Undo(request.epoch);
    rewrite(shared, &call, &request.name, &order, request.validate_only).await
}

async fn rewrite(
    shared: &Shared,
    call: &Call,
    name: &str,
    order: &Order,
    validate_only: bool,
) -> Result<AlterConnectorOffsetsResponse, Refusal> {
    let name = parse_offsets_name(name).map_err(|e| answers::bad_name("name", &e))?;
    let store = &shared.handles.store;
    if let Some(request) = &call.request {
        let outcome = store.replayed(request, name.id()).await.map_err(answers::store)?;
        match outcome {
            Some(ConnectorOutcome::Reused) => return Err(reused()),
            Some(ConnectorOutcome::Done { .. }) => return replayed(shared, call, &name).await,
            Some(ConnectorOutcome::Conflict(_)) | None => {}
        }
    }
    for _ in 0..TRIES {
        let read = store.read_connector(name.id()).await;
        let (present, revision) = read.map_err(answers::store)?;
        shared.seen(revision).await?;
        let snapshot = shared.handles.mirror.snapshot();
        let present = present.ok_or_else(|| answers::no_connector(&name.to_string()))?;
        allowed(shared, &snapshot, &name, &present, Action::AlterOffsets)?;
        let uid = Uid(present.uid.as_str().into());
        let listed = store.list_offsets(&uid).await.map_err(answers::store)?;
        let before = records(&listed);
        let after = decided(shared, &snapshot, &name, &present, &listed, &before, order).await?;
        let altered = offsets::difference(&before, &after);
        if validate_only || before == after {
            return Ok(answer(false, listed.epoch(), altered));
        }
        let new = NewEpoch {
            connector: name.id().to_owned(),
            uid,
            spec: present.mod_revision,
            head: listed
                .head
                .as_ref()
                .map(|head| ((*head.value).clone(), head.mod_revision)),
            records: after,
            alteration: stored::Alteration {
                epoch: 0,
                time: Some(shared.handles.now()),
                principal: call.principal.0.clone(),
                kind: order.kind().to_owned(),
                request_id: call.request_id(),
            },
            request: call.request.clone(),
        };
        match store.flip_epoch(&new).await.map_err(answers::store)? {
            EpochOutcome::Done { epoch } => {
                let text = format!(
                    "{} partitions, by {}; epoch {epoch}",
                    altered.len(),
                    call.principal.0
                );
                record_event(shared, &name, &present, order.event(), text);
                return Ok(answer(true, epoch, altered));
            }
            EpochOutcome::Replayed => return replayed(shared, call, &name).await,
            EpochOutcome::Reused => return Err(reused()),
            EpochOutcome::Conflict => {}
        }
    }
    Err(answers::contended(&format!("{name}/offsets")))
}

/// The records of the next epoch.
async fn decided(
    shared: &Shared,
    snapshot: &Snapshot,
    name: &ConnectorName,
    present: &Versioned<stored::Connector>,
    listed: &ListedOffsets,
    before: &[OffsetRecord],
    order: &Order,
) -> Result<Vec<OffsetRecord>, Refusal> {
    let now = shared.handles.now();
    let definition = present.definition.clone().unwrap_or_default();
    match order {
        Order::Alter { changes, others } => {
            let checked = offsets::changes(before, changes, others.as_ref());
            let (changes, others) = checked.map_err(|v| answers::invalid("the alteration", "", v))?;
            let settled =
                asking::settle(shared, snapshot, &definition, before, &changes, others.as_ref()).await?;
            twice(&settled)?;
            Ok(offsets::altered(before, &settled, now))
        }
        Order::Reset(which) => {
            let uid = Uid(present.uid.as_str().into());
            let sink = asking::kind(snapshot, &definition) == Some(Kind::Sink);
            let mut known: Vec<Fields> = before.iter().map(|record| record.partition.clone()).collect();
            if sink {
                known.extend(planned_queues(snapshot, &uid));
            }
            let which = named(&known, which)?;
            if sink {
                let queues = offsets::earliest(which.as_ref().unwrap_or(&known));
                Ok(offsets::altered(before, &queues, now))
            } else {
                Ok(offsets::forgotten(before, which.as_deref()))
            }
        }
        Order::Undo(epoch) => {
            let epoch = epoch.unwrap_or(listed.epoch() - 1);
            if !offset_epochs::is_kept(listed.epoch(), epoch) {
                return Err(nothing_to_undo(name, listed.epoch(), epoch));
            }
            let uid = Uid(present.uid.as_str().into());
            let kept = shared.handles.store.list_epoch(&uid, epoch).await;
            kept.map_err(answers::store)
        }
    }
}

/// The partitions that are to be reset, as they are stored; None: all.
fn named(known: &[Fields], which: &[Fields]) -> Result<Option<Vec<Fields>>, Refusal> {
    if which.is_empty() {
        return Ok(None);
    }
    let (mut found, mut violations) = (Vec::with_capacity(which.len()), Vec::new());
    for (at, wanted) in which.iter().enumerate() {
        let identity = offsets::identity(wanted);
        match known.iter().find(|known| offsets::identity(known) == identity) {
            Some(known) => found.push(known.clone()),
            None => violations.push(Violation {
                field: format!("partitions[{at}]"),
                message: format!("nothing is committed for {}", offsets::shown(wanted)),
                fix: "see which partitions there are: gantry connectors offsets get NAME".into(),
            }),
        }
    }
    if violations.is_empty() {
        Ok(Some(found))
    } else {
        Err(answers::invalid("the reset", "", violations))
    }
}

/// A plugin may store two ways of naming a partition as one.
fn twice(settled: &[offsets::Settled]) -> Result<(), Refusal> {
    let mut seen = std::collections::BTreeSet::new();
    match settled
        .iter()
        .find(|s| !seen.insert(offsets::identity(&s.partition)))
    {
        None => Ok(()),
        Some(again) => Err(Refusal::new(
            Reason::InvalidField,
            format!("{} is named twice", offsets::shown(&again.partition)),
        )
        .field("changes", "name each partition once")),
    }
}

/// Queues of the present plan: those of a queue for which nothing is committed yet among them.
fn planned_queues(snapshot: &Snapshot, uid: &Uid) -> Vec<Fields> {
    let Some(pointer) = snapshot.pointers.get(uid) else {
        return Vec::new();
    };
    let generation = pointer.plan_generation;
    let tasks = snapshot
        .plans
        .range((uid.clone(), generation, 0)..=(uid.clone(), generation, u32::MAX));
    tasks
        .filter_map(|(_, task)| task.spec.as_ref())
        .flat_map(|spec| spec.queues.iter().map(offsets::queue_partition))
        .collect()
}

fn records(listed: &ListedOffsets) -> Vec<OffsetRecord> {
    listed
        .records
        .iter()
        .map(|listed| (*listed.record.value).clone())
        .collect()
}

/// The answer to a request that had its effect before: what it made, as far as that is still there.
async fn replayed(
    shared: &Shared,
    call: &Call,
    name: &ConnectorName,
) -> Result<AlterConnectorOffsetsResponse, Refusal> {
    let store = &shared.handles.store;
    let present = super::reads::stored(shared, name).await?;
    let uid = Uid(present.uid.as_str().into());
    let listed = store.list_offsets(&uid).await.map_err(answers::store)?;
    let history = listed
        .head
        .as_ref()
        .map(|head| head.history.as_slice())
        .unwrap_or_default();
    let made = history
        .iter()
        .find(|a| a.request_id == call.request_id())
        .map(|a| a.epoch);
    let still_there = |epoch| epoch == listed.epoch() || offset_epochs::is_kept(listed.epoch(), epoch);
    let Some(made) = made.filter(|made| still_there(*made) && still_there(made - 1)) else {
        return Ok(answer(true, listed.epoch(), Vec::new()));
    };
    let before = store.list_epoch(&uid, made - 1).await.map_err(answers::store)?;
    let after = store.list_epoch(&uid, made).await.map_err(answers::store)?;
    Ok(answer(true, listed.epoch(), offsets::difference(&before, &after)))
}

/// As many of the partitions as fit a message.
fn answer(changed: bool, epoch: i64, altered: Vec<AlteredOffset>) -> AlterConnectorOffsetsResponse {
    let all = altered.len();
    let mut bytes = 0;
    let fits = |offset: &AlteredOffset| {
        bytes += offset.encoded_len() + 8;
        bytes <= MAX_PAGE_BYTES
    };
    let offsets: Vec<AlteredOffset> = altered.into_iter().take_while(fits).collect();
    AlterConnectorOffsetsResponse {
        changed,
        epoch,
        omitted: i32::try_from(all - offsets.len()).unwrap_or(i32::MAX),
        offsets,
    }
}

fn nothing_to_undo(name: &ConnectorName, present: i64, epoch: i64) -> Refusal {
    let message = if present == 0 {
        format!("the offsets of {name} were never altered")
    } else {
        format!("the offsets of {name} in epoch {epoch} are not kept; it is {present} now")
    };
    let fix = "see what can be undone: gantry connectors offsets history NAME";
    Refusal::new(Reason::NothingToUndo, message)
        .with("name", name.to_string())
        .with("epoch", present.to_string())
        .precondition("EPOCH", format!("{name}/offsets"), fix)
}
