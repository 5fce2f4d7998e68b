use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use serde_json::{Map, Value};

use crate::{ConnectorError, Violation, units};

/// A checked configuration: values by parameter name.
///
/// Every getter comes twice: `str` for a parameter that has a value for certain (required or with a default), `opt_str` for one
/// that may be absent. A missing key or a value of another type is an error of domain `User` that names the key and never
/// shows the value. `Debug` shows names only, because secrets are resolved in here.
#[derive(Clone, Default, PartialEq)]
pub struct Config(Map<String, Value>);

impl Config {
    /// No parameters.
    pub fn new() -> Self {
        Self::default()
    }

    /// The value as it is; JSON's null counts as absent.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|v| !v.is_null())
    }

    /// Sets a value.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<Value>) {
        self.0.insert(name.into(), value.into());
    }

    /// All values.
    pub fn as_map(&self) -> &Map<String, Value> {
        &self.0
    }

    fn opt<'a, T>(
        &'a self,
        name: &str,
        wanted: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ConnectorError> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        match read(value) {
            Some(v) => Ok(Some(v)),
            None => Err(ConnectorError::user(format!("parameter {name} is not {wanted}"))
                .fix(format!("set {name} to {wanted}"))),
        }
    }
}

fn need<T>(name: &str, value: Option<T>) -> Result<T, ConnectorError> {
    value.ok_or_else(|| {
        ConnectorError::user(format!("parameter {name} is missing")).fix(format!("set {name}"))
    })
}

macro_rules! getters {
    ($($(#[$doc:meta])* $name:ident, $opt:ident -> $type:ty, $wanted:literal, $read:expr;)*) => {
        /// Typed getters.
        impl Config {
            $(
                $(#[$doc])*
                ///
                /// # Errors
                /// `User` when it is missing or of another type.
                pub fn $name(&self, name: &str) -> Result<$type, ConnectorError> {
                    need(name, self.$opt(name)?)
                }

                $(#[$doc])*
                ///
                /// # Errors
                /// `User` when it is of another type.
                pub fn $opt(&self, name: &str) -> Result<Option<$type>, ConnectorError> {
                    self.opt(name, $wanted, $read)
                }
            )*
        }
    };
}

getters! {
    /// A text.
    str, opt_str -> &str, "a text", Value::as_str;
    /// An integer.
    int, opt_int -> i64, "an integer", Value::as_i64;
    /// An integer that is not negative.
    uint, opt_uint -> u64, "an integer that is not negative", Value::as_u64;
    /// A number.
    float, opt_float -> f64, "a number", Value::as_f64;
    /// A truth value.
    bool, opt_bool -> bool, "true or false", Value::as_bool;
    /// A time span.
    duration, opt_duration -> Duration, "a duration such as 500ms or 5s",
        |v| units::parse_duration(v.as_str()?);
    /// A size in bytes.
    size, opt_size -> u64, "a size such as 512, 64KiB or 10MB",
        |v| v.as_u64().or_else(|| units::parse_size(v.as_str()?));
    /// A list of texts.
    list, opt_list -> Vec<String>, "a list of texts", texts;
    /// A path on the agent.
    path, opt_path -> PathBuf, "a path", |v| v.as_str().map(PathBuf::from);
    /// A list of paths or patterns on the agent.
    paths, opt_paths -> Vec<PathBuf>, "a list of paths", |v| Some(texts(v)?.into_iter().map(PathBuf::from).collect());
    /// Texts by name.
    map, opt_map -> BTreeMap<String, String>, "a map of texts",
        |v| v.as_object()?.iter().map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect();
}

fn texts(value: &Value) -> Option<Vec<String>> {
    value
        .as_array()?
        .iter()
        .map(|v| v.as_str().map(str::to_owned))
        .collect()
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Config")?;
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Takes a map as it is, without any check: for configurations that were checked elsewhere.
impl From<Map<String, Value>> for Config {
    fn from(map: Map<String, Value>) -> Self {
        Self(map)
    }
}

impl From<Config> for Map<String, Value> {
    fn from(config: Config) -> Self {
        config.0
    }
}

/// A configuration that does not fit its spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(pub Vec<Violation>);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("invalid configuration")?;
        for (i, v) in self.0.iter().enumerate() {
            write!(
                f,
                "{}{}: {}",
                if i == 0 { ": " } else { "; " },
                v.param,
                v.message
            )?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

impl From<Vec<Violation>> for ConfigError {
    fn from(violations: Vec<Violation>) -> Self {
        Self(violations)
    }
}

impl From<ConfigError> for ConnectorError {
    fn from(error: ConfigError) -> Self {
        let fixes: Vec<_> = error
            .0
            .iter()
            .map(|v| v.fix.as_str())
            .filter(|f| !f.is_empty())
            .collect();
        let fix = fixes.join("; ");
        Self::user(error.to_string()).fix(fix)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Domain;

    fn config(value: Value) -> Config {
        let Value::Object(map) = value else {
            panic!("not an object")
        };
        map.into()
    }

    #[test]
    fn typed_getters_read_what_a_check_leaves() {
        let c = config(json!({
            "s": "x", "i": -2, "u": 3, "f": 1.5, "b": true, "d": "5s", "z": "64KiB", "n": 7,
            "l": ["a", "b"], "p": "/a", "pl": ["/a"], "m": {"k": "v"}, "null": null,
        }));
        assert_eq!(c.str("s").unwrap(), "x");
        assert_eq!(c.int("i").unwrap(), -2);
        assert_eq!(c.uint("u").unwrap(), 3);
        assert_eq!(c.float("f").unwrap(), 1.5);
        assert!(c.bool("b").unwrap());
        assert_eq!(c.duration("d").unwrap(), Duration::from_secs(5));
        assert_eq!((c.size("z").unwrap(), c.size("n").unwrap()), (65_536, 7));
        assert_eq!(c.list("l").unwrap(), ["a", "b"]);
        assert_eq!(c.path("p").unwrap(), PathBuf::from("/a"));
        assert_eq!(c.paths("pl").unwrap(), [PathBuf::from("/a")]);
        assert_eq!(c.map("m").unwrap()["k"], "v");
        assert_eq!(c.opt_str("null").unwrap(), None);
        assert_eq!(c.opt_int("absent").unwrap(), None);
    }

    #[test]
    fn errors_name_the_key_and_hide_the_value() {
        let c = config(json!({"password": "hunter2"}));
        let missing = c.str("user").unwrap_err();
        assert_eq!(
            (missing.domain(), missing.to_string().as_str()),
            (Domain::User, "parameter user is missing")
        );
        let wrong = c.int("password").unwrap_err();
        assert_eq!(wrong.to_string(), "parameter password is not an integer");
        assert!(!format!("{wrong:?} {c:?}").contains("hunter2"));
    }
}
