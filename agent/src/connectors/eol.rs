//! How a line without newline travels from file-source to file-sink: it stays open for what follows in the same file, and is
//! ended before anything that comes from another one.

use gantry_connector::Headers;

/// Header of a record whose line did not end with a newline.
pub(super) const HEADER: &str = "gantry-eol";

/// Its value.
pub(super) const NONE: &str = "none";

/// Which partition of which connector a record came from: the first two parts of its `gantry-id`. None: not from Gantry.
pub(super) fn origin(headers: &Headers) -> Option<&str> {
    let id = headers.get("gantry-id")?;
    let (end, _) = id.match_indices('-').nth(1)?;
    Some(&id[..end])
}
