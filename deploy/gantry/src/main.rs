//! The one program that users get: the roles, and the commands that talk to them.

mod admin;
mod args;
mod client;
mod definition;
mod failure;
mod positions;
mod render;
mod roles;
mod settings;
mod telemetry;

use std::process::ExitCode;

use args::{Cli, Command};
use failure::Failure;

fn main() -> ExitCode {
    let cli = match settings::parse() {
        Ok(cli) => cli,
        Err(failure) => return end(Err(failure)),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(run(cli)),
        Err(e) => Err(Failure::new(
            failure::Exit::Refused,
            format!("cannot start threads: {e}"),
        )),
    };
    end(result)
}

fn end(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            render::note(&failure.to_string());
            ExitCode::from(failure.exit as u8)
        }
    }
}

async fn run(cli: Cli) -> Result<(), Failure> {
    let Cli { global, command } = cli;
    match command {
        Command::Demo(demo) => Box::pin(roles::demo(&global, demo)).await,
        Command::Dev(dev) => Box::pin(roles::dev(&global, dev)).await,
        Command::Server(server) => Box::pin(roles::server(&global, *server)).await,
        Command::Agent(agent) => Box::pin(roles::agent(&global, agent)).await,
        Command::Admin(command) => admin::run(command).await,
        Command::Completion { shell } => {
            let mut script = Vec::new();
            let mut command = <Cli as clap::CommandFactory>::command();
            clap_complete::generate(shell, &mut command, "gantry", &mut script);
            render::out(&String::from_utf8_lossy(&script))
        }
        Command::Version => render::out(&format!("gantry {}", env!("CARGO_PKG_VERSION"))),
        command => Box::pin(client::run(&global, command)).await,
    }
}
