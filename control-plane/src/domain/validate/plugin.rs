//! The plugin, its version and its configuration.

use gantry_proto::{
    name::PluginName,
    v1::{
        self,
        connector::{Kind, OnDisconnect, Ordering},
    },
};
use serde_json::Map;

use super::{Found, nearest, shorten};
use crate::domain::{
    catalog::{Catalog, Entry},
    spec,
};

/// The plugin's direction, if that is known.
pub(super) fn check(d: &v1::Connector, catalog: &Catalog, found: &mut Found) -> Option<Kind> {
    let entry = find(d, catalog, found)?;
    let given = d.config.as_ref().map_or_else(Map::new, spec::to_json);
    if let Err(violations) =
        spec::config_spec(entry.plugin.spec.as_ref().unwrap_or(&v1::ConfigSpec::default())).check(&given)
    {
        for v in violations {
            found.add(format!("config.{}", v.param), v.message, v.fix);
        }
    }
    if d.on_disconnect() == OnDisconnect::Continue {
        let why = if entry.plugin.exclusive {
            format!("two tasks of {} must never overlap", d.plugin)
        } else if d.ordering() == Ordering::Key {
            "order by key does not survive two tasks that overlap".to_owned()
        } else {
            "agents do not go on yet when they are cut off".to_owned()
        };
        found.add(
            "on_disconnect",
            format!("cannot be CONTINUE: {why}"),
            "use STOP, or leave it out",
        );
    }
    Some(entry.plugin.kind()).filter(|kind| *kind != Kind::Unspecified)
}

fn find<'c>(d: &v1::Connector, catalog: &'c Catalog, found: &mut Found) -> Option<&'c Entry> {
    if d.plugin.is_empty() {
        found.add("plugin", "is required", known(catalog));
        return None;
    }
    if let Err(error) = PluginName::parse_lenient(&d.plugin) {
        found.add("plugin", error.to_string(), known(catalog));
        return None;
    }
    let versions = catalog.versions(&d.plugin);
    if versions.is_empty() {
        let fix = match nearest(&d.plugin, catalog.ids()) {
            Some(name) => format!("did you mean {name}?"),
            None => known(catalog),
        };
        found.add(
            "plugin",
            format!("no agent has brought a plugin {:?}", d.plugin),
            fix,
        );
        return None;
    }
    let entry = catalog.choose(&d.plugin, &d.plugin_version);
    if entry.is_none() {
        let message = format!(
            "no agent has brought {} in version {:?}",
            d.plugin,
            shorten(&d.plugin_version)
        );
        found.add(
            "plugin_version",
            message,
            format!("leave it out, or use one of {}", versions.join(", ")),
        );
    }
    entry
}

fn known(catalog: &Catalog) -> String {
    let ids: Vec<_> = catalog.ids().collect();
    if ids.is_empty() {
        return "start an agent: it brings the plugins it has".to_owned();
    }
    format!("use one of {}", ids.join(", "))
}
