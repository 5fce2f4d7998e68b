//! One value of one type. Texts are read as the type wanted, because `--set key=value` has nothing but texts.

use serde_json::{Number, Value};

use super::{Param, ParamType, Violation};
use crate::{SecretRef, units};

/// The value in the form in which a [`crate::Config`] holds it; a form of its own is left as it is.
pub(super) fn coerce(param: &Param, value: &Value) -> Result<Value, Vec<Violation>> {
    if param.secret {
        return secret(param, value);
    }
    let inside = references(&param.name, value);
    if !inside.is_empty() {
        return Err(inside);
    }
    let one = |r: Result<Value, (String, String)>| {
        r.map_err(|(message, fix)| {
            vec![Violation {
                param: param.name.clone(),
                message,
                fix,
            }]
        })
    };
    match &param.kind {
        ParamType::Any => Ok(value.clone()),
        ParamType::String => one(text(value).map(Value::from)),
        ParamType::Int { min, max } => one(int(value, *min, *max)),
        ParamType::Float { min, max } => one(float(value, *min, *max)),
        ParamType::Bool => one(truth(value)),
        ParamType::Enum { choices } => one(choice(value, choices)),
        ParamType::Duration { min_ms, max_ms } => one(duration(value, *min_ms, *max_ms)),
        ParamType::Size { min, max } => one(size(value, *min, *max)),
        ParamType::List { min_len } => list(param, value, *min_len, |_| Ok(())),
        ParamType::Path => one(text(value).and_then(|t| path(t).map(|()| t.into()))),
        ParamType::PathList { min_len } => list(param, value, *min_len, path),
        ParamType::Map => map(param, value),
    }
}

type Refusal = (String, String);

fn text(value: &Value) -> Result<&str, Refusal> {
    value.as_str().ok_or_else(|| {
        (
            format!("must be a text, but is {}", kind_of(value)),
            "put the value in quotes".into(),
        )
    })
}

fn int(value: &Value, min: Option<i64>, max: Option<i64>) -> Result<Value, Refusal> {
    let read = match value {
        Value::Number(n) => n.as_i64().or_else(|| whole(n.as_f64()?)),
        Value::String(s) => s.trim().parse().ok(),
        _ => None,
    };
    let Some(n) = read else {
        return Err((
            format!("must be an integer, but is {}", shown(value)),
            "give a whole number such as 3".into(),
        ));
    };
    within(n, min, max, |n| n.to_string())?;
    Ok(n.into())
}

/// Numbers that came through protobuf are doubles; above 2^53 they have lost bits and are refused.
fn whole(n: f64) -> Option<i64> {
    (n.fract() == 0.0 && n.abs() <= 9_007_199_254_740_992.0).then_some(n as i64)
}

fn float(value: &Value, min: Option<f64>, max: Option<f64>) -> Result<Value, Refusal> {
    let read = match value {
        Value::Number(n) => n.as_f64(),
        Value::String(s) => s.trim().parse().ok(),
        _ => None,
    };
    let Some(n) = read.and_then(|n: f64| Number::from_f64(n).map(|_| n)) else {
        return Err((
            format!("must be a number, but is {}", shown(value)),
            "give a number such as 0.5".into(),
        ));
    };
    within(n, min, max, |n| n.to_string())?;
    Ok(n.into())
}

fn truth(value: &Value) -> Result<Value, Refusal> {
    match value {
        Value::Bool(_) => Ok(value.clone()),
        Value::String(s) if s.trim() == "true" => Ok(true.into()),
        Value::String(s) if s.trim() == "false" => Ok(false.into()),
        _ => Err((
            format!("must be true or false, but is {}", shown(value)),
            "write true or false".into(),
        )),
    }
}

fn choice(value: &Value, choices: &[String]) -> Result<Value, Refusal> {
    if value.as_str().is_some_and(|s| choices.iter().any(|c| c == s)) {
        return Ok(value.clone());
    }
    let fix = match value
        .as_str()
        .and_then(|s| nearest(s, choices.iter().map(String::as_str)))
    {
        Some(name) => format!("did you mean {name}?"),
        None => format!("use one of {}", choices.join(", ")),
    };
    Err((
        format!("must be one of {}, but is {}", choices.join(", "), shown(value)),
        fix,
    ))
}

fn duration(value: &Value, min: Option<u64>, max: Option<u64>) -> Result<Value, Refusal> {
    let read = value.as_str().and_then(units::parse_duration);
    let Some(span) = read.and_then(|d| u64::try_from(d.as_millis()).ok()) else {
        return Err((
            format!("must be a duration, but is {}", shown(value)),
            "give a whole number with a unit: 500ms, 5s, 2m, 1h".into(),
        ));
    };
    within(span, min, max, |n| units::show_duration(*n))?;
    Ok(value.clone())
}

fn size(value: &Value, min: Option<u64>, max: Option<u64>) -> Result<Value, Refusal> {
    let (read, form) = match value {
        Value::String(s) => (units::parse_size(s), value.clone()),
        Value::Number(n) => {
            let n = n.as_u64().or_else(|| u64::try_from(whole(n.as_f64()?)?).ok());
            (n, n.map_or(Value::Null, Value::from))
        }
        _ => (None, Value::Null),
    };
    let Some(bytes) = read else {
        return Err((
            format!("must be a size, but is {}", shown(value)),
            "give bytes or a whole number with a unit: 512, 64KiB, 10MB".into(),
        ));
    };
    within(bytes, min, max, |n| units::show_size(*n))?;
    Ok(form)
}

fn path(text: &str) -> Result<(), Refusal> {
    if text.contains('\0') {
        return Err(("contains a zero byte".into(), "remove it".into()));
    }
    if !text.starts_with('/') {
        return Err((
            format!("must be an absolute path, but is {}", quoted(text)),
            "give an absolute path: agents have no meaningful working directory".into(),
        ));
    }
    Ok(())
}

fn list(
    param: &Param,
    value: &Value,
    min_len: usize,
    each: fn(&str) -> Result<(), Refusal>,
) -> Result<Value, Vec<Violation>> {
    let elements = match value {
        Value::Array(elements) => elements.as_slice(),
        Value::String(_) => std::slice::from_ref(value),
        _ => {
            return Err(vec![Violation {
                param: param.name.clone(),
                message: format!("must be a list of texts, but is {}", kind_of(value)),
                fix: format!("write {}: [\"...\"]", param.name),
            }]);
        }
    };
    let mut violations: Vec<_> = elements
        .iter()
        .enumerate()
        .filter_map(|(i, e)| {
            let (message, fix) = text(e).and_then(each).err()?;
            Some(Violation {
                param: format!("{}[{i}]", param.name),
                message,
                fix,
            })
        })
        .collect();
    if elements.len() < min_len {
        violations.push(Violation {
            param: param.name.clone(),
            message: format!(
                "must have at least {min_len} elements, but has {}",
                elements.len()
            ),
            fix: "add the missing elements".into(),
        });
    }
    if violations.is_empty() {
        Ok(elements.to_vec().into())
    } else {
        Err(violations)
    }
}

fn map(param: &Param, value: &Value) -> Result<Value, Vec<Violation>> {
    let Value::Object(entries) = value else {
        return Err(vec![Violation {
            param: param.name.clone(),
            message: format!("must be a map of texts, but is {}", kind_of(value)),
            fix: format!("write {}: {{name: \"value\"}}", param.name),
        }]);
    };
    let violations: Vec<_> = entries
        .iter()
        .filter_map(|(key, v)| {
            let (message, fix) = text(v).err()?;
            Some(Violation {
                param: format!("{}.{key}", param.name),
                message,
                fix,
            })
        })
        .collect();
    if violations.is_empty() {
        Ok(value.clone())
    } else {
        Err(violations)
    }
}

/// Secrets of any type are texts that are references; lists and maps are made of such texts.
fn secret(param: &Param, value: &Value) -> Result<Value, Vec<Violation>> {
    let refused = |param: String| {
        Violation {
        param,
        message: "is a secret and must be a reference; the value given is not shown".into(),
        fix: "put the value into a variable or file of the agent and write ${env:GANTRY_SECRET_NAME}, ${file:/PATH} or \
              ${file:/PATH:KEY}"
            .into(),
    }
    };
    let is_reference = |v: &Value| v.as_str().is_some_and(|s| SecretRef::parse(s).is_some());
    let violations: Vec<_> = match (&param.kind, value) {
        (ParamType::List { .. } | ParamType::PathList { .. }, Value::Array(elements)) => {
            let bad = elements.iter().enumerate().filter(|(_, v)| !is_reference(v));
            bad.map(|(i, _)| refused(format!("{}[{i}]", param.name)))
                .collect()
        }
        (ParamType::Map, Value::Object(entries)) => {
            let bad = entries.iter().filter(|(_, v)| !is_reference(v));
            bad.map(|(key, _)| refused(format!("{}.{key}", param.name)))
                .collect()
        }
        _ if is_reference(value) => vec![],
        _ => vec![refused(param.name.clone())],
    };
    if violations.is_empty() {
        Ok(value.clone())
    } else {
        Err(violations)
    }
}

/// References where none are resolved, at any depth.
fn references(at: &str, value: &Value) -> Vec<Violation> {
    match value {
        Value::String(s) if SecretRef::occurs_in(s) => vec![Violation {
            param: at.to_owned(),
            message: "contains a reference to a secret, but this parameter is not a secret and references are not resolved in it"
                .into(),
            fix: "write the value itself, or use a parameter that is marked as secret".into(),
        }],
        Value::Array(values) => {
            values.iter().enumerate().flat_map(|(i, v)| references(&format!("{at}[{i}]"), v)).collect()
        }
        Value::Object(entries) => entries.iter().flat_map(|(k, v)| references(&format!("{at}.{k}"), v)).collect(),
        _ => vec![],
    }
}

fn within<T: PartialOrd>(
    n: T,
    min: Option<T>,
    max: Option<T>,
    show: fn(&T) -> String,
) -> Result<(), Refusal> {
    if min.as_ref().is_none_or(|m| n >= *m) && max.as_ref().is_none_or(|m| n <= *m) {
        return Ok(());
    }
    let range = match (&min, &max) {
        (Some(min), Some(max)) => format!("from {} to {}", show(min), show(max)),
        (Some(min), None) => format!("at least {}", show(min)),
        (None, Some(max)) => format!("at most {}", show(max)),
        (None, None) => String::new(),
    };
    Err((
        format!("must be {range}, but is {}", show(&n)),
        format!("give a value that is {range}"),
    ))
}

/// The candidate that was probably meant.
pub(super) fn nearest<'a>(given: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let given = given.to_lowercase().replace('-', "_");
    let near = candidates.map(|c| {
        (
            strsim::damerau_levenshtein(&given, &c.to_lowercase().replace('-', "_")),
            c,
        )
    });
    near.min_by_key(|(distance, _)| *distance)
        .filter(|(d, c)| *d <= 1 + c.len() / 4)
        .map(|(_, c)| c)
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(s) => quoted(s),
        Value::Array(_) | Value::Object(_) => kind_of(value).into(),
        other => other.to_string(),
    }
}

pub(super) fn quoted(text: &str) -> String {
    let short: String = text.chars().take(64).collect();
    format!("{short:?}{}", if short.len() < text.len() { "..." } else { "" })
}
