//! How a line without newline travels from file-source to file-sink.

/// Header of a record whose line did not end with a newline.
pub(super) const HEADER: &str = "gantry-eol";

/// Its value.
pub(super) const NONE: &str = "none";
