//! Flag over variable over file: the file's values become the defaults of the flags.

use std::{ffi::OsString, path::PathBuf};

use clap::{CommandFactory, FromArgMatches};

use crate::{
    args::Cli,
    failure::{Exit, Failure},
};

/// Parses the command line with the file named by `--config` or `GANTRY_CONFIG`. Help and wrong usage end the process.
pub(crate) fn parse() -> Result<Cli, Failure> {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let mut command = Cli::command();
    if let Some(path) = config_file(&arguments) {
        command = with_file(command, &path)?;
    }
    let matches = command
        .try_get_matches_from(&arguments)
        .unwrap_or_else(|e| e.exit());
    Ok(Cli::from_arg_matches(&matches).unwrap_or_else(|e| e.exit()))
}

#[allow(clippy::disallowed_methods, reason = "this is where settings are read")]
fn config_file(arguments: &[OsString]) -> Option<PathBuf> {
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let Some(text) = argument.to_str() else { continue };
        if text == "--config" {
            return rest.next().map(PathBuf::from);
        }
        if let Some(path) = text.strip_prefix("--config=") {
            return Some(path.into());
        }
    }
    std::env::var_os("GANTRY_CONFIG").map(PathBuf::from)
}

fn with_file(mut command: clap::Command, path: &PathBuf) -> Result<clap::Command, Failure> {
    let bad = |what: String| {
        Failure::new(Exit::Usage, what)
            .at(path.display().to_string())
            .fix("keys are the long names of the flags, as in `listen = \"127.0.0.1:7420\"`")
    };
    let text = std::fs::read_to_string(path).map_err(|e| bad(format!("cannot read the settings: {e}")))?;
    let table: toml::Table = text
        .parse()
        .map_err(|e: toml::de::Error| bad(format!("the settings are not TOML: {}", e.message())))?;
    for (key, value) in table {
        let flag = key.replace('_', "-");
        let values = texts(&value).ok_or_else(|| {
            bad(format!(
                "`{key}` must be a text, a number, a truth value or a list"
            ))
        })?;
        let mut used = false;
        command = set_default(command, &flag, &values, &mut used);
        let names: Vec<String> = command
            .get_subcommands()
            .map(|c| c.get_name().to_owned())
            .collect();
        for name in names {
            command = command.mut_subcommand(name, |c| set_default(c, &flag, &values, &mut used));
        }
        if !used {
            return Err(bad(format!("`{key}` is not a setting")));
        }
    }
    Ok(command)
}

fn set_default(command: clap::Command, flag: &str, values: &[String], used: &mut bool) -> clap::Command {
    let Some(id) = command
        .get_arguments()
        .find(|a| a.get_long() == Some(flag))
        .map(|a| a.get_id().clone())
    else {
        return command;
    };
    *used = true;
    let values: Vec<clap::builder::OsStr> = values.iter().map(|v| v.clone().into()).collect();
    command.mut_arg(id, |a| a.required(false).default_values(values))
}

fn texts(value: &toml::Value) -> Option<Vec<String>> {
    match value {
        toml::Value::String(s) => Some(vec![s.clone()]),
        toml::Value::Integer(i) => Some(vec![i.to_string()]),
        toml::Value::Boolean(b) => Some(vec![b.to_string()]),
        toml::Value::Array(all) => all.iter().map(|v| texts(v)?.pop()).collect(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use clap::error::ErrorKind;

    use super::*;

    #[test]
    fn the_flags_are_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_file_gives_defaults_and_flags_win() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gantry.toml");
        std::fs::write(
            &path,
            "etcd = [\"http://a:1\", \"http://b:2\"]\nnamesrv = \"x:1\"\n",
        )
        .unwrap();
        let parse = |arguments: &[&str]| {
            let command = with_file(Cli::command(), &path).unwrap();
            Cli::from_arg_matches(&command.try_get_matches_from(arguments).unwrap()).unwrap()
        };
        let crate::args::Command::Server(server) = parse(&["gantry", "server", "--namesrv", "y:2"]).command
        else {
            panic!("not a server")
        };
        assert_eq!(server.etcd, ["http://a:1", "http://b:2"]);
        assert_eq!(server.namesrv, "y:2");
    }

    #[test]
    fn an_unknown_key_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gantry.toml");
        std::fs::write(&path, "listne = 1\n").unwrap();
        let failure = with_file(Cli::command(), &path).unwrap_err().to_string();
        assert!(failure.contains("`listne` is not a setting"), "{failure}");
        assert_eq!(
            Cli::command()
                .try_get_matches_from(["gantry", "nonsense"])
                .unwrap_err()
                .kind(),
            ErrorKind::InvalidSubcommand
        );
    }
}
