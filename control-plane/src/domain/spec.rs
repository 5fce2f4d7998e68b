//! A plugin's parameters: from the wire to the form in which connector authors write them, which has the one validator.

use gantry_connector::{ConfigSpec, Param, ParamType, Rule};
use gantry_proto::v1::{self, param::Type, rule};
use pbjson_types::{Struct, Value as Wire, value::Kind};
use serde_json::{Map, Number, Value};

/// The parameters, as the sdk knows them. A type that this version does not know takes anything; a rule that it does not
/// know is left to the agent.
pub fn config_spec(spec: &v1::ConfigSpec) -> ConfigSpec {
    ConfigSpec {
        params: spec.params.iter().map(param).collect(),
        rules: spec.rules.iter().filter_map(rule).collect(),
    }
}

fn param(p: &v1::Param) -> Param {
    Param {
        name: p.name.clone(),
        kind: kind(p),
        doc: p.doc.clone(),
        required: p.required,
        default: p.default_value.as_ref().map(json),
        secret: p.secret,
        example: p.example.clone(),
    }
}

fn kind(p: &v1::Param) -> ParamType {
    // Limits travel as doubles; casts from them saturate.
    let (int_min, int_max) = (p.min.map(|n| n as i64), p.max.map(|n| n as i64));
    let (min, max) = (p.min.map(|n| n as u64), p.max.map(|n| n as u64));
    let min_len = p.min.map_or(0, |n| n as usize);
    match p.r#type() {
        Type::Unspecified => ParamType::Any,
        Type::String => ParamType::String,
        Type::Int => ParamType::Int {
            min: int_min,
            max: int_max,
        },
        Type::Float => ParamType::Float {
            min: p.min,
            max: p.max,
        },
        Type::Bool => ParamType::Bool,
        Type::Enum => ParamType::Enum {
            choices: p.choices.clone(),
        },
        Type::Duration => ParamType::Duration {
            min_ms: min,
            max_ms: max,
        },
        Type::Size => ParamType::Size { min, max },
        Type::List => ParamType::List { min_len },
        Type::Path => ParamType::Path,
        Type::PathList => ParamType::PathList { min_len },
        Type::Map => ParamType::Map,
    }
}

fn rule(r: &v1::Rule) -> Option<Rule> {
    let equals = |value: &Option<Wire>| value.as_ref().map_or(Value::Null, json);
    Some(match r.rule.as_ref()? {
        rule::Rule::RequiredWhen(r) => Rule::RequiredWhen {
            param: r.param.clone(),
            other: r.other.clone(),
            equals: equals(&r.equals),
        },
        rule::Rule::OnlyWhen(r) => Rule::OnlyWhen {
            param: r.param.clone(),
            other: r.other.clone(),
            equals: equals(&r.equals),
        },
        rule::Rule::AtMostOne(r) => Rule::AtMostOne {
            names: r.names.clone(),
        },
        rule::Rule::AtLeastOne(r) => Rule::AtLeastOne {
            names: r.names.clone(),
        },
    })
}

/// A configuration as JSON.
pub fn to_json(config: &Struct) -> Map<String, Value> {
    config
        .fields
        .iter()
        .map(|(name, value)| (name.clone(), json(value)))
        .collect()
}

fn json(value: &Wire) -> Value {
    match &value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(b)) => Value::Bool(*b),
        Some(Kind::NumberValue(n)) => number(*n),
        Some(Kind::StringValue(s)) => Value::String(s.clone()),
        Some(Kind::ListValue(list)) => list.values.iter().map(json).collect(),
        Some(Kind::StructValue(s)) => Value::Object(to_json(s)),
    }
}

/// All numbers of a `Struct` are doubles; whole ones that lost no bits become integers again.
fn number(n: f64) -> Value {
    if n.fract() == 0.0 && n.abs() <= 9_007_199_254_740_992.0 {
        return Value::from(n as i64);
    }
    Number::from_f64(n).map_or_else(|| Value::String(n.to_string()), Value::Number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(json: Value) -> Wire {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn the_sdk_s_validator_sees_what_the_plugin_declared() {
        let spec = v1::ConfigSpec {
            params: vec![
                v1::Param {
                    name: "paths".into(),
                    r#type: Type::PathList.into(),
                    required: true,
                    min: Some(1.0),
                    ..Default::default()
                },
                v1::Param {
                    name: "follow".into(),
                    r#type: Type::Bool.into(),
                    default_value: Some(wire(true.into())),
                    ..Default::default()
                },
                v1::Param {
                    name: "port".into(),
                    r#type: Type::Int.into(),
                    max: Some(65_535.0),
                    ..Default::default()
                },
                v1::Param {
                    name: "new".into(),
                    r#type: 99,
                    ..Default::default()
                },
            ],
            rules: vec![v1::Rule {
                rule: Some(rule::Rule::OnlyWhen(rule::OnlyWhen {
                    param: "port".into(),
                    other: "follow".into(),
                    equals: Some(wire(false.into())),
                })),
            }],
        };
        let spec = config_spec(&spec);
        let check = |v: Value| {
            spec.check(v.as_object().unwrap())
                .map(|c| Value::Object(c.as_map().clone()))
        };
        let sound = check(serde_json::json!({"paths": ["/a"], "new": {"x": [1]}})).unwrap();
        assert_eq!(
            sound,
            serde_json::json!({"paths": ["/a"], "new": {"x": [1]}, "follow": true})
        );
        let found = check(serde_json::json!({"paths": ["a"], "port": 70_000.0})).unwrap_err();
        assert_eq!(
            found.iter().map(|v| v.param.as_str()).collect::<Vec<_>>(),
            ["paths[0]", "port"]
        );
        let found = check(serde_json::json!({"paths": ["/a"], "port": 1})).unwrap_err();
        assert_eq!(found[0].param, "port");
    }

    #[test]
    fn whole_numbers_are_integers_again() {
        let config: Struct =
            serde_json::from_str(r#"{"a": 3, "b": 0.5, "c": 0.25, "d": [null, {"e": "x"}]}"#).unwrap();
        let json = Value::Object(to_json(&config));
        assert_eq!(
            json.to_string(),
            r#"{"a":3,"b":0.5,"c":0.25,"d":[null,{"e":"x"}]}"#
        );
    }
}
