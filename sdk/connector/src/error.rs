use std::fmt;

/// Who has to act before it can go on, and whether trying again helps. Gantry branches on this alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Domain {
    /// Something outside is unavailable: a file system, a database, a network. Tried again without limit, with
    /// back-off, under back-pressure; no record is skipped for it.
    Environment,
    /// This record can never pass, others can. The connector's error policy decides: fail, skip or dead letter.
    Record,
    /// The task's own code or state failed. The task is restarted with back-off.
    Task,
    /// Configuration, credentials or permissions are wrong. Not tried again: the task fails at once and says what to do.
    User,
}

/// An error of a connector. `Display` says what failed and on what, without the cause; `source` has the cause.
///
/// Never put a secret's value into an error.
#[derive(Debug)]
pub struct ConnectorError {
    domain: Domain,
    what: String,
    fix: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl ConnectorError {
    /// An error of that domain; `what` is a sentence without a full stop that names the thing concerned.
    pub fn new(domain: Domain, what: impl Into<String>) -> Self {
        Self {
            domain,
            what: what.into(),
            fix: None,
            source: None,
        }
    }

    /// Something outside is unavailable.
    pub fn environment(what: impl Into<String>) -> Self {
        Self::new(Domain::Environment, what)
    }

    /// This record can never pass.
    pub fn record(what: impl Into<String>) -> Self {
        Self::new(Domain::Record, what)
    }

    /// The task's code or state failed.
    pub fn task(what: impl Into<String>) -> Self {
        Self::new(Domain::Task, what)
    }

    /// Configuration, credentials or permissions are wrong.
    pub fn user(what: impl Into<String>) -> Self {
        Self::new(Domain::User, what)
    }

    /// With the underlying error.
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// With what a person should do about it.
    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    /// Who has to act.
    pub fn domain(&self) -> Domain {
        self.domain
    }

    /// What a person should do about it, if the connector knows.
    pub fn fix_text(&self) -> Option<&str> {
        self.fix.as_deref()
    }

    /// The message with its chain of causes, separated by `: `.
    pub fn chain(&self) -> String {
        let mut text = self.what.clone();
        let mut cause = std::error::Error::source(self);
        while let Some(e) = cause {
            let line = e.to_string();
            if !text.ends_with(&line) {
                text.push_str(": ");
                text.push_str(&line);
            }
            cause = e.source();
        }
        text
    }
}

impl fmt::Display for ConnectorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for ConnectorError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|e| e as _)
    }
}
