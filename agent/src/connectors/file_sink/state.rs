use bytes::Bytes;
use gantry_connector::ConnectorError;
use serde::{Deserialize, Serialize};

/// How far a file has durably come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mark {
    /// How many files have been renamed before the present one.
    pub(super) sequence: u32,
    /// Bytes in the present one.
    pub(super) length: u64,
}

/// What is stored with the position of a queue. Outlives this version of the program.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    /// 1.
    v: u32,
    /// The path that was written to.
    pub(super) file: String,
    length: u64,
    sequence: u32,
    /// The last line has no newline yet: where its record came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) unended: Option<Box<str>>,
}

impl State {
    pub(super) fn new(file: &str, mark: Mark, unended: Option<Box<str>>) -> Self {
        Self {
            v: 1,
            file: file.to_owned(),
            length: mark.length,
            sequence: mark.sequence,
            unended,
        }
    }

    pub(super) fn mark(&self) -> Mark {
        Mark {
            sequence: self.sequence,
            length: self.length,
        }
    }

    pub(super) fn encode(&self) -> Result<Bytes, ConnectorError> {
        let bytes = serde_json::to_vec(self)
            .map_err(|e| ConnectorError::task("cannot encode the state").because(e))?;
        Ok(bytes.into())
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, ConnectorError> {
        let refused = || {
            ConnectorError::user("the committed state of the file cannot be read")
                .fix("run a version of the agent that knows it, or reset the connector's offsets")
        };
        match serde_json::from_slice::<Self>(bytes) {
            Ok(state) if state.v == 1 => Ok(state),
            Ok(_) => Err(refused()),
            Err(e) => Err(refused().because(e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stored_form_is_this_one() {
        let state = State::new(
            "/out/a.log",
            Mark {
                sequence: 2,
                length: 17,
            },
            None,
        );
        let bytes = state.encode().unwrap();
        assert_eq!(bytes, r#"{"v":1,"file":"/out/a.log","length":17,"sequence":2}"#);
        assert_eq!(State::decode(&bytes).unwrap(), state);
    }

    #[test]
    fn what_is_not_ours_is_refused() {
        for bad in [
            "",
            "{}",
            r#"{"v":2,"file":"a","length":1,"sequence":0}"#,
            r#"{"v":1,"file":"a","length":-1,"sequence":0}"#,
        ] {
            assert!(State::decode(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
