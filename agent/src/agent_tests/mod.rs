//! The whole agent, against a fake control plane, on memory buses and a paused clock.

mod cut_off;
mod reports;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use gantry_bus::{
    OutMessage,
    memory::{MemoryBus, MemoryBusFactory},
};
use gantry_connector::{Domain, Fields};
use gantry_proto::{
    agent::v1::{
        Ask, PlanTasks, Reconnect, TaskAssignment, TaskSpec, ask::Question, ask_answer::Answer,
        open_session_response::Message as Out, task_ack::Outcome, task_assignment::Want,
    },
    v1::task::State,
};
use parking_lot::Mutex;
use tokio::{task::JoinHandle, time::sleep};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::{
    Agent, AgentConfig, AgentError, TokioClock,
    testing::{
        control::{Control, settle},
        eventually,
        plugins::{self, Fault, World},
        store::MemoryStore,
    },
    wire,
};

struct House {
    world: Arc<World>,
    bus: MemoryBus,
    store: Arc<MemoryStore>,
    control: Control,
    aborts: Arc<Mutex<Vec<String>>>,
    locks: tempfile::TempDir,
    shutdown: CancellationToken,
}

impl House {
    fn new() -> Self {
        let store = Arc::new(MemoryStore::default());
        let bus = MemoryBus::new();
        bus.create("t", 2);
        Self {
            world: Arc::default(),
            bus,
            control: Control::new(store.clone()),
            store,
            aborts: Arc::default(),
            locks: tempfile::tempdir().unwrap(),
            shutdown: CancellationToken::new(),
        }
    }

    fn config(&self) -> AgentConfig {
        let bus = Arc::new(MemoryBusFactory::of(self.bus.clone()));
        let mut config = AgentConfig::new(
            vec!["http://control:1".into()],
            "agent-1",
            bus,
            plugins::on(&self.world),
        );
        config.lock_dir = self.locks.path().into();
        config.seed = 1;
        config.hooks.clock = Arc::new(TokioClock::default());
        config.hooks.inline_connectors = true;
        config.hooks.dial = Some(self.control.dial());
        let aborts = self.aborts.clone();
        config.hooks.abort = Arc::new(move |reason| aborts.lock().push(reason.into()));
        config
    }

    async fn start(&self) -> JoinHandle<Result<(), AgentError>> {
        let agent = Agent::build(self.config()).await.unwrap();
        tokio::spawn(agent.run(self.shutdown.clone()))
    }

    async fn stop(&self, agent: JoinHandle<Result<(), AgentError>>) {
        self.shutdown.cancel();
        agent.await.unwrap().unwrap();
    }

    fn source(&self, want_revision: i64, want: Want) -> TaskAssignment {
        let spec = TaskSpec {
            connector: "in".into(),
            plugin: "fake-source".into(),
            topic: "t".into(),
            tasks: 1,
            plan_generation: 1,
            ..Default::default()
        };
        TaskAssignment {
            connector_uid: "u-in".into(),
            task: 0,
            fence: 1,
            want_revision,
            want: want as i32,
            restart_nonce: "a".into(),
            spec_hash: "h".into(),
            spec: Some(spec),
            ..Default::default()
        }
    }

    fn sink(&self, want_revision: i64, want: Want) -> TaskAssignment {
        let queues: Vec<_> = (0..2)
            .map(|id| wire::queue_out(&self.bus.queue("t", id)))
            .collect();
        let mut task = self.source(want_revision, want);
        (task.connector_uid, task.task) = ("u-out".into(), 1);
        let spec = task.spec.get_or_insert_default();
        (spec.connector, spec.plugin) = ("out".into(), "fake-sink".into());
        (spec.queues, spec.total_queues) = (queues, 2);
        task
    }

    fn committed(&self) -> u64 {
        self.store
            .position(&Fields::new().with("name", "fake"))
            .and_then(|p| p.uint("record"))
            .unwrap_or(0)
    }

    fn in_state(&self, task: u32, state: State) -> bool {
        self.control.status(task).is_some_and(|s| s.state() == state)
    }

    async fn until_state(&self, task: u32, state: State) {
        eventually(&format!("task {task} is {state:?}"), || {
            self.in_state(task, state)
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn from_hello_to_goodbye() {
    let h = House::new();
    h.world.fill(5_000);
    let agent = h.start().await;
    h.control.want(h.source(1, Want::Run));
    h.control.want(h.sink(1, Want::Run));
    h.until_state(0, State::Running).await;
    h.until_state(1, State::Running).await;
    eventually("all is committed", || h.committed() == 5_000).await;
    eventually("all is written", || h.world.durable.lock().len() == 5_000).await;

    h.control.want(h.source(2, Want::Pause));
    h.until_state(0, State::Paused).await;
    assert_eq!(h.control.status(0).unwrap().want_revision, 2);
    h.world.fill(100);
    settle().await;
    assert_eq!(h.committed(), 5_000);

    h.control.want(h.source(3, Want::Run));
    eventually("it goes on", || h.committed() == 5_100).await;
    eventually("all is written", || h.world.durable.lock().len() == 5_100).await;
    h.control.want(h.sink(4, Want::Stop));
    h.until_state(1, State::Stopped).await;
    let confirmation = h.control.status(1).unwrap();
    assert_eq!((confirmation.want_revision, confirmation.fence), (4, 1));
    settle().await;
    h.control.revoke("u-out", 1);
    let hello = h.control.seen.lock().hellos[0].clone();
    assert_eq!(
        (hello.agent.as_str(), hello.dial_counter, hello.plugins.len()),
        ("agent-1", 1, 2)
    );
    assert!(hello.start_counter > 0 && !hello.instance_uid.is_empty());

    h.world.fill(50);
    h.stop(agent).await;
    let goodbyes = h.control.seen.lock().goodbyes.clone();
    let stopped: Vec<_> = goodbyes[0]
        .tasks
        .iter()
        .map(|t| (t.task.clone().unwrap().connector_uid, t.fence))
        .collect();
    assert_eq!(stopped, [("u-in".to_owned(), 1)]);
    let sent: usize = (0..2).map(|q| h.bus.messages("t", q).len()).sum();
    assert_eq!(h.committed() as usize, sent);
    assert!(h.aborts.lock().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_stop_is_confirmed_until_the_grant_is_gone() {
    let h = House::new();
    let agent = h.start().await;
    h.control.want(h.source(1, Want::Run));
    h.until_state(0, State::Running).await;
    h.control.want(h.source(2, Want::Stop));
    h.until_state(0, State::Stopped).await;
    let stops = || {
        h.control
            .seen
            .lock()
            .statuses
            .iter()
            .filter(|s| s.state() == State::Stopped)
            .count()
    };
    let before = stops();
    sleep(Duration::from_secs(35)).await;
    assert!(stops() >= before + 3);
    h.control.revoke("u-in", 0);
    settle().await;
    let after = stops();
    sleep(Duration::from_secs(35)).await;
    assert_eq!(stops(), after);
    h.stop(agent).await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_nonce_restarts_running_and_failed_tasks() {
    let h = House::new();
    let agent = h.start().await;
    h.control.want(h.source(1, Want::Run));
    h.until_state(0, State::Running).await;
    let mut again = h.source(2, Want::Run);
    again.restart_nonce = "b".into();
    h.control.want(again.clone());
    let done = |n: &str| {
        h.control
            .status(0)
            .is_some_and(|s| s.restart_nonce == n && s.state() == State::Running)
    };
    eventually("it was restarted", || done("b")).await;
    assert_eq!(h.world.opened.load(Ordering::SeqCst), 2);
    // Between the two it was not running.
    let states: Vec<_> = h.control.seen.lock().statuses.iter().map(|s| s.state()).collect();
    let stopping = states.iter().rposition(|s| *s == State::Stopping);
    assert!(
        stopping < states.iter().rposition(|s| *s == State::Running),
        "{states:?}"
    );

    h.world.fault("poll", [Fault::Fails(Domain::User)]);
    h.until_state(0, State::Failed).await;
    settle().await;
    let problem = h.control.status(0).unwrap().problem.unwrap();
    assert_eq!(
        (problem.domain(), problem.message.as_str()),
        (
            gantry_proto::v1::problem::Domain::User,
            "poll: poll was told to fail"
        )
    );
    (again.restart_nonce, again.want_revision) = ("c".into(), 3);
    h.control.want(again);
    eventually("it was restarted", || done("c")).await;
    h.stop(agent).await;
}

#[tokio::test(start_paused = true)]
async fn failures_are_retried_with_growing_pauses_until_they_pass() {
    let h = House::new();
    h.world.fault("poll", vec![Fault::Panics; 6]);
    h.world.fill(10);
    let agent = h.start().await;
    h.control.want(h.source(1, Want::Run));
    eventually("it backs off", || h.in_state(0, State::BackingOff)).await;
    let backing_off = h.control.status(0).unwrap();
    assert!(backing_off.next_attempt_time.is_some() && backing_off.problem.is_some());
    eventually("all is committed", || h.committed() == 10).await;
    let most = h.control.seen.lock().statuses.iter().map(|s| s.restarts).max();
    assert_eq!(most, Some(6));
    h.stop(agent).await;
}

#[tokio::test(start_paused = true)]
async fn a_task_that_may_not_restart_fails() {
    let h = House::new();
    h.world.fault("open", vec![Fault::Fails(Domain::Task); 10]);
    let agent = h.start().await;
    let mut task = h.source(1, Want::Run);
    task.spec.get_or_insert_default().restart_policy = Some(gantry_proto::v1::RestartPolicy {
        max_restarts: 2,
        ..Default::default()
    });
    h.control.want(task);
    h.until_state(0, State::Failed).await;
    assert_eq!(h.world.faults.lock()["open"].len(), 7);
    h.stop(agent).await;
}

#[tokio::test(start_paused = true)]
async fn a_newer_right_replaces_an_older_one_only_after_it_has_ended() {
    let h = House::new();
    let agent = h.start().await;
    h.control.want(h.source(1, Want::Run));
    h.until_state(0, State::Running).await;
    let mut newer = h.source(2, Want::Run);
    newer.fence = 9;
    h.store.set_fence(9);
    h.control.want(newer);
    eventually("it runs under the new one", || {
        h.control
            .status(0)
            .is_some_and(|s| s.fence == 9 && s.state() == State::Running)
    })
    .await;
    assert_eq!(
        (
            h.world.opened.load(Ordering::SeqCst),
            h.world.closed.load(Ordering::SeqCst)
        ),
        (2, 1)
    );
    h.control.want(h.source(3, Want::Run));
    let stale = |h: &House| {
        h.control
            .seen
            .lock()
            .acks
            .iter()
            .flat_map(|a| &a.tasks)
            .any(|t| t.outcome() == Outcome::Stale)
    };
    eventually("the older one is refused", || stale(&h)).await;
    h.stop(agent).await;
}

#[tokio::test(start_paused = true)]
async fn a_fenced_task_is_dropped_and_not_started_again() {
    let h = House::new();
    h.world.fill(10);
    let agent = h.start().await;
    h.control.want(h.source(1, Want::Run));
    eventually("all is committed", || h.committed() == 10).await;
    h.store.set_fence(2);
    h.world.fill(10);
    eventually("it was closed", || h.world.closed.load(Ordering::SeqCst) == 1).await;
    h.control.want(h.source(1, Want::Run));
    settle().await;
    assert_eq!(h.world.opened.load(Ordering::SeqCst), 1);
    h.stop(agent).await;
    assert!(h.control.seen.lock().goodbyes[0].tasks.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_refused_name_ends_it_and_a_stale_hello_does_not() {
    let h = House::new();
    *h.control.refuse.lock() = Some(Status::failed_precondition("a later hello was accepted"));
    let agent = h.start().await;
    eventually("it dials again", || h.control.dials.load(Ordering::SeqCst) > 2).await;
    *h.control.refuse.lock() = Some(Status::already_exists("another process has the name"));
    let refused = agent.await.unwrap().unwrap_err();
    assert!(
        refused.to_string().contains("another process has the name"),
        "{refused}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_name_is_held_by_one_process() {
    let h = House::new();
    let first = Agent::build(h.config()).await.unwrap();
    let second = Agent::build(h.config()).await;
    assert!(matches!(second, Err(AgentError::NameTaken { .. })));
    drop(first);
    Agent::build(h.config()).await.unwrap();
    let mut bad = h.config();
    bad.name = "Not An Id".into();
    assert!(matches!(Agent::build(bad).await, Err(AgentError::Config(_))));
}

#[tokio::test(start_paused = true)]
async fn asks_are_answered_in_the_session() {
    let h = House::new();
    let agent = h.start().await;
    eventually("a session", || !h.control.seen.lock().inventories.is_empty()).await;
    settle().await;
    let question = Some(Question::PlanTasks(PlanTasks {
        tasks_max: 2,
        route: vec![],
    }));
    h.control.say(Out::Ask(Ask {
        id: "7".into(),
        plugin: "fake-sink".into(),
        topics: vec!["t".into()],
        question,
        ..Default::default()
    }));
    eventually("it is answered", || !h.control.seen.lock().answers.is_empty()).await;
    let answer = h.control.seen.lock().answers[0].clone();
    assert!(answer.id == "7" && matches!(answer.answer, Some(Answer::PlanTasks(p)) if p.tasks.len() == 2));
    h.stop(agent).await;
}

#[tokio::test(start_paused = true)]
async fn tasks_that_cannot_run_here_are_refused_alone() {
    let h = House::new();
    let agent = h.start().await;
    let mut bad = h.source(1, Want::Run);
    (bad.task, bad.spec.get_or_insert_default().plugin) = (5, "nothing".into());
    h.control.want(bad);
    h.control.want(h.source(1, Want::Run));
    h.until_state(0, State::Running).await;
    let acks = h.control.seen.lock().acks.clone();
    let refused = acks
        .iter()
        .flat_map(|a| &a.tasks)
        .find(|t| t.outcome() == Outcome::Refused)
        .unwrap();
    assert!(
        refused
            .error
            .as_ref()
            .unwrap()
            .message
            .contains("no plugin nothing")
    );
    h.stop(agent).await;
}
