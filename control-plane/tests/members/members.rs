//! Three etcds, each a process.

use std::{
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use etcd_client::Client;
use gantry_control_plane::store::{Store, connect_options};

use crate::{Fault, eventually};

/// Everything is stored below this.
const CLUSTER: &str = "members";

/// A cluster of three.
pub(crate) struct Members {
    members: Vec<Member>,
    // Removed after the processes have ended.
    _data: tempfile::TempDir,
}

struct Member {
    name: String,
    /// For clients.
    address: String,
    peer: String,
    /// All members and where they find each other.
    cluster: String,
    data: PathBuf,
    process: Option<Child>,
}

impl Members {
    pub(crate) async fn start() -> Self {
        let data = tempfile::tempdir().expect("a directory for etcd");
        let [clients, peers] = [free_addresses(), free_addresses()];
        let cluster = ["m0", "m1", "m2"]
            .iter()
            .zip(&peers)
            .map(|(name, peer)| format!("{name}={peer}"));
        let cluster = cluster.collect::<Vec<_>>().join(",");
        let members = clients
            .into_iter()
            .zip(peers)
            .enumerate()
            .map(|(n, (address, peer))| Member {
                name: format!("m{n}"),
                address,
                peer,
                cluster: cluster.clone(),
                data: data.path().join(n.to_string()),
                process: None,
            });
        let mut started = Self {
            members: members.collect(),
            _data: data,
        };
        started.members.iter_mut().for_each(Member::launch);
        started.all_serve().await;
        started
    }

    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// A handle of its own: connections are not shared.
    pub(crate) async fn store(&self) -> Store {
        let addresses: Vec<&str> = self.members.iter().map(|m| m.address.as_str()).collect();
        let client = Client::connect(addresses, Some(connect_options())).await;
        Store::new(&client.expect("addresses that can be used"), CLUSTER)
    }

    pub(crate) fn strike(&mut self, number: usize, fault: Fault) {
        let member = &mut self.members[number];
        match fault {
            Fault::Kill => member.end(),
            Fault::Freeze => member.signal("-STOP"),
        }
    }

    pub(crate) fn recover(&mut self, number: usize, fault: Fault) {
        let member = &mut self.members[number];
        match fault {
            Fault::Kill => member.launch(),
            Fault::Freeze => member.signal("-CONT"),
        }
    }

    /// Waits until each member answers a linearizable read.
    pub(crate) async fn all_serve(&self) {
        for member in &self.members {
            eventually(&format!("{} serves", member.name), async || {
                let client = Client::connect([&member.address], Some(connect_options())).await;
                match client {
                    Ok(mut client) => client.get("ready", None).await.is_ok(),
                    Err(_) => false,
                }
            })
            .await;
        }
    }
}

impl Member {
    #[allow(
        clippy::disallowed_methods,
        reason = "tests/run says in the environment where etcd is"
    )]
    fn launch(&mut self) {
        let program = std::env::var_os("GANTRY_ETCD_BIN").expect(
            "GANTRY_ETCD_BIN is not set: run the tests with tests/run, which installs etcd and sets it",
        );
        let (client, peer) = (&self.address, &self.peer);
        let process = Command::new(program)
            .args(["--name", &self.name, "--initial-cluster", &self.cluster])
            .args(["--listen-client-urls", client, "--advertise-client-urls", client])
            .args(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer])
            // Only processes are killed here, never the machine.
            .args(["--log-level", "error", "--unsafe-no-fsync", "--data-dir"])
            .arg(&self.data)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.process = Some(process.expect("etcd starts"));
    }

    fn signal(&self, signal: &str) {
        let id = self.process.as_ref().expect("it runs").id().to_string();
        let sent = Command::new("kill").args([signal, &id]).status();
        assert!(sent.is_ok_and(|status| status.success()), "kill {signal} {id}");
    }

    /// As `kill -9`, which also ends a process that is frozen.
    fn end(&mut self) {
        if let Some(mut process) = self.process.take() {
            // Already ended is as good.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.end();
    }
}

/// Three at a time, so that they differ.
fn free_addresses() -> [String; 3] {
    let listeners = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    listeners.map(|l| format!("http://{}", l.local_addr().expect("its address")))
}
