//! Definition files: `gantry.v1.Connector` in proto JSON, as YAML or JSON, several documents in a file.

mod files;
pub(crate) mod written;

use std::{io::Read, path::Path};

use gantry_client::v1::Connector;
use serde_json::Value;

pub(crate) use self::files::read_all;
use crate::failure::{Exit, Failure};

/// Fields that are enumerations, and what their values begin with in proto JSON.
const ENUMS: &[(&[&str], &str)] = &[
    (&["target_state"], "TARGET_STATE_"),
    (&["ordering"], "ORDERING_"),
    (&["on_disconnect"], "ON_DISCONNECT_"),
    (&["on_offset_out_of_range"], "OFFSET_OUT_OF_RANGE_"),
    (&["error_policy", "on_record_error"], "ON_RECORD_ERROR_"),
    (&["start_from", "position"], "POSITION_"),
];

/// A connector and where it was read.
pub(crate) struct Definition {
    pub(crate) connector: Connector,
    /// `FILE:LINE` of the document's first line.
    pub(crate) place: String,
}

/// Reads all documents of a file; `-` is standard input.
pub(crate) fn read(path: &Path) -> Result<Vec<Definition>, Failure> {
    let shown = path.display().to_string();
    let text = if shown == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(path)
    };
    let text = text.map_err(|e| {
        Failure::new(Exit::Refused, format!("cannot read the definition: {e}"))
            .at(&shown)
            .fix("give the path of a YAML or JSON file, or - for standard input")
    })?;
    parse(&text, &shown)
}

pub(crate) fn parse(text: &str, shown: &str) -> Result<Vec<Definition>, Failure> {
    let mut definitions = Vec::new();
    for (first_line, document) in documents(text) {
        if document
            .lines()
            .all(|l| l.trim().is_empty() || l.trim_start().starts_with('#'))
        {
            continue;
        }
        let value: Value = serde_saphyr::from_str(&document).map_err(|e| {
            let line = e
                .location()
                .map_or(first_line, |l| first_line + l.line() as usize - 1);
            let message = e.to_string();
            let message = message
                .lines()
                .next()
                .unwrap_or_default()
                .trim_start_matches("error: ")
                .to_owned();
            Failure::new(Exit::Refused, format!("this is neither YAML nor JSON: {message}"))
                .at(format!("{shown}:{line}"))
                .fix("mend the syntax at that line")
        })?;
        let mut value = value;
        expand_enums(&mut value);
        let connector = serde_json::from_value::<Connector>(value).map_err(|e| {
            let (what, field, fix) = explain(&e);
            let line = field.as_deref().and_then(|f| line_of(&document, f)).unwrap_or(1) + first_line - 1;
            Failure::new(Exit::Refused, what)
                .at(format!("{shown}:{line}"))
                .fix(fix)
        })?;
        if connector.name.is_empty() {
            return Err(Failure::new(Exit::Refused, "the definition has no name")
                .at(format!("{shown}:{first_line}"))
                .fix("add `name: ...`"));
        }
        definitions.push(Definition {
            connector,
            place: format!("{shown}:{first_line}"),
        });
    }
    if definitions.is_empty() {
        return Err(Failure::new(Exit::Refused, "the file defines no connector")
            .at(shown)
            .fix("add one, beginning with `name:`"));
    }
    Ok(definitions)
}

/// People write `RUNNING`; proto JSON says `TARGET_STATE_RUNNING`. Both are accepted.
fn expand_enums(value: &mut Value) {
    for (path, prefix) in ENUMS {
        let mut at = Some(&mut *value);
        for name in *path {
            at = at.and_then(Value::as_object_mut).and_then(|o| {
                let key = if o.contains_key(*name) {
                    (*name).to_owned()
                } else {
                    camel(name)
                };
                o.get_mut(&key)
            });
        }
        if let Some(Value::String(text)) = at
            && !text.starts_with(prefix)
        {
            *text = format!("{prefix}{text}");
        }
    }
}

fn camel(snake: &str) -> String {
    let mut words = snake.split('_');
    let mut text = words.next().unwrap_or_default().to_owned();
    for word in words {
        let (head, tail) = word.split_at(1);
        text.push_str(&head.to_uppercase());
        text.push_str(tail);
    }
    text
}

/// The documents with the number of their first line.
fn documents(text: &str) -> Vec<(usize, String)> {
    let mut all = vec![(1, String::new())];
    for (i, line) in text.lines().enumerate() {
        if line == "---" || line.starts_with("--- ") {
            all.push((i + 2, String::new()));
        } else if let Some((_, document)) = all.last_mut() {
            document.push_str(line);
            document.push('\n');
        }
    }
    all
}

fn line_of(document: &str, field: &str) -> Option<usize> {
    let key = |line: &str| {
        let line = line
            .trim_start()
            .trim_start_matches(['{', '-', ' '])
            .trim_start_matches('"');
        line.strip_prefix(field)
            .is_some_and(|rest| rest.trim_start_matches('"').trim_start().starts_with(':'))
    };
    document.lines().position(key).map(|i| i + 1)
}

/// What is wrong, the field it is about, and what to do.
fn explain(error: &serde_json::Error) -> (String, Option<String>, String) {
    let text = error.to_string();
    let quoted: Vec<&str> = text.split('`').skip(1).step_by(2).collect();
    if text.starts_with("unknown field") && !quoted.is_empty() {
        let given = quoted[0];
        // Every field is listed in both spellings; one is enough to choose from.
        let nearest = quoted[1..]
            .iter()
            .copied()
            .max_by(|a, b| strsim::jaro_winkler(given, a).total_cmp(&strsim::jaro_winkler(given, b)));
        let fix = match nearest.filter(|n| strsim::jaro_winkler(given, n) > 0.7) {
            Some(nearest) => format!("did you mean `{nearest}`?"),
            None => "parameters of the plugin go below `config:`".into(),
        };
        return (format!("unknown field `{given}`"), Some(given.to_owned()), fix);
    }
    let field = quoted.first().map(|f| (*f).to_owned());
    (
        format!("the definition does not fit: {text}"),
        field,
        "see `gantry connectors get NAME -o yaml` for an example".into(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_documents_in_both_spellings() {
        let text = "# two\nname: a\nplugin: file-source\ntasks_max: 2\ntarget_state: PAUSED\n---\nname: b\ntasksMax: 3\nconfig:\n  paths: [\"/x/*.log\"]\n";
        let all = parse(text, "f.yaml").unwrap();
        assert_eq!(all.len(), 2);
        assert_eq!((all[0].connector.tasks_max, all[1].connector.tasks_max), (2, 3));
        assert_eq!(
            all[0].connector.target_state(),
            gantry_client::v1::connector::TargetState::Paused
        );
        assert_eq!(all[1].place, "f.yaml:7");
    }

    #[test]
    fn an_unknown_field_names_the_nearest_and_its_line() {
        let failure = parse("name: a\nplugin: x\ntask_max: 2\n", "f.yaml")
            .err()
            .unwrap()
            .to_string();
        assert!(failure.contains("unknown field `task_max`"), "{failure}");
        assert!(failure.contains("f.yaml:3"), "{failure}");
        assert!(
            failure.contains("did you mean `tasks_max`?") || failure.contains("did you mean `tasksMax`?"),
            "{failure}"
        );
    }

    #[test]
    fn broken_yaml_says_where() {
        let failure = parse("name: a\nplugin: [x\n", "f.yaml")
            .err()
            .unwrap()
            .to_string();
        assert!(failure.contains("f.yaml:"), "{failure}");
    }
}
