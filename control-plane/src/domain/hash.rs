//! Hashes that are stored and compared: the same for the same content, whatever order a map keeps.

use gantry_proto::{
    agent::v1::TaskSpec,
    v1::{Plugin, rule::Rule},
};
use pbjson_types::{Struct, Value, value::Kind};
use prost::Message;
use sha2::{Digest, Sha256};

/// SHA-256 of what a task runs, in hex: the `spec_hash` of plans, wants and assignments.
pub fn spec_hash(spec: &TaskSpec) -> String {
    let mut hasher = Hasher::new("task spec 1");
    hasher.structure(spec.config.as_ref());
    hasher.message(&TaskSpec {
        config: None,
        ..spec.clone()
    });
    hasher.finish()
}

/// SHA-256 of a plugin as its agents describe it, in hex.
pub fn plugin_hash(plugin: &Plugin) -> String {
    let mut hasher = Hasher::new("plugin 1");
    let mut rest = plugin.clone();
    let spec = rest.spec.get_or_insert_default();
    for param in &mut spec.params {
        hasher.any(param.default_value.take().as_ref());
    }
    for rule in &mut spec.rules {
        let equals = match &mut rule.rule {
            Some(Rule::RequiredWhen(rule)) => rule.equals.take(),
            Some(Rule::OnlyWhen(rule)) => rule.equals.take(),
            Some(Rule::AtMostOne(_) | Rule::AtLeastOne(_)) | None => None,
        };
        hasher.any(equals.as_ref());
    }
    hasher.message(&rest);
    hasher.finish()
}

/// Feeds values into SHA-256 so that no two different lists of values have the same bytes.
pub(crate) struct Hasher(Sha256);

impl Hasher {
    /// `domain`: what is hashed, and the version of the way it is done.
    pub(crate) fn new(domain: &str) -> Self {
        let mut hasher = Self(Sha256::new());
        hasher.text(domain);
        hasher
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    pub(crate) fn int(&mut self, n: i64) {
        self.0.update(n.to_be_bytes());
    }

    /// A message without a `Struct` inside: its other maps are ordered.
    pub(crate) fn message(&mut self, message: &impl Message) {
        self.bytes(&message.encode_to_vec());
    }

    pub(crate) fn optional(&mut self, message: Option<&impl Message>) {
        self.int(i64::from(message.is_some()));
        if let Some(message) = message {
            self.message(message);
        }
    }

    pub(crate) fn structure(&mut self, config: Option<&Struct>) {
        let mut fields: Vec<_> = config.iter().flat_map(|c| &c.fields).collect();
        fields.sort_by_key(|(name, _)| *name);
        self.int(fields.len() as i64);
        for (name, value) in fields {
            self.text(name);
            self.value(value);
        }
    }

    pub(crate) fn any(&mut self, value: Option<&Value>) {
        self.int(i64::from(value.is_some()));
        if let Some(value) = value {
            self.value(value);
        }
    }

    fn value(&mut self, value: &Value) {
        match &value.kind {
            None | Some(Kind::NullValue(_)) => self.text("null"),
            Some(Kind::BoolValue(b)) => self.text(if *b { "true" } else { "false" }),
            Some(Kind::NumberValue(n)) => {
                self.text("number");
                // -0 and 0 are equal and must hash equally.
                self.bytes(&(n + 0.0).to_be_bytes());
            }
            Some(Kind::StringValue(s)) => {
                self.text("string");
                self.text(s);
            }
            Some(Kind::ListValue(list)) => {
                self.text("list");
                self.int(list.values.len() as i64);
                list.values.iter().for_each(|v| self.value(v));
            }
            Some(Kind::StructValue(s)) => {
                self.text("struct");
                self.structure(Some(s));
            }
        }
    }

    pub(crate) fn digest(self) -> [u8; 32] {
        self.0.finalize().into()
    }

    pub(crate) fn finish(self) -> String {
        self.digest()
            .iter()
            .fold(String::with_capacity(64), |mut hex, byte| {
                for digit in [byte >> 4, byte & 15] {
                    hex.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
                }
                hex
            })
    }
}

#[cfg(test)]
mod tests {
    use gantry_proto::v1::{self, ConfigSpec, Param, rule::OnlyWhen};

    use super::*;

    fn spec(pairs: &[(&str, f64)]) -> TaskSpec {
        let config = pairs
            .iter()
            .map(|(k, n)| {
                (
                    (*k).to_owned(),
                    Value {
                        kind: Some(Kind::NumberValue(*n)),
                    },
                )
            })
            .collect();
        TaskSpec {
            connector: "c".into(),
            config: Some(config),
            ..Default::default()
        }
    }

    #[test]
    fn the_order_of_keys_does_not_matter() {
        let many: Vec<_> = (0..40).map(|i| (format!("k{i}"), f64::from(i))).collect();
        let forward: Vec<_> = many.iter().map(|(k, n)| (k.as_str(), *n)).collect();
        let backward: Vec<_> = forward.iter().rev().copied().collect();
        assert_eq!(spec_hash(&spec(&forward)), spec_hash(&spec(&backward)));
    }

    #[test]
    fn a_plugin_is_known_by_its_content() {
        let plugin = |default: Vec<(String, Value)>, equals: f64| {
            let number = |n| Value {
                kind: Some(Kind::NumberValue(n)),
            };
            let param = Param {
                name: "headers".into(),
                default_value: Some(Value {
                    kind: Some(Kind::StructValue(default.into_iter().collect())),
                }),
                ..Param::default()
            };
            let rule = v1::Rule {
                rule: Some(Rule::OnlyWhen(OnlyWhen {
                    equals: Some(number(equals)),
                    ..OnlyWhen::default()
                })),
            };
            let spec = ConfigSpec {
                params: vec![param],
                rules: vec![rule],
            };
            plugin_hash(&Plugin {
                name: "plugins/p".into(),
                spec: Some(spec),
                ..Plugin::default()
            })
        };
        let many: Vec<_> = (0..40)
            .map(|i| (format!("k{i}"), Value::from(f64::from(i))))
            .collect();
        let mut backward = many.clone();
        backward.reverse();
        assert_eq!(plugin(many.clone(), 1.0), plugin(backward, 1.0));
        assert_ne!(plugin(many.clone(), 1.0), plugin(many[1..].to_vec(), 1.0));
        assert_ne!(plugin(many.clone(), 1.0), plugin(many, 2.0));
    }

    #[test]
    fn every_change_changes_the_hash() {
        let base = spec(&[("a", 1.0), ("b", 2.0)]);
        let others = [
            spec(&[("a", 1.0)]),
            spec(&[("a", 2.0), ("b", 1.0)]),
            spec(&[("ab", 1.0), ("", 2.0)]),
            TaskSpec {
                connector: "d".into(),
                ..base.clone()
            },
            TaskSpec {
                plan_generation: 1,
                ..base.clone()
            },
        ];
        for other in &others {
            assert_ne!(spec_hash(&base), spec_hash(other));
        }
        assert_eq!(spec_hash(&base).len(), 64);
        assert_eq!(spec_hash(&spec(&[("a", 0.0)])), spec_hash(&spec(&[("a", -0.0)])));
    }
}
