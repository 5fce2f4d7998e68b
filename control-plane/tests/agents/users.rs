//! What users are promised when they repeat themselves, get in each other's way, or watch.

use gantry_control_plane::domain::Uid;
use gantry_proto::{
    error::Reason,
    v1::{
        Connector, CreateConnectorRequest, DeleteConnectorRequest, GetConnectorRequest,
        PauseConnectorRequest, RestartConnectorRequest, StopConnectorRequest, UpdateConnectorRequest,
        WatchConnectorsRequest, connector::TargetState, task::State, watch_connectors_response::Event,
    },
};
use pbjson_types::FieldMask;
use tokio_stream::StreamExt;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::support::{Agent, World, agent::pass, is_within, plugin, world::Users};

const NAME: &str = "connectors/orders";

fn id(n: u32) -> String {
    format!("00000000-0000-4000-8000-{n:012}")
}

fn definition(topic: &str) -> Connector {
    Connector {
        name: NAME.into(),
        plugin: plugin::NAME.into(),
        topic: topic.into(),
        tasks_max: 1,
        target_state: TargetState::Running.into(),
        ..Connector::default()
    }
}

fn create(topic: &str, request: u32) -> CreateConnectorRequest {
    CreateConnectorRequest {
        connector_id: "orders".into(),
        connector: Some(definition(topic)),
        request_id: id(request),
        ..CreateConnectorRequest::default()
    }
}

fn update(topic: &str, request: u32) -> UpdateConnectorRequest {
    UpdateConnectorRequest {
        connector: Some(definition(topic)),
        update_mask: Some(FieldMask {
            paths: vec!["topic".into()],
        }),
        allow_missing: true,
        request_id: id(request),
        ..UpdateConnectorRequest::default()
    }
}

fn reason<T: std::fmt::Debug>(result: Result<T, Status>) -> String {
    let status = result.expect_err("it is refused");
    let info = status
        .get_details_error_info()
        .expect("every refusal has a reason");
    info.reason
}

async fn world() -> (World, Agent) {
    let world = World::new(2).await;
    let agent = world.agent("a", 0);
    assert!(is_within(5, || agent.seen.lock().replica.is_some()).await);
    pass(1).await;
    (world, agent)
}

/// The connector runs on the agent.
async fn running() -> (World, Agent, Users, Uid) {
    let (world, agent) = world().await;
    let mut users = world.users(1);
    let created = users.create_connector(create("t", 1)).await.unwrap().into_inner();
    let uid = Uid(created.uid.as_str().into());
    world.tasks_are(&uid, 1, State::Running).await;
    (world, agent, users, uid)
}

#[tokio::test(start_paused = true)]
async fn a_request_has_its_effect_once_on_whichever_replica() {
    let (world, _agent) = world().await;
    let (mut one, mut other) = (world.users(0), world.users(1));
    let first = one.create_connector(create("t", 1)).await.unwrap().into_inner();
    let again = other.create_connector(create("t", 1)).await.unwrap().into_inner();
    assert_eq!((first.uid, first.generation), (again.uid, again.generation));
    let reused = reason(one.create_connector(create("u", 1)).await);
    assert_eq!(reused, Reason::RequestIdReused.as_str());
    let exists = reason(one.create_connector(create("t", 2)).await);
    assert_eq!(exists, Reason::ConnectorExists.as_str());

    let pause = PauseConnectorRequest {
        name: NAME.into(),
        request_id: id(3),
    };
    assert!(
        one.pause_connector(pause.clone())
            .await
            .unwrap()
            .into_inner()
            .changed
    );
    let replayed = other.pause_connector(pause.clone()).await.unwrap().into_inner();
    assert!(replayed.changed, "what the first call answered");
    let new = PauseConnectorRequest {
        request_id: id(4),
        ..pause
    };
    assert!(!other.pause_connector(new).await.unwrap().into_inner().changed);
}

#[tokio::test(start_paused = true)]
async fn an_update_that_creates_is_not_repeated_over_somebody_elses_change() {
    let (world, _agent) = world().await;
    let mut users = world.users(0);
    let created = users.update_connector(update("t", 1)).await.unwrap().into_inner();
    assert_eq!((created.generation, created.topic.as_str()), (1, "t"));
    let changed = users.update_connector(update("u", 2)).await.unwrap().into_inner();
    assert_eq!((changed.generation, changed.topic.as_str()), (2, "u"));
    // The first one is sent again, as after a lost answer.
    let late = users.update_connector(update("t", 1)).await.unwrap().into_inner();
    assert_eq!((late.generation, late.topic.as_str()), (2, "u"));
}

#[tokio::test(start_paused = true)]
async fn updates_of_different_fields_at_once_all_count() {
    let (world, _agent) = world().await;
    let (mut one, mut other) = (world.users(0), world.users(1));
    one.create_connector(create("t", 1)).await.unwrap();
    let tasks = UpdateConnectorRequest {
        connector: Some(Connector {
            tasks_max: 3,
            ..definition("ignored")
        }),
        update_mask: Some(FieldMask {
            paths: vec!["tasks_max".into()],
        }),
        ..UpdateConnectorRequest::default()
    };
    let (a, b) = tokio::join!(
        one.update_connector(update("u", 2)),
        other.update_connector(tasks)
    );
    let generations = [
        a.unwrap().into_inner().generation,
        b.unwrap().into_inner().generation,
    ];
    assert!(generations.contains(&3), "{generations:?}");
    let get = GetConnectorRequest {
        name: NAME.into(),
        ..GetConnectorRequest::default()
    };
    let now = one.get_connector(get).await.unwrap().into_inner();
    assert_eq!((now.topic.as_str(), now.tasks_max, now.generation), ("u", 3, 3));
    // Whoever names what was read loses instead.
    let stale = UpdateConnectorRequest {
        connector: Some(Connector {
            etag: "1".into(),
            ..definition("v")
        }),
        ..update("v", 3)
    };
    assert_eq!(
        reason(one.update_connector(stale).await),
        Reason::EtagMismatch.as_str()
    );
}

#[tokio::test(start_paused = true)]
async fn a_connector_that_is_being_deleted_refuses_everything_but_the_delete() {
    let (world, agent) = world().await;
    let mut users = world.users(0);
    let uid = users
        .create_connector(create("t", 1))
        .await
        .unwrap()
        .into_inner()
        .uid;
    world
        .tasks_are(&Uid(uid.as_str().into()), 1, State::Running)
        .await;
    agent.script.lock().stubborn = true;
    let delete = |request, allow_missing| DeleteConnectorRequest {
        name: NAME.into(),
        force: true,
        allow_missing,
        request_id: id(request),
        ..DeleteConnectorRequest::default()
    };
    users.delete_connector(delete(2, false)).await.unwrap();
    let refused = users.update_connector(update("u", 3)).await.unwrap_err();
    assert!(refused.message().contains("UPDATE"), "{refused:?}");
    assert_eq!(reason::<()>(Err(refused)), Reason::ActionNotAllowed.as_str());
    assert_eq!(
        reason(users.create_connector(create("t", 4)).await),
        Reason::Deleting.as_str()
    );
    users.delete_connector(delete(5, false)).await.unwrap();

    // Its task ends with it, a lease later.
    agent.kill();
    pass(30).await;
    assert!(!world.exists("orders").await);
    users
        .delete_connector(delete(2, false))
        .await
        .expect("its own success");
    users
        .delete_connector(delete(6, true))
        .await
        .expect("nothing to do");
    let missing = reason(users.delete_connector(delete(7, false)).await);
    assert_eq!(missing, Reason::ConnectorNotFound.as_str());
}

#[tokio::test(start_paused = true)]
async fn verbs_follow_the_table_and_say_what_changed() {
    let (world, agent, mut users, uid) = running().await;
    let restart = |only_failed| RestartConnectorRequest {
        name: NAME.into(),
        only_failed,
        ..RestartConnectorRequest::default()
    };
    let nothing = users.restart_connector(restart(true)).await.unwrap().into_inner();
    assert!(!nothing.changed, "no task has failed");
    agent.fail().await;
    world.tasks_are(&uid, 1, State::Failed).await;
    assert!(
        users
            .restart_connector(restart(true))
            .await
            .unwrap()
            .into_inner()
            .changed
    );
    world.tasks_are(&uid, 1, State::Running).await;

    let stop = StopConnectorRequest {
        name: NAME.into(),
        ..StopConnectorRequest::default()
    };
    let stopped = users.stop_connector(stop).await.unwrap().into_inner();
    assert!(stopped.changed && stopped.connector.unwrap().target_state() == TargetState::Stopped);
    let refused = users.restart_connector(restart(false)).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    let info = refused.get_details_error_info().unwrap();
    assert_eq!(info.metadata["meant"], "RESUME", "{info:?}");
}

#[tokio::test(start_paused = true)]
async fn a_watch_ends_when_the_store_is_restored() {
    let (mut world, _agent) = world().await;
    let mut users = world.users(0);
    users.create_connector(create("t", 1)).await.unwrap();
    let watch = |resume_token| WatchConnectorsRequest {
        resume_token,
        ..WatchConnectorsRequest::default()
    };
    let mut watched = users
        .watch_connectors(watch(String::new()))
        .await
        .unwrap()
        .into_inner();
    let mut token = String::new();
    while let Some(message) = watched.next().await {
        let message = message.unwrap();
        if !message.resume_token.is_empty() {
            token = message.resume_token;
        }
        if matches!(message.event, Some(Event::Synced(_))) {
            break;
        }
    }
    let backup = world.backup().await;
    world.restore(&backup, "another-store").await;
    let end = loop {
        match watched.next().await.expect("it ends with a reason") {
            Ok(_) => {}
            Err(status) => break status,
        }
    };
    assert_eq!(end.code(), Code::OutOfRange, "{end:?}");
    assert!(!token.is_empty());
    let resumed = reason(users.watch_connectors(watch(token)).await);
    assert_eq!(resumed, Reason::ResumeTokenExpired.as_str());
    let mut anew = users
        .watch_connectors(watch(String::new()))
        .await
        .unwrap()
        .into_inner();
    let first = anew.next().await.unwrap().unwrap();
    assert!(matches!(first.event, Some(Event::Upserted(c)) if c.name == NAME));
}
