//! One name, one process.

use gantry_proto::{
    agent::v1::{
        Hello, LockIdentity, OpenSessionRequest, open_session_request::Message as Request,
        open_session_response::Message as Response,
    },
    v1::task::State,
};
use tokio_stream::StreamExt;
use tonic::{Code, Status};

use crate::support::{Agent, World, agent::pass, is_within};

fn hello(agent: &Agent, start: u64, dial: u64) -> OpenSessionRequest {
    let hello = Hello {
        agent: agent.name.clone(),
        instance_uid: agent.instance_uid(),
        lock: Some(agent.lock.clone()),
        start_counter: start,
        dial_counter: dial,
        ..Hello::default()
    };
    OpenSessionRequest {
        message: Some(Request::Hello(hello)),
    }
}

#[tokio::test(start_paused = true)]
async fn a_twin_is_refused_until_the_first_is_silent() {
    let world = World::new(2).await;
    let a = world.agent("a", 0);
    let uid = world.create("orders", 1).await;
    world.tasks_are(&uid, 1, State::Running).await;
    let lock = LockIdentity {
        inode: 8,
        ..a.lock.clone()
    };
    let twin = Agent::start_as("a", world.services.clone(), 1, lock.clone(), 1);
    assert!(is_within(5, || twin.seen.lock().exit.is_some()).await);
    assert_eq!(
        twin.seen.lock().exit.as_ref().unwrap().code(),
        Code::AlreadyExists
    );
    pass(30).await;
    assert_eq!(a.running().len(), 1);
    assert_eq!(a.seen.lock().sessions, 1);

    a.kill();
    pass(12).await;
    let second = Agent::start_as("a", world.services.clone(), 1, lock, 2);
    assert!(is_within(20, || second.running().len() == 1).await);
}

#[tokio::test(start_paused = true)]
async fn a_hello_that_arrives_late_displaces_nobody() {
    let world = World::new(2).await;
    let a = world.agent("a", 0);
    assert!(is_within(5, || a.seen.lock().replica.is_some()).await);
    a.redial(1).await;
    assert!(is_within(5, || a.seen.lock().sessions == 2).await);
    pass(1).await;
    for (start, dial) in [(1, 1), (1, 2)] {
        let mut answers = world
            .replica(0)
            .agent_service()
            .open_session(tokio_stream::iter([Ok::<_, Status>(hello(&a, start, dial))]));
        let status = answers.next().await.unwrap().unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
    }
    pass(30).await;
    assert_eq!(a.seen.lock().sessions, 2);
    assert_eq!(a.seen.lock().replica.as_deref(), Some("replica-1"));
}

#[tokio::test(start_paused = true)]
async fn a_malformed_hello_says_what_is_wrong() {
    let world = World::new(1).await;
    let bad = OpenSessionRequest {
        message: Some(Request::Hello(Hello::default())),
    };
    let mut answers = world
        .replica(0)
        .agent_service()
        .open_session(tokio_stream::iter([Ok::<_, Status>(bad)]));
    assert_eq!(
        answers.next().await.unwrap().unwrap_err().code(),
        Code::InvalidArgument
    );
    let late = OpenSessionRequest { message: None };
    let mut answers = world
        .replica(0)
        .agent_service()
        .open_session(tokio_stream::iter([Ok::<_, Status>(late)]));
    assert_eq!(
        answers.next().await.unwrap().unwrap_err().code(),
        Code::InvalidArgument
    );
}

#[tokio::test(start_paused = true)]
async fn a_welcome_names_the_store_and_all_replicas() {
    let world = World::new(3).await;
    let (out, requests) = tokio::sync::mpsc::channel(4);
    let a = world.agent("b", 0);
    let mut first = hello(&a, 1, 1);
    if let Some(Request::Hello(hello)) = &mut first.message {
        hello.agent = "solo".into();
    }
    out.send(Ok::<_, Status>(first)).await.unwrap();
    let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
    let mut answers = world.replica(1).agent_service().open_session(requests);
    let Some(Response::Welcome(welcome)) = answers.next().await.unwrap().unwrap().message else {
        panic!("not a welcome")
    };
    assert_eq!(welcome.addresses, ["replica-0", "replica-1", "replica-2"]);
    assert_eq!(welcome.replica, "replica-1");
    assert_eq!(welcome.store_id.len(), 32);
}
