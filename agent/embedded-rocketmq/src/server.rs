//! The thread that owns name server, broker and their runtime.

use std::{
    fs::{File, TryLockError},
    path::Path,
    time::Duration,
};

use rocketmq_broker::{BrokerBootstrap, Running};
use rocketmq_observability::{TelemetryHandle, TelemetryRuntimeGuard};
use rocketmq_runtime::{ChildServiceContext, RuntimeConfig, RuntimeOwner};
use tokio::{net::TcpStream, sync::oneshot, task::JoinHandle, time::Instant};

use crate::{
    Options, StartError,
    ports::{self, Ports},
    settings, space,
};

/// For the name server, which has nothing to read.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// After a crash the broker reads all that it has stored: 200 MB a second on a machine with nothing else to do.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(1800);
/// How often it is said that the broker still starts.
const STILL_STARTING: Duration = Duration::from_secs(10);
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Starts, tells so, waits to be asked to stop (or for nobody to be left to ask), and stops.
pub(crate) fn run(
    dir: &Path,
    options: Options,
    ready: oneshot::Sender<Result<Ports, StartError>>,
    stop_asked: oneshot::Receiver<()>,
) {
    if std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some()) {
        tracing::info!(dir = %dir.display(), "embedded rocketmq starts with what it has stored; after a crash it reads it all");
    }
    let (_lock, owner) = match prepare(dir) {
        Ok(prepared) => prepared,
        Err(error) => return drop(ready.send(Err(error))),
    };
    owner.block_on(async {
        match Servers::start(&owner, dir, options).await {
            Err(error) => _ = ready.send(Err(error)),
            Ok((servers, ports)) => {
                tracing::info!(namesrv = ports.namesrv, broker = ports.broker, dir = %dir.display(), "embedded rocketmq started");
                _ = ready.send(Ok(ports));
                _ = stop_asked.await;
                servers.stop().await;
                tracing::info!(dir = %dir.display(), "embedded rocketmq stopped");
            }
        }
    });
    match owner.shutdown_runtime_blocking_with_timeout(STOP_TIMEOUT) {
        Ok(report) if report.is_healthy() => {}
        Ok(report) => tracing::debug!(report = %report.to_json(), "embedded rocketmq left tasks behind"),
        Err(error) => tracing::warn!(%error, "embedded rocketmq's runtime did not stop"),
    }
}

/// Takes the directory for this process and builds the runtime.
fn prepare(dir: &Path) -> Result<(File, RuntimeOwner), StartError> {
    let unusable = |source| StartError::Directory {
        dir: dir.to_path_buf(),
        source,
    };
    std::fs::create_dir_all(dir).map_err(unusable)?;
    space::check(dir)?;
    let lock = File::create(dir.join("lock")).map_err(unusable)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(StartError::DirectoryInUse {
                dir: dir.to_path_buf(),
            });
        }
        Err(TryLockError::Error(source)) => return Err(unusable(source)),
    }
    let parallelism = std::thread::available_parallelism().map_or(2, |n| n.get().min(4));
    let owner = RuntimeOwner::plan(RuntimeConfig::for_parallelism("embedded-rocketmq", parallelism))
        .map_err(|error| StartError::failed("runtime", error.to_string()))?
        .build()
        .map_err(|error| StartError::failed("runtime", error))?;
    Ok((lock, owner))
}

struct Servers {
    namesrv: NameServer,
    broker: BrokerBootstrap<Running>,
}

impl Servers {
    async fn start(owner: &RuntimeOwner, dir: &Path, options: Options) -> Result<(Self, Ports), StartError> {
        let ports = ports::choose(dir, options)?;
        let dir_name = dir.to_str().ok_or_else(|| StartError::Directory {
            dir: dir.to_path_buf(),
            source: std::io::Error::new(std::io::ErrorKind::InvalidFilename, "the name is not UTF-8"),
        })?;
        let namesrv = NameServer::start(owner.root_context().component("namesrv"), dir_name, ports).await?;
        match start_broker(owner.root_context().component("broker"), dir_name, ports).await {
            Ok(broker) => Ok((Self { namesrv, broker }, ports)),
            Err(error) => {
                namesrv.stop().await;
                Err(error)
            }
        }
    }

    async fn stop(self) {
        if tokio::time::timeout(STOP_TIMEOUT, Box::pin(self.broker.shutdown()))
            .await
            .is_err()
        {
            tracing::warn!("the embedded rocketmq broker did not stop in time");
        }
        self.namesrv.stop().await;
    }
}

async fn start_broker(
    context: ChildServiceContext,
    dir: &str,
    ports: Ports,
) -> Result<BrokerBootstrap<Running>, StartError> {
    let settings = settings::broker(dir, ports)?;
    let start = async {
        let broker = rocketmq_broker::Builder::new(context, TelemetryRuntimeGuard::noop())
            .with_validated_config(settings)
            .build();
        let broker = Box::pin(broker.initialize()).await?;
        Box::pin(broker.start()).await
    };
    let mut start = std::pin::pin!(start);
    let begun = Instant::now();
    while begun.elapsed() < RECOVERY_TIMEOUT {
        match tokio::time::timeout(STILL_STARTING, &mut start).await {
            Ok(started) => return started.map_err(|error| StartError::failed("broker", error)),
            Err(_) => tracing::info!(
                seconds = begun.elapsed().as_secs(),
                dir,
                "the embedded rocketmq broker still reads what it has stored"
            ),
        }
    }
    Err(StartError::failed(
        "broker",
        "it was not ready within half an hour",
    ))
}

struct NameServer {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), StartError>>,
}

impl NameServer {
    async fn start(context: ChildServiceContext, dir: &str, ports: Ports) -> Result<Self, StartError> {
        let (stop, stop_asked) = oneshot::channel::<()>();
        let server = rocketmq_namesrv::bootstrap::Builder::new(context, TelemetryHandle::noop())
            .set_name_server_config(settings::namesrv(dir))
            .set_server_config(settings::namesrv_server(ports))
            .build();
        let mut task = tokio::spawn(async move {
            let stopped = Box::pin(server.boot_with_shutdown(async move { _ = stop_asked.await }));
            stopped
                .await
                .map_err(|error| StartError::failed("name server", error))
        });
        let deadline = Instant::now() + START_TIMEOUT;
        while TcpStream::connect(("127.0.0.1", ports.namesrv)).await.is_err() {
            tokio::select! {
                ended = &mut task => return Err(why_it_ended(ended)),
                () = tokio::time::sleep(Duration::from_millis(3)) => {}
            }
            if Instant::now() > deadline {
                return Err(StartError::failed(
                    "name server",
                    "it does not listen on its port",
                ));
            }
        }
        Ok(Self { stop, task })
    }

    async fn stop(self) {
        _ = self.stop.send(());
        match tokio::time::timeout(STOP_TIMEOUT, self.task).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => tracing::warn!(%error, "the embedded rocketmq name server failed"),
            Ok(Err(_)) | Err(_) => tracing::warn!("the embedded rocketmq name server did not stop in time"),
        }
    }
}

fn why_it_ended(ended: Result<Result<(), StartError>, tokio::task::JoinError>) -> StartError {
    match ended {
        Ok(Err(error)) => error,
        Ok(Ok(())) => StartError::failed("name server", "it ended at once"),
        Err(panic) => StartError::failed("name server", panic),
    }
}
