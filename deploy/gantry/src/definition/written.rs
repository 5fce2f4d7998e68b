//! Definitions as people write them: what is read here again is the same definition.

use gantry_client::v1::Connector;
use gantry_proto::json;
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::ENUMS;
use crate::failure::{Exit, Failure};

/// These come first; the others follow in order of name.
const FIRST: &[&str] = &["name", "plugin", "topic", "topics", "tasks_max", "target_state"];

/// Fields in an order of their own.
struct Ordered(Vec<(String, Value)>);

impl Serialize for Ordered {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

/// The definition as YAML.
pub(crate) fn yaml(connector: &Connector) -> Result<String, Failure> {
    serde_saphyr::to_string(&fields(connector)?).map_err(|e| unwritable(connector, &e.to_string()))
}

/// The definition as JSON.
pub(crate) fn json(connector: &Connector) -> Result<String, Failure> {
    let text = serde_json::to_string_pretty(&fields(connector)?);
    text.map(|t| t + "\n")
        .map_err(|e| unwritable(connector, &e.to_string()))
}

fn fields(connector: &Connector) -> Result<Ordered, Failure> {
    let all = json::fields(connector).map_err(|e| unwritable(connector, &e.to_string()))?;
    let mut value = json::whole_numbers(Value::Object(all));
    shorten_enums(&mut value);
    let mut ordered: Vec<(String, Value)> = value
        .as_object_mut()
        .map(std::mem::take)
        .into_iter()
        .flatten()
        .collect();
    let rank = |name: &str| FIRST.iter().position(|f| *f == name).unwrap_or(FIRST.len());
    ordered.sort_by(|(a, _), (b, _)| (rank(a), a).cmp(&(rank(b), b)));
    Ok(Ordered(ordered))
}

/// `TARGET_STATE_RUNNING` is `RUNNING`.
fn shorten_enums(value: &mut Value) {
    for (path, prefix) in ENUMS {
        let at = path.iter().try_fold(&mut *value, |at, name| at.get_mut(*name));
        if let Some(Value::String(text)) = at
            && let Some(short) = text.strip_prefix(prefix)
        {
            *text = short.to_owned();
        }
    }
}

fn unwritable(connector: &Connector, why: &str) -> Failure {
    Failure::new(Exit::Refused, format!("the definition cannot be written: {why}"))
        .at(connector.name.clone())
        .fix("use a command of the control plane's version")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::parse;

    /// Texts that YAML reads as something else, or as several documents, unless they are quoted.
    const NASTY: &[&str] = &[
        "",
        " ",
        "yes",
        "no",
        "null",
        "~",
        "true",
        "0123",
        "1e3",
        "0x1f",
        "1_000",
        "-",
        "---",
        "--- a",
        "a\n---\nb",
        "# no comment",
        "a # b",
        "a: b",
        "[x",
        "{x}",
        "*x",
        "&x",
        "!x",
        "%x",
        "@x",
        "`x",
        "trailing ",
        " leading",
        "tab\t",
        "line\n",
        "\n\nlines\n\n",
        "quote\"s",
        "it's",
        "back\\slash",
        "${env:GANTRY_SECRET_X}",
        "2026-11-21",
        "12:30:45",
        "ü \u{1f980}",
        "<<",
        "=",
        "a,b",
        "\r\n",
        ".inf",
        "NaN",
    ];

    fn nasty() -> Connector {
        let texts: Vec<Value> = NASTY.iter().map(|t| Value::from(*t)).collect();
        let keys: serde_json::Map<String, Value> =
            NASTY.iter().map(|t| ((*t).to_owned(), Value::from(*t))).collect();
        serde_json::from_value(serde_json::json!({
            "name": "lines-in",
            "plugin": "file-source",
            "topic": "lines",
            "tasksMax": 3,
            "targetState": "TARGET_STATE_PAUSED",
            "ordering": "ORDERING_KEY",
            "labels": { "team": "no", "a.b/c": "1.0" },
            "topicCreate": {},
            "errorPolicy": { "onRecordError": "ON_RECORD_ERROR_DEAD_LETTER", "deadLetterTopic": "dlq" },
            "startFrom": { "position": "POSITION_LATEST" },
            "onOffsetOutOfRange": "OFFSET_OUT_OF_RANGE_EARLIEST",
            "onDisconnect": "ON_DISCONNECT_CONTINUE",
            "drainTimeout": "1.500s",
            "restartPolicy": { "maxRestarts": 5, "initialBackoff": "2s" },
            "config": { "texts": texts, "camelCase": { "deep": [1, 2.5, -3e300, true, null, [], {}] }, "keys": keys },
        }))
        .unwrap()
    }

    #[test]
    fn what_is_written_is_read_as_the_same() {
        let wanted = nasty();
        for text in [yaml(&wanted).unwrap(), json(&wanted).unwrap()] {
            let read = parse(&text, "f").unwrap_or_else(|e| panic!("{e}\n{text}"));
            assert_eq!(read.len(), 1, "{text}");
            assert_eq!(read[0].connector, wanted, "{text}");
        }
    }

    #[test]
    fn people_can_read_it() {
        let text = yaml(&nasty()).unwrap();
        let begin = "name: lines-in\nplugin: file-source\ntopic: lines\ntasks_max: 3\ntarget_state: PAUSED\n";
        assert!(text.starts_with(begin), "{text}");
        for part in [
            "on_record_error: DEAD_LETTER",
            "camelCase:",
            "ordering: KEY",
            "position: LATEST",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }
}
