use std::{collections::BTreeMap, fmt};

use gantry_proto::v1::{self, agent, connector, task};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, gauge::ConstGauge},
};

use super::PREFIX;
use crate::store::Quota;

/// How many there are in each state; every state is there, so that a series does not come and go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterCounts {
    connectors: BTreeMap<String, u64>,
    tasks: BTreeMap<String, u64>,
    agents: BTreeMap<String, u64>,
}

impl ClusterCounts {
    /// Counts resources as users see them.
    pub fn of<'a>(
        connectors: impl Iterator<Item = &'a v1::Connector>,
        tasks: impl Iterator<Item = &'a v1::Task>,
        agents: impl Iterator<Item = &'a v1::Agent>,
    ) -> Self {
        let name = |s: connector::State| s.as_str_name();
        let task_name = |s: task::State| s.as_str_name();
        let agent_name = |s: agent::State| s.as_str_name();
        Self {
            connectors: count(connectors.map(v1::Connector::state), name),
            tasks: count(tasks.map(v1::Task::state), task_name),
            agents: count(agents.map(v1::Agent::state), agent_name),
        }
    }
}

fn count<S: TryFrom<i32>>(
    present: impl Iterator<Item = S>,
    name: impl Fn(S) -> &'static str,
) -> BTreeMap<String, u64> {
    let shown = |s: S| name(s).trim_start_matches("STATE_").to_owned();
    // 0 is UNSPECIFIED, which nothing is in.
    let mut counts: BTreeMap<_, _> = (1..)
        .map_while(|n| S::try_from(n).ok())
        .map(|s| (shown(s), 0))
        .collect();
    for state in present {
        *counts.entry(shown(state)).or_default() += 1;
    }
    counts
}

type Counting = Box<dyn Fn() -> Option<ClusterCounts> + Send + Sync>;
type Measuring = Box<dyn Fn() -> Quota + Send + Sync>;

/// Figures of the cluster and of its store, counted when somebody asks for them.
pub struct Cluster {
    counts: Counting,
    quota: Measuring,
}

impl Cluster {
    /// `counts`: None while this replica does not lead, so that a sum over the replicas counts nothing twice.
    pub fn new(
        counts: impl Fn() -> Option<ClusterCounts> + Send + Sync + 'static,
        quota: impl Fn() -> Quota + Send + Sync + 'static,
    ) -> Self {
        Self {
            counts: Box::new(counts),
            quota: Box::new(quota),
        }
    }
}

impl Collector for Cluster {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        if let Some(counts) = (self.counts)() {
            for (name, help, states) in [
                (
                    "connectors",
                    "Connectors by state; only of the leader",
                    counts.connectors,
                ),
                ("tasks", "Tasks by state; only of the leader", counts.tasks),
                ("agents", "Agents by state; only of the leader", counts.agents),
            ] {
                let name = format!("{PREFIX}_{name}");
                let mut family = encoder.encode_descriptor(&name, help, None, MetricType::Gauge)?;
                for (state, count) in states {
                    ConstGauge::new(count).encode(family.encode_family(&[("state", state)])?)?;
                }
            }
        }
        let quota = (self.quota)();
        for (name, help, bytes) in [
            (
                "store_used",
                "Bytes in use in etcd, as it was last asked",
                Some(quota.used),
            ),
            (
                "store_quota",
                "Bytes that etcd allows, as it was last asked",
                quota.limit,
            ),
        ] {
            let Some(bytes) = bytes else { continue };
            let name = format!("{PREFIX}_{name}");
            let unit = prometheus_client::registry::Unit::Bytes;
            let gauge = encoder.encode_descriptor(&name, help, Some(&unit), MetricType::Gauge)?;
            ConstGauge::new(bytes).encode(gauge)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::{encoding::text::encode, registry::Registry};

    use super::*;

    fn text(counts: Option<ClusterCounts>) -> String {
        let quota = Quota { used: 7, limit: None };
        let mut registry = Registry::default();
        let cluster = Cluster::new(move || counts.clone(), move || quota);
        registry.register_collector(Box::new(cluster));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        text
    }

    #[test]
    fn the_leader_shows_every_state_and_others_none() {
        let mut failed = v1::Connector::default();
        failed.set_state(connector::State::Failed);
        let all = [failed.clone(), failed];
        let counts = ClusterCounts::of(all.iter(), [].iter(), [].iter());
        let shown = text(Some(counts));
        for line in [
            "gantry_server_connectors{state=\"FAILED\"} 2",
            "gantry_server_connectors{state=\"RUNNING\"} 0",
            "gantry_server_tasks{state=\"STALLED\"} 0",
            "gantry_server_agents{state=\"READY\"} 0",
            "gantry_server_store_used_bytes 7",
        ] {
            assert!(shown.lines().any(|l| l == line), "{line} is not in\n{shown}");
        }
        assert!(!shown.contains("UNSPECIFIED") && !shown.contains("store_quota"));
        assert!(!text(None).contains("state="));
    }
}
