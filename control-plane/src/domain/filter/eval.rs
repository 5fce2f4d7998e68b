use gantry_proto::v1::{self, connector::Kind};

use super::{Expression, Field, Pattern};

impl Expression {
    pub(super) fn matches(&self, c: &v1::Connector) -> bool {
        match self {
            Self::All(parts) => parts.iter().all(|p| p.matches(c)),
            Self::Any(parts) => parts.iter().any(|p| p.matches(c)),
            Self::Not(inside) => !inside.matches(c),
            Self::Is(field, pattern) => field.values(c).iter().any(|value| pattern.matches(value)),
        }
    }
}

impl Field {
    /// The texts under which the field may be found; none: it is not there.
    fn values<'c>(&self, c: &'c v1::Connector) -> Vec<&'c str> {
        match self {
            Self::Name => vec![c.name.strip_prefix("connectors/").unwrap_or(&c.name), &c.name],
            Self::Plugin => vec![&c.plugin],
            Self::Kind => match c.kind() {
                Kind::Unspecified => vec![],
                kind => bare(kind.as_str_name(), "KIND_"),
            },
            Self::State => bare(c.state().as_str_name(), "STATE_"),
            Self::TargetState => bare(c.target_state().as_str_name(), "TARGET_STATE_"),
            Self::Label(key) => c.labels.get(key).map(String::as_str).into_iter().collect(),
        }
    }
}

fn bare(name: &'static str, prefix: &str) -> Vec<&'static str> {
    vec![name.strip_prefix(prefix).unwrap_or(name)]
}

impl Pattern {
    fn matches(&self, value: &str) -> bool {
        match self {
            Self::Present => true,
            Self::Part(part) => value.contains(part.as_str()),
            Self::Whole(pattern) => wildcard(pattern, value),
        }
    }
}

/// `*` stands for any characters.
fn wildcard(pattern: &str, value: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern == value;
    };
    let Some(mut value) = value.strip_prefix(first) else {
        return false;
    };
    let mut parts: Vec<_> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        match value.find(part) {
            Some(at) => value = &value[at + part.len()..],
            None => return false,
        }
    }
    value.len() >= last.len() && value.ends_with(last)
}

/// The values that a field can have, if they are few.
pub(super) fn choices(field: &Field) -> Option<&'static [&'static str]> {
    match field {
        Field::Kind => Some(&["SOURCE", "SINK"]),
        Field::State => Some(&[
            "PENDING", "RUNNING", "PAUSED", "STOPPED", "DEGRADED", "FAILED", "DELETING", "UNKNOWN",
        ]),
        Field::TargetState => Some(&["RUNNING", "PAUSED", "STOPPED"]),
        Field::Name | Field::Plugin | Field::Label(_) => None,
    }
}
