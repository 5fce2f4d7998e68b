//! What a user's write makes of a stored connector.

use std::collections::BTreeMap;

use gantry_proto::v1::{Connector, connector::TargetState, task::State as TaskState};
use pbjson_types::Timestamp;

use super::{lifecycle::Action, stored};

/// When a write is made, and which trace it belongs to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stamp {
    /// The time of day.
    pub time: Timestamp,
    /// W3C traceparent of the call; empty: it has none.
    pub traceparent: String,
}

/// A verb of the action matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// PauseConnector.
    Pause,
    /// ResumeConnector.
    Resume,
    /// StopConnector.
    Stop,
    /// RestartConnector.
    Restart {
        /// Only tasks that are FAILED.
        only_failed: bool,
    },
    /// RestartTask, by number.
    RestartTask(u32),
}

impl Verb {
    /// Its column in the table of actions.
    pub fn action(self) -> Action {
        match self {
            Self::Pause => Action::Pause,
            Self::Resume => Action::Resume,
            Self::Stop => Action::Stop,
            Self::Restart { .. } | Self::RestartTask(_) => Action::Restart,
        }
    }
}

/// What a verb comes to.
#[derive(Debug, Clone, PartialEq)]
pub enum CarriedOut {
    /// The connector after it.
    Changed(Box<stored::Connector>),
    /// No task has failed: there is nothing to restart.
    Nothing,
    /// The connector has no task of that number.
    NoTask(u32),
}

/// A connector that is new. `uid` was never used before.
pub fn created(uid: String, definition: Connector, stamp: &Stamp) -> stored::Connector {
    stored::Connector {
        uid,
        definition: Some(definition),
        generation: 1,
        create_time: Some(stamp.time),
        update_time: Some(stamp.time),
        traceparent: stamp.traceparent.clone(),
        revision: 1,
        ..stored::Connector::default()
    }
}

/// The connector with another definition: the next generation, and the next revision unless only the target state is another.
pub fn redefined(present: &stored::Connector, definition: Connector, stamp: &Stamp) -> stored::Connector {
    let target = definition.target_state;
    let same_but_target = present.definition.as_ref().is_some_and(|before| {
        let before = Connector {
            target_state: target,
            ..before.clone()
        };
        before == definition
    });
    stored::Connector {
        definition: Some(definition),
        generation: present.generation + 1,
        update_time: Some(stamp.time),
        traceparent: stamp.traceparent.clone(),
        revision: present.revision + i64::from(!same_but_target),
        ..present.clone()
    }
}

/// What a definition becomes when it is rolled back to an earlier one: that one, with the present target state.
pub fn rolled_back(present: &Connector, earlier: &Connector) -> Connector {
    Connector {
        target_state: present.target_state,
        ..earlier.clone()
    }
}

/// The connector, to be removed when no agent holds a task of it.
pub fn deleted(present: &stored::Connector, keep_offsets: bool, stamp: &Stamp) -> stored::Connector {
    stored::Connector {
        delete_time: Some(stamp.time),
        keep_offsets,
        traceparent: stamp.traceparent.clone(),
        ..present.clone()
    }
}

/// The connector after a verb. `tasks`: what its tasks are doing, by number; `nonce`: never used before.
pub fn carried_out(
    present: &stored::Connector,
    verb: Verb,
    tasks: &BTreeMap<u32, TaskState>,
    nonce: &str,
    stamp: &Stamp,
) -> CarriedOut {
    let mut after = stored::Connector {
        update_time: Some(stamp.time),
        traceparent: stamp.traceparent.clone(),
        ..present.clone()
    };
    let mut retarget = |target: TargetState| {
        after.generation += 1;
        after.definition.get_or_insert_default().set_target_state(target);
    };
    match verb {
        Verb::Pause => retarget(TargetState::Paused),
        Verb::Resume => retarget(TargetState::Running),
        Verb::Stop => retarget(TargetState::Stopped),
        Verb::Restart { only_failed: false } => nonce.clone_into(&mut after.restart_nonce),
        Verb::Restart { only_failed: true } => {
            let failed: Vec<u32> = tasks
                .iter()
                .filter(|(_, state)| **state == TaskState::Failed)
                .map(|(n, _)| *n)
                .collect();
            if failed.is_empty() {
                return CarriedOut::Nothing;
            }
            let nonces = failed.into_iter().map(|n| (n, nonce.to_owned()));
            after.task_restart_nonces.extend(nonces);
        }
        Verb::RestartTask(n) if tasks.contains_key(&n) => {
            after.task_restart_nonces.insert(n, nonce.to_owned());
        }
        Verb::RestartTask(n) => return CarriedOut::NoTask(n),
    }
    CarriedOut::Changed(Box::new(after))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp() -> Stamp {
        Stamp {
            time: Timestamp { seconds: 7, nanos: 0 },
            traceparent: "trace".into(),
        }
    }

    fn present() -> stored::Connector {
        created("uid".into(), Connector::default(), &Stamp::default())
    }

    fn after(verb: Verb) -> CarriedOut {
        let tasks = [
            (0, TaskState::Running),
            (1, TaskState::Failed),
            (2, TaskState::Failed),
        ];
        carried_out(&present(), verb, &tasks.into(), "new", &stamp())
    }

    fn changed(verb: Verb) -> stored::Connector {
        match after(verb) {
            CarriedOut::Changed(connector) => *connector,
            other => panic!("{verb:?}: {other:?}"),
        }
    }

    #[test]
    fn a_new_target_is_a_new_generation_but_no_revision() {
        let targets = [
            (Verb::Pause, TargetState::Paused),
            (Verb::Resume, TargetState::Running),
            (Verb::Stop, TargetState::Stopped),
        ];
        for (verb, target) in targets {
            let connector = changed(verb);
            assert_eq!(connector.definition.unwrap().target_state(), target);
            assert_eq!((connector.generation, connector.revision), (2, 1));
            assert_eq!(connector.update_time, Some(stamp().time));
            assert_eq!(connector.traceparent, "trace");
        }
    }

    #[test]
    fn a_restart_changes_the_nonces_of_what_it_names_and_no_generation() {
        let whole = changed(Verb::Restart { only_failed: false });
        assert_eq!((whole.restart_nonce.as_str(), whole.generation), ("new", 1));
        assert!(whole.task_restart_nonces.is_empty());
        let failed = changed(Verb::Restart { only_failed: true });
        assert_eq!(failed.restart_nonce, "");
        assert_eq!(
            failed.task_restart_nonces,
            [(1, "new".to_owned()), (2, "new".to_owned())].into()
        );
        let one = changed(Verb::RestartTask(0));
        assert_eq!(one.task_restart_nonces, [(0, "new".to_owned())].into());
        assert_eq!(one.generation, 1);
    }

    #[test]
    fn a_rollback_leaves_the_target_state() {
        let present = Connector {
            topic: "new".into(),
            target_state: TargetState::Stopped.into(),
            ..Connector::default()
        };
        let earlier = Connector {
            topic: "old".into(),
            ..Connector::default()
        };
        let after = rolled_back(&present, &earlier);
        assert_eq!(
            (after.topic.as_str(), after.target_state()),
            ("old", TargetState::Stopped)
        );
    }

    #[test]
    fn what_is_not_there_is_not_restarted() {
        assert_eq!(after(Verb::RestartTask(3)), CarriedOut::NoTask(3));
        let running = [(0, TaskState::Running)].into();
        let verb = Verb::Restart { only_failed: true };
        let outcome = carried_out(&present(), verb, &running, "new", &stamp());
        assert_eq!(outcome, CarriedOut::Nothing);
    }

    #[test]
    fn a_definition_counts_generation_and_revision_and_keeps_the_rest() {
        let stopped = changed(Verb::Stop);
        let other = Connector {
            topic: "t".into(),
            ..Connector::default()
        };
        let connector = redefined(&stopped, other.clone(), &stamp());
        assert_eq!((connector.generation, connector.revision), (3, 2));
        assert_eq!(connector.definition, Some(other.clone()));
        assert_eq!(
            (connector.uid.as_str(), connector.create_time),
            ("uid", stopped.create_time)
        );
        let running = Connector {
            target_state: TargetState::Running.into(),
            ..other
        };
        let resumed = redefined(&connector, running, &stamp());
        assert_eq!((resumed.generation, resumed.revision), (4, 2));
        let gone = deleted(&connector, true, &stamp());
        assert_eq!((gone.generation, gone.keep_offsets), (3, true));
        assert_eq!(gone.delete_time, Some(stamp().time));
    }
}
