//! The roles: each wires the parts, prints where it serves, and passes signals on.

mod agent;
mod anew;
mod demo;
mod dev;
mod node;
mod server;
mod signals;

pub(crate) use agent::agent;
pub(crate) use demo::demo;
pub(crate) use dev::dev;
pub(crate) use server::server;

use std::net::SocketAddr;

use tokio::net::TcpListener;

use crate::failure::{Exit, Failure};

/// Opens a listener, or says which address is taken and how to choose another.
async fn listen(address: SocketAddr, flag: &str) -> Result<(TcpListener, SocketAddr), Failure> {
    let listener = TcpListener::bind(address).await.map_err(|e| {
        Failure::new(Exit::Refused, format!("cannot listen: {e}"))
            .at(address.to_string())
            .fix(format!(
                "stop what uses the port, or choose another address with {flag} (port 0 takes a free one)"
            ))
    })?;
    let bound = listener
        .local_addr()
        .map_err(|e| Failure::new(Exit::Refused, format!("cannot listen: {e}")))?;
    Ok((listener, bound))
}

/// The message with its chain of causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(e) = cause {
        let line = e.to_string();
        if !text.contains(&line) {
            text.push_str(": ");
            text.push_str(&line);
        }
        cause = e.source();
    }
    text
}
