//! What a name server says about topics and brokers, read. Pure.

use std::sync::Arc;

use rocketmq_protocol::protocol::{
    body::broker_body::cluster_info::ClusterInfo,
    route::{route_data_view::BrokerData, topic_route_data::TopicRouteData},
};

use crate::Queue;

const READABLE: u32 = 4;
const WRITABLE: u32 = 2;
const MASTER: u64 = 0;
/// The cluster that new topics go to if the name server knows several and one has this name.
const DEFAULT_CLUSTER: &str = "DefaultCluster";

/// A broker's name and address (`host:port`).
pub(super) type Broker = (Arc<str>, Arc<str>);

/// A topic's queues, sorted, and the addresses of the brokers that hold them.
#[derive(Debug, PartialEq)]
pub(super) struct Route {
    pub(super) queues: Arc<[Queue]>,
    pub(super) brokers: Vec<Broker>,
}

/// Reads a route. When a topic is being made smaller its write queues go first: those count as long as it can be written.
pub(super) fn read(topic: &str, data: &TopicRouteData) -> Route {
    let topic: Arc<str> = topic.into();
    let mut queues = Vec::new();
    for part in &data.queue_datas {
        let broker: Arc<str> = part.broker_name().as_str().into();
        let count = match part.perm {
            perm if perm & WRITABLE != 0 => part.write_queue_nums.min(part.read_queue_nums),
            perm if perm & READABLE != 0 => part.read_queue_nums,
            _ => 0,
        };
        queues.extend((0..count).map(|id| Queue {
            topic: topic.clone(),
            broker: broker.clone(),
            id,
        }));
    }
    queues.sort();
    Route {
        queues: queues.into(),
        brokers: data.broker_datas.iter().filter_map(address).collect(),
    }
}

/// The masters that a new topic is put on: those of one cluster, sorted by name.
pub(super) fn masters(info: &ClusterInfo) -> Vec<Broker> {
    let (Some(clusters), Some(brokers)) = (&info.cluster_addr_table, &info.broker_addr_table) else {
        return Vec::new();
    };
    let default = clusters.get(DEFAULT_CLUSTER);
    let Some(members) = default.or_else(|| {
        clusters
            .iter()
            .min_by_key(|(name, _)| *name)
            .map(|(_, members)| members)
    }) else {
        return Vec::new();
    };
    let member = |name| {
        brokers
            .get(name)
            .filter(|data| data.broker_addrs().contains_key(&MASTER))
            .and_then(address)
    };
    let mut masters: Vec<Broker> = members.iter().filter_map(member).collect();
    masters.sort();
    masters
}

/// The master's address, or that of the first slave while there is no master.
fn address(data: &BrokerData) -> Option<Broker> {
    let (_, address) = data.broker_addrs().iter().min_by_key(|(id, _)| **id)?;
    Some((data.broker_name().as_str().into(), address.as_str().into()))
}

/// How many of a topic's queues each of so many brokers gets: all of them together, as evenly as can be.
pub(super) fn spread(queues: u32, brokers: u32) -> impl Iterator<Item = u32> {
    (0..brokers).map(move |broker| queues / brokers + u32::from(broker < queues % brokers))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route_data(json: &str) -> TopicRouteData {
        TopicRouteData::decode(json.as_bytes()).unwrap()
    }

    fn queue_ids(perm: u32, read: u32, write: u32) -> Vec<u32> {
        let json = format!(
            r#"{{"brokerDatas":[{{"brokerAddrs":{{"0":"h:1","1":"h:2"}},"brokerName":"b","cluster":"c","enableActingMaster":false}}],
                "filterServerTable":{{}},
                "queueDatas":[{{"brokerName":"b","perm":{perm},"readQueueNums":{read},"topicSysFlag":0,"writeQueueNums":{write}}}]}}"#
        );
        let route = super::read("t", &route_data(&json));
        assert_eq!(route.brokers, [("b".into(), "h:1".into())]);
        route.queues.iter().map(|queue| queue.id).collect()
    }

    #[test]
    fn the_queues_that_count_follow_from_permission_and_both_numbers() {
        assert_eq!(queue_ids(6, 3, 3), [0, 1, 2]);
        assert_eq!(queue_ids(6, 3, 2), [0, 1]);
        assert_eq!(queue_ids(6, 2, 3), [0, 1]);
        assert_eq!(queue_ids(4, 3, 1), [0, 1, 2]);
        assert!(queue_ids(0, 3, 3).is_empty());
    }

    #[test]
    fn queues_of_several_brokers_are_sorted() {
        let route = super::read(
            "t",
            &route_data(
                r#"{"brokerDatas":[{"brokerAddrs":{0:"h:1"},"brokerName":"b","cluster":"c","enableActingMaster":false},{"brokerAddrs":{1:"h:3",2:"h:4"},"brokerName":"a","cluster":"c","enableActingMaster":false}],
                "filterServerTable":{},
                "queueDatas":[{"brokerName":"b","perm":6,"readQueueNums":1,"topicSysFlag":0,"writeQueueNums":1},
                              {"brokerName":"a","perm":6,"readQueueNums":1,"topicSysFlag":0,"writeQueueNums":1}]}"#,
            ),
        );
        assert_eq!(
            route.queues.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["t/a/0", "t/b/0"]
        );
        assert_eq!(
            route.brokers,
            [("b".into(), "h:1".into()), ("a".into(), "h:3".into())]
        );
    }

    #[test]
    fn a_new_topic_goes_to_the_masters_of_one_cluster() {
        let info = ClusterInfo::decode(
            br#"{"brokerAddrTable":{
                   "b2":{"brokerAddrs":{0:"h:2"},"brokerName":"b2","cluster":"DefaultCluster","enableActingMaster":false},
                   "b1":{"brokerAddrs":{0:"h:1"},"brokerName":"b1","cluster":"DefaultCluster","enableActingMaster":false},
                   "s":{"brokerAddrs":{1:"h:3"},"brokerName":"s","cluster":"DefaultCluster","enableActingMaster":false},
                   "x":{"brokerAddrs":{0:"h:4"},"brokerName":"x","cluster":"another","enableActingMaster":false}},
                 "clusterAddrTable":{"another":["x"],"DefaultCluster":["b2","s","b1"]}}"#,
        )
        .unwrap();
        assert_eq!(
            masters(&info),
            [("b1".into(), "h:1".into()), ("b2".into(), "h:2".into())]
        );
        assert!(masters(&ClusterInfo::new(None, None)).is_empty());
    }

    #[test]
    fn queues_are_spread_evenly() {
        assert_eq!(spread(8, 3).collect::<Vec<_>>(), [3, 3, 2]);
        assert_eq!(spread(1, 2).collect::<Vec<_>>(), [1, 0]);
        assert_eq!(spread(4, 1).collect::<Vec<_>>(), [4]);
    }
}
