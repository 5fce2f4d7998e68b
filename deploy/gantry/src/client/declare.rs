//! `gantry apply`, `diff`, `delete` and `export`: connectors as files define them.

mod export;
mod remove;

use std::{collections::BTreeMap, io::IsTerminal, path::PathBuf};

use gantry_client::{
    Deletion, Error,
    v1::{Connector, PlanConnectorsResponse, PlannedChange, planned_change::Action},
};
use tonic::Code;

pub(super) use self::{export::export, remove::remove};
use super::{Session, wait};
use crate::{
    args::{Apply, Changes, Files, Output, Prune},
    definition::{self, Definition},
    failure::{Exit, Failure},
    render::{self, Counts, short},
};

/// What files define, by id.
struct Declared {
    connectors: BTreeMap<String, Definition>,
    shown: String,
}

impl Declared {
    fn read(files: &Files) -> Result<Self, Failure> {
        let all = definition::read_all(&files.files, files.recursive)?;
        let named = all.into_iter().map(|d| (short(&d.connector.name).to_owned(), d));
        let shown: Vec<String> = files.files.iter().map(|f| f.display().to_string()).collect();
        Ok(Self {
            connectors: named.collect(),
            shown: shown.join(", "),
        })
    }

    /// What has to be done. A definition that is refused is a failure, before anything is done.
    async fn plan(&self, s: &Session, prune: &Prune) -> Result<PlanConnectorsResponse, Failure> {
        let filter = self.prune_filter(prune)?;
        let wanted: Vec<Connector> = self.connectors.values().map(|d| d.connector.clone()).collect();
        let plan = s.client.plan(&wanted, filter.as_deref()).await;
        let plan = plan.map_err(|error| match error {
            // What is larger than a message never reaches the code that says why.
            Error::Refused {
                code: Code::OutOfRange,
                ..
            } => Failure::new(
                Exit::Refused,
                "the definitions are larger together than the control plane takes at once, 4 MiB",
            )
            .at(&self.shown)
            .fix("give them in parts, each with its own --selector if you prune"),
            other => other.into(),
        })?;
        self.refused(&plan)?;
        Ok(plan)
    }

    /// Pruning takes its bounds from whoever asks for it, never from what happens to be there.
    fn prune_filter(&self, prune: &Prune) -> Result<Option<String>, Failure> {
        if !prune.prune {
            return Ok(None);
        }
        if prune.all {
            return Ok(Some(String::new()));
        }
        if prune.selector.is_empty() {
            return Err(Failure::usage("--prune does not say among which connectors")
                .at("--prune")
                .fix("add --selector K=V for those with that label, or --all for all of the cluster"));
        }
        // In a filter it stands for any characters.
        if let Some((key, value)) = prune.selector.iter().find(|(_, value)| value.contains('*')) {
            return Err(
                Failure::usage("a label's value is compared as a whole; * stands for nothing else")
                    .at(format!("--selector {key}={value}"))
                    .fix("give the whole value, or --all for all of the cluster"),
            );
        }
        for d in self.connectors.values() {
            for (key, value) in &prune.selector {
                if d.connector.labels.get(key) != Some(value) {
                    let name = short(&d.connector.name);
                    return Err(Failure::usage(format!(
                        "{name} has no label {key}={value}, so --prune would not find it again"
                    ))
                    .at(&d.place)
                    .fix(format!(
                        "add the label {key}: {value}, or give another --selector"
                    )));
                }
            }
        }
        let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
        let terms = prune
            .selector
            .iter()
            .map(|(key, value)| format!("labels.{}={}", quoted(key), quoted(value)));
        Ok(Some(terms.collect::<Vec<_>>().join(" AND ")))
    }

    fn refused(&self, plan: &PlanConnectorsResponse) -> Result<(), Failure> {
        let refused: Vec<&PlannedChange> = plan
            .changes
            .iter()
            .filter(|c| c.action() == Action::Refused)
            .collect();
        let message = match refused.as_slice() {
            [] => return Ok(()),
            [one] => format!("{} is not valid, and nothing was written", one.name),
            several => format!(
                "{} definitions are not valid, and nothing was written",
                several.len()
            ),
        };
        let mut failure = Failure::new(Exit::Refused, message);
        let mut fixes = Vec::new();
        for change in refused {
            let place = self.connectors.get(short(&change.name)).map_or("", |d| &d.place);
            for f in &change.findings {
                failure = failure.at(format!("{place} {}: {}", f.field, f.message));
                fixes.push(f.fix.as_str());
            }
        }
        Err(failure.fix(match fixes.as_slice() {
            [one] if !one.is_empty() => (*one).to_owned(),
            _ => "change each field that is named above".to_owned(),
        }))
    }
}

pub(super) async fn diff(s: &Session, args: &Changes) -> Result<(), Failure> {
    let declared = Declared::read(&args.files)?;
    let plan = declared.plan(s, &args.prune).await?;
    show(s, &plan)?;
    let changes = Counts::of(&plan.changes).changes();
    if args.exit_code && changes > 0 {
        return Err(Failure::new(
            Exit::Refused,
            format!("{changes} connectors are not as they shall be"),
        )
        .at(declared.shown)
        .fix("gantry apply -f ..."));
    }
    Ok(())
}

pub(super) async fn apply(s: &Session, args: &Apply) -> Result<(), Failure> {
    let declared = Declared::read(&args.files)?;
    let plan = declared.plan(s, &args.prune).await?;
    let nothing = Counts::of(&plan.changes).changes() == 0;
    // Whoever gave the hash has seen the plan.
    if nothing
        || args.dry_run
        || args.plan_hash.is_none()
        || s.style.output == Output::Json
        || s.style.output == Output::Yaml
    {
        show(s, &plan)?;
    }
    if nothing || args.dry_run {
        return Ok(());
    }
    match &args.plan_hash {
        Some(hash) if *hash != plan.plan_hash => {
            return Err(Failure::new(
                Exit::Refused,
                "the plan is another one now, and nothing was written",
            )
            .at(format!("--plan-hash {hash}, but the plan is {}", plan.plan_hash))
            .fix("look at it with `gantry diff`, and give its hash"));
        }
        Some(_) => {}
        None => confirm(args.yes, &args.files.files, "--yes or --plan-hash HASH")?,
    }
    carry_out(s, args, &declared, &plan).await
}

/// One connector after the other, those to be deleted last; stops at the first that fails.
async fn carry_out(
    s: &Session,
    args: &Apply,
    declared: &Declared,
    plan: &PlanConnectorsResponse,
) -> Result<(), Failure> {
    let (deleted, written): (Vec<&PlannedChange>, Vec<&PlannedChange>) = plan
        .changes
        .iter()
        .filter(|c| c.action() != Action::None)
        .partition(|c| c.action() == Action::Delete);
    let all = written.len() + deleted.len();
    let mut done = Vec::with_capacity(all);
    for change in written.into_iter().chain(deleted) {
        match one(s, args, declared, change).await {
            Ok(generation) => done.push((change, generation)),
            Err(failure) => {
                return Err(failure
                    .at(format!(
                        "{}: {} of {all} changes were made before it",
                        change.name,
                        done.len()
                    ))
                    .fix("do away with the cause and run it again: what was done is not done again"));
            }
        }
    }
    if args.wait.wait {
        for (change, generation) in done {
            match change.action() {
                Action::Delete => wait::gone(s, &change.name, args.wait.timeout).await?,
                _ => wait::followed(s, &change.name, generation, args.wait.timeout).await?,
            }
        }
    }
    Ok(())
}

/// Carries one change out, provided that the connector is still what the plan was made for. Returns its generation.
async fn one(s: &Session, args: &Apply, declared: &Declared, change: &PlannedChange) -> Result<i64, Failure> {
    let wanted = || {
        let found = declared.connectors.get(short(&change.name));
        found.map(|d| d.connector.clone()).unwrap_or_default()
    };
    match change.action() {
        Action::Create => {
            let created = s.client.create(wanted(), false).await?;
            said(s, &change.name, "created")?;
            Ok(created.generation)
        }
        Action::Update => {
            let connector = Connector {
                etag: change.etag.clone(),
                uid: change.uid.clone(),
                ..wanted()
            };
            let updated = s.client.update(connector, &["*"], false).await?;
            said(
                s,
                &change.name,
                &format!("updated, generation {}", updated.generation),
            )?;
            Ok(updated.generation)
        }
        Action::Delete => {
            let deletion = Deletion {
                etag: change.etag.clone(),
                force: true,
                keep_offsets: args.keep_offsets,
                allow_missing: true,
            };
            s.client.delete_with(&change.name, &deletion).await?;
            said(s, &change.name, "is being deleted")?;
            Ok(0)
        }
        Action::None | Action::Refused | Action::Unspecified => Ok(0),
    }
}

fn show(s: &Session, plan: &PlanConnectorsResponse) -> Result<(), Failure> {
    match render::structured(s.style, plan) {
        Some(text) => render::out(&text?),
        None => render::out(&render::plan(s.style, plan)),
    }
}

/// What has become of a connector: with `-o json` and the like standard output is for the plan alone.
fn said(s: &Session, name: &str, what: &str) -> Result<(), Failure> {
    match s.style.output {
        Output::Table | Output::Wide => render::out(&format!("{name} {what}")),
        Output::Json | Output::Yaml | Output::Name => {
            render::note(&format!("{name} {what}"));
            Ok(())
        }
    }
}

/// Asks whoever sits at the terminal.
fn confirm(yes: bool, files: &[PathBuf], instead: &str) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    let stdin = std::io::stdin();
    if !stdin.is_terminal() || files.iter().any(|f| f.as_os_str() == "-") {
        return Err(Failure::usage("nothing was written: nobody can be asked here")
            .at("standard input is no terminal")
            .fix(format!("look at the plan, then give {instead}")));
    }
    eprint!("Carry this out? [y/N] ");
    let mut answer = String::new();
    let read = stdin.read_line(&mut answer);
    if read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes") {
        return Ok(());
    }
    Err(Failure::new(Exit::Refused, "nothing was written")
        .at("the answer was not y")
        .fix("run it again and answer y, or give --yes"))
}
