use gantry_client::v1::{ConnectorRevision, FieldDifference};
use gantry_proto::{StructValue, json};

use super::{Style, offsets::when, short, table, tables::age};
use crate::args::Output;

pub(crate) fn revisions(style: Style, all: &[ConnectorRevision]) -> String {
    if style.output == Output::Name {
        return all.iter().map(|r| format!("{}\n", r.name)).collect();
    }
    const PATHS: usize = 4;
    let wide = style.output == Output::Wide;
    let mut head = vec!["REVISION", "AGE", "BY"];
    if wide {
        head.extend(["TIME", "REQUEST"]);
    }
    head.push("CHANGED");
    let rows: Vec<Vec<String>> = all
        .iter()
        .map(|r| {
            let mut row = vec![
                short(&r.name).to_owned(),
                age(r.create_time.as_ref()),
                r.principal.clone(),
            ];
            if wide {
                let request = if r.request_id.is_empty() {
                    "-"
                } else {
                    &r.request_id
                };
                row.extend([when(r.create_time.as_ref()), request.to_owned()]);
            }
            let shown = if wide { usize::MAX } else { PATHS };
            let some: Vec<&str> = r.changed_paths.iter().take(shown).map(String::as_str).collect();
            row.push(match r.changed_paths.len().saturating_sub(some.len()) {
                0 if some.is_empty() => "-".to_owned(),
                0 => some.join(", "),
                more => format!("{} and {more} more", some.join(", ")),
            });
            row
        })
        .collect();
    table(&head, &rows)
}

/// A line for each: `+` is new, `-` is gone, `~` is another.
pub(crate) fn differences(style: Style, all: &[FieldDifference]) -> String {
    let rows: Vec<Vec<String>> = all
        .iter()
        .map(|d| {
            let (sign, value) = match (&d.before, &d.after) {
                (None, Some(after)) => ("+", value_text(after)),
                (Some(before), None) => ("-", value_text(before)),
                (before, after) => {
                    let text = |v: &Option<StructValue>| v.as_ref().map_or("-".into(), value_text);
                    ("~", format!("{} -> {}", text(before), text(after)))
                }
            };
            vec![format!("  {}", style.change(sign)), d.path.clone(), value]
        })
        .collect();
    // The signs need no head.
    let text = table(&["", "", ""], &rows);
    text.split_once('\n')
        .map(|(_, rest)| rest.to_owned())
        .unwrap_or_default()
}

fn value_text(value: &StructValue) -> String {
    let value = serde_json::to_value(value).map(json::whole_numbers);
    value.map(|v| v.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_became_of_a_field() {
        let number = |n: f64| Some(StructValue::from(n));
        let difference = |path: &str, before, after| FieldDifference {
            path: path.into(),
            before,
            after,
        };
        let all = [
            difference("tasks_max", number(1.0), number(2.5)),
            difference("labels.a", None, Some(StructValue::from("x".to_owned()))),
            difference("config.b", number(0.25), None),
        ];
        let style = Style {
            output: Output::Table,
            colour: false,
        };
        let text = differences(style, &all);
        let lines: Vec<Vec<&str>> = text.lines().map(|l| l.split_whitespace().collect()).collect();
        assert_eq!(
            lines,
            [
                vec!["~", "tasks_max", "1", "->", "2.5"],
                vec!["+", "labels.a", "\"x\""],
                vec!["-", "config.b", "0.25"],
            ]
        );
        assert_eq!(differences(style, &[]), "");
    }
}
