use super::*;

/// What users read.
const DOC: &str = include_str!("../../../../docs/lifecycle.md");

/// What a connector's state is made of.
struct Case<'a> {
    deleting: bool,
    target: TargetState,
    planned: Planned,
    tasks: &'a [Task],
}

impl Case<'_> {
    fn any(&self, states: &[Task]) -> bool {
        self.tasks.iter().any(|t| states.contains(t))
    }

    fn every(&self, state: Task) -> bool {
        !self.tasks.is_empty() && self.tasks.iter().all(|t| *t == state)
    }

    fn stopping(&self) -> bool {
        self.target == TargetState::Stopped
    }

    fn ill(&self) -> bool {
        self.any(&[Task::Failed, Task::Stalled, Task::Unknown, Task::BackingOff])
    }

    fn well(&self) -> bool {
        self.any(&[Task::Running, Task::Paused])
    }
}

/// A row of the table: what docs/lifecycle.md says of it, when it matches, and what is shown then.
type Rule = (&'static str, fn(&Case<'_>) -> bool, State);

/// The table of the design in its order. The first row that matches counts; the last one always does.
const RULES: [Rule; 11] = [
    ("it is being deleted", |c| c.deleting, State::Deleting),
    (
        "STOPPED is wanted and no agent holds a task",
        |c| c.stopping() && c.tasks.is_empty(),
        State::Stopped,
    ),
    (
        "it could not be split into tasks and will not be by itself",
        |c| c.planned == Planned::Never,
        State::Failed,
    ),
    (
        "it is not split into tasks yet",
        |c| c.planned == Planned::NotYet,
        State::Pending,
    ),
    ("every task is FAILED", |c| c.every(Task::Failed), State::Failed),
    (
        "some task is UNKNOWN and none is RUNNING or PAUSED",
        |c| c.any(&[Task::Unknown]) && !c.well(),
        State::Unknown,
    ),
    (
        "some task is FAILED, STALLED, UNKNOWN or BACKING_OFF",
        |c| c.ill(),
        State::Degraded,
    ),
    (
        "some task is PENDING or STARTING, or there is none yet",
        |c| c.tasks.is_empty() || c.any(&[Task::Pending, Task::Starting]),
        State::Pending,
    ),
    (
        "some task is leaving its agent for another one",
        |c| !c.stopping() && c.any(&[Task::Stopping, Task::Stopped, Task::Unspecified]),
        State::Pending,
    ),
    (
        "every task is PAUSED and RUNNING is not wanted",
        |c| c.target != TargetState::Running && c.every(Task::Paused),
        State::Paused,
    ),
    ("otherwise", |_| true, State::Running),
];

const TASKS: [Task; 11] = [
    Task::Unspecified,
    Task::Pending,
    Task::Starting,
    Task::Running,
    Task::Paused,
    Task::BackingOff,
    Task::Stalled,
    Task::Failed,
    Task::Stopping,
    Task::Stopped,
    Task::Unknown,
];

/// Every list of up to three task states.
fn lists() -> Vec<Vec<Task>> {
    let longer = |lists: &[Vec<Task>]| -> Vec<Vec<Task>> {
        let with = |list: &Vec<Task>| TASKS.map(|t| list.iter().copied().chain([t]).collect());
        lists.iter().flat_map(with).collect()
    };
    let none = vec![vec![]];
    let one = longer(&none);
    let two = longer(&one);
    let three = longer(&two);
    [none, one, two, three].concat()
}

#[test]
fn the_first_row_that_matches_counts() {
    let lists = lists();
    // Which rows counted, and which of them although a later one that says otherwise matched, too.
    let (mut counted, mut ahead) = ([0; RULES.len()], [0; RULES.len()]);
    for deleting in [false, true] {
        for target in [TargetState::Running, TargetState::Paused, TargetState::Stopped] {
            for planned in [Planned::Yes, Planned::NotYet, Planned::Never] {
                for tasks in &lists {
                    let case = Case {
                        deleting,
                        target,
                        planned,
                        tasks,
                    };
                    let row = RULES.iter().position(|(_, matches, _)| matches(&case)).unwrap();
                    let (when, _, expected) = RULES[row];
                    let shown = roll_up(deleting, target, planned, tasks);
                    assert_eq!(
                        shown, expected,
                        "deleting {deleting}, {target:?}, {planned:?}, {tasks:?}: {when}"
                    );
                    counted[row] += 1;
                    let others = &RULES[row + 1..];
                    ahead[row] += usize::from(others.iter().any(|(_, m, s)| m(&case) && *s != expected));
                }
            }
        }
    }
    for (row, (when, ..)) in RULES.iter().enumerate() {
        assert!(counted[row] > 0, "no case for: {when}");
        assert!(
            ahead[row] > 0 || row == RULES.len() - 1,
            "the place in the table decides nothing for: {when}"
        );
    }
}

#[test]
fn the_documentation_has_this_table() {
    let rows = RULES.iter().enumerate().map(|(n, (when, _, state))| {
        let shown = state.as_str_name().trim_start_matches("STATE_");
        format!("| {} | {when} | {shown} |\n", n + 1)
    });
    let table: String = rows.collect();
    assert!(
        DOC.contains(&table),
        "docs/lifecycle.md lacks this table; put it there:\n{table}"
    );
}
