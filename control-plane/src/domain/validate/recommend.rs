//! Values that a field would take, if there are few of them.

use gantry_proto::v1::{self, param::Type};
use pbjson_types::value::Kind;

use crate::domain::catalog::Catalog;

/// So many are named.
const MOST: usize = 50;

/// What would be accepted at that path of a definition. Empty: too much to name.
pub fn recommended(field: &str, definition: &v1::Connector, catalog: &Catalog) -> Vec<String> {
    let owned = |names: Vec<&str>| names.into_iter().take(MOST).map(str::to_owned).collect();
    match field {
        "plugin" => owned(catalog.ids().collect()),
        "plugin_version" => owned(catalog.versions(&definition.plugin)),
        "on_disconnect" => vec!["STOP".into()],
        _ => field
            .strip_prefix("config.")
            .and_then(|param| choices(param, definition, catalog))
            .unwrap_or_default(),
    }
}

fn choices(name: &str, definition: &v1::Connector, catalog: &Catalog) -> Option<Vec<String>> {
    let entry = catalog.choose(&definition.plugin, &definition.plugin_version)?;
    let param = entry
        .plugin
        .spec
        .as_ref()?
        .params
        .iter()
        .find(|p| p.name == name)?;
    Some(match param.r#type() {
        Type::Enum => param.choices.iter().take(MOST).cloned().collect(),
        Type::Bool => vec!["true".into(), "false".into()],
        _ => match param.default_value.as_ref()?.kind.as_ref()? {
            Kind::StringValue(text) => vec![text.clone()],
            Kind::NumberValue(number) => vec![number.to_string()],
            _ => return None,
        },
    })
}
