//! Offsets of a connector: what is committed, and how it is altered.

mod alter;
mod asking;
mod retained;

use gantry_proto::{
    agent::v1::PartitionPosition,
    error::Refusal,
    name::ConnectorName,
    v1::{
        Connector, ConnectorOffsets, GetConnectorOffsetsRequest, OffsetAlteration, PartitionOffset,
        PastOffset, offset_alteration,
    },
};

pub(super) use self::{
    alter::{alter, reset, undo},
    retained::{adoption, list as list_retained},
};
use super::reads;
use crate::{
    api::{Shared, answers, paging::Paging},
    domain::{Uid, stored},
    store::{offset_epochs, partition_key},
};

/// Partitions of a page, unless fewer are asked for. Most connectors have fewer in all.
const PAGE: i32 = 1000;

/// The committed position of every partition, page by page.
pub(super) async fn get(
    shared: &Shared,
    name: &ConnectorName,
    request: &GetConnectorOffsetsRequest,
) -> Result<ConnectorOffsets, Refusal> {
    let size = if request.page_size == 0 {
        PAGE
    } else {
        request.page_size
    };
    let paging = Paging::parse(size, &request.page_token, &["offsets", &request.name])?;
    let present = reads::stored(shared, name).await?;
    let uid = Uid(present.uid.as_str().into());
    let listed = shared.handles.store.list_offsets(&uid).await;
    let listed = listed.map_err(answers::store)?;
    let after = paging.after.clone().unwrap_or_default();
    let shown = listed
        .records
        .iter()
        .map(|listed| {
            (
                partition_key(&listed.record.partition).to_string(),
                &*listed.record.value,
            )
        })
        .filter(|(key, _)| *key > after)
        .map(|(key, record)| (key, partition(record, request.include_history)));
    let (mut partitions, next_page_token) = paging.cut(shown);
    let mut lag_unknown = String::new();
    if request.include_lag
        && let Err(why) = measure(
            shared,
            &present.definition.clone().unwrap_or_default(),
            &mut partitions,
        )
        .await
    {
        lag_unknown = why;
    }
    let alterations = match &listed.head {
        Some(head) if request.include_history => alterations(head),
        _ => Vec::new(),
    };
    Ok(ConnectorOffsets {
        name: format!("{name}/offsets"),
        epoch: listed.epoch(),
        partitions,
        alterations,
        lag_unknown,
        next_page_token,
    })
}

fn partition(record: &stored::OffsetRecord, with_history: bool) -> PartitionOffset {
    let past = |past: &stored::PastPosition| PastOffset {
        position: past.position.clone(),
        commit_time: past.time,
    };
    PartitionOffset {
        partition: record.partition.clone(),
        position: record.position.clone(),
        commit_time: record.time,
        counts: record.counts,
        sink_state_bytes: i32::try_from(record.sink_state.len()).unwrap_or(i32::MAX),
        lag: None,
        lag_unit: String::new(),
        history: if with_history {
            record.history.iter().rev().map(past).collect()
        } else {
            Vec::new()
        },
    }
}

/// Newest first.
fn alterations(head: &stored::OffsetsHead) -> Vec<OffsetAlteration> {
    use offset_alteration::Kind;
    let kind = |kind: &str| match kind {
        "ALTER" => Kind::Alter,
        "RESET" => Kind::Reset,
        "UNDO" => Kind::Undo,
        "ADOPT" => Kind::Adopt,
        _ => Kind::Unspecified,
    };
    let shown = |alteration: &stored::Alteration| OffsetAlteration {
        epoch: alteration.epoch,
        kind: kind(&alteration.kind).into(),
        time: alteration.time,
        principal: alteration.principal.clone(),
        undoable: offset_epochs::is_kept(head.epoch, alteration.epoch - 1),
    };
    head.history.iter().rev().map(shown).collect()
}

/// Fills in how much there is to read. An error says why that is not known.
async fn measure(
    shared: &Shared,
    definition: &Connector,
    partitions: &mut [PartitionOffset],
) -> Result<(), String> {
    let snapshot = shared.handles.mirror.snapshot();
    let positions: Vec<PartitionPosition> = partitions
        .iter()
        .map(|p| PartitionPosition {
            partition: p.partition.clone(),
            position: p.position.clone(),
        })
        .collect();
    let lags = asking::lags(shared, &snapshot, definition, positions).await?;
    for (partition, lag) in partitions.iter_mut().zip(lags) {
        partition.lag = lag.amount;
        partition.lag_unit = lag.unit;
    }
    Ok(())
}
