//! The RocketMQ bus against real brokers: the embedded one always; Apache RocketMQ too if `GANTRY_ROCKETMQ_LIB` names a
//! directory with its jars (and `java` is on the path).

mod apache;
mod cases;
mod outage;
mod process;

use std::sync::Arc;

use gantry_bus::{Endpoint, rocketmq::RocketmqBus};
use gantry_embedded_rocketmq::{EmbeddedRocketmq, Options};

fn bus(namesrv: &str) -> Arc<RocketmqBus> {
    Arc::new(RocketmqBus::new(&Endpoint {
        namesrv: namesrv.into(),
    }))
}

/// An error with its causes, as a log would show it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

macro_rules! on_the_embedded_broker {
    ($($case:ident),* $(,)?) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $case() {
            let dir = tempfile::tempdir().unwrap();
            let server = EmbeddedRocketmq::start(dir.path(), Options::default()).await.unwrap();
            cases::$case(&bus(&server.namesrv_addr())).await;
            server.stop().await;
        }
    )*

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn apache_rocketmq_passes_all_of_them() {
            let Some(apache) = apache::Apache::start().await else { return };
            let shared = bus(&apache.namesrv_addr());
            $(
                println!("apache: {}", stringify!($case));
                cases::$case(&shared).await;
            )*
            apache.check_with_its_own_tools(&shared).await;
        }
    };
}

on_the_embedded_broker! {
    a_topic_is_made_once_and_routed,
    batches_in_flight_to_four_queues_are_read_contiguously_from_anywhere,
    a_long_poll_wakes_with_the_message,
    a_thousand_long_polls_wait_together,
    keys_tags_and_properties_come_back_as_they_went,
    bodies_of_any_size_come_back_identical,
    bounds_and_times_lead_to_offsets,
    the_mirrored_offset_is_the_groups_offset,
    what_a_broker_would_refuse_is_named,
    missing_topics_queues_and_offsets_are_told_apart,
}
