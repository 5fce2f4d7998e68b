use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use etcd_client::Client;
use parking_lot::{RwLock, RwLockReadGuard};
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::Instant;
use tonic::Status;
use tonic::transport::server::TcpIncoming;
use tower::util::BoxCloneSyncService;

use crate::apply::{Effects, State};
use crate::disk::Disk;
use crate::lease::Leases;
use crate::mvcc::{HistoryLimits, Mvcc};
use crate::writer::{self, Command};
use crate::{Error, apply, service, status};

/// Leases ended by one write, so that a mass expiry does not keep other writes waiting.
const EXPIRED_PER_WRITE: usize = 100;

/// The in-process transport of a store, to be wrapped by a test that injects faults.
pub type Transport =
    BoxCloneSyncService<http::Request<tonic::body::Body>, http::Response<tonic::body::Body>, tower::BoxError>;

/// An etcd of one member inside this process. Clones are handles to the same store.
///
/// The store lives until [`shutdown`](Store::shutdown), or until the last handle, client and server of it is gone.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    backend: Backend,
    lease_granted: Arc<Notify>,
}

enum Backend {
    /// Writes are applied within the call.
    Memory,
    Disk {
        path: PathBuf,
        commands: mpsc::Sender<Command>,
    },
}

/// What the writer, the services and the watches share.
pub(crate) struct Shared {
    pub(crate) state: RwLock<State>,
    signal: watch::Sender<Signal>,
}

/// Wakes watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Signal {
    pub(crate) revision: i64,
    pub(crate) stopped: bool,
}

impl Shared {
    fn new(state: State) -> Self {
        let signal = Signal {
            revision: state.mvcc.visible().revision,
            stopped: false,
        };
        Self {
            state: RwLock::new(state),
            signal: watch::Sender::new(signal),
        }
    }

    /// Shows what was written to readers and watches.
    pub(crate) fn publish(&self) {
        let revision = {
            let mut state = self.state.write();
            state.mvcc.publish();
            state.mvcc.visible().revision
        };
        self.signal.send_if_modified(|signal| {
            let changed = signal.revision != revision;
            signal.revision = revision;
            changed
        });
    }

    pub(crate) fn stop(&self) {
        self.signal.send_modify(|signal| signal.stopped = true);
    }
}

impl Store {
    /// Opens the store in the file at `path`, which is created if it does not exist, and locks it.
    ///
    /// Every write is durable before it is answered. Leases that the file holds start again with their full time to
    /// live. The history of an earlier run is gone: a watch that is not up to date is told that its revision was
    /// compacted. Must be called inside a tokio runtime; blocks while the file is read.
    ///
    /// # Errors
    ///
    /// [`Error::AlreadyOpen`] if another process or handle has the file, [`Error::NewerFormat`] and
    /// [`Error::Corrupt`] if it cannot be understood, [`Error::Storage`] if the disk refuses.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let (disk, contents) = Disk::open(path)?;
        let limits = HistoryLimits::default();
        let mut mvcc = if contents.existed {
            Mvcc::restored(contents.revision, limits)
        } else {
            Mvcc::new(limits)
        };
        let mut leases = Leases::new(contents.boot);
        let now = Instant::now();
        for (id, ttl) in contents.leases {
            leases.insert(id, ttl, now);
        }
        for kv in contents.keys {
            leases.attach(&kv.key, 0, kv.lease);
            mvcc.restore(kv);
        }
        let shared = Arc::new(Shared::new(State { mvcc, leases }));
        let (commands, queue) = mpsc::channel(writer::QUEUE);
        let writer = shared.clone();
        std::thread::Builder::new()
            .name("embedded-etcd".to_owned())
            .spawn(move || writer::run(disk, &writer, queue))
            .map_err(|source| Error::Storage {
                path: path.to_owned(),
                source: source.into(),
            })?;
        let path = path.to_owned();
        Ok(Self::start(shared, Backend::Disk { path, commands }))
    }

    /// A store that is gone with its last handle.
    ///
    /// It has no thread, no disk and no clock but tokio's: on a paused, single-threaded runtime the same calls give
    /// the same history. Must be called inside a tokio runtime.
    pub fn in_memory() -> Self {
        Self::in_memory_with(HistoryLimits::default())
    }

    pub(crate) fn in_memory_with(limits: HistoryLimits) -> Self {
        let state = State {
            mvcc: Mvcc::new(limits),
            leases: Leases::new(1),
        };
        Self::start(Arc::new(Shared::new(state)), Backend::Memory)
    }

    fn start(shared: Arc<Shared>, backend: Backend) -> Self {
        let lease_granted = Arc::new(Notify::new());
        let inner = Arc::new(Inner {
            shared,
            backend,
            lease_granted: lease_granted.clone(),
        });
        tokio::spawn(expire_leases(Arc::downgrade(&inner), lease_granted));
        Self { inner }
    }

    /// Answers the writes that wait, closes the file and ends every watch.
    ///
    /// When it returns the file can be opened again. Later calls of clients get `UNAVAILABLE`.
    pub async fn shutdown(&self) {
        if let Backend::Disk { commands, .. } = &self.inner.backend {
            let (answer, stopped) = oneshot::channel();
            // An error on either means that the writer is gone already.
            if commands.send(Command::Stop(answer)).await.is_ok() {
                let _ = stopped.await;
            }
        }
        self.inner.shared.stop();
    }

    /// A client of this store; its calls do not leave the process.
    ///
    /// # Errors
    ///
    /// As [`Client::from_channel`]; none are known for a client without credentials.
    pub async fn client(&self) -> Result<Client, etcd_client::Error> {
        let channel = etcd_client::Channel::Custom(self.transport());
        Client::from_channel(channel, None).await
    }

    /// What [`client`](Store::client) sends its requests to, for `etcd_client::Channel::Custom`.
    pub fn transport(&self) -> Transport {
        use tower::ServiceExt;
        let routes = service::routes(self, None);
        BoxCloneSyncService::new(ServiceExt::<http::Request<tonic::body::Body>>::map_err(
            routes,
            |error: std::convert::Infallible| -> tower::BoxError { match error {} },
        ))
    }

    /// Serves the store on `listener` until `shutdown` ends, in plain text and without authentication: for
    /// `etcdctl` and other tools on a loopback address.
    ///
    /// # Errors
    ///
    /// [`Error::Serve`] if the listener fails.
    pub async fn serve(
        &self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), Error> {
        let (stopping, stop) = watch::channel(false);
        tonic::transport::Server::builder()
            .add_routes(service::routes(self, Some(stop)))
            .serve_with_incoming_shutdown(TcpIncoming::from(listener).with_nodelay(Some(true)), async move {
                shutdown.await;
                // Open watches would keep their connections, and with them the server, for ever.
                stopping.send_replace(true);
            })
            .await
            .map_err(Error::Serve)
    }

    /// What readers may see, or the status of a store that was shut down.
    pub(crate) fn read(&self) -> Result<RwLockReadGuard<'_, State>, Status> {
        if self.inner.shared.signal.borrow().stopped {
            return Err(status::stopped());
        }
        Ok(self.inner.shared.state.read())
    }

    pub(crate) fn signal(&self) -> watch::Receiver<Signal> {
        self.inner.shared.signal.subscribe()
    }

    /// Starts the time to live of a lease anew. Returns the revision and the ttl in seconds, 0 for a dead lease.
    pub(crate) fn renew(&self, id: i64) -> Result<(i64, i64), Status> {
        drop(self.read()?);
        let mut state = self.inner.shared.state.write();
        let ttl = state.leases.renew(id, Instant::now()).unwrap_or(0);
        Ok((state.mvcc.visible().revision, ttl))
    }

    /// Wakes the expiry, which may have to end this lease before all others.
    pub(crate) fn lease_granted(&self) {
        self.inner.lease_granted.notify_one();
    }

    /// Runs a write and returns its result when it is durable.
    pub(crate) async fn write<T, F>(&self, apply: F) -> Result<T, Status>
    where
        T: Send + 'static,
        F: FnOnce(&mut State, &mut Effects) -> Result<T, Status> + Send + 'static,
    {
        self.inner.write(apply).await
    }

    /// The size of the file; None in memory.
    pub(crate) fn file_bytes(&self) -> Option<u64> {
        match &self.inner.backend {
            Backend::Disk { path, .. } => Some(std::fs::metadata(path).ok()?.len()),
            Backend::Memory => None,
        }
    }

    /// Gives unused parts of the file back; nothing to do in memory.
    pub(crate) async fn defragment(&self) -> Result<(), Status> {
        let Backend::Disk { commands, .. } = &self.inner.backend else {
            return Ok(());
        };
        let (answer, done) = oneshot::channel();
        commands
            .send(Command::Defragment(answer))
            .await
            .map_err(|_| status::stopped())?;
        done.await.map_err(|_| status::stopped())?
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

impl Inner {
    async fn write<T, F>(&self, apply: F) -> Result<T, Status>
    where
        T: Send + 'static,
        F: FnOnce(&mut State, &mut Effects) -> Result<T, Status> + Send + 'static,
    {
        match &self.backend {
            Backend::Memory => {
                if self.shared.signal.borrow().stopped {
                    return Err(status::stopped());
                }
                let result = apply(&mut self.shared.state.write(), &mut Effects::default());
                self.shared.publish();
                result
            }
            Backend::Disk { commands, .. } => {
                let (answer, result) = oneshot::channel();
                let write: writer::Write = Box::new(move |target| {
                    let applied = target.and_then(|(state, effects)| apply(state, effects));
                    Box::new(move |durable| {
                        // The caller may have gone away; the write stands.
                        let _ = answer.send(durable.and(applied));
                    })
                });
                commands
                    .send(Command::Write(write))
                    .await
                    .map_err(|_| status::stopped())?;
                result.await.map_err(|_| status::stopped())?
            }
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The expiry holds no reference; it wakes and finds nothing.
        self.lease_granted.notify_one();
    }
}

/// Ends leases when their time is over, until the store is gone or cannot write.
async fn expire_leases(store: Weak<Inner>, granted: Arc<Notify>) {
    loop {
        let Some(inner) = store.upgrade() else { return };
        let now = Instant::now();
        let next = inner.shared.state.read().leases.next_deadline();
        if next.is_some_and(|deadline| deadline <= now) {
            let expire = move |state: &mut State, effects: &mut Effects| {
                Ok(apply::expire(state, effects, now, EXPIRED_PER_WRITE))
            };
            if inner.write(expire).await.is_err() {
                return;
            }
            continue;
        }
        drop(inner);
        match next {
            Some(deadline) => {
                tokio::select! {
                    biased;
                    () = granted.notified() => {}
                    () = tokio::time::sleep_until(deadline) => {}
                }
            }
            None => granted.notified().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_watch_that_nobody_reads_falls_out_of_the_history() {
        let limits = HistoryLimits {
            revisions: 200,
            bytes: 64 << 20,
        };
        let store = Store::in_memory_with(limits);
        let mut client = store.client().await.expect("a client");
        let mut slow = client.watch("k", None).await.expect("a watch");
        for _ in 0..2_000 {
            client.put("k", vec![b'v'; 100_000], None).await.expect("put");
            // Lets the stream run after every write, so that it takes what it may.
            tokio::task::yield_now().await;
        }
        let mut events = 0;
        let canceled = loop {
            let message = slow.message().await.expect("no error").expect("one");
            if message.canceled() {
                break message;
            }
            events += message.events().len();
        };
        assert!(canceled.compact_revision() > 1_800);
        assert!(events < 100, "{events} events were kept for it");
    }
}
