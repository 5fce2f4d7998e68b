//! Where a file starts when an operator alters its position, and how much of it is left.

use std::path::{Path, PathBuf};

use gantry_connector::{Config, ConnectorError, Env, Fields, Lag, Start, StartPosition};

use super::{
    config::Settings,
    discover::Patterns,
    open_file::OpenFile,
    position::{Place, partition, path_of},
};

pub(super) fn start_at(
    config: &Config,
    given: &Fields,
    start: &Start,
    env: &Env,
) -> Result<StartPosition, ConnectorError> {
    let settings = Settings::read(config)?;
    let path = path_of(given)?;
    if !Patterns::new(&settings.paths, &settings.exclude)?.covers(&path) {
        return Err(
            ConnectorError::user(format!("{} is not among the files that are read", path.display()))
                .fix("give the path as paths and exclude of the configuration cover it"),
        );
    }
    let file = File { path, settings, env };
    let mut position = match start {
        Start::Position(position) => {
            file.accepts(&Place::from_fields(given, position)?)?;
            position.clone()
        }
        Start::Earliest => Fields::new().with("byte", 0u64),
        Start::Latest => Fields::new().with("byte", file.length()?),
        Start::Time(_) => return Err(start.unknown_to("file-source")),
    };
    // A person may have written it signed.
    if let Some(byte) = position.uint("byte") {
        position.set("byte", byte);
    }
    let partition = partition(&file.path);
    Ok(StartPosition { partition, position })
}

/// Only of a file that is at its path and not compressed: what a position counts is its content.
pub(super) fn lag(config: &Config, at: &StartPosition, env: &Env) -> Result<Option<Lag>, ConnectorError> {
    let place = Place::from_fields(&at.partition, &at.position)?;
    let file = File {
        path: path_of(&at.partition)?,
        settings: Settings::read(config)?,
        env,
    };
    let Some(opened) = file.open()? else {
        return Ok(None);
    };
    let other = |e| failed(&file.path, e);
    let same = place.file.as_ref().is_none_or(|id| id.inode == opened.inode().1);
    if !same || !opened.is_plain().map_err(other)? {
        return Ok(None);
    }
    let amount = opened.stat().size.saturating_sub(place.byte);
    Ok(Some(Lag {
        amount,
        unit: "bytes",
    }))
}

struct File<'a> {
    path: PathBuf,
    settings: Settings,
    env: &'a Env,
}

impl File<'_> {
    /// None: it is not on this host, or not to be read here.
    fn open(&self) -> Result<Option<OpenFile>, ConnectorError> {
        let Ok(resolved) = self.env.paths.resolve(&self.path) else {
            return Ok(None);
        };
        match OpenFile::open(&resolved, self.settings.compression) {
            Ok(file) => Ok(Some(file)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(failed(&self.path, e)),
        }
    }

    /// Refuses what the file shows to be wrong, if it is here to be looked at.
    fn accepts(&self, place: &Place) -> Result<(), ConnectorError> {
        let other = |e| failed(&self.path, e);
        let Some(file) = self.open()? else { return Ok(()) };
        let shown = self.path.display();
        if let Some(id) = &place.file {
            if id.inode != file.inode().1 {
                // One that was renamed: its task looks for it.
                return Ok(());
            }
            if !file.fits(&id.head).map_err(other)? {
                return Err(ConnectorError::user(format!(
                    "{shown} does not begin as the position's file says"
                ))
                .fix("leave file out: byte then counts in whatever is at the path"));
            }
        }
        let size = file.stat().size;
        if place.byte <= size || !file.is_plain().map_err(other)? {
            return Ok(());
        }
        Err(ConnectorError::user(format!("{shown} has only {size} bytes"))
            .fix(format!("set byte to a number from 0 to {size}")))
    }

    fn length(&self) -> Result<u64, ConnectorError> {
        let shown = self.path.display();
        let Some(file) = self.open()? else {
            return Err(ConnectorError::environment(format!(
                "there is no file {shown} on this host"
            )));
        };
        if !file.is_plain().map_err(|e| failed(&self.path, e))? {
            return Err(ConnectorError::user(format!(
                "the length of {shown} is not known: it is compressed"
            ))
            .fix("set byte to the number of bytes of the content to skip"));
        }
        Ok(file.stat().size)
    }
}

fn failed(path: &Path, e: std::io::Error) -> ConnectorError {
    ConnectorError::environment(format!("cannot read {}", path.display())).because(e)
}
