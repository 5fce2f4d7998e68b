//! The settings of name server and broker: small files, quick start, large pulls, loopback only.

use std::path::Path;

use rocketmq_broker::config::{raw::RawBrokerConfig, validated::ValidatedBrokerConfig};
use rocketmq_namesrv::NamesrvConfig;
use rocketmq_transport::api::ServerConfig;

use crate::{StartError, ports::Ports};

pub(crate) fn namesrv(dir: &str) -> NamesrvConfig {
    NamesrvConfig {
        rocketmq_home: dir.to_owned(),
        kv_config_path: format!("{dir}/kvConfig.json"),
        config_store_path: format!("{dir}/namesrv.properties"),
        ..NamesrvConfig::default()
    }
}

pub(crate) fn namesrv_server(ports: Ports) -> ServerConfig {
    ServerConfig {
        listen_port: ports.namesrv.into(),
        bind_address: "127.0.0.1".into(),
        ..ServerConfig::default()
    }
}

/// Writes the broker's configuration file and reads it back: a file is its only input.
pub(crate) fn broker(dir: &str, ports: Ports) -> Result<ValidatedBrokerConfig, StartError> {
    let file = Path::new(dir).join("broker.toml");
    std::fs::write(&file, broker_toml(dir, ports)).map_err(|source| StartError::Directory {
        dir: dir.into(),
        source,
    })?;
    let raw = RawBrokerConfig::load(&file).map_err(|error| StartError::failed("broker (settings)", error))?;
    ValidatedBrokerConfig::try_from(raw).map_err(|error| StartError::failed("broker (settings)", error))
}

/// Why these values:
/// - topics are only made when asked for, so that a wrong name is an error and not a new topic;
/// - the micro-batch costs a factor of 5 to 10 in single sends, the timer wheel 300 ms at each start (delay levels stay);
/// - the files are allocated in full at the first message: 1.4 GiB by default, 69 MB so;
/// - without the transfer limits a pull returns at most 32 messages;
/// - from 85 % full disk on, the forced clean-up would delete messages however young; without it writes stop at 90 %;
/// - two busy cores let requests wait longer than 200 ms, at which brokers turn them away by default.
fn broker_toml(dir: &str, ports: Ports) -> String {
    let Ports { namesrv, broker } = ports;
    let replication = broker + 1;
    let dir = dir.replace('\\', "\\\\").replace('"', "\\\"");
    format!(
        r#"[broker]
namesrvAddr = "127.0.0.1:{namesrv}"
brokerIp1 = "127.0.0.1"
listenPort = {broker}
storePathRootDir = "{dir}/broker"
autoCreateTopicEnable = false
autoCreateSubscriptionGroup = true
enablePropertyFilter = true
waitTimeMillsInSendQueue = 3000
waitTimeMillsInPullQueue = 5000

[broker.brokerServerConfig]
bindAddress = "127.0.0.1"

[broker.brokerIdentity]
brokerName = "broker-a"
brokerClusterName = "DefaultCluster"
brokerId = 0

[store]
storeType = "LocalFile"
brokerRole = "ASYNC_MASTER"
storePathRootDir = "{dir}/store"
haListenAddress = "127.0.0.1"
haListenPort = {replication}
commitLogMicroBatchEnabled = false
timerWheelEnable = false
mappedFileSizeCommitLog = 67108864
mappedFileSizeConsumeQueue = 600000
maxHashSlotNum = 50000
maxIndexNum = 200000
maxTransferCountOnMessageInMemory = 4096
maxTransferBytesOnMessageInMemory = 4194304
maxTransferCountOnMessageInDisk = 4096
maxTransferBytesOnMessageInDisk = 4194304
diskMaxUsedSpaceRatio = 84
cleanFileForciblyEnable = false
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_broker_takes_its_settings_in_a_directory_with_any_name() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("with \"quotes\" and \\");
        std::fs::create_dir(&dir).unwrap();
        broker(
            dir.to_str().unwrap(),
            Ports {
                namesrv: 19_876,
                broker: 20_911,
            },
        )
        .unwrap();
    }
}
