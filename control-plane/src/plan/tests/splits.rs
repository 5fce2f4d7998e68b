//! From an agent's answer to what is stored.

use gantry_proto::{
    agent::v1::{BrokerQueues, PlanTasksAnswer, PlannedTask},
    v1::{
        self,
        connector::{Kind, OnDisconnect, Ordering},
        problem::Domain,
    },
};

use super::model::{Model, connector, plugin};
use crate::{
    domain::{hash::spec_hash, stored, time::millis},
    plan::{Defaults, failed_ask, present_route, split},
};

fn answer(tasks: usize) -> PlanTasksAnswer {
    PlanTasksAnswer {
        tasks: vec![PlannedTask::default(); tasks],
        total_queues: 8,
    }
}

fn defaults() -> Defaults {
    Defaults {
        namesrv: "127.0.0.1:9876".into(),
        create_queues: 4,
    }
}

fn model(edit: impl FnOnce(&mut v1::Connector, &mut v1::Plugin)) -> Model {
    let (mut c, mut p) = (connector("orders", 3), plugin("1.0.0"));
    edit(c.definition.get_or_insert_default(), &mut p);
    let mut model = Model::default();
    model.put_plugin(p);
    model.put_connector("orders", c);
    model
}

fn specs(model: &Model) -> Vec<gantry_proto::agent::v1::TaskSpec> {
    let made = split(
        &model.snapshot,
        "orders",
        1,
        "h",
        "1.0.0",
        &answer(2),
        &defaults(),
        0,
    )
    .unwrap();
    assert!(
        made.tasks
            .iter()
            .all(|t| t.spec_hash == spec_hash(t.spec.as_ref().unwrap()))
    );
    made.tasks.into_iter().filter_map(|t| t.spec).collect()
}

#[test]
fn every_default_is_made_explicit() {
    let spec = specs(&model(|_, _| ())).remove(0);
    assert_eq!((spec.tasks, spec.total_queues, spec.create_queues), (2, 8, 4));
    assert_eq!(
        (
            spec.connector.as_str(),
            spec.topic.as_str(),
            spec.namesrv.as_str()
        ),
        ("orders", "t", "127.0.0.1:9876")
    );
    assert_eq!(
        (spec.max_record_bytes, spec.ordering(), spec.on_disconnect()),
        (4_000_000, Ordering::None, OnDisconnect::Stop)
    );
    let spans = [
        spec.drain_timeout,
        spec.stop_timeout,
        spec.restart_policy.and_then(|p| p.max_backoff),
    ];
    assert_eq!(spans.map(|d| d.unwrap().seconds), [10, 30, 60]);
    assert_eq!((spec.start_from, spec.consumer_group.as_str()), (None, ""));
}

#[test]
fn a_sink_has_a_group_and_a_start() {
    let spec = specs(&model(|_, p| p.set_kind(Kind::Sink))).remove(0);
    assert_eq!(
        (spec.topic.as_str(), spec.consumer_group.as_str()),
        ("", "gantry-orders")
    );
    let earliest = v1::start_from::Where::Position(v1::start_from::Position::Earliest.into());
    assert_eq!(spec.start_from.and_then(|s| s.r#where), Some(earliest));
    assert_eq!(spec.on_offset_out_of_range, i32::from(v1::OffsetOutOfRange::Fail));
}

#[test]
fn who_must_not_overlap_stops_when_cut_off() {
    let on = |c: &mut v1::Connector| c.set_on_disconnect(OnDisconnect::Continue);
    assert_eq!(
        specs(&model(|c, _| on(c)))[0].on_disconnect(),
        OnDisconnect::Continue
    );
    let exclusive = model(|c, p| {
        on(c);
        p.exclusive = true;
    });
    assert_eq!(specs(&exclusive)[0].on_disconnect(), OnDisconnect::Stop);
}

#[test]
fn an_equal_split_keeps_the_plan() {
    let mut model = model(|_, _| ());
    let first = split(
        &model.snapshot,
        "orders",
        1,
        "h1",
        "1.0.0",
        &answer(2),
        &defaults(),
        0,
    )
    .unwrap();
    assert_eq!((first.tasks.len(), first.pointer.plan_generation), (2, 1));
    for (n, planned) in (0..).zip(first.tasks) {
        model.put_planned("orders", 1, n, planned);
    }
    model.put_pointer("orders", first.pointer);
    let again = split(
        &model.snapshot,
        "orders",
        2,
        "h2",
        "1.0.0",
        &answer(2),
        &defaults(),
        0,
    )
    .unwrap();
    assert_eq!(
        (
            again.tasks.len(),
            again.pointer.plan_generation,
            again.pointer.input_hash.as_str()
        ),
        (0, 1, "h2")
    );
    // Whoever still wants another split is heard again, but not at once, and asks another agent first.
    let next = again.pointer.next_attempt_time.as_ref().map(millis);
    assert_eq!((next, again.pointer.attempts), (Some(30_000), 1));
    let other = split(
        &model.snapshot,
        "orders",
        2,
        "h2",
        "1.0.0",
        &answer(3),
        &defaults(),
        0,
    )
    .unwrap();
    assert_eq!((other.tasks.len(), other.pointer.plan_generation), (3, 2));
}

#[test]
fn every_task_knows_the_route_of_the_split_and_the_next_question_has_it() {
    let queue = |topic: &str, broker: &str, id| v1::Queue {
        topic: topic.into(),
        broker: broker.into(),
        id,
    };
    let task = |queues| PlannedTask { config: None, queues };
    let answer = PlanTasksAnswer {
        tasks: vec![
            task(vec![queue("t", "b", 1), queue("t", "a", 0)]),
            task(vec![queue("s", "a", 0), queue("t", "b", 0)]),
        ],
        total_queues: 4,
    };
    let mut model = model(|_, p| p.set_kind(Kind::Sink));
    let made = split(
        &model.snapshot,
        "orders",
        1,
        "h",
        "1.0.0",
        &answer,
        &defaults(),
        0,
    )
    .unwrap();
    let expected = [("s", "a", 1), ("t", "a", 1), ("t", "b", 2)];
    let expected = expected.map(|(topic, broker, queues)| BrokerQueues {
        topic: topic.into(),
        broker: broker.into(),
        queues,
    });
    for task in &made.tasks {
        assert_eq!(task.spec.as_ref().unwrap().route, expected);
    }
    for (n, planned) in (0..).zip(made.tasks) {
        model.put_planned("orders", 1, n, planned);
    }
    model.put_pointer("orders", made.pointer);
    assert_eq!(present_route(&model.snapshot, "orders", "h"), expected);
    // What a person has restarted or changed takes the route as it is.
    assert_eq!(present_route(&model.snapshot, "orders", "another"), []);
}

#[test]
fn answers_that_cannot_be_used() {
    let model = model(|_, _| ());
    let refused = |answer: &PlanTasksAnswer| {
        split(&model.snapshot, "orders", 1, "h", "1.0.0", answer, &defaults(), 0)
            .unwrap_err()
            .message
    };
    assert!(refused(&answer(0)).contains("0 tasks"));
    assert!(refused(&answer(4)).contains("1 to 3"));
    let config = serde_json::from_str(&format!(r#"{{"x": "{}"}}"#, "y".repeat(70_000))).ok();
    let large = PlanTasksAnswer {
        tasks: vec![PlannedTask {
            config,
            ..Default::default()
        }],
        total_queues: 0,
    };
    assert!(refused(&large).contains("task 0"));
}

#[test]
fn failed_asks_are_repeated_later_and_later() {
    let mut model = model(|_, _| ());
    let problem = |domain: Domain| v1::Problem {
        domain: domain.into(),
        reason: "X".into(),
        ..Default::default()
    };
    let mut pauses = Vec::new();
    for _ in 0..8 {
        let pointer = failed_ask(&model.snapshot, "orders", problem(Domain::External), 1_000);
        pauses.push((millis(pointer.next_attempt_time.as_ref().unwrap()) - 1_000) / 1_000);
        model.put_pointer("orders", pointer);
    }
    assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 300, 300]);
    model.edit_connector("orders", |c| c.restart_nonce = "r".into());
    let pointer = failed_ask(&model.snapshot, "orders", problem(Domain::User), 0);
    assert_eq!(
        (pointer.attempts, pointer.problem_final, pointer.next_attempt_time),
        (1, true, None)
    );
    assert_eq!(
        failed_ask(&model.snapshot, "none", problem(Domain::User), 0),
        stored::PlanPointer::default()
    );
}
