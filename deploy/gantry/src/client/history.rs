//! `gantry connectors history`, `diff` and `rollback`.

use gantry_client::v1::View;

use super::{Session, wait};
use crate::{
    args::{Diff, Output, Rollback},
    failure::Failure,
    render,
};

pub(super) async fn list(s: &Session, name: &str) -> Result<(), Failure> {
    let all = s.client.revisions(name, View::Full).await?;
    match render::structured(s.style, &all) {
        Some(text) => render::out(&text?),
        None => render::out(&render::revisions(s.style, &all)),
    }
}

pub(super) async fn diff(s: &Session, args: &Diff) -> Result<(), Failure> {
    let answer = s
        .client
        .diff_revisions(&args.name, args.revision, args.other)
        .await?;
    if let Some(text) = render::structured(s.style, &answer) {
        return render::out(&text?);
    }
    let name = render::short(&args.name);
    let (from, to) = (args.revision, answer.to_revision);
    if answer.differences.is_empty() {
        return render::out(&format!(
            "connectors/{name}: revisions {from} and {to} are the same"
        ));
    }
    render::out(&format!(
        "connectors/{name}: from revision {from} to {to}\n{}",
        render::differences(s.style, &answer.differences)
    ))
}

pub(super) async fn rollback(s: &Session, args: &Rollback) -> Result<(), Failure> {
    let answer = s
        .client
        .rollback(&args.name, args.revision, &args.etag, args.validate_only)
        .await?;
    let connector = answer.connector.clone().unwrap_or_default();
    if let Some(text) = render::structured(s.style, &answer) {
        render::out(&text?)?;
    } else if s.style.output == Output::Name {
        render::out(&connector.name)?;
    } else {
        let said = match (args.validate_only, answer.changed) {
            (true, _) => "nothing was stored".to_owned(),
            (false, false) => format!("unchanged: revision {} is what it is already", args.revision),
            (false, true) => format!(
                "rolled back to revision {}, generation {}",
                args.revision, connector.generation
            ),
        };
        let differences = render::differences(s.style, &answer.differences);
        render::out(&format!("{differences}{} {said}", connector.name))?;
    }
    if args.wait.wait && !args.validate_only {
        wait::followed(s, &connector.name, connector.generation, args.wait.timeout).await?;
    }
    Ok(())
}
