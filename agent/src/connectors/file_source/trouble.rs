use std::{io, path::Path};

use gantry_connector::{ConnectorError, Domain};

/// Why a file cannot be read at the moment. It keeps no other file from being read.
#[derive(Debug)]
pub(super) struct Trouble {
    pub(super) error: ConnectorError,
    /// The definition or the position has to be changed.
    pub(super) permanent: bool,
    /// Somebody has to let the agent read it.
    pub(super) denied: bool,
}

impl Trouble {
    pub(super) fn io(doing: &str, path: &Path, e: io::Error) -> Self {
        let what = format!("cannot {doing} {}", path.display());
        let denied = e.kind() == io::ErrorKind::PermissionDenied;
        let fix = match e.kind() {
            io::ErrorKind::PermissionDenied => {
                "let the agent's user read the file and search its directories"
            }
            io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => {
                "the compressed data is damaged: replace the file, or name it in exclude"
            }
            io::ErrorKind::Other => "name regular files only, or name it in exclude",
            _ => "bring the file system back; reading goes on by itself",
        };
        Self {
            error: ConnectorError::environment(what).because(e).fix(fix),
            permanent: false,
            denied,
        }
    }

    pub(super) fn missing(path: &Path, fix: &str) -> Self {
        let error = ConnectorError::environment(format!("{} does not exist", path.display())).fix(fix);
        Self {
            error,
            permanent: false,
            denied: false,
        }
    }

    pub(super) fn cut_off(path: &Path) -> Self {
        let error = ConnectorError::environment(format!(
            "the compressed data of {} ends in the middle",
            path.display()
        ))
        .fix("complete the file, or name it in exclude");
        Self {
            error,
            permanent: false,
            denied: false,
        }
    }

    pub(super) fn position(path: &Path, byte: u64, why: &str) -> Self {
        let error = ConnectorError::user(format!("cannot read {} from byte {byte}: {why}", path.display()))
            .fix("set another byte, or reset the connector's offsets");
        Self {
            error,
            permanent: true,
            denied: false,
        }
    }

    /// As it is told when the task starts: what cannot change by itself is not tried again.
    pub(super) fn at_start(self) -> ConnectorError {
        if self.permanent {
            in_domain(Domain::User, self.error)
        } else {
            self.error
        }
    }
}

impl From<ConnectorError> for Trouble {
    fn from(error: ConnectorError) -> Self {
        let permanent = error.domain() == Domain::User;
        Self {
            error: in_domain(Domain::Environment, error),
            permanent,
            denied: false,
        }
    }
}

fn in_domain(domain: Domain, error: ConnectorError) -> ConnectorError {
    if error.domain() == domain {
        return error;
    }
    let fix = error.fix_text().unwrap_or_default().to_owned();
    ConnectorError::new(domain, error.chain()).fix(fix)
}
