//! References to secrets: resolved here, at each start of a task, and nowhere else.

use std::{fs, path::PathBuf};

use gantry_connector::{Config, ConfigSpec, PathPolicy, SecretRef};
use serde_json::Value;

use crate::{
    problem::{Cause, Failure},
    redact::Redactor,
};

/// Only variables that begin so are ever read.
const ENV_PREFIX: &str = "GANTRY_SECRET_";
/// Largest file of secrets, in bytes.
const MAX_FILE: u64 = 64 * 1024;

/// Where secrets come from.
#[derive(Clone)]
pub(crate) struct Secrets {
    paths: PathPolicy,
    redactor: Redactor,
    env: fn(&str) -> Option<String>,
}

impl Secrets {
    /// Files below these directories, and the process's variables.
    pub(crate) fn new(allowed: Vec<PathBuf>) -> Self {
        Self {
            paths: PathPolicy::new(allowed),
            redactor: Redactor::default(),
            env: process_env,
        }
    }

    /// Has what is resolved left out of the log, too.
    pub(crate) fn told_to(mut self, redactor: Redactor) -> Self {
        self.redactor = redactor;
        self
    }

    #[cfg(test)]
    pub(crate) fn with_env(mut self, env: fn(&str) -> Option<String>) -> Self {
        self.env = env;
        self
    }

    /// Resolves the references of parameters that the spec marks secret, and says what must never be shown.
    ///
    /// # Errors
    /// `User` when a reference is not allowed, does not exist or is not text; `External` when a file cannot be read.
    pub(crate) fn resolve(
        &self,
        spec: &ConfigSpec,
        config: &Config,
    ) -> Result<(Config, Scrubber), Unresolved> {
        let mut resolved = config.clone();
        let mut found = Vec::new();
        for param in spec.params.iter().filter(|p| p.secret) {
            let Some(value) = config.get(&param.name) else {
                continue;
            };
            let mut value = value.clone();
            self.fill(&param.name, &mut value, &mut found)
                .map_err(|failure| Unresolved {
                    param: param.name.clone(),
                    failure,
                })?;
            resolved.set(param.name.clone(), value);
        }
        let scrubber = Scrubber::new(found);
        // Before any code sees them.
        self.redactor.learn(&scrubber.0);
        Ok((resolved, scrubber))
    }

    fn fill(&self, param: &str, value: &mut Value, found: &mut Vec<String>) -> Result<(), Failure> {
        match value {
            Value::String(text) => {
                if let Some(reference) = SecretRef::parse(text) {
                    let secret = self.look_up(param, &reference)?;
                    found.push(secret.clone());
                    *text = secret;
                }
                Ok(())
            }
            Value::Array(values) => values.iter_mut().try_for_each(|v| self.fill(param, v, found)),
            Value::Object(map) => map.values_mut().try_for_each(|v| self.fill(param, v, found)),
            _ => Ok(()),
        }
    }

    fn look_up(&self, param: &str, reference: &SecretRef) -> Result<String, Failure> {
        let refused = |what: String, fix: &str| {
            Failure::new(
                Cause::User,
                "SECRET_NOT_FOUND",
                format!("parameter {param}: {reference} {what}"),
            )
            .fix(fix)
        };
        match reference {
            SecretRef::Env { name } if !name.starts_with(ENV_PREFIX) => Err(refused(
                format!("is not allowed: only variables that begin with {ENV_PREFIX} are read"),
                "rename the variable",
            )),
            SecretRef::Env { name } => (self.env)(name).ok_or_else(|| {
                refused(
                    "is not set in the agent's environment".into(),
                    "set it and restart the agent",
                )
            }),
            SecretRef::File { path, key } => {
                let text = self.read(path).map_err(|e| match e {
                    ReadError::Refused(why) => {
                        refused(why, "put the file below one of the agent's secrets paths")
                    }
                    ReadError::Unavailable(e) => Failure::new(
                        Cause::External,
                        "SECRET_UNAVAILABLE",
                        format!("parameter {param}: {reference} cannot be read: {e}"),
                    ),
                })?;
                match key {
                    None => Ok(text.trim_end_matches(['\n', '\r']).to_owned()),
                    Some(key) => line_of(&text, key)
                        .ok_or_else(|| refused(format!("has no line {key}="), "add the key to the file")),
                }
            }
        }
    }

    fn read(&self, path: &str) -> Result<String, ReadError> {
        let refused = |why: &str| ReadError::Refused(why.into());
        let real = self
            .paths
            .resolve(path.as_ref())
            .map_err(|_| refused("is outside of the directories that the agent reads secrets from"))?;
        let meta = fs::metadata(&real).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => refused("does not exist"),
            std::io::ErrorKind::PermissionDenied => refused("may not be read by the agent"),
            _ => ReadError::Unavailable(e),
        })?;
        if !meta.is_file() || meta.len() > MAX_FILE {
            return Err(refused("is not a file of at most 64 KiB"));
        }
        let bytes = fs::read(&real).map_err(|e| match e.kind() {
            std::io::ErrorKind::PermissionDenied => refused("may not be read by the agent"),
            _ => ReadError::Unavailable(e),
        })?;
        String::from_utf8(bytes).map_err(|_| refused("is not UTF-8 text"))
    }
}

/// A reference that leads to no secret.
pub(crate) struct Unresolved {
    /// The parameter that has it.
    pub(crate) param: String,
    /// Why.
    pub(crate) failure: Failure,
}

impl From<Unresolved> for Failure {
    fn from(unresolved: Unresolved) -> Self {
        unresolved.failure
    }
}

enum ReadError {
    Refused(String),
    Unavailable(std::io::Error),
}

#[allow(
    clippy::disallowed_methods,
    reason = "secrets are resolved at each start, only by this module, only by prefix"
)]
fn process_env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn line_of(text: &str, key: &str) -> Option<String> {
    text.lines()
        .filter_map(|l| l.split_once('='))
        .find(|(k, _)| k.trim() == key)
        .map(|(_, v)| v.trim().to_owned())
}

/// Removes secrets from texts that leave the task.
#[derive(Clone, Default)]
pub(crate) struct Scrubber(Vec<String>);

impl Scrubber {
    /// Removes these. Very short ones are left alone: replacing every `a` hides nothing and ruins the text.
    pub(crate) fn new(secrets: impl IntoIterator<Item = String>) -> Self {
        let mut secrets: Vec<_> = secrets
            .into_iter()
            .flat_map(|s| {
                [
                    s.trim().to_owned(),
                    format!("{s:?}").trim_matches('"').to_owned(),
                    Value::from(s.as_str()).to_string().trim_matches('"').to_owned(),
                    s,
                ]
            })
            .filter(|s| s.len() >= 4)
            .collect();
        // Longest first: one secret may be part of another.
        secrets.sort_by_key(|s| std::cmp::Reverse(s.len()));
        secrets.dedup();
        Self(secrets)
    }

    /// The text with `***` in place of each secret.
    pub(crate) fn scrub(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, secret| {
            text.replace(secret.as_str(), "***")
        })
    }
}

#[cfg(test)]
mod tests {
    use gantry_connector::Param;
    use serde_json::json;

    use super::*;

    fn spec() -> ConfigSpec {
        ConfigSpec::new()
            .param(Param::string("password").secret())
            .param(Param::string("plain"))
    }

    fn config(value: Value) -> Config {
        let Value::Object(map) = value else {
            panic!("not an object")
        };
        map.into()
    }

    fn env(name: &str) -> Option<String> {
        (name == "GANTRY_SECRET_A" || name == "HOME").then(|| format!("value of {name}"))
    }

    #[test]
    fn only_secret_parameters_are_resolved_and_the_values_scrubbed() {
        let secrets = Secrets::new(vec![]).with_env(env);
        let given = config(json!({"password": "${env:GANTRY_SECRET_A}", "plain": "${env:GANTRY_SECRET_A}"}));
        let (resolved, scrubber) = secrets
            .resolve(&spec(), &given)
            .unwrap_or_else(|u| panic!("{:?}", u.failure));
        assert_eq!(resolved.str("password").unwrap(), "value of GANTRY_SECRET_A");
        assert_eq!(resolved.str("plain").unwrap(), "${env:GANTRY_SECRET_A}");
        assert_eq!(scrubber.scrub("x value of GANTRY_SECRET_A y"), "x *** y");
    }

    #[test]
    fn what_is_resolved_is_kept_out_of_the_log_however_it_is_written() {
        let redactor = Redactor::default();
        let quoted = |_: &str| Some("a \"b\"\nc".to_owned());
        let secrets = Secrets::new(vec![]).with_env(quoted).told_to(redactor.clone());
        let given = config(json!({"password": "${env:GANTRY_SECRET_A}"}));
        assert!(secrets.resolve(&spec(), &given).is_ok());
        let secret = "a \"b\"\nc";
        for written in [
            secret.to_owned(),
            format!("{secret:?}"),
            json!(secret).to_string(),
        ] {
            let clean = redactor.redact(&written).into_owned();
            assert!(clean.contains("***") && !clean.contains('b'), "{clean}");
        }
    }

    #[test]
    fn what_is_not_allowed_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("s"), "x").unwrap();
        std::os::unix::fs::symlink(outside.path().join("s"), dir.path().join("link")).unwrap();
        let secrets = Secrets::new(vec![dir.path().into()]).with_env(env);
        let path = |p: PathBuf| format!("${{file:{}}}", p.display());
        for bad in [
            "${env:HOME}".to_owned(),
            "${env:GANTRY_SECRET_B}".into(),
            path(outside.path().join("s")),
            path(dir.path().join("link")),
            path(dir.path().join("missing")),
        ] {
            let failure = secrets
                .resolve(&spec(), &config(json!({"password": bad})))
                .err()
                .map(Failure::from)
                .unwrap();
            assert_eq!(failure.cause, Cause::User, "{bad}: {}", failure.message);
        }
    }

    #[test]
    fn files_and_keys_of_files() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("db");
        fs::write(&file, "user=bob\npassword = s3cret\n").unwrap();
        let secrets = Secrets::new(vec![dir.path().into()]);
        let get = |text: String| {
            secrets
                .resolve(&spec(), &config(json!({"password": text})))
                .map(|(c, _)| c)
        };
        let keyed = get(format!("${{file:{}:password}}", file.display()))
            .unwrap_or_else(|u| panic!("{:?}", u.failure));
        assert_eq!(keyed.str("password").unwrap(), "s3cret");
        let whole =
            get(format!("${{file:{}}}", file.display())).unwrap_or_else(|u| panic!("{:?}", u.failure));
        assert_eq!(whole.str("password").unwrap(), "user=bob\npassword = s3cret");
        assert!(get(format!("${{file:{}:other}}", file.display())).is_err());
    }
}
