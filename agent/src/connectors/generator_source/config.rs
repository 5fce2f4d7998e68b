use gantry_connector::{Config, ConfigSpec, ConnectorError, Param};

/// The parameters.
pub(super) fn spec() -> ConfigSpec {
    ConfigSpec::new()
        .param(
            Param::float("rate")
                .doc("Records per second over all tasks; 0: as many as can be sent.")
                .min(0)
                .default(10),
        )
        .param(
            Param::size("size")
                .doc("Length of a value in bytes.")
                .max(4_000_000)
                .default("100"),
        )
        .param(
            Param::int("count")
                .doc("How many records there are in all; without it there is no end.")
                .min(0)
                .example("1000000"),
        )
        .param(
            Param::int("keys")
                .doc("How many different keys the records have; 0: none.")
                .min(0)
                .default(0),
        )
        .param(
            Param::int("partitions")
                .doc("How many sequences are made side by side; at most so many tasks have work.")
                .min(1)
                .max(1024)
                .default(1),
        )
        .param(
            Param::int("seed")
                .doc("Another seed gives other records.")
                .min(0)
                .default(0),
        )
}

/// The parameters of a task.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) rate: f64,
    pub(super) size: usize,
    pub(super) count: Option<u64>,
    pub(super) keys: u64,
    pub(super) partitions: u32,
    pub(super) seed: u64,
}

impl Settings {
    pub(super) fn read(config: &Config) -> Result<Self, ConnectorError> {
        Ok(Self {
            rate: config.float("rate")?,
            size: usize::try_from(config.size("size")?).unwrap_or(usize::MAX),
            count: config.opt_uint("count")?,
            keys: config.uint("keys")?,
            partitions: u32::try_from(config.uint("partitions")?).unwrap_or(1),
            seed: config.uint("seed")?,
        })
    }

    /// How many records the partition has: the first ones have one more when it cannot be divided.
    pub(super) fn count_of(&self, partition: u32) -> u64 {
        let n = u64::from(self.partitions);
        self.count.map_or(u64::MAX, |count| {
            count / n + u64::from(u64::from(partition) < count % n)
        })
    }
}
