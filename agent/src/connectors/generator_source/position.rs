use gantry_connector::{ConnectorError, Fields, Start, StartPosition};

use super::config::Settings;

/// The partition of that number: `{partition}`.
pub(super) fn partition(number: u32) -> Fields {
    Fields::new().with("partition", u64::from(number))
}

/// The position before the record of that number: `{sequence}`.
pub(super) fn position(sequence: u64) -> Fields {
    Fields::new().with("sequence", sequence)
}

/// Number of the partition and of the next record.
pub(super) fn read(partition: &Fields, position: &Fields) -> Result<(u32, u64), ConnectorError> {
    let one = |fields: &Fields, name: &str| fields.uint(name).filter(|_| fields.iter().count() == 1);
    let number = one(partition, "partition").and_then(|n| u32::try_from(n).ok());
    let number = number.ok_or_else(|| {
        ConnectorError::user(format!("partition {partition} is not one of generator-source"))
            .fix("a partition is partition=N; remove this one with `gantry connectors offsets reset`")
    })?;
    let sequence = one(position, "sequence").ok_or_else(|| {
        ConnectorError::user(format!(
            "position {position} of {partition} has no number sequence"
        ))
        .fix("set it to sequence=N, the number of the next record")
    })?;
    Ok((number, sequence))
}

/// Where a partition starts when an operator alters it.
pub(super) fn start_at(
    settings: &Settings,
    given: &Fields,
    start: &Start,
) -> Result<StartPosition, ConnectorError> {
    // Of the partition alone: the sequence is looked at below.
    let (number, _) = read(given, &position(0))?;
    if number >= settings.partitions {
        return Err(ConnectorError::user(format!(
            "there is no partition {number}: there are {}",
            settings.partitions
        ))
        .fix("give one from 0 up, or raise partitions"));
    }
    let sequence = match start {
        Start::Position(at) => read(given, at)?.1,
        Start::Earliest => 0,
        Start::Latest if settings.count.is_some() => settings.count_of(number),
        Start::Latest | Start::Time(_) => return Err(start.unknown_to("generator-source")),
    };
    Ok(StartPosition {
        partition: partition(number),
        position: position(sequence),
    })
}
