//! Resource names as types: parsed once at the edge, never pieced together from text.

use std::fmt;

use thiserror::Error;

/// Why a name or id was not accepted. `Display` is fit for an answer to the user.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum NameError {
    /// Another collection, or missing parts.
    #[error("'{given}' is not of the form '{pattern}'")]
    Pattern {
        /// What was given.
        given: String,
        /// What is expected.
        pattern: &'static str,
    },
    /// The id has characters or a length that ids do not have.
    #[error(
        "'{0}' is not an id: 1 to 63 lower-case letters, digits and '-', beginning with a letter and not ending with '-'"
    )]
    Id(String),
    /// The task is not a number.
    #[error("'{0}' is not a task number")]
    Task(String),
    /// The revision is not a number.
    #[error("'{0}' is not a revision number")]
    Revision(String),
}

/// Id of a connector, a plugin or an agent: `[a-z]([-a-z0-9]*[a-z0-9])?`, at most 63 characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(String);

impl Id {
    /// Checks an id.
    ///
    /// # Errors
    /// [`NameError::Id`].
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let b = text.as_bytes();
        let ok = (1..=63).contains(&b.len())
            && b[0].is_ascii_lowercase()
            && b[b.len() - 1] != b'-'
            && b.iter()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == b'-');
        if ok {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError::Id(text.chars().take(80).collect()))
        }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! collection_name {
    ($(#[$doc:meta])* $name:ident, $collection:literal, $pattern:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Id);

        impl $name {
            /// Parses the full name.
            ///
            /// # Errors
            /// [`NameError`].
            pub fn parse(name: &str) -> Result<Self, NameError> {
                match name.strip_prefix(concat!($collection, "/")) {
                    Some(id) => Ok(Self(Id::parse(id)?)),
                    None => Err(NameError::Pattern { given: name.chars().take(80).collect(), pattern: $pattern }),
                }
            }

            /// Parses the full name or the bare id.
            ///
            /// # Errors
            /// [`NameError`].
            pub fn parse_lenient(name: &str) -> Result<Self, NameError> {
                if name.contains('/') { Self::parse(name) } else { Ok(Self(Id::parse(name)?)) }
            }

            /// The name of this id.
            pub fn new(id: Id) -> Self {
                Self(id)
            }

            /// The id alone.
            pub fn id(&self) -> &str {
                self.0.as_str()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($collection, "/{}"), self.0)
            }
        }
    };
}

collection_name!(
    /// `connectors/{connector}`
    ConnectorName, "connectors", "connectors/{connector}"
);
collection_name!(
    /// `plugins/{plugin}`
    PluginName, "plugins", "plugins/{plugin}"
);
collection_name!(
    /// `agents/{agent}`
    AgentName, "agents", "agents/{agent}"
);

/// `connectors/{connector}/tasks/{task}`
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskName {
    /// The connector.
    pub connector: ConnectorName,
    /// Number of the task.
    pub task: u32,
}

impl TaskName {
    /// Parses the full name.
    ///
    /// # Errors
    /// [`NameError`].
    pub fn parse(name: &str) -> Result<Self, NameError> {
        let pattern = || NameError::Pattern {
            given: name.chars().take(80).collect(),
            pattern: "connectors/{connector}/tasks/{task}",
        };
        let (connector, task) = name.split_once("/tasks/").ok_or_else(pattern)?;
        let connector = ConnectorName::parse(connector)?;
        let canonical = !task.is_empty()
            && task.bytes().all(|b| b.is_ascii_digit())
            && (task == "0" || !task.starts_with('0'));
        let task = task
            .parse()
            .ok()
            .filter(|_| canonical)
            .ok_or_else(|| NameError::Task(task.chars().take(80).collect()))?;
        Ok(Self { connector, task })
    }
}

impl fmt::Display for TaskName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/tasks/{}", self.connector, self.task)
    }
}

/// `connectors/{connector}/revisions/{revision}`
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RevisionName {
    /// The connector.
    pub connector: ConnectorName,
    /// Number of the revision, from 1.
    pub revision: i64,
}

impl RevisionName {
    /// Parses the full name.
    ///
    /// # Errors
    /// [`NameError`].
    pub fn parse(name: &str) -> Result<Self, NameError> {
        let (connector, revision) = name.split_once("/revisions/").ok_or_else(|| NameError::Pattern {
            given: name.chars().take(80).collect(),
            pattern: "connectors/{connector}/revisions/{revision}",
        })?;
        let connector = ConnectorName::parse(connector)?;
        let canonical = revision.bytes().all(|b| b.is_ascii_digit()) && !revision.starts_with('0');
        let revision = revision
            .parse()
            .ok()
            .filter(|_| canonical)
            .ok_or_else(|| NameError::Revision(revision.chars().take(80).collect()))?;
        Ok(Self { connector, revision })
    }
}

impl fmt::Display for RevisionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/revisions/{}", self.connector, self.revision)
    }
}

/// Parses `connectors/{connector}/offsets`.
///
/// # Errors
/// [`NameError`].
pub fn parse_offsets_name(name: &str) -> Result<ConnectorName, NameError> {
    match name.strip_suffix("/offsets") {
        Some(connector) => ConnectorName::parse(connector),
        None => Err(NameError::Pattern {
            given: name.chars().take(80).collect(),
            pattern: "connectors/{connector}/offsets",
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_follow_the_pattern() {
        let long = "a".repeat(63);
        for ok in ["a", "orders-in", "a1", long.as_str()] {
            assert!(Id::parse(ok).is_ok(), "{ok}");
        }
        let too_long = "a".repeat(64);
        for bad in [
            "",
            "A",
            "1a",
            "-a",
            "a-",
            "a_b",
            "a.b",
            "é",
            too_long.as_str(),
            "a/b",
        ] {
            assert!(Id::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_round_trip() {
        let task = TaskName::parse("connectors/orders-in/tasks/7").unwrap();
        assert_eq!((task.connector.id(), task.task), ("orders-in", 7));
        assert_eq!(task.to_string(), "connectors/orders-in/tasks/7");
        for bad in [
            "connectors/x/tasks/",
            "connectors/x/tasks/+1",
            "connectors/x/tasks/01",
            "x/tasks/1",
        ] {
            assert!(TaskName::parse(bad).is_err(), "{bad}");
        }
        let revision = RevisionName::parse("connectors/orders-in/revisions/12").unwrap();
        assert_eq!((revision.connector.id(), revision.revision), ("orders-in", 12));
        assert_eq!(revision.to_string(), "connectors/orders-in/revisions/12");
        for bad in [
            "connectors/x/revisions/",
            "connectors/x/revisions/0",
            "connectors/x/revisions/-1",
            "connectors/x/revisions/07",
            "x/revisions/1",
        ] {
            assert!(RevisionName::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_offsets_name("connectors/a/offsets").unwrap().id(), "a");
        assert!(ConnectorName::parse("a").is_err());
        assert_eq!(
            ConnectorName::parse_lenient("a").unwrap().to_string(),
            "connectors/a"
        );
    }
}
