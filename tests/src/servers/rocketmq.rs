//! A real Apache RocketMQ: a name server and a broker.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::remoting::{self, Message};
use crate::env;
use crate::ports::Ports;
use crate::process::{Process, Signal};
use crate::wait::eventually;
use crate::work::WorkDir;

/// A new broker tells the name server about itself on a timer of 10 s.
const START: Duration = Duration::from_secs(60);
const ADMIN: Duration = Duration::from_secs(60);

/// The cluster that the broker belongs to.
pub const CLUSTER: &str = "DefaultCluster";

/// A name server and a broker that run. Everything listens on the loopback address, but for the port on which a broker
/// would serve a replica: that one cannot be bound to an address.
#[derive(Debug)]
pub struct RocketMq {
    dir: PathBuf,
    namesrv_ports: Ports,
    /// The broker listens on the third, and on the two beside it: the first for fast requests, the fourth for replicas.
    broker_ports: Ports,
    settings: &'static str,
    namesrv: Option<Process>,
    broker: Option<Process>,
}

/// How far a consumer group has come in one queue, as RocketMQ's own tool tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The topic.
    pub topic: String,
    /// The queue, counted from 0.
    pub queue: u32,
    /// The offset of the next message that will be sent.
    pub end: i64,
    /// The offset of the next message that the group will read.
    pub committed: i64,
}

impl RocketMq {
    /// Starts both, and waits until topics can be made. Several in one test differ by `name`.
    pub async fn start(work: &WorkDir, name: &str) -> Result<Self> {
        Self::start_with(work, name, "").await
    }

    /// The same with further settings of the broker, as lines of its configuration file.
    pub async fn start_with(work: &WorkDir, name: &str, settings: &'static str) -> Result<Self> {
        let dir = work.dir(name)?;
        let (namesrv_ports, broker_ports) = (Ports::reserve(1)?, Ports::reserve(4)?);
        let mut rocketmq = Self {
            dir,
            namesrv_ports,
            broker_ports,
            settings,
            namesrv: None,
            broker: None,
        };
        rocketmq.restart_namesrv().await?;
        rocketmq.restart_broker().await?;
        Ok(rocketmq)
    }

    /// `127.0.0.1:PORT` of the name server.
    pub fn namesrv(&self) -> String {
        self.namesrv_ports.address(0)
    }

    /// `127.0.0.1:PORT` of the broker.
    pub fn broker(&self) -> String {
        self.broker_ports.address(2)
    }

    /// The broker's process, to be signalled.
    pub fn broker_process(&mut self) -> Result<&mut Process> {
        self.broker.as_mut().context("the broker does not run")
    }

    /// Kills the broker as `kill -9` does: what it has acknowledged survives.
    pub fn kill_broker(&mut self) -> Result<()> {
        self.broker_process()?.kill()?;
        self.broker = None;
        Ok(())
    }

    /// Starts the broker on its old data and ports, and waits until the name server knows it. Kills it before, if it runs.
    pub async fn restart_broker(&mut self) -> Result<()> {
        self.broker = None;
        let process = self.launch_broker()?;
        let (namesrv, broker) = (self.namesrv(), self.broker());
        eventually(
            START,
            "the broker serves, and the name server knows it",
            async || {
                ensure!(process.is_running(), "the broker has ended");
                // A name server remembers a broker for a while that is gone: the broker itself has to answer too.
                remoting::create_topic(&broker, "gantry-ready", 1).await?;
                remoting::has_broker(&namesrv).await?;
                remoting::has_route(&namesrv, "gantry-ready").await
            },
        )
        .await
        .with_context(|| process.tail())?;
        self.broker = Some(process);
        Ok(())
    }

    /// Suspends the broker: it keeps its connections and says nothing.
    pub fn pause_broker(&mut self) -> Result<()> {
        self.broker_process()?.signal(Signal::Stop)
    }

    /// Lets a suspended broker go on.
    pub fn resume_broker(&mut self) -> Result<()> {
        self.broker_process()?.signal(Signal::Continue)
    }

    /// Kills the name server as `kill -9` does. It has no data; brokers and clients go on with what they know.
    pub fn kill_namesrv(&mut self) -> Result<()> {
        self.namesrv
            .take()
            .context("the name server does not run")?
            .kill()?;
        Ok(())
    }

    /// Starts the name server on its old port, and waits until it answers. Kills it before, if it runs.
    pub async fn restart_namesrv(&mut self) -> Result<()> {
        self.namesrv = None;
        let process = self.launch_namesrv()?;
        let namesrv = self.namesrv();
        eventually(START, "the name server listens", async || {
            ensure!(process.is_running(), "the name server has ended");
            tokio::net::TcpStream::connect(&namesrv)
                .await
                .map(drop)
                .context("connecting")
        })
        .await
        .with_context(|| process.tail())?;
        self.namesrv = Some(process);
        Ok(())
    }

    /// Makes a topic of `queues` queues, and waits until clients can find it.
    pub async fn create_topic(&self, topic: &str, queues: u32) -> Result<()> {
        remoting::create_topic(&self.broker(), topic, queues).await?;
        let namesrv = self.namesrv();
        eventually(
            START,
            &format!("the name server knows the topic `{topic}`"),
            async || remoting::has_route(&namesrv, topic).await,
        )
        .await
    }

    /// Deletes a topic with its messages.
    pub async fn delete_topic(&self, topic: &str) -> Result<()> {
        remoting::delete_topic(&self.namesrv(), &self.broker(), topic).await
    }

    /// Lets clients write to the broker, or not.
    pub async fn allow_writes(&self, allowed: bool) -> Result<()> {
        // 4: may be read; 2: may be written.
        let permission = if allowed { "6" } else { "4" };
        remoting::configure(&self.broker(), "brokerPermission", permission).await
    }

    /// Sends one message without the client under test, and says at which offset of the queue it is.
    pub async fn send(&self, topic: &str, queue: u32, key: &str, body: &[u8]) -> Result<i64> {
        remoting::send(&self.broker(), topic, queue, key, body).await
    }

    /// The offset that the next message of the queue will get.
    pub async fn end_offset(&self, topic: &str, queue: u32) -> Result<i64> {
        remoting::end_offset(&self.broker(), topic, queue).await
    }

    /// Every message of a queue, without the client under test.
    pub async fn read(&self, topic: &str, queue: u32) -> Result<Vec<Message>> {
        remoting::read(&self.broker(), topic, queue, 0).await
    }

    /// How far a consumer group has come in each queue: `consumerProgress` of RocketMQ's own tools.
    pub async fn consumer_progress(&self, group: &str) -> Result<Vec<Progress>> {
        // The tool finds a group by its retry topic, which only some kinds of consumer make.
        self.create_topic(&format!("%RETRY%{group}"), 1).await?;
        let printed = self.admin(&["consumerProgress", "-g", group]).await?;
        let rows = printed
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>());
        Ok(rows
            .filter_map(|row| match row[..] {
                [topic, _broker, queue, end, committed, ..] => Some(Progress {
                    topic: topic.to_owned(),
                    queue: queue.parse().ok()?,
                    end: end.parse().ok()?,
                    committed: committed.parse().ok()?,
                }),
                _ => None,
            })
            .collect())
    }

    /// The queues and offsets of the messages that were sent with a key: `queryMsgByKey` of RocketMQ's own tools.
    pub async fn query_by_key(&self, topic: &str, key: &str) -> Result<Vec<(u32, i64)>> {
        let printed = self.admin(&["queryMsgByKey", "-t", topic, "-k", key]).await?;
        let rows = printed
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>());
        Ok(rows
            .filter_map(|row| match row[..] {
                [_id, queue, offset] => Some((queue.parse().ok()?, offset.parse().ok()?)),
                _ => None,
            })
            .collect())
    }

    /// Runs one of RocketMQ's own tools, `mqadmin ARGS`, and gives what it printed. It takes 1.5 s to start.
    pub async fn admin(&self, args: &[&str]) -> Result<String> {
        let mut command = self.java(&[
            "-Xms64m",
            "-Xmx128m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
        ])?;
        command.arg(logging(&self.dir, "tools")?);
        command
            .arg("org.apache.rocketmq.tools.command.MQAdminStartup")
            .args(args)
            .args(["-n", &self.namesrv()]);
        let output = tokio::process::Command::from(command).kill_on_drop(true).output();
        let output = tokio::time::timeout(ADMIN, output)
            .await
            .with_context(|| format!("`mqadmin {}` did not end within {ADMIN:?}", args.join(" ")))??;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        // It ends with 0 whatever happens.
        ensure!(
            output.status.success() && !printed.contains("Exception"),
            "`mqadmin {}` failed: {printed}{}",
            args.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(printed)
    }

    fn launch_namesrv(&self) -> Result<Process> {
        let config = self.dir.join("namesrv.conf");
        fs::write(
            &config,
            format!(
                "listenPort={}\nbindAddress=127.0.0.1\n",
                self.namesrv_ports.get(0)
            ),
        )?;
        let mut command = self.java(&["-Xms64m", "-Xmx128m", "-XX:+UseSerialGC"])?;
        command.arg(logging(&self.dir, "namesrv")?);
        command
            .arg("org.apache.rocketmq.namesrv.NamesrvStartup")
            .arg("-c")
            .arg(config);
        Process::start("namesrv", &self.dir, command)
    }

    fn launch_broker(&self) -> Result<Process> {
        let config = self.dir.join("broker.conf");
        let store = self.dir.join("store");
        let (listen, replicas, store) = (
            self.broker_ports.get(2),
            self.broker_ports.get(3),
            store.display(),
        );
        let settings = format!(
            "brokerClusterName={CLUSTER}\nbrokerName=broker-a\nbrokerId=0\n\
             brokerIP1=127.0.0.1\nbindAddress=127.0.0.1\nlistenPort={listen}\nhaListenPort={replicas}\n\
             storePathRootDir={store}\nstorePathCommitLog={store}/commitlog\n{BROKER_SETTINGS}{}",
            self.settings
        );
        fs::write(&config, settings)?;
        let mut command = self.java(BROKER_JVM)?;
        command.arg(logging(&self.dir, "broker")?);
        command
            .arg("org.apache.rocketmq.broker.BrokerStartup")
            .arg("-c")
            .arg(config)
            .args(["-n", &self.namesrv()]);
        Process::start("broker", &self.dir, command)
    }

    fn java(&self, options: &[&str]) -> Result<Command> {
        let jars = env::tool(env::ROCKETMQ_LIB)?.join("*");
        let mut command = Command::new("java");
        command
            // What it would write below the home directory goes where the test's other files are.
            .arg(format!("-Duser.home={}", self.dir.display()))
            .env("ROCKETMQ_HOME", &self.dir)
            .args(options)
            .arg("-cp")
            .arg(jars);
        Ok(command)
    }
}

/// Small files and tables; the two limits without which a pull brings 32 messages at most; filters by SQL; and no refusal
/// to write while the disk of the machine still has 5 %.
const BROKER_SETTINGS: &str = "\
mappedFileSizeCommitLog=67108864
maxHashSlotNum=100000
maxIndexNum=400000
timerWheelEnable=false
transientStorePoolEnable=false
autoCreateTopicEnable=true
autoCreateSubscriptionGroup=true
defaultTopicQueueNums=4
maxTransferCountOnMessageInMemory=1024
maxTransferBytesOnMessageInMemory=4194304
enablePropertyFilter=true
diskMaxUsedSpaceRatio=95
";

const BROKER_JVM: &[&str] = &[
    "-Xms256m",
    "-Xmx384m",
    "-Xmn128m",
    "-XX:MaxDirectMemorySize=256m",
    "-XX:+UseSerialGC",
    // It would delete messages, however new, on a disk that is 85 % full, and refuse to write on one that is 90 % full.
    "-Drocketmq.broker.diskSpaceCleanForciblyRatio=0.98",
    "-Drocketmq.broker.diskSpaceWarningLevelRatio=0.99",
    "--add-exports=java.base/jdk.internal.ref=ALL-UNNAMED",
    "--add-opens=java.base/java.nio=ALL-UNNAMED",
    "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED",
];

/// The option which makes a server log warnings to `NAME.log` in `dir`, and nothing anywhere else.
fn logging(dir: &Path, name: &str) -> Result<String> {
    const LOGBACK: &str = "org.apache.rocketmq.logging.ch.qos.logback.core";
    let (config, log) = (
        dir.join(format!("{name}-logback.xml")),
        dir.join(format!("{name}.log")),
    );
    let text = format!(
        r#"<configuration>
  <statusListener class="{LOGBACK}.status.NopStatusListener"/>
  <appender name="FILE" class="{LOGBACK}.FileAppender">
    <file>{}</file>
    <encoder><pattern>%d %-5p %c{{1}} [%t] %m%n</pattern></encoder>
  </appender>
  <root level="WARN"><appender-ref ref="FILE"/></root>
</configuration>
"#,
        log.display()
    );
    fs::write(&config, text)?;
    Ok(format!("-Drmq.logback.configurationFile={}", config.display()))
}
