//! What a configuration must look like, as data: sent to the control plane, which checks with the same code.

mod check;
mod coerce;
mod faults;
#[cfg(test)]
mod tests;

use serde_json::Value;

/// The parameters of a plugin.
///
/// ```
/// use gantry_connector::{ConfigSpec, Param, Rule};
///
/// let spec = ConfigSpec::new()
///     .param(Param::path_list("paths").doc("Files to read, `*` allowed.").required().example("/var/log/*.log"))
///     .param(Param::one_of("start", ["beginning", "end"]).doc("Where a file without position starts.").default("beginning"))
///     .param(Param::duration("idle_flush").doc("After so long, a last line without newline is sent.").default("5s"))
///     .param(Param::string("password").doc("Password.").secret())
///     .param(Param::string("user").doc("User."))
///     .rule(Rule::at_most_one(["user", "password"]));
/// assert!(spec.faults().is_empty());
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConfigSpec {
    /// In the order in which people should read them.
    pub params: Vec<Param>,
    /// Dependencies between parameters.
    pub rules: Vec<Rule>,
}

/// A parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct Param {
    /// Key in the configuration: `[a-z][a-z0-9_]*`.
    pub name: String,
    /// Type.
    pub kind: ParamType,
    /// What it means, with its unit.
    pub doc: String,
    /// Must be given.
    pub required: bool,
    /// Value when it is not given.
    pub default: Option<Value>,
    /// Only references are accepted, never values.
    pub secret: bool,
    /// Example for people; may be empty.
    pub example: String,
}

/// Type of a parameter. Limits are inclusive.
#[derive(Clone, Debug, PartialEq)]
pub enum ParamType {
    /// Anything; also a type that this version does not know.
    Any,
    /// Text.
    String,
    /// Integer.
    Int {
        /// Smallest value.
        min: Option<i64>,
        /// Largest value.
        max: Option<i64>,
    },
    /// Number.
    Float {
        /// Smallest value.
        min: Option<f64>,
        /// Largest value.
        max: Option<f64>,
    },
    /// Truth value.
    Bool,
    /// One of these texts.
    Enum {
        /// The texts.
        choices: Vec<String>,
    },
    /// A time span such as `500ms`, `5s`, `2m`, `1h`.
    Duration {
        /// Shortest, in milliseconds.
        min_ms: Option<u64>,
        /// Longest, in milliseconds.
        max_ms: Option<u64>,
    },
    /// A size such as `512`, `64KiB`, `10MB`.
    Size {
        /// Smallest, in bytes.
        min: Option<u64>,
        /// Largest, in bytes.
        max: Option<u64>,
    },
    /// A list of texts.
    List {
        /// Fewest elements.
        min_len: usize,
    },
    /// An absolute path on the agent.
    Path,
    /// A list of absolute paths or patterns on the agent.
    PathList {
        /// Fewest elements.
        min_len: usize,
    },
    /// Texts by name.
    Map,
}

/// A dependency between parameters. A parameter counts as given when its value differs from its default.
#[derive(Clone, Debug, PartialEq)]
pub enum Rule {
    /// `param` needs a value when `other` has the value `equals`.
    RequiredWhen {
        /// Parameter that must have a value.
        param: String,
        /// Parameter that decides.
        other: String,
        /// Its value.
        equals: Value,
    },
    /// `param` may be given only when `other` has the value `equals`.
    OnlyWhen {
        /// Parameter that may be given.
        param: String,
        /// Parameter that decides.
        other: String,
        /// Its value.
        equals: Value,
    },
    /// At most one of these may be given.
    AtMostOne {
        /// Their names.
        names: Vec<String>,
    },
    /// At least one of these must have a value.
    AtLeastOne {
        /// Their names.
        names: Vec<String>,
    },
}

/// Something that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Parameter, with the place inside of it if it has any: `paths[1]`, `labels.team`.
    pub param: String,
    /// What is wrong. Never the value of a secret or of an unknown key.
    pub message: String,
    /// What to do; may be empty.
    pub fix: String,
}

impl ConfigSpec {
    /// No parameters.
    pub fn new() -> Self {
        Self::default()
    }

    /// With one more parameter.
    pub fn param(mut self, param: Param) -> Self {
        self.params.push(param);
        self
    }

    /// With one more rule.
    pub fn rule(mut self, rule: Rule) -> Self {
        self.rules.push(rule);
        self
    }

    /// The parameter of that name.
    pub fn get(&self, name: &str) -> Option<&Param> {
        self.params.iter().find(|p| p.name == name)
    }
}

impl Param {
    /// A parameter of that type, optional and without default.
    pub fn new(name: impl Into<String>, kind: ParamType) -> Self {
        Self {
            name: name.into(),
            kind,
            doc: String::new(),
            required: false,
            default: None,
            secret: false,
            example: String::new(),
        }
    }

    /// Text.
    pub fn string(name: impl Into<String>) -> Self {
        Self::new(name, ParamType::String)
    }

    /// Integer; narrow it with [`Param::min`] and [`Param::max`].
    pub fn int(name: impl Into<String>) -> Self {
        Self::new(name, ParamType::Int { min: None, max: None })
    }

    /// Number; narrow it with [`Param::min`] and [`Param::max`].
    pub fn float(name: impl Into<String>) -> Self {
        Self::new(name, ParamType::Float { min: None, max: None })
    }

    /// Truth value.
    pub fn bool(name: impl Into<String>) -> Self {
        Self::new(name, ParamType::Bool)
    }

    /// One of these texts.
    pub fn one_of<C: Into<String>>(name: impl Into<String>, choices: impl IntoIterator<Item = C>) -> Self {
        Self::new(
            name,
            ParamType::Enum {
                choices: choices.into_iter().map(Into::into).collect(),
            },
        )
    }

    /// Time span; narrow it with [`Param::min`] and [`Param::max`], in milliseconds.
    pub fn duration(name: impl Into<String>) -> Self {
        Self::new(
            name,
            ParamType::Duration {
                min_ms: None,
                max_ms: None,
            },
        )
    }

    /// Size; narrow it with [`Param::min`] and [`Param::max`], in bytes.
    pub fn size(name: impl Into<String>) -> Self {
        Self::new(name, ParamType::Size { min: None, max: None })
    }

    /// List of texts; [`Param::min`] is its fewest elements.
    pub fn list(name: impl Into<String>) -> Self {
        Self::new(name, ParamType::List { min_len: 0 })
    }

    /// Absolute path on the agent.
    pub fn path(name: impl Into<String>) -> Self {
        Self::new(name, ParamType::Path)
    }

    /// List of absolute paths or patterns on the agent; [`Param::min`] is its fewest elements.
    pub fn path_list(name: impl Into<String>) -> Self {
        Self::new(name, ParamType::PathList { min_len: 0 })
    }

    /// Texts by name.
    pub fn map(name: impl Into<String>) -> Self {
        Self::new(name, ParamType::Map)
    }

    /// What it means, with its unit.
    pub fn doc(mut self, doc: impl Into<String>) -> Self {
        self.doc = doc.into();
        self
    }

    /// Must be given.
    pub fn required(mut self) -> Self {
        self.required = true;
        self
    }

    /// Value when it is not given.
    pub fn default(mut self, value: impl Into<Value>) -> Self {
        self.default = Some(value.into());
        self
    }

    /// Only references are accepted.
    pub fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    /// Example for people.
    pub fn example(mut self, example: impl Into<String>) -> Self {
        self.example = example.into();
        self
    }

    /// Smallest value, shortest time in milliseconds, smallest size in bytes or fewest elements; no effect on other types.
    pub fn min(mut self, limit: i64) -> Self {
        let unsigned = u64::try_from(limit).unwrap_or(0);
        match &mut self.kind {
            ParamType::Int { min, .. } => *min = Some(limit),
            ParamType::Float { min, .. } => *min = Some(limit as f64),
            ParamType::Duration { min_ms, .. } => *min_ms = Some(unsigned),
            ParamType::Size { min, .. } => *min = Some(unsigned),
            ParamType::List { min_len } | ParamType::PathList { min_len } => *min_len = unsigned as usize,
            _ => {}
        }
        self
    }

    /// Largest value, longest time in milliseconds or largest size in bytes; no effect on other types.
    pub fn max(mut self, limit: i64) -> Self {
        let unsigned = u64::try_from(limit).unwrap_or(0);
        match &mut self.kind {
            ParamType::Int { max, .. } => *max = Some(limit),
            ParamType::Float { max, .. } => *max = Some(limit as f64),
            ParamType::Duration { max_ms, .. } => *max_ms = Some(unsigned),
            ParamType::Size { max, .. } => *max = Some(unsigned),
            _ => {}
        }
        self
    }
}

impl Rule {
    /// `param` needs a value when `other` has the value `equals`.
    pub fn required_when(
        param: impl Into<String>,
        other: impl Into<String>,
        equals: impl Into<Value>,
    ) -> Self {
        Self::RequiredWhen {
            param: param.into(),
            other: other.into(),
            equals: equals.into(),
        }
    }

    /// `param` may be given only when `other` has the value `equals`.
    pub fn only_when(param: impl Into<String>, other: impl Into<String>, equals: impl Into<Value>) -> Self {
        Self::OnlyWhen {
            param: param.into(),
            other: other.into(),
            equals: equals.into(),
        }
    }

    /// At most one of these may be given.
    pub fn at_most_one<N: Into<String>>(names: impl IntoIterator<Item = N>) -> Self {
        Self::AtMostOne {
            names: names.into_iter().map(Into::into).collect(),
        }
    }

    /// At least one of these must have a value.
    pub fn at_least_one<N: Into<String>>(names: impl IntoIterator<Item = N>) -> Self {
        Self::AtLeastOne {
            names: names.into_iter().map(Into::into).collect(),
        }
    }
}
