//! Apache RocketMQ's protocol and storage in-process: a name server and a broker on the loopback interface, on one
//! directory. For `gantry dev`, the demo and tests; one machine, one process per directory.
//!
//! The broker is large, and asynchronous functions are compiled where they are polled. All functions here are therefore
//! plain and return boxed futures, and the broker runs on a thread and a runtime of its own: no dependant
//! compiles it again, and nothing it does blocks the caller's runtime.

mod error;
mod ports;
mod server;
mod settings;
mod space;

use std::{future::Future, path::Path, pin::Pin};

use tokio::sync::oneshot;

pub use error::StartError;

/// A future that no dependant has to compile.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// How to start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// The name server's port. `None`: the one used before on this directory if it is free, else any free one.
    pub namesrv_port: Option<u16>,
    /// The broker's port `p`; `p - 2` and `p + 1` are taken too. `None`: as for the name server.
    pub broker_port: Option<u16>,
}

/// A running name server and broker. Dropping it stops them in the background.
///
/// What was acknowledged is in memory-mapped files and outlives the process (kill -9 included), not the machine.
#[derive(Debug)]
pub struct EmbeddedRocketmq {
    ports: ports::Ports,
    stop: oneshot::Sender<()>,
    stopped: oneshot::Receiver<()>,
}

impl EmbeddedRocketmq {
    /// Starts on the directory, which is made if it does not exist, and returns when topics can be created.
    ///
    /// # Errors
    /// [`StartError`]: the directory cannot be used or is in use, its disk is full, a port is taken, or a server failed.
    pub fn start(dir: &Path, options: Options) -> BoxFuture<Result<Self, StartError>> {
        let dir = dir.to_path_buf();
        Box::pin(async move {
            let (ready, is_ready) = oneshot::channel();
            let (stop, stop_asked) = oneshot::channel();
            let (done, stopped) = oneshot::channel();
            std::thread::Builder::new()
                .name("embedded-rocketmq".into())
                .spawn(move || {
                    server::run(&dir, options, ready, stop_asked);
                    _ = done.send(());
                })
                .map_err(|error| StartError::failed("thread", error))?;
            match is_ready.await {
                Ok(Ok(ports)) => Ok(Self { ports, stop, stopped }),
                Ok(Err(error)) => Err(error),
                Err(_) => Err(StartError::failed(
                    "thread",
                    std::io::Error::other("it ended; see the log"),
                )),
            }
        })
    }

    /// The name server as `host:port`, for clients.
    pub fn namesrv_addr(&self) -> String {
        format!("127.0.0.1:{}", self.ports.namesrv)
    }

    /// The broker as `host:port`. Clients learn it from the name server.
    pub fn broker_addr(&self) -> String {
        format!("127.0.0.1:{}", self.ports.broker)
    }

    /// Stops both, broker first, and returns when all files are closed and the directory can be used again.
    pub fn stop(self) -> BoxFuture<()> {
        Box::pin(async move {
            _ = self.stop.send(());
            _ = self.stopped.await;
        })
    }
}
