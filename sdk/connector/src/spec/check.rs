use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{
    ConfigSpec, Param, Rule, Violation,
    coerce::{coerce, nearest, quoted},
};
use crate::Config;

impl ConfigSpec {
    /// Checks a configuration, reads texts as the types wanted and fills in defaults. Null counts as not given.
    ///
    /// Its own output passes again and comes out unchanged.
    ///
    /// # Errors
    /// All violations at once: first those of unknown keys, then by parameter in order of the spec, then of rules.
    pub fn check(&self, given: &Map<String, Value>) -> Result<Config, Vec<Violation>> {
        let mut violations = self.unknown(given);
        let mut effective: BTreeMap<&str, Value> = BTreeMap::new();
        for param in &self.params {
            match given.get(&param.name).filter(|v| !v.is_null()) {
                Some(value) => match coerce(param, value) {
                    Ok(value) => drop(effective.insert(&param.name, value)),
                    Err(found) => violations.extend(found),
                },
                None if param.required => violations.push(Violation {
                    param: param.name.clone(),
                    message: "is required".into(),
                    fix: match param.example.as_str() {
                        "" => format!("set {}", param.name),
                        example => format!("set {}, for example to {example}", param.name),
                    },
                }),
                None => {
                    if let Some(default) = param.default_form() {
                        effective.insert(&param.name, default);
                    }
                }
            }
        }
        // A parameter with a violation has no effective value: rules that look at it would only confuse.
        let sound = |name: &str| effective.contains_key(name) || given.get(name).is_none_or(Value::is_null);
        for rule in &self.rules {
            if rule.names().all(sound) {
                violations.extend(self.broken(rule, &effective));
            }
        }
        if !violations.is_empty() {
            return Err(violations);
        }
        let map: Map<_, _> = effective
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
        Ok(map.into())
    }

    fn unknown(&self, given: &Map<String, Value>) -> Vec<Violation> {
        let unknown = given.keys().filter(|k| self.get(k).is_none());
        unknown
            .map(|key| Violation {
                param: key.clone(),
                message: format!("there is no parameter {}", quoted(key)),
                fix: match nearest(key, self.params.iter().map(|p| p.name.as_str())) {
                    Some(name) => format!("did you mean {name}?"),
                    None if self.params.is_empty() => "remove it: the plugin has no parameters".into(),
                    None => {
                        let names: Vec<_> = self.params.iter().map(|p| p.name.as_str()).collect();
                        format!("remove it, or use one of {}", names.join(", "))
                    }
                },
            })
            .collect()
    }

    fn broken(&self, rule: &Rule, effective: &BTreeMap<&str, Value>) -> Option<Violation> {
        let has = |name: &str| effective.contains_key(name);
        let given = |name: &str| {
            effective
                .get(name)
                .is_some_and(|v| self.get(name).and_then(Param::default_form).as_ref() != Some(v))
        };
        let holds = |other: &str, equals: &Value| {
            let wanted = self
                .get(other)
                .and_then(|p| coerce(p, equals).ok())
                .unwrap_or_else(|| equals.clone());
            effective.get(other) == Some(&wanted)
        };
        match rule {
            Rule::RequiredWhen { param, other, equals } => {
                (holds(other, equals) && !has(param)).then(|| Violation {
                    param: param.clone(),
                    message: format!("is required when {other} is {equals}"),
                    fix: format!("set {param}, or change {other}"),
                })
            }
            Rule::OnlyWhen { param, other, equals } => {
                (given(param) && !holds(other, equals)).then(|| Violation {
                    param: param.clone(),
                    message: format!("may be given only when {other} is {equals}"),
                    fix: format!("remove {param}, or set {other} to {equals}"),
                })
            }
            Rule::AtMostOne { names } => {
                let found: Vec<_> = names.iter().filter(|n| given(n)).map(String::as_str).collect();
                let last = *found.last()?;
                (found.len() > 1).then(|| Violation {
                    param: last.to_owned(),
                    message: format!("{} exclude each other", found.join(" and ")),
                    fix: format!("keep one of {}", found.join(", ")),
                })
            }
            Rule::AtLeastOne { names } => {
                let first = names.first()?;
                (!names.iter().any(|n| has(n))).then(|| Violation {
                    param: first.clone(),
                    message: format!("at least one of {} is required", names.join(", ")),
                    fix: format!("set {}", names.join(" or ")),
                })
            }
        }
    }
}

impl Param {
    /// The default in the form in which a configuration holds it.
    fn default_form(&self) -> Option<Value> {
        let default = self.default.as_ref().filter(|v| !v.is_null())?;
        coerce(self, default).ok()
    }
}

impl Rule {
    /// All parameters it speaks of.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        let (pair, many): ([Option<&String>; 2], &[String]) = match self {
            Self::RequiredWhen { param, other, .. } | Self::OnlyWhen { param, other, .. } => {
                ([Some(param), Some(other)], &[])
            }
            Self::AtMostOne { names } | Self::AtLeastOne { names } => ([None, None], names),
        };
        pair.into_iter().flatten().chain(many).map(String::as_str)
    }
}
