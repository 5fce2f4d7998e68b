//! Partitions, positions and times as people write them.

use std::{collections::BTreeMap, io::Read, path::Path};

use gantry_client::v1::{
    ConnectorOffsets, OffsetChange, PartitionOffset, Value,
    offset_change::{Place, Target},
    value::Kind,
};
use gantry_proto::Timestamp;
use serde_json::{Map, Value as Json};

use crate::{
    args,
    failure::{Exit, Failure},
    render::{self, field_text},
};

type Fields = BTreeMap<String, Value>;

/// What is committed: tells of which type a value is.
pub(crate) struct Known(Vec<PartitionOffset>);

impl Known {
    pub(crate) fn of(offsets: ConnectorOffsets) -> Self {
        Self(offsets.partitions)
    }

    /// The partition that a person names.
    pub(crate) fn partition(&self, text: &str) -> Result<Fields, Failure> {
        let given = fields(text, "--partition")?;
        let same = self
            .0
            .iter()
            .find(|p| field_text(&p.partition) == field_text(&given));
        Ok(same.map_or(given, |known| known.partition.clone()))
    }

    /// A position of the partition.
    pub(crate) fn position(&self, partition: &Fields, text: &str) -> Result<Fields, Failure> {
        let mut given = fields(text, "--to")?;
        let known = self.0.iter().find(|p| p.partition == *partition);
        for (name, value) in &mut given {
            let kind = known
                .and_then(|p| p.position.get(name))
                .and_then(|v| v.kind.as_ref());
            if let (Some(Kind::StringValue(_)), Some(Kind::Uint64Value(n))) = (kind, &value.kind) {
                value.kind = Some(Kind::StringValue(n.to_string()));
            }
        }
        Ok(given)
    }
}

/// `topic=t,broker=b,queue=0`. A comma ends a value only when a name and `=` follow.
fn fields(text: &str, flag: &str) -> Result<Fields, Failure> {
    let mut parts: Vec<String> = Vec::new();
    for part in text.split(',') {
        let named = part.split_once('=').is_some_and(|(name, _)| is_name(name));
        match parts.last_mut() {
            Some(last) if !named => {
                last.push(',');
                last.push_str(part);
            }
            _ => parts.push(part.to_owned()),
        }
    }
    let mut fields = Fields::new();
    for part in parts {
        let Some((name, value)) = part.split_once('=').filter(|(name, _)| is_name(name)) else {
            return Err(Failure::usage(format!("'{part}' is not NAME=VALUE"))
                .at(format!("{flag} {text}"))
                .fix(
                    "write it as `gantry connectors offsets get NAME` shows it, as in path=/var/log/a.log",
                ));
        };
        fields.insert(name.to_owned(), of_text(value));
    }
    Ok(fields)
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

fn of_text(text: &str) -> Value {
    let kind = if let Ok(n) = text.parse::<u64>() {
        Kind::Uint64Value(n)
    } else if let Ok(n) = text.parse::<i64>() {
        Kind::Int64Value(n)
    } else if let Ok(b) = text.parse::<bool>() {
        Kind::BoolValue(b)
    } else {
        Kind::StringValue(text.to_owned())
    };
    Value { kind: Some(kind) }
}

/// A time of day in RFC 3339, or how long ago.
pub(crate) fn time(text: &str) -> Result<Timestamp, Failure> {
    if let Ok(ago) = args::duration(text) {
        let seconds = render::now_seconds() - i64::try_from(ago.as_secs()).unwrap_or(i64::MAX);
        return Ok(Timestamp { seconds, nanos: 0 });
    }
    serde_json::from_value(Json::String(text.to_owned())).map_err(|_| {
        Failure::usage("this is no time")
            .at(text)
            .fix("write 2026-11-21T17:00:00Z, or how long ago: 90m")
    })
}

/// The changes that a file asks for.
pub(crate) fn read(path: &Path) -> Result<Vec<OffsetChange>, Failure> {
    let shown = path.display().to_string();
    let text = if shown == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(path)
    };
    let text = text.map_err(|e| {
        Failure::new(Exit::Refused, format!("cannot read the positions: {e}"))
            .at(&shown)
            .fix("give the path of a YAML or JSON file, or - for standard input")
    })?;
    parse(&text, &shown)
}

fn parse(text: &str, shown: &str) -> Result<Vec<OffsetChange>, Failure> {
    let refused = |what: String, place: String| {
        Failure::new(Exit::Refused, what)
            .at(place)
            .fix("begin with what `gantry connectors offsets get NAME -o yaml` prints")
    };
    let value: Json = serde_saphyr::from_str(text).map_err(|e| {
        refused(
            format!("this is neither YAML nor JSON: {e}").replace('\n', " "),
            shown.to_owned(),
        )
    })?;
    let entries = match value {
        Json::Array(entries) => entries,
        Json::Object(mut all) => match all.remove("partitions") {
            Some(Json::Array(entries)) => entries,
            _ => return Err(refused("it has no list `partitions`".into(), shown.to_owned())),
        },
        _ => return Err(refused("it is not a list".into(), shown.to_owned())),
    };
    let entry = |(at, entry): (usize, Json)| {
        change(entry).map_err(|what| refused(what, format!("{shown}: partitions[{at}]")))
    };
    entries.into_iter().enumerate().map(entry).collect()
}

/// What `offsets get` prints beside partition and position.
const SHOWN_ONLY: [&str; 9] = [
    "commitTime",
    "commit_time",
    "counts",
    "sinkStateBytes",
    "sink_state_bytes",
    "lag",
    "lagUnit",
    "lag_unit",
    "history",
];

fn change(entry: Json) -> Result<OffsetChange, String> {
    let Json::Object(entry) = entry else {
        return Err("it is not a mapping with `partition` and `position`".into());
    };
    let mut change = OffsetChange::default();
    for (key, value) in entry {
        let time = |value: Json| {
            serde_json::from_value::<Timestamp>(value).map_err(|_| format!("`{key}` is no time"))
        };
        match key.as_str() {
            "partition" => change.partition = mapping(&key, value)?,
            "position" => change.position = mapping(&key, value)?,
            "place" => {
                let text = value.as_str().unwrap_or_default().to_uppercase();
                let place = match text.trim_start_matches("PLACE_") {
                    "EARLIEST" => Place::Earliest,
                    "LATEST" => Place::Latest,
                    _ => return Err("`place` is neither EARLIEST nor LATEST".into()),
                };
                change.target = Some(Target::Place(place.into()));
            }
            "time" => change.target = Some(Target::Time(time(value)?)),
            "committed_time" | "committedTime" => change.target = Some(Target::CommittedTime(time(value)?)),
            other if SHOWN_ONLY.contains(&other) => {}
            other => return Err(format!("unknown field `{other}`")),
        }
    }
    Ok(change)
}

fn mapping(key: &str, value: Json) -> Result<Fields, String> {
    let Json::Object(fields) = value else {
        return Err(format!("`{key}` is not a mapping of names to values"));
    };
    fields
        .into_iter()
        .map(|(name, value)| Ok((name.clone(), of_json(&name, value)?)))
        .collect()
}

/// A plain value, or one that says its type as proto JSON does.
fn of_json(name: &str, value: Json) -> Result<Value, String> {
    let kind = match value {
        Json::Bool(b) => Kind::BoolValue(b),
        Json::String(text) => Kind::StringValue(text),
        Json::Number(n) => match (n.as_u64(), n.as_i64()) {
            (Some(n), _) => Kind::Uint64Value(n),
            (None, Some(n)) => Kind::Int64Value(n),
            (None, None) => return Err(format!("`{name}` is no integer")),
        },
        Json::Object(typed) => return typed_value(name, typed),
        Json::Null | Json::Array(_) => return Err(format!("`{name}` has no single value")),
    };
    Ok(Value { kind: Some(kind) })
}

fn typed_value(name: &str, typed: Map<String, Json>) -> Result<Value, String> {
    serde_json::from_value(Json::Object(typed)).map_err(|e| format!("`{name}` cannot be read: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(changes: &[OffsetChange]) -> Vec<(String, String)> {
        changes
            .iter()
            .map(|c| (field_text(&c.partition), field_text(&c.position)))
            .collect()
    }

    #[test]
    fn partitions_are_written_as_they_are_shown() {
        let queue = fields("topic=t,broker=b,queue=3", "--partition").unwrap();
        assert_eq!(queue["queue"].kind, Some(Kind::Uint64Value(3)));
        assert_eq!(queue["topic"].kind, Some(Kind::StringValue("t".into())));
        let path = fields("path=/a,b=c/d,e", "--partition").unwrap();
        assert_eq!(field_text(&path), "b=c/d,e,path=/a");
        let path = fields("path=/a, b,c", "--partition").unwrap();
        assert_eq!(path["path"].kind, Some(Kind::StringValue("/a, b,c".into())));
        assert_eq!(
            fields("n=-4", "--to").unwrap()["n"].kind,
            Some(Kind::Int64Value(-4))
        );
        for bad in ["", "path", "=x", "a b=c"] {
            assert!(fields(bad, "--partition").is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_committed_tells_the_type() {
        let text = |text: &str| Value {
            kind: Some(Kind::StringValue(text.into())),
        };
        let known = Known(vec![PartitionOffset {
            partition: [("shard".to_owned(), text("7"))].into(),
            position: [("lsn".to_owned(), text("100"))].into(),
            ..PartitionOffset::default()
        }]);
        let partition = known.partition("shard=7").unwrap();
        assert_eq!(partition["shard"], text("7"));
        assert_eq!(known.position(&partition, "lsn=200").unwrap()["lsn"], text("200"));
        let other = known.partition("shard=8").unwrap();
        assert_eq!(other["shard"].kind, Some(Kind::Uint64Value(8)));
    }

    #[test]
    fn a_file_has_the_form_of_what_get_prints() {
        let printed = "name: connectors/a/offsets\nepoch: '3'\npartitions:\n- partition: {path: {stringValue: /a}}\n  \
                       position: {byte: {uint64Value: '5'}}\n  commitTime: 2026-11-21T17:00:00Z\n  counts: {in: '1'}\n";
        let by_hand =
            "- partition: {path: /a}\n  position: {byte: 5}\n- partition: {path: /b}\n  place: latest\n";
        let (printed, by_hand) = (parse(printed, "f").unwrap(), parse(by_hand, "f").unwrap());
        assert_eq!(shown(&printed), [("path=/a".into(), "byte=5".into())]);
        assert_eq!(printed[0], by_hand[0]);
        assert_eq!(by_hand[1].target, Some(Target::Place(Place::Latest.into())));
        let json = parse(
            r#"[{"partition": {"path": "/a"}, "committed_time": "2026-11-21T17:00:00Z"}]"#,
            "f",
        )
        .unwrap();
        assert!(matches!(json[0].target, Some(Target::CommittedTime(_))));
        for (bad, place) in [
            ("- partition: /a\n", "partitions[0]"),
            ("- {positon: {byte: 1}}\n", "positon"),
            ("x: 1\n", "f"),
        ] {
            let failure = parse(bad, "f").unwrap_err().to_string();
            assert!(failure.contains(place) && failure.contains("fix: "), "{failure}");
        }
    }

    #[test]
    fn times_are_of_the_day_or_ago() {
        let at = time("2026-11-21T17:00:00Z").unwrap();
        assert_eq!(at.seconds, 1_795_280_400);
        assert!(time("90m").unwrap().seconds < render::now_seconds());
        assert!(time("yesterday").is_err());
    }
}
