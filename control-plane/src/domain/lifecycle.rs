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
    /// All rows, in the order of the table.
    pub const ALL: [Self; 6] = [
        Self::Running,
        Self::Paused,
        Self::Failed,
        Self::Stopping,
        Self::Stopped,
        Self::Deleting,
    ];

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
    /// All actions, in the order of the table.
    pub const ALL: [Self; 7] = [
        Self::Stop,
        Self::Resume,
        Self::Pause,
        Self::Restart,
        Self::AlterOffsets,
        Self::Delete,
        Self::ForceDelete,
    ];

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

    /// As a connector lists it. None: it is not listed.
    pub fn listed(self) -> Option<Listed> {
        Some(match self {
            Self::Stop => Listed::Stop,
            Self::Resume => Listed::Resume,
            Self::Pause => Listed::Pause,
            Self::Restart => Listed::Restart,
            Self::AlterOffsets => Listed::AlterOffsets,
            Self::Delete => Listed::Delete,
            // Always possible until the connector is being deleted.
            Self::ForceDelete => return None,
        })
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
    Action::ALL
        .into_iter()
        .filter(|action| allowed(row, *action) == Decision::Yes)
        .filter_map(Action::listed)
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

/// What to do about an action that is refused.
pub fn advice(row: Row, action: Action) -> &'static str {
    match (row, action) {
        (_, Action::Delete) => "stop it first, or delete with force",
        (Row::Deleting, _) => "wait until it is gone",
        (Row::Stopping, Action::AlterOffsets) => "wait until no agent holds a task of it",
        _ => match meant(row, action) {
            Some(Action::Stop) => "stop it first",
            Some(Action::Restart) => "restart it instead",
            Some(Action::Resume) => "resume it instead",
            _ => "look at the actions that are allowed",
        },
    }
}

#[cfg(test)]
mod tests;
