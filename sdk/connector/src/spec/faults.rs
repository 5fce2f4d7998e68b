use std::collections::HashSet;

use super::{ConfigSpec, ParamType, Rule, coerce::coerce};

impl ConfigSpec {
    /// What is wrong with the spec itself: mistakes of the plugin's author. Empty for a usable spec.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut seen = HashSet::new();
        for p in &self.params {
            let name = &p.name;
            if !well_named(name) {
                faults.push(format!("{name:?}: a name is [a-z][a-z0-9_]*"));
            }
            if !seen.insert(name) {
                faults.push(format!("{name}: defined twice"));
            }
            if p.doc.is_empty() {
                faults.push(format!("{name}: no documentation"));
            }
            if p.required && p.default.is_some() {
                faults.push(format!("{name}: required, yet it has a default"));
            }
            if matches!(&p.kind, ParamType::Enum { choices } if choices.is_empty()) {
                faults.push(format!("{name}: no choices"));
            }
            match &p.default {
                Some(_) if p.secret => faults.push(format!("{name}: a secret cannot have a default")),
                Some(value) => {
                    let found = coerce(p, value).err().into_iter().flatten();
                    faults.extend(found.map(|v| format!("{name}: its default {}", v.message)));
                }
                None => {}
            }
        }
        for rule in &self.rules {
            let unknown = rule.names().filter(|n| self.get(n).is_none());
            faults.extend(unknown.map(|n| format!("a rule speaks of {n}, which is not a parameter")));
            if let Rule::AtMostOne { names } = rule {
                let filled = names
                    .iter()
                    .filter(|n| self.get(n).is_some_and(|p| p.default.is_some()));
                faults.extend(filled.map(|n| format!("{n}: has a default, so it can exclude no other")));
            }
            if let Rule::RequiredWhen { other, equals, .. } | Rule::OnlyWhen { other, equals, .. } = rule
                && let Some(p) = self.get(other)
                && coerce(p, equals).is_err()
            {
                faults.push(format!(
                    "a rule compares {other} with a value that it cannot have"
                ));
            }
        }
        faults
    }
}

fn well_named(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}
