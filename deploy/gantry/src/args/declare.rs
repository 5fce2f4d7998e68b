//! Arguments of the commands that take definition files.

use std::path::PathBuf;

use clap::Args;

use super::{Wait, key_value};

#[derive(Args)]
pub(crate) struct Files {
    /// Definition file, or a directory of them (.yaml, .yml, .json); may be repeated; `-`: standard input
    #[arg(short, long = "file", required = true, value_name = "FILE|DIR")]
    pub(crate) files: Vec<PathBuf>,
    /// Also directories below directories
    #[arg(short = 'R', long)]
    pub(crate) recursive: bool,
}

#[derive(Args)]
pub(crate) struct Prune {
    /// Delete connectors that the files do not define; --selector or --all says which
    #[arg(long)]
    pub(crate) prune: bool,
    /// Prune among the connectors with these labels; all files have to define such
    #[arg(short = 'l', long, requires = "prune", value_delimiter = ',', value_parser = key_value, value_name = "K=V[,K=V]")]
    pub(crate) selector: Vec<(String, String)>,
    /// Prune among all connectors of the cluster
    #[arg(long, requires = "prune", conflicts_with = "selector")]
    pub(crate) all: bool,
}

#[derive(Args)]
pub(crate) struct Apply {
    #[command(flatten)]
    pub(crate) files: Files,
    #[command(flatten)]
    pub(crate) prune: Prune,
    /// Keep the offsets of pruned connectors for 30 days
    #[arg(long, requires = "prune")]
    pub(crate) keep_offsets: bool,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Do not ask, and change something only if the plan has this hash; see `gantry diff`
    #[arg(long, value_name = "HASH")]
    pub(crate) plan_hash: Option<String>,
    /// Show the plan, change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) wait: Wait,
}

#[derive(Args)]
pub(crate) struct Changes {
    #[command(flatten)]
    pub(crate) files: Files,
    #[command(flatten)]
    pub(crate) prune: Prune,
    /// End with 1 if there is something to change
    #[arg(long)]
    pub(crate) exit_code: bool,
}

#[derive(Args)]
pub(crate) struct DeleteFiles {
    #[command(flatten)]
    pub(crate) files: Files,
    /// Stop them first, from any state
    #[arg(long)]
    pub(crate) force: bool,
    /// Keep the offsets for 30 days
    #[arg(long)]
    pub(crate) keep_offsets: bool,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) wait: Wait,
}

#[derive(Args)]
pub(crate) struct Export {
    /// Only those that match, as in `state=RUNNING AND labels.team=billing`
    #[arg(long, default_value = "", hide_default_value = true, value_name = "EXPR")]
    pub(crate) filter: String,
    /// Write a file for each connector into this directory, instead of all to standard output
    #[arg(long, value_name = "DIR")]
    pub(crate) to: Option<PathBuf>,
}
