use std::path::Path;

use gantry_connector::{ConnectorError, Fields, StartPosition};

/// The only partition: `{directory}`.
pub(super) fn partition(directory: &Path) -> Fields {
    Fields::new().with("directory", directory.to_string_lossy().into_owned())
}

/// The position before the file of that number: `{file}`.
pub(super) fn position(file: u64) -> Fields {
    Fields::new().with("file", file)
}

/// The number of the next file.
pub(super) fn read(own: &Fields, start: &StartPosition) -> Result<u64, ConnectorError> {
    let (partition, position) = (&start.partition, &start.position);
    if partition != own {
        return Err(
            ConnectorError::user(format!("partition {partition} is not {own}"))
                .fix("reset the connector's offsets after the directory was changed"),
        );
    }
    next(position).ok_or_else(|| {
        ConnectorError::user(format!("position {position} has no number file"))
            .fix("set it to file=N, the number of the next file")
    })
}

pub(super) fn next(position: &Fields) -> Option<u64> {
    position.uint("file").filter(|_| position.iter().count() == 1)
}
