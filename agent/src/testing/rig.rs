//! Runs of tasks on fakes: a memory bus, a memory store, connectors that do what they are told, a paused clock.

use std::{sync::Arc, time::Duration};

use gantry_bus::memory::MemoryBus;
use gantry_connector::{Config, Env, Fields, Plugin};
use gantry_proto::{
    agent::v1::{BrokerQueues, TaskSpec},
    v1,
};
use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::JoinHandle,
};

use super::{
    eventually,
    plugins::{self, World},
    store::MemoryStore,
};
use crate::{
    Limits, TokioClock,
    backoff::Jitter,
    key::TaskKey,
    lease::Lease,
    metrics::Metrics,
    problem::Failure,
    secrets::Secrets,
    task::{Control, Events, How, RunContext, RunEnd, RunEvent, run, thread::Place},
};

pub(crate) struct Rig {
    pub(crate) world: Arc<World>,
    pub(crate) bus: MemoryBus,
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) lease: Arc<Lease>,
    pub(crate) limits: Limits,
    pub(crate) spec: TaskSpec,
    pub(crate) fence: i64,
    pub(crate) inline: bool,
}

/// A run under way.
pub(crate) struct Started {
    pub(crate) control: watch::Sender<Control>,
    pub(crate) events: mpsc::Receiver<(TaskKey, u64, RunEvent)>,
    end: JoinHandle<RunEnd>,
}

impl Rig {
    /// With a topic `t` of so many queues, and a lease that lasts.
    pub(crate) fn new(queues: u32) -> Self {
        let bus = MemoryBus::new();
        bus.create("t", queues);
        let lease = Arc::new(Lease::new(Arc::new(TokioClock::default())));
        lease.set_length(Duration::from_secs(1_000_000));
        lease.renew(lease.clock().now());
        let spec = TaskSpec {
            connector: "c".into(),
            topic: "t".into(),
            tasks: 1,
            plan_generation: 1,
            ..Default::default()
        };
        let limits = Limits::default();
        Self {
            world: Arc::default(),
            bus,
            store: Arc::default(),
            lease,
            limits,
            spec,
            fence: 1,
            inline: true,
        }
    }

    /// Reads all queues of `t`.
    pub(crate) fn sink(mut self, queues: u32) -> Self {
        self.spec.queues = (0..queues)
            .map(|id| crate::wire::queue_out(&self.bus.queue("t", id)))
            .collect();
        self.spec.total_queues = queues;
        self.spec.route = vec![BrokerQueues {
            topic: "t".into(),
            broker: self.bus.queue("t", 0).broker.to_string(),
            queues,
        }];
        self.spec.consumer_group = "g".into();
        self
    }

    pub(crate) fn policy(&mut self, policy: v1::error_policy::OnRecordError) {
        let dead_letter_topic = "dead".into();
        self.spec.error_policy = Some(v1::ErrorPolicy {
            on_record_error: policy as i32,
            dead_letter_topic,
        });
        self.bus.create("dead", 1);
    }

    pub(crate) fn start_source(&self) -> Started {
        self.start(plugins::on(&self.world).remove(0))
    }

    pub(crate) fn start_sink(&self) -> Started {
        self.start(plugins::on(&self.world).remove(1))
    }

    fn start(&self, plugin: Plugin) -> Started {
        let (control, told) = watch::channel(Control::Run);
        let (to, events) = mpsc::channel(10_000);
        let key = TaskKey::new("uid", 0);
        let context = RunContext {
            key: key.clone(),
            fence: self.fence,
            spec: Arc::new(self.spec.clone()),
            plugin,
            config: Config::new(),
            store: self.store.clone(),
            bus: Arc::new(self.bus.clone()),
            lease: self.lease.clone(),
            control: told,
            events: Events { key, run: 1, to },
            limits: Arc::new(self.limits.clone()),
            place: if self.inline {
                Place::Inline
            } else {
                Place::threads().unwrap()
            },
            secrets: Arc::new(Secrets::new(vec![])),
            env: Env::default(),
            jitter: Jitter::new(7),
            metrics: Metrics::new().task("c", 0),
            starts: Arc::new(Semaphore::new(1)),
            scrubber: Default::default(),
        };
        Started {
            control,
            events,
            end: tokio::spawn(run(context)),
        }
    }

    /// What the topic holds, in the order of each queue.
    pub(crate) fn sent(&self, topic: &str) -> Vec<String> {
        let queues = if topic == "t" {
            self.spec.queues.len().max(self.queues())
        } else {
            1
        };
        let bodies = |q: u32| {
            self.bus
                .messages(topic, q)
                .into_iter()
                .map(|m| String::from_utf8_lossy(&m.body).into_owned())
        };
        (0..queues as u32).flat_map(bodies).collect()
    }

    fn queues(&self) -> usize {
        use gantry_bus::Bus;
        futures::executor::block_on(self.bus.route("t")).map_or(0, |r| r.len())
    }

    /// The committed position of the fake source.
    pub(crate) fn committed(&self) -> u64 {
        self.store
            .position(&source_partition())
            .and_then(|p| p.uint("record"))
            .unwrap_or(0)
    }

    /// The committed offset of a queue.
    pub(crate) fn offset(&self, queue: u32) -> Option<u64> {
        let fields = crate::wire::queue_fields(&self.bus.queue("t", queue));
        self.store.position(&fields).and_then(|p| p.uint("offset"))
    }
}

pub(crate) fn source_partition() -> Fields {
    Fields::new().with("name", "fake")
}

impl Started {
    pub(crate) fn tell(&self, control: Control) {
        self.control.send_replace(control);
    }

    /// Waits for its end.
    pub(crate) async fn end(self) -> RunEnd {
        self.end.await.unwrap()
    }

    /// Tells it to drain and waits for its end.
    pub(crate) async fn drain(self) -> How {
        self.tell(Control::Drain);
        self.end().await.how
    }

    /// Waits until it says that nothing moves, for this reason, and gives what it says. It has ten seconds for that.
    pub(crate) async fn stalls(&mut self, reason: &str) -> Failure {
        let within = Duration::from_secs(10);
        let stalled = async {
            loop {
                match self.events.recv().await {
                    Some((.., RunEvent::Stalled(failure))) => return failure,
                    Some(_) => {}
                    None => panic!("it ended"),
                }
            }
        };
        let failure = tokio::time::timeout(within, stalled)
            .await
            .unwrap_or_else(|_| panic!("it does not say {reason}"));
        assert_eq!(failure.reason, reason, "{}", failure.message);
        failure
    }

    /// Waits until it says that it moves again.
    pub(crate) async fn recovers(&mut self) {
        eventually("it says that it moves", || {
            self.seen().iter().any(|e| matches!(e, RunEvent::Recovered))
        })
        .await;
    }

    /// Events so far.
    pub(crate) fn seen(&mut self) -> Vec<RunEvent> {
        std::iter::from_fn(|| self.events.try_recv().ok().map(|(_, _, e)| e)).collect()
    }
}
