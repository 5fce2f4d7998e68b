//! The two etcds, and handles to them.

use std::{
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use etcd_client::{Channel, Client};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout};
use tower::ServiceExt;

use super::fault::{Faults, Transport};
use crate::store::{Mirror, Settings, Store, WallClock};

/// An etcd to test against.
pub(crate) enum Backend {
    Embedded(Mutex<gantry_embedded_etcd::Store>),
    Real(Mutex<Process>),
}

/// A real etcd of one member.
pub(crate) struct Process {
    child: Child,
    client: String,
    peer: String,
    dir: tempfile::TempDir,
}

impl Backend {
    pub(crate) fn embedded() -> Self {
        Self::Embedded(Mutex::new(gantry_embedded_etcd::Store::in_memory()))
    }

    pub(crate) async fn real() -> Self {
        let dir = tempfile::tempdir().expect("a directory for etcd");
        let (client, peer) = (free_address(), free_address());
        let child = launch(&dir, &client, &peer);
        let backend = Self::Real(Mutex::new(Process {
            child,
            client,
            peer,
            dir,
        }));
        backend.wait_until_it_serves().await;
        backend
    }

    pub(crate) fn is_real(&self) -> bool {
        matches!(self, Self::Real(_))
    }

    /// A store of its own: clusters do not see each other.
    pub(crate) async fn store(&self, cluster: &str) -> Store {
        Store::new(&client(self.transport()).await, cluster)
    }

    /// A store whose connection can be disturbed.
    pub(crate) async fn disturbed(&self, cluster: &str) -> (Store, Faults) {
        let (transport, faults) = Faults::around(self.transport());
        (
            Store::with_settings(&client(transport).await, cluster, Settings::default()),
            faults,
        )
    }

    pub(crate) async fn client(&self) -> Client {
        client(self.transport()).await
    }

    pub(crate) fn transport(&self) -> Transport {
        match self {
            Self::Embedded(store) => store.lock().transport(),
            Self::Real(process) => {
                let endpoint = tonic::transport::Endpoint::from_shared(process.lock().client.clone())
                    .expect("an address")
                    .connect_timeout(Duration::from_millis(500));
                Transport::new(endpoint.connect_lazy().map_err(tower::BoxError::from))
            }
        }
    }

    /// Kills a real etcd as `kill -9` does and starts it again.
    pub(crate) async fn restart(&self) {
        if let Self::Real(process) = self {
            let mut process = process.lock();
            process.child.kill().expect("etcd was running");
            process.child.wait().expect("etcd has ended");
            process.child = launch(&process.dir, &process.client, &process.peer);
        }
        self.wait_until_it_serves().await;
    }

    /// Forgets all history before now.
    pub(crate) async fn compact(&self) {
        let mut client = self.client().await;
        let now = client
            .get("now", None)
            .await
            .expect("a read")
            .header()
            .expect("a header")
            .revision();
        client.compact(now, None).await.expect("a compaction");
    }

    async fn wait_until_it_serves(&self) {
        eventually("etcd serves", async || {
            self.client().await.get("ready", None).await.is_ok()
        })
        .await;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already ended is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn client(transport: Transport) -> Client {
    Client::from_channel(Channel::Custom(transport), None)
        .await
        .expect("a client without credentials")
}

fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    format!("http://{}", listener.local_addr().expect("its address"))
}

#[allow(
    clippy::disallowed_methods,
    reason = "tests/run says in the environment where etcd is"
)]
fn launch(dir: &tempfile::TempDir, client: &str, peer: &str) -> Child {
    let program: PathBuf = std::env::var_os("GANTRY_ETCD_BIN")
        .expect("GANTRY_ETCD_BIN is not set: run the tests with tests/run, which installs etcd and sets it")
        .into();
    Command::new(program)
        .args(["--name", "one", "--initial-cluster", &format!("one={peer}")])
        .args(["--listen-client-urls", client, "--advertise-client-urls", client])
        .args(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer])
        .args(["--log-level", "error", "--unsafe-no-fsync", "--data-dir"])
        .arg(dir.path().join("data"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("etcd starts")
}

/// Waits for a condition, bounded.
pub(crate) async fn eventually(what: &str, condition: impl AsyncFn() -> bool) {
    let waiting = async {
        while !condition().await {
            sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(
        timeout(Duration::from_secs(30), waiting).await.is_ok(),
        "not within 30 s: {what}"
    );
}

/// Waits until the mirror has everything that was written before this call.
pub(crate) async fn caught_up(mirror: &Mirror, store: &Store) {
    mirror.ready().await;
    let (_, revision) = store.get_raw(&crate::store::Key::StoreId).await.expect("a read");
    mirror
        .wait_revision(revision, Instant::now() + Duration::from_secs(10))
        .await
        .expect("the mirror follows");
}

/// A wall clock that follows tokio's.
pub(crate) fn wall_clock() -> WallClock {
    let start = Instant::now();
    Arc::new(move || pbjson_types::Timestamp {
        seconds: 1_700_000_000 + i64::try_from(start.elapsed().as_secs()).unwrap_or(0),
        nanos: 0,
    })
}
