//! `edit`: the definition in an editor, written back under the etag it was read with.

use std::{io::Write, path::Path};

use gantry_client::v1::Connector;

use super::Session;
use crate::{
    definition,
    failure::{Exit, Failure},
    render,
};

/// The fields that a user may write, as a definition file has them.
pub(crate) fn editable(c: &Connector) -> Connector {
    Connector {
        name: render::short(&c.name).to_owned(),
        uid: String::new(),
        etag: String::new(),
        kind: 0,
        generation: 0,
        observed_generation: 0,
        reconciling: false,
        state: 0,
        error: None,
        plan_error: None,
        allowed_actions: Vec::new(),
        task_counts: None,
        create_time: None,
        update_time: None,
        delete_time: None,
        ..c.clone()
    }
}

pub(super) async fn run(s: &Session, name: &str) -> Result<(), Failure> {
    let before = s.client.get(name).await?;
    let text = serde_saphyr::to_string(&editable(&before))
        .map_err(|e| Failure::new(Exit::Refused, format!("cannot write the definition: {e}")))?;
    let io = |e: std::io::Error| Failure::new(Exit::Refused, format!("cannot edit: {e}"));
    let mut file = tempfile::Builder::new()
        .prefix("gantry-")
        .suffix(".yaml")
        .tempfile()
        .map_err(io)?;
    file.write_all(text.as_bytes()).map_err(io)?;
    file.flush().map_err(io)?;
    editor(file.path())?;
    let edited = std::fs::read_to_string(file.path()).map_err(io)?;
    if edited == text {
        return render::out("unchanged");
    }
    let shown = format!("{} (edited)", render::short(&before.name));
    let attempt = async {
        let mut all = definition::parse(&edited, &shown)?;
        let mut connector = all.pop().map(|d| d.connector).unwrap_or_default();
        connector.etag = before.etag.clone();
        Ok::<_, Failure>(s.client.update(connector, &["*"], false).await?)
    };
    match attempt.await {
        Ok(after) => render::out(&format!(
            "{} updated, generation {}",
            after.name, after.generation
        )),
        Err(failure) => {
            // What somebody typed is never thrown away.
            let kept = file.into_temp_path().keep().map_err(|e| io(e.error))?;
            Err(failure.at(format!("your text is kept in {}", kept.display())))
        }
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "the editor is the user's, and named by these variables everywhere"
)]
fn editor(path: &Path) -> Result<(), Failure> {
    let editor = std::env::var("VISUAL")
        .or_else(|_| std::env::var("EDITOR"))
        .unwrap_or_else(|_| "vi".into());
    let status = std::process::Command::new("sh")
        .arg("-c")
        .arg(format!("{editor} \"$1\""))
        .arg("sh")
        .arg(path)
        .status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failure::new(Exit::Refused, format!("the editor ended with {status}")).at(editor)),
        Err(e) => Err(
            Failure::new(Exit::Refused, format!("cannot start the editor: {e}"))
                .at(editor)
                .fix("set EDITOR"),
        ),
    }
}
