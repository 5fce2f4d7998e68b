//! All rules about a definition, all violations at once.

mod fields;
mod plugin;
mod recommend;
#[cfg(test)]
mod tests;
mod topics;
mod warn;

use gantry_proto::{name::ConnectorName, v1};
use prost::Message;

pub use self::{recommend::recommended, warn::warnings};
use super::catalog::Catalog;
pub use super::normalise::normalise;

/// Largest definition in bytes.
pub const MAX_DEFINITION_BYTES: usize = 256 << 10;
/// Most tasks of a connector.
pub const MAX_TASKS: i32 = 1_000;

/// Something that is wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Path of the field, for example `config.paths[1]`.
    pub field: String,
    /// What is wrong. Never the value of a secret.
    pub message: String,
    /// What to do; may be empty.
    pub fix: String,
}

/// Gathers violations.
#[derive(Default)]
pub(super) struct Found(pub(super) Vec<Violation>);

impl Found {
    pub(super) fn add(
        &mut self,
        field: impl Into<String>,
        message: impl Into<String>,
        fix: impl Into<String>,
    ) {
        self.0.push(Violation {
            field: field.into(),
            message: message.into(),
            fix: fix.into(),
        });
    }
}

/// What is wrong with a definition (normalised or not). `id`: the last part of its name. Empty: it may be stored.
pub fn validate(id: &str, definition: &v1::Connector, catalog: &Catalog) -> Vec<Violation> {
    let mut found = Found::default();
    match ConnectorName::parse(&format!("connectors/{id}")) {
        Err(error) => found.add(
            "name",
            error.to_string(),
            "choose another id, for example orders-in",
        ),
        Ok(name) if !definition.name.is_empty() && definition.name != name.to_string() => {
            let message = format!("is {:?}, but the connector is {name}", shorten(&definition.name));
            found.add("name", message, "leave it empty, or write the same name");
        }
        Ok(_) => {}
    }
    let definition = &normalise(id, definition);
    let kind = plugin::check(definition, catalog, &mut found);
    topics::check(definition, kind, &mut found);
    fields::check(definition, &mut found);
    let size = definition.encoded_len();
    if size > MAX_DEFINITION_BYTES {
        let message = format!("the definition has {size} bytes; at most {MAX_DEFINITION_BYTES} are stored");
        found.add(
            "connector",
            message,
            "make config smaller, or split the connector",
        );
    }
    found.0
}

/// Texts of others, for messages.
pub(super) fn shorten(text: &str) -> String {
    let short: String = text.chars().take(80).collect();
    if short.len() < text.len() {
        format!("{short}...")
    } else {
        short
    }
}

/// The candidate that was probably meant.
pub(super) fn nearest<'a>(given: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let given = given.to_lowercase().replace('-', "_");
    let distance = |c: &str| strsim::damerau_levenshtein(&given, &c.to_lowercase().replace('-', "_"));
    let near = candidates
        .into_iter()
        .map(|c| (distance(c), c))
        .min_by_key(|(distance, _)| *distance);
    near.filter(|(distance, c)| *distance <= 1 + c.len() / 4)
        .map(|(_, c)| c)
}
