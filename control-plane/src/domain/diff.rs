//! In which fields two definitions differ.

use std::collections::BTreeSet;

use gantry_proto::{
    json,
    v1::{Connector, FieldDifference},
};
use serde_json::{Map, Value};
use thiserror::Error;

/// A definition has a value that this version does not know.
#[derive(Debug, Error)]
#[error("the definition cannot be compared: {0}")]
pub struct NotComparable(String);

/// The fields in which two definitions differ, in order of path. Messages and maps are compared field by field, lists as a
/// whole.
///
/// # Errors
/// [`NotComparable`]; never for definitions that were validated by this version.
pub fn differences(before: &Connector, after: &Connector) -> Result<Vec<FieldDifference>, NotComparable> {
    let mut found = Found::default();
    let fields = |c| json::fields(c).map_err(|e| NotComparable(e.to_string()));
    let (before, after) = (fields(before)?, fields(after)?);
    found.objects("", Some(&before), Some(&after))?;
    Ok(found.0)
}

#[derive(Default)]
struct Found(Vec<FieldDifference>);

impl Found {
    fn objects(
        &mut self,
        path: &str,
        before: Option<&Map<String, Value>>,
        after: Option<&Map<String, Value>>,
    ) -> Result<(), NotComparable> {
        let both = before.into_iter().chain(after);
        let keys: BTreeSet<&String> = both.flat_map(Map::keys).collect();
        for key in keys {
            let (b, a) = (before.and_then(|o| o.get(key)), after.and_then(|o| o.get(key)));
            self.values(&below(path, key), b, a)?;
        }
        Ok(())
    }

    fn values(
        &mut self,
        path: &str,
        before: Option<&Value>,
        after: Option<&Value>,
    ) -> Result<(), NotComparable> {
        if before == after {
            return Ok(());
        }
        match (before, after) {
            (Some(Value::Object(b)), Some(Value::Object(a))) => self.objects(path, Some(b), Some(a)),
            // An empty one is told as such: it has no field that could tell of it.
            (None, Some(Value::Object(a))) if !a.is_empty() => self.objects(path, None, Some(a)),
            (Some(Value::Object(b)), None) if !b.is_empty() => self.objects(path, Some(b), None),
            (before, after) => {
                self.0.push(FieldDifference {
                    path: path.to_owned(),
                    before: before.map(plain).transpose()?,
                    after: after.map(plain).transpose()?,
                });
                Ok(())
            }
        }
    }
}

fn plain(value: &Value) -> Result<pbjson_types::Value, NotComparable> {
    serde_json::from_value(value.clone()).map_err(|e| NotComparable(e.to_string()))
}

fn below(path: &str, key: &str) -> String {
    let simple = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if key.is_empty() || !key.chars().all(simple) {
        return format!("{path}[{}]", Value::from(key));
    }
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

#[cfg(test)]
mod tests {
    use gantry_proto::v1::{ErrorPolicy, TopicCreate, connector::TargetState};
    use proptest::prelude::*;

    use super::*;

    fn connector(config: &str) -> Connector {
        Connector {
            name: "connectors/c".into(),
            config: serde_json::from_str(config).expect("an object"),
            ..Connector::default()
        }
    }

    /// `PATH BEFORE -> AFTER` of each difference.
    fn told(before: &Connector, after: &Connector) -> Vec<String> {
        let text = |v: &Option<pbjson_types::Value>| {
            v.as_ref()
                .map_or("none".into(), |v| serde_json::to_string(v).expect("a value"))
        };
        let all = differences(before, after).expect("definitions of this version");
        all.iter()
            .map(|d| format!("{} {} -> {}", d.path, text(&d.before), text(&d.after)))
            .collect()
    }

    #[test]
    fn fields_are_named_by_their_paths() {
        let before = Connector {
            tasks_max: 1,
            labels: [("team".into(), "a".into()), ("tasksMax".into(), "x".into())].into(),
            ..connector(r#"{"paths": ["/a"], "deep": {"one": 1, "two": {"x": true}}, "gone": "g"}"#)
        };
        let after = Connector {
            tasks_max: 2,
            labels: [("team".into(), "b".into()), ("a.b/c".into(), "1".into())].into(),
            error_policy: Some(ErrorPolicy {
                dead_letter_topic: "dlq".into(),
                ..ErrorPolicy::default()
            }),
            ..connector(r#"{"paths": ["/a", "/b"], "deep": {"one": 1, "two": {"x": false}}, "new": null}"#)
        };
        assert_eq!(
            told(&before, &after),
            [
                "config.deep.two.x true -> false",
                r#"config.gone "g" -> none"#,
                "config.new none -> null",
                r#"config.paths ["/a"] -> ["/a","/b"]"#,
                r#"error_policy.dead_letter_topic none -> "dlq""#,
                r#"labels["a.b/c"] none -> "1""#,
                r#"labels.tasksMax "x" -> none"#,
                r#"labels.team "a" -> "b""#,
                "tasks_max 1.0 -> 2.0",
            ]
        );
    }

    #[test]
    fn what_is_empty_differs_from_what_is_not_there() {
        let none = Connector::default();
        let empty = Connector {
            topic_create: Some(TopicCreate::default()),
            ..connector("{}")
        };
        assert_eq!(
            told(&none, &empty),
            [
                "config none -> {}",
                r#"name none -> "connectors/c""#,
                "topic_create none -> {}"
            ]
        );
    }

    #[test]
    fn an_unknown_value_is_an_error() {
        let unknown = Connector {
            ordering: 99,
            ..Connector::default()
        };
        assert!(differences(&unknown, &Connector::default()).is_err());
    }

    fn some_connector() -> impl Strategy<Value = Connector> {
        let config = prop::collection::hash_map("[ab.]{0,2}", 0..3i32, 0..3);
        let labels = prop::collection::btree_map("[ab.]{1,2}", "[xy]?", 0..3);
        let queues = prop::option::of(0..2i32);
        (config, labels, 0..3i32, 0..4i32, queues).prop_map(|(config, labels, tasks, target, queues)| {
            let config = config
                .into_iter()
                .map(|(k, n)| (k, pbjson_types::Value::from(f64::from(n))));
            Connector {
                config: Some(config.collect()),
                labels,
                tasks_max: tasks,
                target_state: TargetState::try_from(target).unwrap_or_default().into(),
                topic_create: queues.map(|queues| TopicCreate { queues }),
                ..Connector::default()
            }
        })
    }

    proptest! {
        #[test]
        fn nothing_differs_exactly_when_they_are_equal(a in some_connector(), b in some_connector()) {
            let there = differences(&a, &b).expect("known values");
            prop_assert_eq!(there.is_empty(), a == b);
            let mut back = differences(&b, &a).expect("known values");
            for d in &mut back {
                std::mem::swap(&mut d.before, &mut d.after);
            }
            prop_assert_eq!(there, back);
        }
    }
}
