use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{
    failure::{Exit, Failure},
    render::note,
};

/// Cancelled by the first SIGTERM or SIGINT. A second one ends the process at once.
pub(super) fn shutdown() -> Result<CancellationToken, Failure> {
    let token = CancellationToken::new();
    let install =
        |kind| signal(kind).map_err(|e| Failure::new(Exit::Refused, format!("cannot take signals: {e}")));
    let (mut term, mut int) = (
        install(SignalKind::terminate())?,
        install(SignalKind::interrupt())?,
    );
    let stop = token.clone();
    tokio::spawn(async move {
        either(&mut term, &mut int).await;
        stop.cancel();
        note("stopping: tasks finish what is in flight; a second signal stops at once");
        either(&mut term, &mut int).await;
        note("stopped at once");
        #[allow(
            clippy::disallowed_methods,
            reason = "the second signal asks for exactly that"
        )]
        std::process::exit(130);
    });
    Ok(token)
}

async fn either(term: &mut Signal, int: &mut Signal) {
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}
