use gantry_proto::v1::{self, Problem, problem::Domain, task::State};

use crate::domain::{Reason, Reasons, Snapshot, TaskId, Uid, code, status};

/// The tasks of a connector, in order of number: those of its plan and those that an agent still holds. While it shall
/// have none (it is stopped or deleted) only the latter.
pub fn task_views(snapshot: &Snapshot, reasons: &Reasons, uid: &Uid) -> Vec<v1::Task> {
    let Some(name) = snapshot.names.get(uid) else {
        return Vec::new();
    };
    task_ids(snapshot, name, uid)
        .into_iter()
        .map(|id| task_view(snapshot, reasons, name, &id))
        .collect()
}

pub(super) fn task_ids(snapshot: &Snapshot, name: &str, uid: &Uid) -> Vec<TaskId> {
    let held = Snapshot::tasks_of(&snapshot.grants, uid).map(|(id, _)| id.clone());
    if snapshot.connectors.get(name).is_none_or(|c| status::ends(c)) {
        return held.collect();
    }
    let planned = snapshot
        .pointers
        .get(uid)
        .map_or(0, |p| if p.plan_generation > 0 { p.tasks } else { 0 });
    let surplus = held.filter(|id| id.n >= planned);
    (0..planned)
        .map(|n| TaskId { uid: uid.clone(), n })
        .chain(surplus)
        .collect()
}

/// All agents that could take the task have refused it.
pub(super) fn is_refused(reasons: &Reasons, name: &str, n: u32) -> bool {
    reasons.task(name, n).is_some_and(|r| r.code == code::REFUSED)
}

fn task_view(snapshot: &Snapshot, reasons: &Reasons, name: &str, id: &TaskId) -> v1::Task {
    let state = status::task_state(snapshot, id, is_refused(reasons, name, id.n));
    let reason = reasons.task(name, id.n);
    let mut view = v1::Task {
        name: format!("connectors/{name}/tasks/{}", id.n),
        state: state.into(),
        problem: reason.map(problem),
        ..Default::default()
    };
    let grant = snapshot.grants.get(id);
    let pointer = snapshot.pointers.get(&id.uid);
    view.plan_generation =
        grant.map_or_else(|| pointer.map_or(0, |p| p.plan_generation), |g| g.plan_generation);
    let planned = snapshot.plans.get(&(id.uid.clone(), view.plan_generation, id.n));
    if let Some(spec) = planned.and_then(|p| p.spec.as_ref()) {
        view.config.clone_from(&spec.config);
        view.queues.clone_from(&spec.queues);
    }
    let Some(grant) = grant else { return view };
    view.agent = format!("agents/{}", grant.agent);
    view.fence = grant.mod_revision;
    let reported = status::present_status(snapshot, id, grant);
    if state == State::Unknown {
        view.problem = view.problem.or_else(|| Some(silent(&grant.agent)));
        // The last thing that was heard is when it was heard last, as far as the store knows.
        view.last_heard_time = reported.and_then(|s| s.state_time);
        return view;
    }
    if let Some(s) = reported {
        view.problem = match &s.refusal {
            Some(refusal) => Some(refused(&grant.agent, &refusal.message)),
            None => s.problem.clone().or(view.problem),
        };
        view.state_time = s.state_time;
        view.next_attempt_time = s.next_attempt_time;
        view.restarts = s.restarts;
    }
    view
}

fn silent(agent: &str) -> Problem {
    Problem {
        domain: Domain::System.into(),
        reason: "AGENT_SILENT".into(),
        message: format!("agent {agent} is not heard; what the task does is not known"),
        fix: "look at the agent and at the network between it and the control plane".into(),
        time: None,
    }
}

fn refused(agent: &str, message: &str) -> Problem {
    Problem {
        reason: code::REFUSED.into(),
        message: format!("agent {agent} refused it: {message}"),
        ..Default::default()
    }
}

/// A reason of the planner as a problem.
pub(super) fn problem(reason: &Reason) -> Problem {
    let fix = match reason.code {
        code::NO_AGENT_WITH_PLUGIN => "start an agent that has the plugin",
        code::SELECTOR => "change agent_selector, or the labels of an agent",
        code::HOST_GONE => {
            "start an agent on that host, or set shared_storage if all hosts see the same files"
        }
        code::CORDONED => "uncordon an agent, or start another one",
        code::NO_CAPACITY => "start another agent, or raise the capacity of one",
        code::REFUSED => "mend what the agent names, then restart the connector",
        code::BRAKE => "bring the lost agents back, or release the brake",
        code::NO_OTHER_AGENT | code::CANNOT_MOVE => "start another agent that can take it",
        _ => "",
    };
    let domain = if reason.code == code::REFUSED {
        Domain::Unspecified
    } else {
        Domain::System
    };
    Problem {
        domain: domain.into(),
        reason: reason.code.into(),
        message: reason.text.clone(),
        fix: fix.into(),
        time: None,
    }
}
