//! What people get wrong, and what is wrong around them: each is said in three lines, leaves nothing behind, and is over when
//! its cause is.

mod definitions;
mod servers;
mod usage;

use std::time::Duration;

use anyhow::{Result, ensure};
use gantry_tests::{Cli, Gantry, WorkDir};

const TEST: Duration = Duration::from_secs(150);
const SOON: Duration = Duration::from_secs(60);

async fn dev(work: &WorkDir) -> Result<(Gantry, Cli)> {
    let data = work.dir("data")?.display().to_string();
    let dev = Gantry::start(
        work,
        "dev",
        &["dev", "--listen", "127.0.0.1:0", "--data-dir", &data],
    )
    .await?;
    let cli = Cli::new(dev.endpoint(), work);
    Ok((dev, cli))
}

/// What was refused is not there, not even in part.
async fn nothing_is_stored(cli: &Cli) -> Result<()> {
    let listed = cli.ok(&["connectors", "list", "-o", "name"]).await?;
    ensure!(listed.trim().is_empty(), "this is stored:\n{listed}");
    Ok(())
}
