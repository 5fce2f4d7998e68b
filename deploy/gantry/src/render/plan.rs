use gantry_client::v1::{PlanConnectorsResponse, PlannedChange, planned_change::Action};

use super::{Style, history::differences};
use crate::args::Output;

/// How many connectors have to be changed in which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) create: usize,
    pub(crate) update: usize,
    pub(crate) delete: usize,
    pub(crate) none: usize,
}

impl Counts {
    pub(crate) fn of(changes: &[PlannedChange]) -> Self {
        let count = |action| changes.iter().filter(|c| c.action() == action).count();
        Self {
            create: count(Action::Create),
            update: count(Action::Update),
            delete: count(Action::Delete),
            none: count(Action::None),
        }
    }

    /// What is not as it shall be.
    pub(crate) fn changes(self) -> usize {
        self.create + self.update + self.delete
    }
}

/// Sign and word of an action.
fn told(action: Action) -> (&'static str, &'static str) {
    match action {
        Action::Create => ("+", "create"),
        Action::Update => ("~", "update"),
        Action::Delete => ("-", "delete"),
        Action::Refused => ("!", "refused"),
        Action::None | Action::Unspecified => ("=", "unchanged"),
    }
}

/// What is to be done, connector by connector; with `-o wide` also those to which nothing is.
pub(crate) fn plan(style: Style, plan: &PlanConnectorsResponse) -> String {
    let shown = |c: &&PlannedChange| c.action() != Action::None || style.output == Output::Wide;
    if style.output == Output::Name {
        let names = plan.changes.iter().filter(shown);
        return names.map(|c| format!("{}\n", c.name)).collect();
    }
    let mut text = String::new();
    for change in plan.changes.iter().filter(shown) {
        let (sign, word) = told(change.action());
        text.push_str(&format!("{} {}: {word}\n", style.change(sign), change.name));
        for line in differences(style, &change.differences).lines() {
            text.push_str(&format!("  {line}\n"));
        }
        if change.omitted > 0 {
            text.push_str(&format!("    and {} more\n", change.omitted));
        }
    }
    let counts = Counts::of(&plan.changes);
    let Counts {
        create,
        update,
        delete,
        none,
    } = counts;
    text.push_str(&match counts.changes() {
        0 => format!("nothing to change: {none} are as they shall be\n"),
        _ => format!("{create} to create, {update} to update, {delete} to delete, {none} unchanged\n"),
    });
    if counts.changes() > 0 && !plan.plan_hash.is_empty() {
        text.push_str(&format!("plan {}\n", plan.plan_hash));
    }
    text
}
