use gantry_client::{
    Deletion,
    v1::{Connector, View},
};

use super::{Declared, confirm, said};
use crate::{
    args::DeleteFiles,
    client::{Session, wait},
    failure::Failure,
    render::{self, short},
};

/// `gantry delete -f`: one connector after the other. Those that are not there are no failure, so that it can be run again.
pub(in crate::client) async fn remove(s: &Session, args: &DeleteFiles) -> Result<(), Failure> {
    let declared = Declared::read(&args.files)?;
    let present = s.client.list("", View::Basic).await?;
    let going: Vec<&Connector> = present
        .iter()
        .filter(|c| declared.connectors.contains_key(short(&c.name)))
        .collect();
    if going.is_empty() {
        return render::out("nothing to delete: no connector of these is there");
    }
    if !args.yes {
        let lines = going
            .iter()
            .map(|c| format!("{} {}: delete\n", s.style.change("-"), c.name));
        render::out(&lines.collect::<String>())?;
    }
    confirm(args.yes, &args.files.files, "--yes")?;
    for connector in &going {
        let deletion = Deletion {
            etag: connector.etag.clone(),
            force: args.force,
            keep_offsets: args.keep_offsets,
            allow_missing: true,
        };
        s.client.delete_with(&connector.name, &deletion).await?;
        said(s, &connector.name, "is being deleted")?;
    }
    if args.wait.wait {
        for connector in going {
            wait::gone(s, &connector.name, args.wait.timeout).await?;
            said(s, &connector.name, "deleted")?;
        }
    }
    Ok(())
}
