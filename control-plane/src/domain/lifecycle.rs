//! The table of actions: what a user may do, and when.

use gantry_proto::v1::connector::{Action as Listed, State, TargetState};

/// Something a user asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// StopConnector.
    Stop,
    /// ResumeConnector.
    Resume,
    /// PauseConnector.
    Pause,
    /// RestartConnector, RestartTask.
    Restart,
    /// Alter or reset offsets.
    AlterOffsets,
    /// DeleteConnector without `force`.
    Delete,
    /// DeleteConnector with `force`.
    ForceDelete,
}

/// Row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Row {
    /// Shall run; also when it is DEGRADED, PENDING or UNKNOWN.
    Running,
    /// Shall be paused.
    Paused,
    /// Has failed, and shall not be stopped.
    Failed,
    /// Shall be stopped, and agents still hold tasks of it.
    Stopping,
    /// Shall be stopped, and no agent holds a task of it.
    Stopped,
    /// Is being deleted.
    Deleting,
}

/// An entry of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Allowed.
    Yes,
    /// Already so: OK, `changed = false`, nothing is written.
    Same,
    /// Refused with FAILED_PRECONDITION.
    No,
}

impl Row {
    /// Chosen by what the user wants, so that two quick commands never cancel out. `held`: some agent holds a task.
    pub fn of(deleting: bool, target: TargetState, state: State, held: bool) -> Self {
        match (deleting, target) {
            (true, _) => Self::Deleting,
            (false, TargetState::Stopped) if held => Self::Stopping,
            (false, TargetState::Stopped) => Self::Stopped,
            (false, _) if state == State::Failed => Self::Failed,
            (false, TargetState::Paused) => Self::Paused,
            (false, TargetState::Running | TargetState::Unspecified) => Self::Running,
        }
    }

    /// For messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "RUNNING",
            Self::Paused => "PAUSED",
            Self::Failed => "FAILED",
            Self::Stopping | Self::Stopped => "STOPPED",
            Self::Deleting => "DELETING",
        }
    }
}

impl Action {
    /// For messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "STOP",
            Self::Resume => "RESUME",
            Self::Pause => "PAUSE",
            Self::Restart => "RESTART",
            Self::AlterOffsets => "ALTER_OFFSETS",
            Self::Delete | Self::ForceDelete => "DELETE",
        }
    }
}

/// The table.
pub fn allowed(row: Row, action: Action) -> Decision {
    use Action as A;
    use Decision::{No, Same, Yes};
    match (row, action) {
        (Row::Deleting, A::Delete | A::ForceDelete) => Same,
        (Row::Deleting, _) => No,
        (_, A::ForceDelete) => Yes,

        (Row::Running, A::Stop | A::Pause | A::Restart) => Yes,
        (Row::Running, A::Resume) => Same,
        (Row::Running, A::AlterOffsets | A::Delete) => No,

        (Row::Paused, A::Stop | A::Resume | A::Restart) => Yes,
        (Row::Paused, A::Pause) => Same,
        (Row::Paused, A::AlterOffsets | A::Delete) => No,

        (Row::Failed, A::Stop | A::Restart | A::Delete) => Yes,
        (Row::Failed, A::Resume | A::Pause | A::AlterOffsets) => No,

        (Row::Stopping, A::AlterOffsets) => No,
        (Row::Stopped, A::AlterOffsets) => Yes,
        (Row::Stopping | Row::Stopped, A::Stop) => Same,
        (Row::Stopping | Row::Stopped, A::Resume | A::Delete) => Yes,
        (Row::Stopping | Row::Stopped, A::Pause | A::Restart) => No,
    }
}

/// The actions that are allowed in a row, as a connector lists them.
pub fn allowed_actions(row: Row) -> Vec<Listed> {
    const ALL: [(Action, Listed); 6] = [
        (Action::Stop, Listed::Stop),
        (Action::Resume, Listed::Resume),
        (Action::Pause, Listed::Pause),
        (Action::Restart, Listed::Restart),
        (Action::AlterOffsets, Listed::AlterOffsets),
        (Action::Delete, Listed::Delete),
    ];
    ALL.into_iter()
        .filter(|(action, _)| allowed(row, *action) == Decision::Yes)
        .map(|(_, listed)| listed)
        .collect()
}

/// The action that was probably meant by one that is refused. None: there is only waiting.
pub fn meant(row: Row, action: Action) -> Option<Action> {
    match (row, action) {
        (Row::Running | Row::Paused | Row::Failed, Action::AlterOffsets) => Some(Action::Stop),
        (Row::Running | Row::Paused, Action::Delete) => Some(Action::Stop),
        (Row::Failed, Action::Resume | Action::Pause) => Some(Action::Restart),
        (Row::Stopping | Row::Stopped, Action::Pause | Action::Restart) => Some(Action::Resume),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{Action as A, Decision, *};

    const ACTIONS: [A; 7] = [
        A::Stop,
        A::Resume,
        A::Pause,
        A::Restart,
        A::AlterOffsets,
        A::Delete,
        A::ForceDelete,
    ];

    /// The table of the design, letter by letter: y yes, s same, n no.
    const TABLE: [(Row, &str); 6] = [
        (Row::Running, "ysyynny"),
        (Row::Paused, "yysynny"),
        (Row::Failed, "ynnynyy"),
        (Row::Stopping, "synnnyy"),
        (Row::Stopped, "synnyyy"),
        (Row::Deleting, "nnnnnss"),
    ];

    #[test]
    fn every_cell() {
        for (row, cells) in TABLE {
            for (action, cell) in ACTIONS.into_iter().zip(cells.chars()) {
                let expected = match cell {
                    'y' => Decision::Yes,
                    's' => Decision::Same,
                    _ => Decision::No,
                };
                assert_eq!(allowed(row, action), expected, "{row:?} {action:?}");
            }
        }
    }

    #[test]
    fn rows_are_chosen_by_what_the_user_wants() {
        use TargetState as T;
        for state in [
            State::Running,
            State::Degraded,
            State::Pending,
            State::Unknown,
            State::Stopped,
            State::Paused,
        ] {
            assert_eq!(Row::of(false, T::Running, state, true), Row::Running);
            assert_eq!(Row::of(false, T::Paused, state, true), Row::Paused);
            assert_eq!(Row::of(false, T::Stopped, state, true), Row::Stopping);
            assert_eq!(Row::of(false, T::Stopped, state, false), Row::Stopped);
        }
        assert_eq!(Row::of(false, T::Running, State::Failed, true), Row::Failed);
        assert_eq!(Row::of(false, T::Paused, State::Failed, false), Row::Failed);
        assert_eq!(Row::of(false, T::Stopped, State::Failed, true), Row::Stopping);
        assert_eq!(Row::of(true, T::Running, State::Failed, true), Row::Deleting);
    }

    #[test]
    fn a_refused_action_suggests_one_that_is_allowed() {
        for (row, _) in TABLE {
            for action in ACTIONS {
                if let Some(other) = meant(row, action) {
                    assert_eq!(allowed(row, action), Decision::No, "{row:?} {action:?}");
                    assert_eq!(allowed(row, other), Decision::Yes, "{row:?} {action:?}");
                } else if allowed(row, action) == Decision::No {
                    assert!(row == Row::Deleting || (row, action) == (Row::Stopping, A::AlterOffsets));
                }
            }
        }
    }

    #[test]
    fn connectors_list_what_is_allowed() {
        assert_eq!(
            allowed_actions(Row::Running),
            [Listed::Stop, Listed::Pause, Listed::Restart]
        );
        assert_eq!(
            allowed_actions(Row::Stopped),
            [Listed::Resume, Listed::AlterOffsets, Listed::Delete]
        );
        assert_eq!(allowed_actions(Row::Deleting), []);
    }
}
