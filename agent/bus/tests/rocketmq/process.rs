//! The embedded broker in a process of its own, so that it can be killed: this test program, started again.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use gantry_embedded_rocketmq::{EmbeddedRocketmq, Options};

const DIRECTORY: &str = "GANTRY_TEST_BROKER_DIRECTORY";
const READY: &str = "the broker is ready: ";

/// A killed process takes name server and broker with it.
pub(crate) struct BrokerProcess {
    child: Child,
    pub(crate) namesrv: String,
    pub(crate) broker: String,
}

impl BrokerProcess {
    /// Starts on the directory and returns when it is ready.
    pub(crate) fn start(dir: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["process::serves_as_broker_if_told_so", "--exact", "--nocapture"])
            .env(DIRECTORY, dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = lines
            .map_while(Result::ok)
            .find_map(|line| Some(line.split_once(READY)?.1.to_owned()))
            .unwrap();
        let (namesrv, broker) = ready.split_once(' ').unwrap();
        Self {
            child,
            namesrv: namesrv.into(),
            broker: broker.into(),
        }
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for BrokerProcess {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// Not a test of its own: what [`BrokerProcess::start`] runs. Ends with its parent, by the end of standard input.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[allow(clippy::disallowed_methods, reason = "how the parent tells it")]
async fn serves_as_broker_if_told_so() {
    let Some(dir) = std::env::var_os(DIRECTORY) else {
        return;
    };
    let server = EmbeddedRocketmq::start(Path::new(&dir), Options::default())
        .await
        .unwrap();
    println!("\n{READY}{} {}", server.namesrv_addr(), server.broker_addr());
    let end = tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
    _ = end.await;
}
