//! What users see while something happens.

use gantry_proto::v1::{
    self, Connector,
    connector::{Action, State, TargetState},
    problem::Domain,
    task::State as Task,
};

use super::model::{Model, connector, plugin, session, task, uid};
use crate::{
    domain::{catalog::Catalog, stored, time::timestamp, view},
    plan::{Facts, explain, failed_ask, plan},
};

fn model(agents: &[&str], tasks: i32) -> Model {
    let mut model = Model::default();
    model.put_plugin(plugin("1.0.0"));
    for agent in agents {
        model.put_session(agent, session(&format!("{agent}1"), agent));
    }
    model.put_connector("orders", connector("orders", tasks));
    model
}

/// Plans until there is nothing to do; agents do what is wanted if `obey`.
fn settle(model: &mut Model, obey: bool) {
    let facts = Facts::default();
    for _ in 0..20 {
        let made = plan(&model.snapshot, &facts, 0);
        model.apply(&made, &facts);
        if obey {
            model.obey();
        }
    }
}

fn seen(model: &Model) -> Connector {
    let reasons = explain(&model.snapshot, &Facts::default(), 0);
    view::connector_view(&model.snapshot, &reasons, "orders").unwrap()
}

fn tasks(model: &Model) -> Vec<v1::Task> {
    view::task_views(
        &model.snapshot,
        &explain(&model.snapshot, &Facts::default(), 0),
        &uid("orders"),
    )
}

fn report(model: &mut Model, n: u32, state: Task) {
    let id = task("orders", n);
    let grant = model.snapshot.grants[&id].clone();
    let problem = v1::Problem {
        reason: format!("P{n}"),
        domain: Domain::External.into(),
        ..Default::default()
    };
    let status = stored::Status {
        fence: grant.mod_revision,
        state: state.into(),
        problem: Some(problem),
        state_time: Some(timestamp(7)),
        ..Default::default()
    };
    model.put_status(id, status);
}

fn set_target(model: &mut Model, target: TargetState) {
    model.edit_connector("orders", |c| {
        c.generation += 1;
        c.definition.get_or_insert_default().set_target_state(target);
    });
}

#[test]
fn a_connector_comes_to_run() {
    let mut model = model(&["a", "b"], 2);
    let new = seen(&model);
    assert_eq!(
        (new.state(), new.observed_generation, new.reconciling),
        (State::Pending, 0, true)
    );
    assert_eq!(new.plan_error.unwrap().reason, "PLANNING");
    settle(&mut model, false);
    let started = seen(&model);
    assert_eq!(
        (started.state(), started.observed_generation, started.reconciling),
        (State::Pending, 1, true)
    );
    assert_eq!(tasks(&model)[0].state(), Task::Starting);
    settle(&mut model, true);
    let runs = seen(&model);
    assert_eq!(
        (runs.state(), runs.reconciling, &runs.error, &runs.plan_error),
        (State::Running, false, &None, &None)
    );
    assert_eq!(
        runs.task_counts,
        Some(v1::TaskCounts {
            total: 2,
            running: 2,
            ..Default::default()
        })
    );
    assert_eq!(
        (runs.name.as_str(), runs.kind()),
        ("connectors/orders", v1::connector::Kind::Source)
    );
    let expected = [Action::Stop, Action::Pause, Action::Restart].map(i32::from);
    assert_eq!(runs.allowed_actions, expected);
    let all = tasks(&model);
    assert_eq!(
        all.iter().map(|t| t.agent.as_str()).collect::<Vec<_>>(),
        ["agents/a", "agents/b"]
    );
    assert_eq!(
        (all[1].name.as_str(), all[1].plan_generation),
        ("connectors/orders/tasks/1", 1)
    );
}

#[test]
fn nobody_has_the_plugin() {
    let mut model = model(&[], 1);
    settle(&mut model, true);
    let view = seen(&model);
    assert_eq!((view.state(), view.reconciling), (State::Pending, true));
    let (error, plan_error) = (view.error.unwrap(), view.plan_error.unwrap());
    assert_eq!(
        (error.reason.as_str(), plan_error.reason.as_str()),
        ("NO_AGENT_WITH_PLUGIN", "NO_AGENT_WITH_PLUGIN")
    );
    assert!(plan_error.fix.contains("start an agent"));
}

#[test]
fn planning_fails_for_good_until_the_user_acts() {
    let mut model = model(&["a"], 1);
    let problem = v1::Problem {
        domain: Domain::User.into(),
        reason: "NO_SUCH_TABLE".into(),
        ..Default::default()
    };
    let pointer = failed_ask(&model.snapshot, "orders", problem, 0);
    model.put_pointer("orders", pointer);
    let view = seen(&model);
    assert_eq!(view.state(), State::Failed);
    assert_eq!(view.error.unwrap().reason, "NO_SUCH_TABLE");
    assert!(view.allowed_actions.contains(&Action::Restart.into()));
    model.edit_connector("orders", |c| c.restart_nonce = "r".into());
    assert_eq!(seen(&model).state(), State::Pending);
}

#[test]
fn an_update_that_cannot_be_planned_leaves_it_running() {
    let mut model = model(&["a"], 1);
    settle(&mut model, true);
    model.edit_connector("orders", |c| {
        c.generation += 1;
        c.definition.get_or_insert_default().topic = "other".into();
    });
    let problem = v1::Problem {
        domain: Domain::User.into(),
        reason: "BAD".into(),
        ..Default::default()
    };
    let pointer = failed_ask(&model.snapshot, "orders", problem, 0);
    model.put_pointer("orders", pointer);
    settle(&mut model, true);
    let view = seen(&model);
    assert_eq!(
        (view.state(), view.generation, view.observed_generation),
        (State::Running, 2, 1)
    );
    assert!(view.reconciling);
    assert_eq!(view.plan_error.unwrap().reason, "BAD");
}

#[test]
fn the_worst_task_gives_the_error() {
    let mut model = model(&["a", "b"], 3);
    settle(&mut model, true);
    report(&mut model, 1, Task::BackingOff);
    report(&mut model, 2, Task::Failed);
    let view = seen(&model);
    assert_eq!(
        (view.state(), view.error.unwrap().reason.as_str()),
        (State::Degraded, "P2")
    );
    assert!(!view.reconciling, "there is nothing left to do");
    for n in 0..3 {
        report(&mut model, n, Task::Failed);
    }
    let view = seen(&model);
    assert_eq!(
        (view.state(), view.error.unwrap().reason.as_str()),
        (State::Failed, "P0")
    );
    assert_eq!(
        view.allowed_actions,
        [Action::Stop, Action::Restart, Action::Delete].map(i32::from)
    );
}

#[test]
fn a_task_that_does_not_move_is_shown_with_its_cause() {
    let mut model = model(&["a", "b"], 2);
    settle(&mut model, true);
    report(&mut model, 1, Task::Stalled);
    let view = seen(&model);
    assert_eq!(
        (view.state(), view.error.unwrap().reason.as_str()),
        (State::Degraded, "P1")
    );
    let task = &tasks(&model)[1];
    assert_eq!(
        (task.state(), task.problem.as_ref().unwrap().reason.as_str()),
        (Task::Stalled, "P1")
    );
    // Another one that is tried again is not worse.
    report(&mut model, 0, Task::BackingOff);
    assert_eq!(seen(&model).error.unwrap().reason, "P1");
    report(&mut model, 0, Task::Running);
    report(&mut model, 1, Task::Running);
    assert_eq!(seen(&model).state(), State::Running);
}

#[test]
fn what_is_not_known_is_never_shown_as_well() {
    let mut model = model(&["a", "b"], 2);
    settle(&mut model, true);
    model.remove_session("a");
    let all = tasks(&model);
    assert_eq!((all[0].state(), all[1].state()), (Task::Unknown, Task::Running));
    assert_eq!(all[0].problem.as_ref().unwrap().reason, "OLD_INSTANCE_NOT_GONE");
    assert_eq!(seen(&model).state(), State::Degraded);
    model.remove_session("b");
    assert_eq!(seen(&model).state(), State::Unknown);
    // A report under an older right says nothing.
    let mut model = self::model(&["a"], 1);
    settle(&mut model, true);
    let stale = (*model.snapshot.statuses[&task("orders", 0)].value).clone();
    model.put_status(
        task("orders", 0),
        stored::Status {
            fence: stale.fence - 1,
            ..stale
        },
    );
    assert_eq!(tasks(&model)[0].state(), Task::Starting);
}

#[test]
fn stopping_shows_what_is_still_held() {
    let mut model = model(&["a", "b"], 2);
    settle(&mut model, true);
    set_target(&mut model, TargetState::Stopped);
    settle(&mut model, false);
    let view = seen(&model);
    assert_eq!((view.state(), view.reconciling), (State::Running, true));
    assert!(!view.allowed_actions.contains(&Action::AlterOffsets.into()));
    model.obey_one(
        &task("orders", 0),
        &model.snapshot.grants[&task("orders", 0)].clone(),
    );
    settle(&mut model, false);
    assert_eq!(tasks(&model).len(), 1);
    settle(&mut model, true);
    let view = seen(&model);
    assert_eq!((view.state(), view.reconciling), (State::Stopped, false));
    assert_eq!((view.observed_generation, view.generation), (2, 2));
    assert_eq!(
        view.allowed_actions,
        [Action::Resume, Action::AlterOffsets, Action::Delete].map(i32::from)
    );
    assert_eq!(tasks(&model), []);
    model.edit_connector("orders", |c| c.delete_time = Some(timestamp(1)));
    assert_eq!(
        (seen(&model).state(), seen(&model).allowed_actions),
        (State::Deleting, vec![])
    );
}

#[test]
fn pausing_is_done_when_every_task_says_so() {
    let mut model = model(&["a"], 2);
    settle(&mut model, true);
    set_target(&mut model, TargetState::Paused);
    settle(&mut model, false);
    assert_eq!(
        (seen(&model).state(), seen(&model).reconciling),
        (State::Running, true)
    );
    settle(&mut model, true);
    assert_eq!(
        (seen(&model).state(), seen(&model).reconciling),
        (State::Paused, false)
    );
    model.edit_connector("orders", |c| c.restart_nonce = "r".into());
    assert!(seen(&model).reconciling);
    settle(&mut model, true);
    assert_eq!(
        (seen(&model).state(), seen(&model).reconciling),
        (State::Paused, false)
    );
}

#[test]
fn a_task_that_all_have_refused_has_failed() {
    let mut model = model(&["a"], 1);
    settle(&mut model, false);
    let id = task("orders", 0);
    let fence = model.snapshot.grants[&id].mod_revision;
    let refusal = Some(stored::Refusal {
        message: "not below --allow-path".into(),
        ..Default::default()
    });
    model.put_status(
        id,
        stored::Status {
            fence,
            refusal,
            ..Default::default()
        },
    );
    assert_eq!(tasks(&model)[0].state(), Task::Pending);
    settle(&mut model, false);
    let view = seen(&model);
    assert_eq!(view.state(), State::Failed);
    assert!(view.error.unwrap().message.contains("not below --allow-path"));
}

#[test]
fn agents_and_plugins() {
    let mut model = model(&["a", "b"], 3);
    settle(&mut model, true);
    model.put_settings("a", |s| {
        s.draining = true;
        s.labels.insert("zone".into(), "eu".into());
    });
    model.remove_session("b");
    model.put_settings("c", |s| s.cordoned = true);
    let all = view::agent_views(&model.snapshot);
    let names: Vec<_> = all
        .iter()
        .map(|(_, a)| (a.name.as_str(), a.state(), a.tasks, a.draining, a.cordoned))
        .collect();
    use v1::agent::State::{Gone, Ready};
    let expected = [
        ("agents/a", Ready, 2, true, true),
        ("agents/b", Gone, 1, false, false),
        ("agents/c", Gone, 0, false, true),
    ];
    assert_eq!(names, expected);
    assert_eq!(all[0].1.labels["zone"], "eu");
    assert!(all.iter().all(|(name, a)| a.name == format!("agents/{name}")));
    assert_eq!(view::agent_view(&model.snapshot, "b").as_ref(), Some(&all[1].1));
    assert_eq!(view::agent_view(&model.snapshot, "x"), None);

    model.put_plugin(plugin("1.10.0"));
    let catalog = Catalog::of(&model.snapshot);
    let highest = view::plugin_view(&catalog, "p", "").unwrap();
    assert_eq!((highest.version.as_str(), highest.agents.len()), ("1.10.0", 0));
    assert_eq!(highest.versions, ["1.10.0", "1.0.0"]);
    assert_eq!(
        view::plugin_view(&catalog, "p", "1.0.0").unwrap().agents,
        ["agents/a"]
    );
    assert_eq!(view::plugin_view(&catalog, "q", ""), None);
}
