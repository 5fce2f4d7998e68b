use std::fmt;

/// A reference to a secret, resolved by the agent that runs the task and nowhere else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretRef {
    /// `${env:NAME}`: an environment variable of the agent.
    Env {
        /// Letters, digits and `_`, not beginning with a digit.
        name: String,
    },
    /// `${file:PATH}` or `${file:PATH:KEY}`: a file on the agent, or one `KEY=value` line of it.
    File {
        /// Absolute path.
        path: String,
        /// Key within the file.
        key: Option<String>,
    },
}

impl SecretRef {
    /// Reads a text that is a reference and nothing else.
    pub fn parse(text: &str) -> Option<Self> {
        let inner = text.strip_prefix("${")?.strip_suffix('}')?;
        if inner.contains(['{', '}', '\n', '\0']) {
            return None;
        }
        if let Some(name) = inner.strip_prefix("env:") {
            let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let begins = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
            return (begins && name.chars().all(fits)).then(|| Self::Env { name: name.into() });
        }
        let (path, key) = match inner.strip_prefix("file:")?.split_once(':') {
            Some((path, key)) => (path, Some(key)),
            None => (inner.strip_prefix("file:")?, None),
        };
        let whole =
            path.starts_with('/') && path.len() > 1 && key.is_none_or(|k| !k.is_empty() && !k.contains(':'));
        whole.then(|| Self::File {
            path: path.into(),
            key: key.map(Into::into),
        })
    }

    /// Whether the text contains what looks like a reference, well formed or not.
    pub fn occurs_in(text: &str) -> bool {
        text.contains("${env:") || text.contains("${file:")
    }
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env { name } => write!(f, "${{env:{name}}}"),
            Self::File { path, key: None } => write!(f, "${{file:{path}}}"),
            Self::File { path, key: Some(key) } => write!(f, "${{file:{path}:{key}}}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read_and_shown_alike() {
        for text in [
            "${env:GANTRY_SECRET_DB}",
            "${file:/etc/gantry/secrets/db}",
            "${file:/etc/gantry/secrets/db:password}",
        ] {
            assert_eq!(SecretRef::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_more_or_less_than_a_reference_is_refused() {
        for text in [
            "",
            "hunter2",
            "${env:}",
            "${env:1X}",
            "${env:A B}",
            "${env:A}x",
            "x${env:A}",
            "${env:A}${env:B}",
            "${file:}",
            "${file:/}",
            "${file:relative}",
            "${file:/a:}",
            "${file:/a:b:c}",
            "${vault:a}",
            "$env:A",
        ] {
            assert_eq!(SecretRef::parse(text), None, "{text}");
        }
    }
}
