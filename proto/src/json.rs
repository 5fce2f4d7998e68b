//! Definitions in JSON, by the names of the API's documentation: what people read, write and compare.

use serde_json::{Map, Value};

use crate::v1::Connector;

/// Fields whose keys are the user's.
const OPEN: &[&str] = &["config", "labels", "agent_selector"];

/// The fields of a connector that are set, in snake case as in the protos. Keys of the configuration, of labels and of
/// selectors are what users wrote.
///
/// # Errors
/// An enumeration has a value that this version does not know.
pub fn fields(connector: &Connector) -> Result<Map<String, Value>, serde_json::Error> {
    match serde_json::to_value(connector)? {
        Value::Object(all) => Ok(all.into_iter().map(snake_field).collect()),
        // A message is an object.
        _ => Ok(Map::new()),
    }
}

fn snake_field((name, value): (String, Value)) -> (String, Value) {
    let name = snake(&name);
    let value = match value {
        Value::Object(inner) if !OPEN.contains(&name.as_str()) => {
            Value::Object(inner.into_iter().map(snake_field).collect())
        }
        other => other,
    };
    (name, value)
}

fn snake(camel: &str) -> String {
    let mut text = String::with_capacity(camel.len() + 4);
    for c in camel.chars() {
        if c.is_ascii_uppercase() {
            text.push('_');
        }
        text.push(c.to_ascii_lowercase());
    }
    text
}

/// The same value with whole numbers written as such: those of a `google.protobuf.Value` are all floating point.
pub fn whole_numbers(value: Value) -> Value {
    match value {
        Value::Number(n) => match n.as_f64().and_then(whole) {
            Some(whole) => Value::from(whole),
            None => Value::Number(n),
        },
        Value::Array(all) => all.into_iter().map(whole_numbers).collect(),
        Value::Object(all) => {
            let all = all.into_iter().map(|(k, v)| (k, whole_numbers(v)));
            Value::Object(all.collect())
        }
        other => other,
    }
}

#[allow(clippy::cast_possible_truncation, reason = "the range is checked")]
fn whole(n: f64) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    (n.fract() == 0.0 && n.abs() <= EXACT).then_some(n as i64)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_are_ours_and_keys_are_the_users() {
        let connector: Connector = serde_json::from_value(json!({
            "name": "a",
            "tasksMax": 2,
            "config": { "camelCase": { "innerCase": 1 } },
            "labels": { "someLabel": "x" },
            "agentSelector": { "someZone": "y" },
            "errorPolicy": { "deadLetterTopic": "dlq" },
        }))
        .unwrap();
        let wanted = json!({
            "name": "a",
            "tasks_max": 2,
            "config": { "camelCase": { "innerCase": 1.0 } },
            "labels": { "someLabel": "x" },
            "agent_selector": { "someZone": "y" },
            "error_policy": { "dead_letter_topic": "dlq" },
        });
        assert_eq!(Value::Object(fields(&connector).unwrap()), wanted);
        let unknown = Connector {
            ordering: 99,
            ..Connector::default()
        };
        assert!(fields(&unknown).is_err());
    }

    #[test]
    fn only_exact_numbers_become_whole() {
        let given = json!([1.0, -0.0, 1.5, 1e300, 9_007_199_254_740_992.0, { "a": [2.0] }, "3.0", null]);
        let wanted = json!([1, 0, 1.5, 1e300, 9_007_199_254_740_992_i64, { "a": [2] }, "3.0", null]);
        assert_eq!(whole_numbers(given), wanted);
    }
}
