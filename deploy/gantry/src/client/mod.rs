//! The client commands: one call or watch each, then print.

mod agents;
mod connectors;
mod declare;
mod edit;
mod history;
mod offsets;
mod plugins;
mod wait;

use gantry_client::{Client, Options};

use crate::{
    args::{Command, Global},
    failure::{Exit, Failure},
    render::Style,
};

/// What every client command needs.
pub(crate) struct Session {
    pub(crate) client: Client,
    pub(crate) style: Style,
}

pub(crate) async fn run(global: &Global, command: Command) -> Result<(), Failure> {
    let several = matches!(command, Command::Apply(_) | Command::Delete(_));
    if let Some(id) = global.request_id.as_ref().filter(|_| several) {
        return Err(
            Failure::usage("--request-id names one change, and this may make several")
                .at(id)
                .fix("leave it out: this can be run again as it is"),
        );
    }
    let session = Session {
        client: connect(global)?,
        style: Style::new(global),
    };
    match command {
        Command::Connectors(command) => Box::pin(connectors::run(&session, command)).await,
        Command::Apply(args) => Box::pin(declare::apply(&session, &args)).await,
        Command::Diff(args) => Box::pin(declare::diff(&session, &args)).await,
        Command::Delete(args) => Box::pin(declare::remove(&session, &args)).await,
        Command::Export(args) => declare::export(&session, &args).await,
        Command::Plugins(command) => plugins::run(&session, command).await,
        Command::Agents(command) => agents::run(&session, command).await,
        _ => Err(Failure::usage("not a client command")),
    }
}

fn connect(global: &Global) -> Result<Client, Failure> {
    let token = match &global.token_file {
        None => None,
        Some(path) => Some(
            std::fs::read_to_string(path)
                .map(|t| t.trim().to_owned())
                .map_err(|e| {
                    Failure::new(Exit::Refused, format!("cannot read the token: {e}"))
                        .at(path.display().to_string())
                        .fix("give the path of a file that holds the token alone")
                })?,
        ),
    };
    if let Some(id) = &global.request_id
        && uuid::Uuid::parse_str(id).is_err()
    {
        return Err(Failure::usage("--request-id is no UUID")
            .at(id)
            .fix("make one with `uuidgen`"));
    }
    if global.endpoint.starts_with("https://") && global.ca.is_none() {
        return Err(Failure::usage("no CA is given for an https endpoint")
            .at(&global.endpoint)
            .fix("give the CA that signed the control plane's certificate with --ca or GANTRY_CA"));
    }
    let options = Options {
        ca: global.ca.clone(),
        identity: global.cert.clone().zip(global.key.clone()),
        token,
        request_id: global.request_id.clone(),
        ..Options::default()
    };
    Ok(Client::connect_lazy(&global.endpoint, options)?)
}
