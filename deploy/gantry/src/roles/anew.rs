//! `gantry dev` begins anew when one of its agents gives itself up: what hangs cannot be ended in any other way, and the
//! store, the broker and the control plane in the same process must go on.

use std::{
    ffi::OsString, io, net::SocketAddr, os::unix::process::CommandExt as _, path::Path, process::Command,
    sync::Arc,
};

use tokio_util::sync::CancellationToken;

/// The running program; its path may hold another one by now.
const MYSELF: &str = "/proc/self/exe";

/// What an agent in this process does when it gives itself up: this process runs the program again with the same arguments,
/// on the address that it has, unless it is being stopped anyway. Nothing that was acknowledged is lost: it is as after a
/// `kill -9`.
pub(super) fn hook(listen: SocketAddr, stop: CancellationToken) -> Arc<dyn Fn(&str) + Send + Sync> {
    Arc::new(move |reason| {
        if stop.is_cancelled() {
            tracing::error!(reason, "aborting the process");
            std::process::abort();
        }
        tracing::error!(
            reason,
            "beginning anew: store, broker and control plane start again"
        );
        let error = exec(listen);
        tracing::error!(%error, "the program cannot be run again: aborting the process");
        std::process::abort();
    })
}

/// Returns only if it fails.
fn exec(listen: SocketAddr) -> io::Error {
    let arguments = arguments(std::env::args_os(), listen);
    let program = if Path::new(MYSELF).exists() {
        OsString::from(MYSELF)
    } else {
        match std::env::current_exe() {
            Ok(path) => path.into_os_string(),
            Err(e) => return e,
        }
    };
    let mut arguments = arguments.into_iter();
    let name = arguments.next().unwrap_or_else(|| "gantry".into());
    Command::new(program).arg0(name).args(arguments).exec()
}

/// The last `--listen` counts.
fn arguments(given: impl Iterator<Item = OsString>, listen: SocketAddr) -> Vec<OsString> {
    given
        .chain([OsString::from("--listen"), listen.to_string().into()])
        .collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};

    #[test]
    fn it_keeps_its_arguments_and_its_address() {
        for given in [
            &["gantry", "dev", "--agents", "3"][..],
            &["gantry", "dev", "--listen", "127.0.0.1:0", "--agents", "3"],
            &["gantry", "dev", "--agents", "3", "--listen=127.0.0.1:0"],
        ] {
            let mut arguments: Vec<OsString> = given.iter().map(OsString::from).collect();
            // Again and again.
            for port in [4000, 4000, 5000] {
                let listen = SocketAddr::from(([127, 0, 0, 1], port));
                arguments = super::arguments(arguments.into_iter(), listen);
                let Command::Dev(dev) = Cli::try_parse_from(&arguments).unwrap().command else {
                    panic!("{arguments:?}");
                };
                assert_eq!((dev.listen, dev.agents), (listen, 3));
            }
        }
    }
}
