//! How answers look. Standard output is for answers alone.

mod describe;
mod history;
mod offsets;
mod plan;
mod restarts;
mod tables;
mod validation;

use std::io::{IsTerminal, Write};

use serde::Serialize;

pub(crate) use describe::{describe_agent, describe_connector, describe_plugin};
pub(crate) use history::{differences, revisions};
pub(crate) use offsets::{alteration, field_text, offsets, offsets_history, retained};
pub(crate) use plan::{Counts, plan};
pub(crate) use tables::{agents, connectors, events, now_seconds, plugins, short, tasks};
pub(crate) use validation::validation;

use crate::{
    args::{Global, Output},
    failure::{Exit, Failure},
};

/// Chosen once from the flags.
#[derive(Clone, Copy)]
pub(crate) struct Style {
    pub(crate) output: Output,
    pub(crate) colour: bool,
}

impl Style {
    pub(crate) fn new(global: &Global) -> Self {
        Self {
            output: global.output,
            colour: !global.no_color && std::io::stdout().is_terminal(),
        }
    }

    /// A state in the colour of how well things are.
    pub(crate) fn state(self, state: &str) -> String {
        let code = match state {
            "RUNNING" | "READY" => "32",
            "FAILED" | "DEGRADED" | "GONE" => "31",
            "UNKNOWN" | "STALLED" | "BACKING_OFF" | "SILENT" => "33",
            _ => return state.to_owned(),
        };
        self.coloured(code, state)
    }

    /// The sign of a change: `+`, `-`, `~`, or what is none.
    pub(crate) fn change(self, sign: &str) -> String {
        let code = match sign {
            "+" => "32",
            "-" => "31",
            "~" => "33",
            _ => return sign.to_owned(),
        };
        self.coloured(code, sign)
    }

    fn coloured(self, code: &str, text: &str) -> String {
        if self.colour {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }
}

/// Tells the person at the terminal, beside what is printed; nobody may be there any more.
pub(crate) fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Prints to standard output; a reader that has gone away (`| head`) is no failure.
pub(crate) fn out(text: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| {
        if text.ends_with('\n') {
            Ok(())
        } else {
            stdout.write_all(b"\n")
        }
    });
    match written.and_then(|()| stdout.flush()) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        Err(e) => Err(Failure::new(
            Exit::Refused,
            format!("cannot write to standard output: {e}"),
        )),
        Ok(()) => Ok(()),
    }
}

/// The machine-readable forms; None: the caller prints for people.
pub(crate) fn structured<T: Serialize>(style: Style, value: &T) -> Option<Result<String, Failure>> {
    let text = match style.output {
        Output::Json => serde_json::to_string_pretty(value).map_err(|e| e.to_string()),
        Output::Yaml => serde_saphyr::to_string(value).map_err(|e| e.to_string()),
        _ => return None,
    };
    Some(text.map_err(|e| Failure::new(Exit::Refused, format!("cannot print the answer: {e}"))))
}

/// Columns padded to their widest cell; the last one is not padded.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let visible = |cell: &str| {
        let mut length = 0;
        let mut escape = false;
        for c in cell.chars() {
            match c {
                '\u{1b}' => escape = true,
                'm' if escape => escape = false,
                _ if escape => {}
                _ => length += 1,
            }
        }
        length
    };
    let mut widths: Vec<usize> = head.iter().map(|h| h.len()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(visible(cell));
        }
    }
    let mut text = String::new();
    let head: Vec<String> = head.iter().map(|h| (*h).to_owned()).collect();
    for row in std::iter::once(&head).chain(rows) {
        for (i, cell) in row.iter().enumerate() {
            text.push_str(cell);
            if i + 1 < row.len() {
                text.push_str(&" ".repeat(widths[i] - visible(cell) + 2));
            }
        }
        text.push('\n');
    }
    text
}
