//! `gantry connectors offsets ...`

use gantry_client::v1::{
    AlterConnectorOffsetsResponse, OffsetChange, Partition,
    offset_change::{Place, Target},
};

use super::Session;
use crate::{
    args::{AlterOffsets, Offsets},
    failure::Failure,
    positions::{self, Known},
    render,
};

pub(super) async fn run(s: &Session, command: Offsets) -> Result<(), Failure> {
    match command {
        Offsets::Get { name, no_lag } => {
            let all = s.client.offsets_with(&name, !no_lag, false).await?;
            if !all.lag_unknown.is_empty() {
                render::note(&format!("the lag is not known: {}", all.lag_unknown));
            }
            match render::structured(s.style, &all) {
                Some(text) => render::out(&text?),
                None => render::out(&render::offsets(&all, !no_lag)),
            }
        }
        Offsets::Alter(alter) => {
            let (changes, others) = wanted(s, &alter).await?;
            let answer = s
                .client
                .alter_offsets(&alter.name, changes, others, alter.validate_only);
            show(s, &alter.name, &answer.await?, alter.validate_only)
        }
        Offsets::Reset {
            name,
            partitions,
            validate_only,
        } => {
            let mut named = Vec::with_capacity(partitions.len());
            if !partitions.is_empty() {
                let known = Known::of(s.client.offsets(&name).await?);
                for text in &partitions {
                    let fields = known.partition(text)?;
                    named.push(Partition { fields });
                }
            }
            let answer = s.client.reset_offsets(&name, named, validate_only).await?;
            show(s, &name, &answer, validate_only)
        }
        Offsets::History { name } => {
            let all = s.client.offsets_with(&name, false, true).await?;
            match render::structured(s.style, &all) {
                Some(text) => render::out(&text?),
                None => render::out(&render::offsets_history(&all)),
            }
        }
        Offsets::Undo {
            name,
            epoch,
            validate_only,
        } => {
            let answer = s.client.undo_offsets(&name, epoch, validate_only).await?;
            show(s, &name, &answer, validate_only)
        }
        Offsets::Retained => {
            let all = s.client.retained_offsets().await?;
            match render::structured(s.style, &all) {
                Some(text) => render::out(&text?),
                None => render::out(&render::retained(&all)),
            }
        }
    }
}

/// What the flags say of each partition, and of all others.
async fn wanted(
    s: &Session,
    alter: &AlterOffsets,
) -> Result<(Vec<OffsetChange>, Option<OffsetChange>), Failure> {
    let target = &alter.target;
    if let Some(file) = &target.file {
        return Ok((positions::read(file)?, None));
    }
    let place = match (target.to_earliest, target.to_latest) {
        (true, _) => Some(Target::Place(Place::Earliest.into())),
        (_, true) => Some(Target::Place(Place::Latest.into())),
        _ => None,
    };
    let time = target.to_time.as_deref().map(positions::time).transpose()?;
    let committed = target.to_committed.as_deref().map(positions::time).transpose()?;
    let target_of_all = place
        .or(time.map(Target::Time))
        .or(committed.map(Target::CommittedTime));
    if alter.partitions.is_empty() {
        let others = OffsetChange {
            target: target_of_all,
            ..OffsetChange::default()
        };
        return Ok((Vec::new(), Some(others)));
    }
    let known = Known::of(s.client.offsets(&alter.name).await?);
    let mut changes = Vec::with_capacity(alter.partitions.len());
    for text in &alter.partitions {
        let partition = known.partition(text)?;
        let position = match &target.to {
            Some(text) => known.position(&partition, text)?,
            None => Default::default(),
        };
        changes.push(OffsetChange {
            partition,
            position,
            target: target_of_all,
        });
    }
    Ok((changes, None))
}

fn show(
    s: &Session,
    name: &str,
    answer: &AlterConnectorOffsetsResponse,
    validate_only: bool,
) -> Result<(), Failure> {
    match render::structured(s.style, answer) {
        Some(text) => render::out(&text?),
        None => render::out(&render::alteration(name, answer, validate_only)),
    }
}
