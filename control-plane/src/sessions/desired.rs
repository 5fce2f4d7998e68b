//! What an agent instance should do, by what the mirror has seen. Pure.

use std::collections::BTreeMap;

use gantry_proto::agent::v1::{TaskAssignment, task_assignment::Want};

use crate::domain::{Snapshot, TaskId, stored};

/// The revisions that tell one state of a task's assignment from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// mod_revision of the grant.
    pub fence: i64,
    /// mod_revision of the want; 0: there is none.
    pub want: i64,
}

/// Tasks of one agent instance.
pub type Tasks = BTreeMap<TaskId, Mark>;

/// Of `tasks`, those that `snapshot` says this instance of the agent has.
pub fn marks<'a>(
    snapshot: &Snapshot,
    agent: &str,
    instance_uid: &str,
    tasks: impl IntoIterator<Item = &'a TaskId>,
) -> Tasks {
    let mark = |task: &TaskId| {
        let grant = snapshot.grants.get(task)?;
        let want = snapshot.wants.get(task).map_or(0, |w| w.mod_revision);
        let its = grant.agent == agent && grant.instance_uid == instance_uid;
        its.then(|| {
            (
                task.clone(),
                Mark {
                    fence: grant.mod_revision,
                    want,
                },
            )
        })
    };
    tasks.into_iter().filter_map(mark).collect()
}

/// The assignment of a task as `snapshot` has it. None: it has no grant.
pub fn assignment(snapshot: &Snapshot, task: &TaskId) -> Option<TaskAssignment> {
    let grant = snapshot.grants.get(task)?;
    let mut assignment = TaskAssignment {
        connector_uid: task.uid.to_string(),
        task: task.n,
        fence: grant.mod_revision,
        ..TaskAssignment::default()
    };
    let Some(want) = snapshot.wants.get(task) else {
        // Grant and want are written together; whoever sees a grant alone is told to end.
        assignment.set_want(Want::Stop);
        return Some(assignment);
    };
    assignment.want_revision = want.mod_revision;
    assignment.want = want.want;
    assignment.restart_nonce.clone_from(&want.restart_nonce);
    assignment.spec_hash.clone_from(&want.spec_hash);
    assignment.traceparent.clone_from(&want.traceparent);
    assignment.spec = planned(snapshot, task, want).and_then(|p| p.spec.clone());
    Some(assignment)
}

fn planned<'a>(
    snapshot: &'a Snapshot,
    task: &TaskId,
    want: &stored::Want,
) -> Option<&'a stored::PlannedTask> {
    let key = (task.uid.clone(), want.plan_generation, task.n);
    snapshot.plans.get(&key).map(|p| p.value.as_ref())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use gantry_proto::agent::v1::TaskSpec;

    use super::*;
    use crate::domain::{Uid, Versioned};

    fn at<T>(rev: i64, value: T) -> Versioned<T> {
        Versioned {
            mod_revision: rev,
            create_revision: rev,
            value: Arc::new(value),
        }
    }

    #[test]
    fn want_and_its_revision_are_delivered_together_and_only_to_the_named_instance() {
        let task = TaskId {
            uid: Uid("u".into()),
            n: 0,
        };
        let mut s = Snapshot::default();
        let grant = stored::Grant {
            agent: "a".into(),
            instance_uid: "i1".into(),
            ..Default::default()
        };
        s.grants.insert(task.clone(), at(5, grant));
        let want = stored::Want {
            want: Want::Pause as i32,
            plan_generation: 2,
            ..Default::default()
        };
        s.wants.insert(task.clone(), at(7, want));
        let spec = TaskSpec {
            connector: "c".into(),
            ..Default::default()
        };
        let plan = stored::PlannedTask {
            spec: Some(spec),
            ..Default::default()
        };
        s.plans.insert((task.uid.clone(), 2, 0), at(3, plan));
        assert_eq!(
            marks(&s, "a", "i1", [&task]),
            Tasks::from([(task.clone(), Mark { fence: 5, want: 7 })])
        );
        assert!(marks(&s, "a", "i2", [&task]).is_empty());
        assert!(marks(&s, "b", "i1", [&task]).is_empty());
        let a = assignment(&s, &task).unwrap();
        assert_eq!((a.fence, a.want_revision, a.want()), (5, 7, Want::Pause));
        assert_eq!(a.spec.unwrap().connector, "c");
    }

    #[test]
    fn a_grant_without_a_want_says_stop() {
        let task = TaskId {
            uid: Uid("u".into()),
            n: 0,
        };
        let mut s = Snapshot::default();
        s.grants.insert(task.clone(), at(5, stored::Grant::default()));
        assert_eq!(assignment(&s, &task).unwrap().want(), Want::Stop);
    }
}
