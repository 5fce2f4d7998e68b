//! One session: how it ages, how slow an agent may be, what comes in several messages.

use std::time::Duration;

use gantry_control_plane::{
    domain::stored,
    store::{
        Expect, Key,
        sessions::{Expected, SessionWrite},
    },
};
use gantry_proto::{
    agent::v1::{
        AssignmentAck, Heartbeat, Hello, OpenSessionRequest, open_session_request::Message as Request,
        open_session_response::Message as Response,
    },
    v1::task::State,
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{Code, Status};

use crate::support::{
    Agent, World,
    agent::pass,
    is_within,
    world::{LEASE, task},
};

#[tokio::test(start_paused = true)]
async fn sessions_that_began_together_age_apart_and_no_task_restarts() {
    let age = Duration::from_secs(100);
    let world = World::with_max_age(2, age).await;
    let agents: Vec<Agent> = (0..8).map(|n| world.agent(&format!("a{n}"), n)).collect();
    let uid = world.create("orders", 16).await;
    world.tasks_are(&uid, 16, State::Running).await;
    pass(140).await;
    let mut ages = Vec::new();
    for agent in &agents {
        let seen = agent.seen.lock();
        assert!(
            seen.reconnects >= 1,
            "{} was never asked to dial again",
            agent.name
        );
        ages.push(seen.welcomes[1] - seen.welcomes[0]);
    }
    ages.sort();
    let (least, most) = (ages[0], ages[ages.len() - 1]);
    assert!(least >= age * 3 / 4, "{least:?}");
    // It dials again at once, give or take its jitter.
    assert!(most <= age * 5 / 4 + Duration::from_secs(1), "{most:?}");
    assert!(most - least > Duration::from_secs(10), "{least:?} to {most:?}");
    let starts: usize = agents.iter().map(|a| a.seen.lock().starts.len()).sum();
    assert_eq!(starts, 16);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_does_not_acknowledge_a_push_is_cut_off() {
    let world = World::new(1).await;
    let a = world.agent("a", 0);
    a.script.lock().mute = true;
    assert!(is_within(5, || a.seen.lock().sessions == 1).await);
    pass(29).await;
    assert_eq!(a.seen.lock().sessions, 1);
    assert!(is_within(5, || a.seen.lock().sessions == 2).await);
    let refused = a.seen.lock().refused.clone().unwrap();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.message().contains("acknowledge"), "{refused:?}");
    a.script.lock().mute = false;
    a.redial(0).await;
    let uid = world.create("orders", 1).await;
    world.tasks_are(&uid, 1, State::Running).await;
    pass(60).await;
    assert_eq!(a.seen.lock().sessions, 3);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_reads_nothing_is_cut_off_although_it_beats() {
    let world = World::new(1).await;
    let other = world.agent("other", 0);
    let (out, requests) = mpsc::channel(256);
    let send = async |message| {
        let message = Some(message);
        out.send(Ok::<_, Status>(OpenSessionRequest { message }))
            .await
            .is_ok()
    };
    let hello = Hello {
        agent: "slow".into(),
        instance_uid: "slow-1".into(),
        lock: Some(other.lock.clone()),
        start_counter: 1,
        dial_counter: 1,
        ..Hello::default()
    };
    assert!(send(Request::Hello(hello)).await);
    let service = world.replica(0).agent_service();
    let mut answers = service.open_session(ReceiverStream::new(requests));
    let revision = loop {
        match answers.next().await.unwrap().unwrap().message {
            Some(Response::Assignment(full)) => break full.revision,
            _ => continue,
        }
    };
    let ack = AssignmentAck {
        revision,
        ..AssignmentAck::default()
    };
    assert!(send(Request::AssignmentAck(ack)).await);
    // From here on nothing is read.
    let began = Instant::now();
    let mut sequence = 0;
    while send(Request::Heartbeat(Heartbeat { sequence })).await {
        sequence += 1;
        let waited = began.elapsed();
        assert!(
            waited < Duration::from_secs(120),
            "after {waited:?} it is still served"
        );
        sleep(Duration::from_secs(3)).await;
    }
    assert!(began.elapsed() > LEASE, "{:?}", began.elapsed());
    pass(LEASE.as_secs() + 2).await;
    assert!(world.session("slow").await.unwrap().silent);
    let mut read = 0;
    while answers.next().await.is_some() {
        read += 1;
    }
    assert!(read < sequence, "{read} messages were kept for it");
    assert_eq!(other.seen.lock().sessions, 1, "nobody else suffers");
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_keeps_asking_for_the_full_set_gets_it_at_a_bounded_rate() {
    let world = World::new(1).await;
    let a = world.agent("a", 0);
    a.script.lock().resyncs = 6;
    let uid = world.create("orders", 1).await;
    world.tasks_are(&uid, 1, State::Running).await;
    let asked = a.seen.lock().resyncs.clone();
    assert_eq!(asked.len(), 6);
    assert!(
        asked[2] - asked[0] < Duration::from_secs(1),
        "the first come at once"
    );
    for pair in asked[2..].windows(2) {
        let pause = pair[1] - pair[0];
        assert!(pause > Duration::from_secs(9), "{asked:?}");
    }
    assert_eq!((a.running().len(), a.seen.lock().sessions), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn one_resync_costs_nothing() {
    let world = World::new(1).await;
    let a = world.agent("a", 0);
    let uid = world.create("orders", 2).await;
    world.tasks_are(&uid, 2, State::Running).await;
    let full_sets = a.seen.lock().full_sets;
    a.script.lock().resyncs = 1;
    world.restart("orders", "again").await;
    assert!(is_within(2, || a.starts_of(&task(&uid, 1)) == 2).await);
    assert_eq!(a.seen.lock().full_sets, full_sets + 1);
    assert_eq!(a.seen.lock().sessions, 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_too_large_for_one_message_comes_in_several() {
    let world = World::new(2).await;
    let a = world.agent("a", 0);
    {
        let mut script = a.script.lock();
        // 3 tasks of a connector fit the answer to one ask, 24 tasks fill more than a message.
        script.padding = 60_000;
        script.inventory_chunks = 3;
    }
    let mut uids = Vec::new();
    for n in 0..8 {
        uids.push(world.create(&format!("orders{n}"), 3).await);
    }
    for uid in &uids {
        world.tasks_are(uid, 3, State::Running).await;
    }
    a.redial(1).await;
    assert!(is_within(5, || a.seen.lock().sessions == 2).await);
    pass(5).await;
    assert!(a.seen.lock().chunks >= 2, "{} chunks", a.seen.lock().chunks);
    assert_eq!((a.running().len(), a.seen.lock().starts.len()), (24, 24));
}

/// Agent a, which runs two tasks, says goodbye to a replica that cannot reach etcd; agent b is there to take them.
async fn goodbye_while_cut_off() -> (World, Agent, Agent, usize) {
    let world = World::new(2).await;
    let follower = 1 - world.leader().await;
    let a = world.agent("a", follower);
    let uid = world.create("orders", 2).await;
    world.tasks_are(&uid, 2, State::Running).await;
    let b = world.agent("b", 1 - follower);
    pass(2).await;
    world.cuts[follower].cut();
    a.goodbye().await;
    (world, a, b, follower)
}

#[tokio::test(start_paused = true)]
async fn a_goodbye_is_kept_while_etcd_is_away_for_a_moment() {
    let (world, a, b, follower) = goodbye_while_cut_off().await;
    sleep(Duration::from_millis(500)).await;
    assert!(b.running().is_empty());
    world.cuts[follower].heal();
    assert!(is_within(4, || b.running().len() == 2).await);
    assert!(world.session("a").await.is_none());
    assert!(a.seen.lock().exit.is_none(), "{:?}", a.seen.lock().exit);
}

#[tokio::test(start_paused = true)]
async fn a_goodbye_that_cannot_be_stored_ends_as_silence() {
    let (world, a, b, follower) = goodbye_while_cut_off().await;
    assert!(is_within(30, || a.seen.lock().exit.is_some()).await);
    assert_eq!(a.seen.lock().exit.as_ref().unwrap().code(), Code::Unavailable);
    world.cuts[follower].heal();
    assert!(is_within(3 * LEASE.as_secs(), || b.running().len() == 2).await);
    assert!(world.session("a").await.is_none_or(|s| s.silent));
}

/// A hello whose acceptance reached the store, while its answer reached nobody.
async fn accepted_unseen(world: &World, name: &str, present: (i64, i64), instance_uid: &str) {
    let lease = world.replica(0).lease().id().unwrap();
    let instance = stored::Instance {
        instance_uid: instance_uid.into(),
        start_counter: 9,
        dial_counter: 1,
        ..stored::Instance::default()
    };
    let session = stored::Session {
        instance_uid: instance_uid.into(),
        start_counter: 9,
        dial_counter: 1,
        replica: "replica-0".into(),
        ..stored::Session::default()
    };
    let expected = Expected {
        instance: present.0,
        session: present.1,
    };
    let written = world
        .store
        .write_session(name, expected, &instance, &session, lease)
        .await
        .unwrap();
    assert!(matches!(written, SessionWrite::Written(_)), "{written:?}");
}

#[tokio::test(start_paused = true)]
async fn a_session_that_no_stream_has_is_silent_after_a_lease() {
    let world = World::new(1).await;
    pass(1).await;
    accepted_unseen(&world, "ghost", (0, 0), "ghost-1").await;
    pass(LEASE.as_secs() - 1).await;
    assert!(
        !world.session("ghost").await.unwrap().silent,
        "not before a lease"
    );
    // It is found within a heartbeat.
    pass(5).await;
    assert!(world.session("ghost").await.unwrap().silent);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_displaced_another_unseen_is_silent_after_a_lease() {
    let world = World::new(1).await;
    let a = world.agent("a", 0);
    let uid = world.create("orders", 1).await;
    world.tasks_are(&uid, 1, State::Running).await;
    let b = world.agent("b", 0);
    pass(1).await;
    let keys = world.store.read_agent("a").await.unwrap().expected();
    a.kill();
    accepted_unseen(&world, "a", (keys.instance, keys.session), "a-2").await;
    // Neither the old stream nor anybody else would ever say that this instance is gone.
    pass(LEASE.as_secs() + 5).await;
    let session = world.session("a").await.unwrap();
    assert!(session.silent && session.instance_uid == "a-2", "{session:?}");
    assert!(is_within(2 * LEASE.as_secs(), || b.running().len() == 1).await);
    let stale = Expect::ModRevision(Key::Session("a".into()), keys.session);
    assert!(!world.store.guarded().expect(&stale).run().await.unwrap().applied);
}
