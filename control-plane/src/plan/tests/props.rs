//! What holds whatever happens.

use gantry_proto::{agent::v1::task_assignment::Want, v1::connector::TargetState};
use proptest::prelude::*;

use super::{
    model::{Model, connector, plugin, session},
    world::{Op, World, ops},
};
use crate::{
    domain::Snapshot,
    plan::{Action, Facts, plan},
};

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// No right ends while its holder may use it, no task gets two, no plan starts before the one before has ended (the
    /// model asserts all that at every step); and when nothing happens any more, everything is as the users want it.
    #[test]
    fn every_history_is_safe_and_settles(history in ops(100)) {
        let mut world = World::new();
        for op in &history {
            world.step(op);
        }
        world.settle();
        let s = &world.model.snapshot;
        for (name, c) in &s.connectors {
            prop_assert!(c.delete_time.is_none(), "{name} is gone");
            let uid = crate::domain::Uid(c.uid.as_str().into());
            let held = Snapshot::tasks_of(&s.grants, &uid).count();
            let definition = c.definition.clone().unwrap_or_default();
            let (wanted, want) = match definition.target_state() {
                TargetState::Stopped => (0, Want::Stop),
                TargetState::Paused => (definition.tasks_max, Want::Pause),
                _ => (definition.tasks_max, Want::Run),
            };
            prop_assert_eq!(i32::try_from(held).unwrap(), wanted, "{}", name);
            for (id, _) in Snapshot::tasks_of(&s.grants, &uid) {
                prop_assert_eq!(s.wants[id].want(), want);
            }
        }
    }

    /// When agents do nothing, planning again and again comes to rest: no decision contradicts one before.
    #[test]
    fn planning_comes_to_rest(history in ops(60)) {
        let mut world = World::new();
        for op in &history {
            world.step(op);
        }
        let rounds = (0..12).position(|_| world.plan(usize::MAX) == 0);
        prop_assert!(rounds.is_some(), "still planning: {:#?}", plan(&world.model.snapshot, &world.facts, world.now_ms));
    }

    /// The loss of an agent moves only its own tasks.
    #[test]
    fn only_the_tasks_of_a_lost_agent_move(history in ops(60), lost in 0..3_u8) {
        let mut world = World::new();
        for op in &history {
            world.step(op);
        }
        world.settle();
        let before = world.model.snapshot.grants.clone();
        world.step(&Op::Kill(lost));
        for _ in 0..6 {
            world.step(&Op::Lease);
            world.step(&Op::Plan(u8::MAX));
            world.obey();
        }
        let name = format!("agent-{lost}");
        for (id, old) in before {
            let new = &world.model.snapshot.grants[&id];
            if old.agent == name {
                prop_assert_ne!(&new.agent, &name);
            } else {
                prop_assert_eq!(new.mod_revision, old.mod_revision);
            }
        }
    }
}

/// 1,000 connectors of 10 tasks on 100 agents.
fn large() -> Model {
    let mut model = Model::default();
    model.put_plugin(plugin("1.0.0"));
    for i in 0..100 {
        model.put_session(
            &format!("agent-{i}"),
            session(&format!("i-{i}"), &format!("h-{i}")),
        );
    }
    for i in 0..1_000 {
        model.put_connector(&format!("c-{i}"), connector(&format!("c-{i}"), 10));
    }
    model
}

#[test]
fn tasks_are_spread_evenly() {
    let (mut model, facts) = (large(), Facts::default());
    model.apply(&plan(&model.snapshot, &facts, 0), &facts);
    model.apply(&plan(&model.snapshot, &facts, 0), &facts);
    let mut counts = std::collections::BTreeMap::<&str, u32>::new();
    for grant in model.snapshot.grants.values() {
        *counts.entry(&grant.value.agent).or_default() += 1;
    }
    assert_eq!(counts.len(), 100);
    assert!(counts.values().all(|n| *n == 100), "{counts:?}");
}

/// A thousand connectors of ten tasks on a hundred agents.
#[test]
fn a_large_cluster_is_placed_and_mends_the_loss_of_an_agent() {
    let (mut model, facts) = (large(), Facts::default());
    let made = plan(&model.snapshot, &facts, 0);
    model.apply(&made, &facts);
    let made = plan(&model.snapshot, &facts, 0);
    model.apply(&made, &facts);
    model.obey();
    let made = plan(&model.snapshot, &facts, 0);
    assert!(made.actions.is_empty());
    model.remove_session("agent-7");
    let facts = Facts {
        absent_ms: [("i-7".into(), 9_000)].into(),
        ..facts
    };
    let made = plan(&model.snapshot, &facts, 0);
    assert_eq!(
        made.actions
            .iter()
            .filter(|a| matches!(a, Action::Grant { .. }))
            .count(),
        100
    );
}

#[test]
fn a_wish_that_outlives_its_agent_keeps_no_task_from_another() {
    let mut world = World::new();
    let plan = || Op::Plan(u8::MAX);
    for op in [
        Op::Start(0),
        Op::Create(1, 1),
        plan(),
        plan(),
        Op::Obey,
        Op::Replan(1, 0),
    ] {
        world.step(&op);
    }
    world.settle();
    let s = &world.model.snapshot;
    assert!(!s.grants.is_empty() && s.grants.values().all(|g| g.instance_uid.starts_with("agent-")));
    assert!(
        s.statuses.values().all(|status| !status.replan_wanted),
        "nobody wishes it any more"
    );
}
