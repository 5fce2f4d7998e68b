//! Apache RocketMQ from its jars: a name server and a broker in a temporary directory.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use gantry_bus::{Bus, OutMessage, rocketmq::RocketmqBus};
use tokio::{net::TcpStream, time::Instant};

use crate::cases;

const LIBRARY: &str = "GANTRY_ROCKETMQ_LIB";
const BROKER_FLAGS: &[&str] = &[
    "-Xms256m",
    "-Xmx384m",
    "-Xmn128m",
    "-XX:MaxDirectMemorySize=256m",
    "--add-exports=java.base/jdk.internal.ref=ALL-UNNAMED",
    "--add-opens=java.base/java.nio=ALL-UNNAMED",
    "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED",
];

pub(crate) struct Apache {
    library: PathBuf,
    dir: tempfile::TempDir,
    namesrv_port: u16,
    pub(crate) broker_port: u16,
    processes: Vec<Child>,
}

impl Apache {
    /// Starts both and returns when the broker takes topics. `None` without jars.
    #[allow(
        clippy::disallowed_methods,
        reason = "where the jars are is a setting of the test"
    )]
    pub(crate) async fn start() -> Option<Self> {
        let Some(library) = std::env::var_os(LIBRARY) else {
            println!("{LIBRARY} is not set: not tested against Apache RocketMQ");
            return None;
        };
        let (dir, namesrv_port, broker_port) = (tempfile::tempdir().unwrap(), free_port(), free_port());
        let mut apache = Self {
            library: library.into(),
            dir,
            namesrv_port,
            broker_port,
            processes: Vec::new(),
        };
        let namesrv = format!("listenPort={namesrv_port}\nbindAddress=127.0.0.1\n");
        let config = apache.file("namesrv.conf", &namesrv);
        apache.spawn(
            "org.apache.rocketmq.namesrv.NamesrvStartup",
            &["-Xms64m", "-Xmx128m"],
            &["-c", &config],
        );
        while TcpStream::connect(apache.namesrv_addr()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        apache.start_broker();
        let bus = crate::bus(&apache.namesrv_addr());
        let start = Instant::now();
        while let Err(error) = bus.create_topic("started", 1).await {
            assert!(
                start.elapsed() < Duration::from_secs(60),
                "{}",
                crate::chain(&error)
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        println!("Apache RocketMQ takes topics after {:?}", start.elapsed());
        bus.shutdown().await;
        Some(apache)
    }

    pub(crate) fn namesrv_addr(&self) -> String {
        format!("127.0.0.1:{}", self.namesrv_port)
    }

    /// Starts the broker, again after [`Apache::kill_broker`] with the same data.
    pub(crate) fn start_broker(&mut self) {
        let (store, port) = (self.dir.path().join("store"), self.broker_port);
        let config = format!(
            "brokerIP1=127.0.0.1\nbindAddress=127.0.0.1\nlistenPort={port}\nhaListenPort={}\nstorePathRootDir={store}\n\
             storePathCommitLog={store}/commitlog\nmappedFileSizeCommitLog=67108864\nmaxHashSlotNum=100000\nmaxIndexNum=400000\n\
             timerWheelEnable=false\ntransientStorePoolEnable=false\nautoCreateTopicEnable=true\nautoCreateSubscriptionGroup=false\n\
             maxTransferCountOnMessageInMemory=1024\nmaxTransferBytesOnMessageInMemory=4194304\ndiskMaxUsedSpaceRatio=95\nwaitTimeMillsInSendQueue=3000\n",
            port + 1,
            store = store.display(),
        );
        let (config, namesrv) = (self.file("broker.conf", &config), self.namesrv_addr());
        let arguments = ["-c", &config, "-n", &namesrv];
        self.spawn(
            "org.apache.rocketmq.broker.BrokerStartup",
            BROKER_FLAGS,
            &arguments,
        );
    }

    /// SIGKILL of the broker; the name server stays.
    pub(crate) fn kill_broker(&mut self) {
        let mut broker = self.processes.pop().unwrap();
        broker.kill().unwrap();
        broker.wait().unwrap();
    }

    /// What was sent and mirrored by the bus, seen by `mqadmin`.
    pub(crate) async fn check_with_its_own_tools(&self, bus: &RocketmqBus) {
        let (name, queues) = cases::topic(bus, 1).await;
        let message = OutMessage {
            key: Some("the-key".into()),
            properties: vec![("p".into(), "v".into())],
            body: "seen by java".into(),
            ..OutMessage::default()
        };
        bus.send(&queues[0], vec![message; 10]).await.unwrap();
        bus.mirror_offset("gantry-tools", &queues[0], 4).await.unwrap();
        let progress = self.mqadmin(&["consumerProgress", "-g", "gantry-tools"]);
        let row = progress
            .lines()
            .find(|line| line.starts_with(&name))
            .unwrap_or_else(|| panic!("{progress}"));
        let columns: Vec<&str> = row.split_whitespace().collect();
        assert_eq!((columns[3], columns[4]), ("10", "4"), "{progress}");
        let consumed = self.mqadmin(&["consumeMessage", "-t", &name]);
        assert_eq!(consumed.matches("BODY: seen by java").count(), 10, "{consumed}");
        assert!(consumed.contains("p=v"), "{consumed}");
        let found = self.mqadmin(&["queryMsgByKey", "-t", &name, "-k", "the-key"]);
        assert_eq!(
            found
                .lines()
                .filter(|line| line.split_whitespace().count() == 3 && !line.starts_with('#'))
                .count(),
            10,
            "{found}"
        );
        let keys: HashSet<&str> = consumed
            .split("UNIQ_KEY=")
            .skip(1)
            .filter_map(|rest| rest.split([',', '}']).next())
            .collect();
        assert_eq!(keys.len(), 10, "{consumed}");
        let key = keys.iter().next().unwrap();
        let found = self.mqadmin(&["queryMsgByUniqueKey", "-t", &name, "-i", key]);
        assert!(found.contains("the-key"), "{key}: {found}");
        let senders = self.mqadmin(&["producerConnection", "-g", "gantry", "-t", &name]);
        assert!(senders.contains("RUST"), "{senders}");
    }

    fn mqadmin(&self, arguments: &[&str]) -> String {
        let class_path = format!("{}/*", self.library.display());
        let output = Command::new("java")
            .args([
                "-cp",
                &class_path,
                "org.apache.rocketmq.tools.command.MQAdminStartup",
            ])
            .args(arguments)
            .args(["-n", &self.namesrv_addr()])
            .env("ROCKETMQ_HOME", self.dir.path())
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    fn spawn(&mut self, class: &str, flags: &[&str], arguments: &[&str]) {
        let class_path = format!("{}/*", self.library.display());
        let log = std::fs::File::create(self.dir.path().join(format!("{class}.log"))).unwrap();
        let child = Command::new("java")
            .arg(format!("-Duser.home={}", self.dir.path().display()))
            .args(["-XX:+UseSerialGC", "-cp", &class_path])
            .args(flags)
            .arg(class)
            .args(arguments)
            .env("ROCKETMQ_HOME", self.dir.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.processes.push(child);
    }
}

impl Drop for Apache {
    fn drop(&mut self) {
        for process in &mut self.processes {
            _ = process.kill();
            _ = process.wait();
        }
        if std::thread::panicking() {
            print_end(
                &self
                    .dir
                    .path()
                    .join("org.apache.rocketmq.broker.BrokerStartup.log"),
            );
        }
    }
}

fn print_end(log: &Path) {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().filter(|line| !line.contains("|-")).collect();
    println!("{}", lines[lines.len().saturating_sub(20)..].join("\n"));
}

/// A port `p` such that `p - 2` and `p + 1` are free too.
fn free_port() -> u16 {
    let bind = |port| std::net::TcpListener::bind(("127.0.0.1", port));
    loop {
        let port = bind(0).unwrap().local_addr().unwrap().port();
        if bind(port - 2).is_ok() && bind(port + 1).is_ok() {
            return port;
        }
    }
}
