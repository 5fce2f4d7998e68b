use gantry_client::v1::{Connector, View};

use crate::{
    args::{Export, Output},
    client::{Session, edit::editable},
    definition::written,
    failure::{Exit, Failure},
    render::{self, short},
};

/// `gantry export`: all definitions, as `apply` takes them.
pub(in crate::client) async fn export(s: &Session, args: &Export) -> Result<(), Failure> {
    let all = s.client.list(&args.filter, View::Full).await?;
    let staying: Vec<Connector> = all
        .iter()
        .filter(|c| c.delete_time.is_none())
        .map(editable)
        .collect();
    let (suffix, text): (_, fn(&Connector) -> _) = match s.style.output {
        Output::Json => ("json", written::json),
        _ => ("yaml", written::yaml),
    };
    let Some(dir) = &args.to else {
        let mut documents = Vec::with_capacity(staying.len());
        for connector in &staying {
            documents.push(text(connector)?);
        }
        return render::out(&documents.join("---\n"));
    };
    let io = |e: std::io::Error, path: &std::path::Path| {
        Failure::new(Exit::Refused, format!("cannot write the definition: {e}"))
            .at(path.display().to_string())
            .fix("give a directory that can be written with --to")
    };
    std::fs::create_dir_all(dir).map_err(|e| io(e, dir))?;
    for connector in &staying {
        let path = dir.join(format!("{}.{suffix}", short(&connector.name)));
        std::fs::write(&path, text(connector)?).map_err(|e| io(e, &path))?;
        render::out(&path.display().to_string())?;
    }
    Ok(())
}
