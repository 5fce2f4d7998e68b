//! Between what is on the wire and what connectors see.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use gantry_connector::{
    Config, ConfigSpec, Fields, Finding, Kind, Locality, Param, ParamType, PluginInfo, Rule, Severity, Value,
};
use gantry_proto::v1;

/// A partition or position as on the wire.
pub(crate) fn fields_out(fields: &Fields) -> BTreeMap<String, v1::Value> {
    use v1::value::Kind;
    let value = |v: &Value| match v {
        Value::Int(v) => Kind::Int64Value(*v),
        Value::Uint(v) => Kind::Uint64Value(*v),
        Value::Str(v) => Kind::StringValue(v.to_string()),
        Value::Bytes(v) => Kind::BytesValue(v.to_vec()),
        Value::Bool(v) => Kind::BoolValue(*v),
    };
    fields
        .iter()
        .map(|(n, v)| (n.to_owned(), v1::Value { kind: Some(value(v)) }))
        .collect()
}

/// A partition or position from the wire; a value without a kind is left out.
pub(crate) fn fields_in(map: &BTreeMap<String, v1::Value>) -> Fields {
    use v1::value::Kind;
    map.iter()
        .filter_map(|(name, value)| {
            let value = match value.kind.as_ref()? {
                Kind::Int64Value(v) => Value::Int(*v),
                Kind::Uint64Value(v) => Value::Uint(*v),
                Kind::StringValue(v) => Value::Str(v.as_str().into()),
                Kind::BytesValue(v) => Value::Bytes(v.clone().into()),
                Kind::BoolValue(v) => Value::Bool(*v),
            };
            Some((name.clone(), value))
        })
        .collect()
}

/// A configuration from the wire.
pub(crate) fn config_in(config: Option<&pbjson_types::Struct>) -> serde_json::Map<String, serde_json::Value> {
    let value = config.and_then(|c| serde_json::to_value(c).ok());
    match value {
        Some(serde_json::Value::Object(map)) => map,
        _ => serde_json::Map::new(),
    }
}

/// A configuration as on the wire.
pub(crate) fn config_out(config: &Config) -> pbjson_types::Struct {
    serde_json::from_value(serde_json::Value::Object(config.as_map().clone())).unwrap_or_default()
}

/// A time span from the wire; unset or negative: `default`.
pub(crate) fn duration_in(duration: Option<&pbjson_types::Duration>, default: Duration) -> Duration {
    let given = duration.and_then(|d| {
        Some(Duration::new(
            u64::try_from(d.seconds).ok()?,
            u32::try_from(d.nanos).ok()?,
        ))
    });
    given.unwrap_or(default)
}

/// A time of day as on the wire.
pub(crate) fn timestamp(wall: Duration) -> pbjson_types::Timestamp {
    pbjson_types::Timestamp {
        seconds: wall.as_secs() as i64,
        nanos: wall.subsec_nanos() as i32,
    }
}

/// A queue from the wire.
pub(crate) fn queue_in(queue: &v1::Queue) -> gantry_bus::Queue {
    gantry_bus::Queue {
        topic: queue.topic.as_str().into(),
        broker: queue.broker.as_str().into(),
        id: queue.id,
    }
}

/// A queue as on the wire.
pub(crate) fn queue_out(queue: &gantry_bus::Queue) -> v1::Queue {
    v1::Queue {
        topic: queue.topic.to_string(),
        broker: queue.broker.to_string(),
        id: queue.id,
    }
}

/// The partition of a queue as it is stored.
pub(crate) fn queue_fields(queue: &gantry_bus::Queue) -> Arc<Fields> {
    Arc::new(
        Fields::new()
            .with("topic", &*queue.topic)
            .with("broker", &*queue.broker)
            .with("queue", u64::from(queue.id)),
    )
}

/// What a validation found, as on the wire.
pub(crate) fn finding_out(finding: Finding) -> v1::Finding {
    v1::Finding {
        severity: match finding.severity {
            Severity::Warning => v1::finding::Severity::Warning,
            Severity::Error => v1::finding::Severity::Error,
        } as i32,
        field: if finding.param.is_empty() {
            "config".into()
        } else {
            format!("config.{}", finding.param)
        },
        message: finding.message,
        fix: finding.fix,
        recommended: Vec::new(),
    }
}

/// A plugin as the control plane knows it.
pub(crate) fn plugin_out(info: &PluginInfo) -> v1::Plugin {
    v1::Plugin {
        name: format!("plugins/{}", info.name),
        version: info.version.into(),
        kind: match info.kind {
            Kind::Source => v1::connector::Kind::Source,
            Kind::Sink => v1::connector::Kind::Sink,
        } as i32,
        summary: info.summary.into(),
        description: info.description.into(),
        spec: Some(spec_out(&info.spec)),
        exclusive: info.capabilities.exclusive,
        host_local: info.capabilities.locality == Locality::Host,
        ..Default::default()
    }
}

fn spec_out(spec: &ConfigSpec) -> v1::ConfigSpec {
    v1::ConfigSpec {
        params: spec.params.iter().map(param_out).collect(),
        rules: spec
            .rules
            .iter()
            .map(|r| v1::Rule {
                rule: Some(rule_out(r)),
            })
            .collect(),
    }
}

fn param_out(param: &Param) -> v1::Param {
    use v1::param::Type;
    let mut choices = Vec::new();
    let (kind, min, max) = match &param.kind {
        ParamType::Any => (Type::Unspecified, None, None),
        ParamType::String => (Type::String, None, None),
        ParamType::Int { min, max } => (Type::Int, min.map(|v| v as f64), max.map(|v| v as f64)),
        ParamType::Float { min, max } => (Type::Float, *min, *max),
        ParamType::Bool => (Type::Bool, None, None),
        ParamType::Enum { choices: c } => {
            choices.clone_from(c);
            (Type::Enum, None, None)
        }
        ParamType::Duration { min_ms, max_ms } => {
            (Type::Duration, min_ms.map(|v| v as f64), max_ms.map(|v| v as f64))
        }
        ParamType::Size { min, max } => (Type::Size, min.map(|v| v as f64), max.map(|v| v as f64)),
        ParamType::List { min_len } => (Type::List, length(*min_len), None),
        ParamType::Path => (Type::Path, None, None),
        ParamType::PathList { min_len } => (Type::PathList, length(*min_len), None),
        ParamType::Map => (Type::Map, None, None),
    };
    v1::Param {
        name: param.name.clone(),
        r#type: kind as i32,
        doc: param.doc.clone(),
        required: param.required,
        default_value: param.default.clone().and_then(value_out),
        secret: param.secret,
        min,
        max,
        choices,
        example: param.example.clone(),
    }
}

fn length(fewest: usize) -> Option<f64> {
    (fewest > 0).then_some(fewest as f64)
}

fn rule_out(rule: &Rule) -> v1::rule::Rule {
    use v1::rule::{Names, OnlyWhen, RequiredWhen, Rule as Out};
    match rule.clone() {
        Rule::RequiredWhen { param, other, equals } => Out::RequiredWhen(RequiredWhen {
            param,
            other,
            equals: value_out(equals),
        }),
        Rule::OnlyWhen { param, other, equals } => Out::OnlyWhen(OnlyWhen {
            param,
            other,
            equals: value_out(equals),
        }),
        Rule::AtMostOne { names } => Out::AtMostOne(Names { names }),
        Rule::AtLeastOne { names } => Out::AtLeastOne(Names { names }),
    }
}

fn value_out(value: serde_json::Value) -> Option<pbjson_types::Value> {
    serde_json::from_value(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_keep_every_bit() {
        let fields = Fields::new()
            .with("a", i64::MIN)
            .with("b", u64::MAX)
            .with("c", "text")
            .with("d", true)
            .with("e", bytes::Bytes::from_static(&[0, 255]));
        assert_eq!(fields_in(&fields_out(&fields)), fields);
    }

    #[test]
    fn plugins_go_out_with_their_parameters() {
        let spec = ConfigSpec::new()
            .param(Param::int("n").min(1).max(9).default(3))
            .param(Param::one_of("mode", ["a", "b"]))
            .rule(Rule::only_when("n", "mode", "a"));
        let out = spec_out(&spec);
        assert_eq!((out.params[0].min, out.params[0].max), (Some(1.0), Some(9.0)));
        assert!(out.params[0].default_value.is_some());
        assert_eq!(out.params[1].choices, ["a", "b"]);
        assert!(matches!(out.rules[0].rule, Some(v1::rule::Rule::OnlyWhen(_))));
    }
}
