//! RocketMQ's own client, used as well as it can be: the limit that Gantry is held against. `tests/bench` starts it.

mod raw;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

/// What it took is printed as JSON
#[derive(Debug, Parser)]
enum Command {
    /// Sends batches to a topic
    Send(raw::Send),
    /// Pulls a whole topic
    Pull(raw::Pull),
}

fn main() -> ExitCode {
    match run(Command::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:?}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    // As many threads as Gantry's agent has.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let took = runtime.block_on(async {
        match command {
            Command::Send(send) => Box::pin(raw::send(send)).await,
            Command::Pull(pull) => Box::pin(raw::pull(pull)).await,
        }
    })?;
    println!("{took}");
    Ok(())
}
