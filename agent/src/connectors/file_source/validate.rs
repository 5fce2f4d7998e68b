use std::{
    collections::BTreeSet,
    fs::File,
    io,
    path::{Path, PathBuf},
};

use gantry_connector::{Config, ConnectorError, Env, Finding, Severity};

use super::{config::Settings, discover::Patterns, trouble::Trouble};

/// So many matched files are opened to see whether they can be read.
const TRIED: usize = 100;

/// Whether the files can be read here. Opens them and reads nothing.
pub(super) fn validate(config: &Config, env: &Env) -> Vec<Finding> {
    let settings = match Settings::read(config) {
        Ok(settings) => settings,
        Err(e) => return vec![finding(Severity::Error, e)],
    };
    let patterns = match Patterns::new(&settings.paths, &settings.exclude) {
        Ok(patterns) => patterns,
        Err(e) => return vec![finding(Severity::Error, e)],
    };
    let absent = if settings.follow {
        Severity::Warning
    } else {
        Severity::Error
    };
    let mut findings: Vec<_> = patterns
        .literal()
        .filter_map(|path| try_file(path, env, absent))
        .collect();
    if patterns.is_open() {
        let (matched, troubles) = patterns.matches();
        findings.extend(
            patterns
                .bases()
                .filter_map(|b| Some(finding(Severity::Error, env.paths.resolve(b).err()?))),
        );
        findings.extend(
            matched
                .iter()
                .take(TRIED)
                .filter_map(|path| try_file(path, env, Severity::Warning)),
        );
        findings.extend(rotated(&matched));
        let silent = matched.is_empty() && troubles.is_empty();
        findings.extend(troubles.into_iter().map(|t| {
            let severity = if t.permanent || t.denied {
                Severity::Error
            } else {
                absent
            };
            finding(severity, t.error)
        }));
        if silent {
            let nothing =
                ConnectorError::user("no file matches").fix("correct paths, unless files will appear later");
            findings.push(finding(Severity::Warning, nothing));
        }
    }
    findings
}

fn try_file(path: &Path, env: &Env, absent: Severity) -> Option<Finding> {
    let resolved = match env.paths.resolve(path) {
        Ok(resolved) => resolved,
        Err(e) => return Some(finding(Severity::Error, e)),
    };
    if resolved.is_dir() {
        let e = ConnectorError::user(format!("{} is a directory", path.display()))
            .fix(format!("write {}/* to read the files in it", path.display()));
        return Some(finding(Severity::Error, e));
    }
    let e = File::open(&resolved).err()?;
    if e.kind() == io::ErrorKind::NotFound {
        let missing = Trouble::missing(
            path,
            "create the file, or correct paths; it is read as soon as it exists",
        );
        return Some(finding(absent, missing.error));
    }
    Some(finding(Severity::Error, Trouble::io("open", path, e).error))
}

/// A file that is renamed to a name that is read too can be told from a new one only by the task that has read it.
fn rotated(matched: &BTreeSet<PathBuf>) -> Option<Finding> {
    let (file, rotated) = matched.iter().find_map(|path| {
        let stem = path.with_extension("");
        let digits = path.extension()?.to_str()?.chars().all(|c| c.is_ascii_digit());
        (digits && matched.contains(&stem)).then_some((stem, path))
    })?;
    let e = ConnectorError::user(format!("both {} and {} are read", file.display(), rotated.display())).fix(
        "if the second is what the first is renamed to, name such files in exclude: with several tasks they would be read again",
    );
    Some(finding(Severity::Warning, e))
}

fn finding(severity: Severity, e: ConnectorError) -> Finding {
    let fix = e.fix_text().unwrap_or_default().to_owned();
    Finding {
        severity,
        param: "paths".into(),
        message: e.chain(),
        fix,
    }
}
