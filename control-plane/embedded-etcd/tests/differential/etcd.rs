//! A real etcd for the length of a test.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use etcd_client::Client;
use tokio::time::Instant;

const START_WITHIN: Duration = Duration::from_secs(30);
const TRIES: usize = 5;

/// One etcd process with a directory of its own. Killed, by its id, when dropped.
pub(crate) struct Etcd {
    process: Child,
    client: Client,
    _directory: tempfile::TempDir,
}

impl Etcd {
    /// Starts the etcd that the environment names.
    ///
    /// # Panics
    ///
    /// If none is named: a comparison with nothing must not pass.
    pub(crate) async fn start() -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "which etcd to compare with is the runner's to say"
        )]
        let Ok(binary) = std::env::var("GANTRY_ETCD_BIN") else {
            panic!(
                "GANTRY_ETCD_BIN must be the path of an etcd 3.6 server; `tests/run` builds one and sets it"
            );
        };
        for _ in 0..TRIES {
            if let Some(etcd) = Self::try_start(&binary).await {
                return etcd;
            }
        }
        panic!("{binary} did not start in {TRIES} tries");
    }

    /// None if the process ended at once, as when another took one of the ports first.
    async fn try_start(binary: &str) -> Option<Self> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let client_url = format!("http://127.0.0.1:{}", free_port());
        let peer_url = format!("http://127.0.0.1:{}", free_port());
        let mut process = Command::new(binary)
            .arg("--data-dir")
            .arg(directory.path())
            .args(["--listen-client-urls", &client_url])
            .args(["--advertise-client-urls", &client_url])
            .args(["--listen-peer-urls", &peer_url])
            .args(["--initial-advertise-peer-urls", &peer_url])
            .args(["--initial-cluster", &format!("default={peer_url}")])
            .args(["--unsafe-no-fsync", "--log-level", "error"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{binary} cannot be run: {error}"));
        let deadline = Instant::now() + START_WITHIN;
        while Instant::now() < deadline {
            if process.try_wait().expect("the state of etcd").is_some() {
                return None;
            }
            if let Ok(mut client) = Client::connect([&client_url], None).await
                && client.get("ready", None).await.is_ok()
            {
                return Some(Self {
                    process,
                    client,
                    _directory: directory,
                });
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        process.kill().ok();
        process.wait().ok();
        None
    }

    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a free port")
        .port()
}
