//! Whether the queues of a sink's topics are still those that it was split for. Pure.

use gantry_bus::Queue;
use gantry_proto::agent::v1::BrokerQueues;

/// Whether the sink has to be split anew. `split`: all queues that the connector reads, as they were; `route`: those that its
/// topics have now; `refused`: those of this task that their broker does not know.
///
/// A queue that is only missing from the route keeps its owner: its broker may be away. It is given up when its broker is
/// there and denies it.
pub(super) fn is_stale(split: &[BrokerQueues], route: &[Queue], refused: &[Queue]) -> bool {
    let is_known = |queue: &Queue| {
        split.iter().any(|known| {
            known.topic == *queue.topic && known.broker == *queue.broker && queue.id < known.queues
        })
    };
    let is_dropped = |queue: &Queue| {
        let has_broker = route
            .iter()
            .any(|q| q.topic == queue.topic && q.broker == queue.broker);
        has_broker && !route.contains(queue)
    };
    // A plan of a control plane that does not tell the route is never stale.
    !split.is_empty() && (!route.iter().all(is_known) || refused.iter().any(is_dropped))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(broker: &str, id: u32) -> Queue {
        Queue {
            topic: "t".into(),
            broker: broker.into(),
            id,
        }
    }

    fn split(brokers: &[(&str, u32)]) -> Vec<BrokerQueues> {
        let known = |(broker, queues): &(&str, u32)| BrokerQueues {
            topic: "t".into(),
            broker: (*broker).into(),
            queues: *queues,
        };
        brokers.iter().map(known).collect()
    }

    #[test]
    fn a_queue_that_nobody_reads_makes_it_stale() {
        let two = split(&[("a", 2)]);
        let route = |ids: &[(&str, u32)]| ids.iter().map(|(b, id)| queue(b, *id)).collect::<Vec<_>>();
        assert!(!is_stale(&two, &route(&[("a", 0), ("a", 1)]), &[]));
        assert!(is_stale(&two, &route(&[("a", 0), ("a", 1), ("a", 2)]), &[]));
        // As many as before, but another one among them.
        assert!(is_stale(&two, &route(&[("a", 0), ("b", 0)]), &[]));
        let elsewhere = Queue {
            topic: "u".into(),
            ..queue("a", 0)
        };
        assert!(is_stale(&two, &[elsewhere], &[]));
        assert!(!is_stale(&[], &route(&[("a", 0)]), &[]), "it is not known");
    }

    #[test]
    fn a_queue_that_is_missing_keeps_its_owner_until_its_broker_denies_it() {
        let both = split(&[("a", 2), ("b", 1)]);
        let away = [queue("a", 0), queue("a", 1)];
        assert!(!is_stale(&both, &away, &[]));
        assert!(!is_stale(&both, &away, &[queue("b", 0)]), "the broker is away");
        let smaller = [queue("a", 0), queue("b", 0)];
        // Writes to it have ended; it may still hold messages.
        assert!(!is_stale(&both, &smaller, &[]));
        assert!(is_stale(&both, &smaller, &[queue("a", 1)]));
    }
}
